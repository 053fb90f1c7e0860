//! A disk in memory that counts, fails on demand, and can be damaged.

use afdg_runtime::{AppendFile, Disk, FolderLock};
use async_trait::async_trait;
use bytes::Bytes;
use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
};

#[derive(Clone, Default)]
pub struct TestDisk {
    content: Arc<Mutex<Content>>,
}

#[derive(Clone, Default)]
pub struct Content {
    pub files: BTreeMap<PathBuf, Vec<u8>>,
    pub appends: usize,
    /// The next append writes so many bytes and fails.
    pub append_fails_after: Option<usize>,
    /// A disk that is broken for good: neither cuts nor makes files.
    pub refuses_changes: bool,
}

impl TestDisk {
    pub fn content(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap()
    }

    /// A disk with the same files, for a crash at this moment.
    pub fn copy(&self) -> TestDisk {
        let content = Content { files: self.content().files.clone(), ..Content::default() };
        TestDisk { content: Arc::new(Mutex::new(content)) }
    }

    pub fn names(&self) -> Vec<PathBuf> {
        self.content().files.keys().cloned().collect()
    }

    pub fn last_file(&self) -> PathBuf {
        self.names().pop().unwrap()
    }

    pub fn length(&self, file: &Path) -> usize {
        self.content().files[file].len()
    }

    fn changeable(&self) -> io::Result<MutexGuard<'_, Content>> {
        let content = self.content();
        if content.refuses_changes { Err(io::ErrorKind::ReadOnlyFilesystem.into()) } else { Ok(content) }
    }
}

#[async_trait]
impl Disk for TestDisk {
    async fn create_folder(&self, _folder: &Path) -> io::Result<()> {
        Ok(())
    }

    async fn lock_folder(&self, _folder: &Path) -> io::Result<Arc<dyn FolderLock>> {
        #[derive(Debug)]
        struct NoLock;
        impl FolderLock for NoLock {}
        Ok(Arc::new(NoLock))
    }

    async fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        let files = &self.content().files;
        let here = files.keys().filter(|file| file.parent() == Some(folder));
        Ok(here.map(|file| file.file_name().unwrap().to_str().unwrap().to_owned()).collect())
    }

    async fn read(&self, file: &Path) -> io::Result<Bytes> {
        let content = self.content();
        content
            .files
            .get(file)
            .map(|bytes| bytes.clone().into())
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    async fn write(&self, file: &Path, bytes: Bytes) -> io::Result<()> {
        self.changeable()?.files.insert(file.to_owned(), bytes.into());
        Ok(())
    }

    async fn open_append(&self, file: &Path) -> io::Result<Box<dyn AppendFile>> {
        self.changeable()?.files.entry(file.to_owned()).or_default();
        Ok(Box::new(TestFile { disk: self.clone(), path: file.to_owned() }))
    }

    async fn truncate(&self, file: &Path, bytes: u64) -> io::Result<()> {
        let mut content = self.changeable()?;
        content.files.get_mut(file).ok_or(io::ErrorKind::NotFound)?.truncate(bytes as usize);
        Ok(())
    }

    async fn remove(&self, file: &Path) -> io::Result<()> {
        let removed = self.changeable()?.files.remove(file);
        removed.map(|_| ()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

struct TestFile {
    disk: TestDisk,
    path: PathBuf,
}

#[async_trait]
impl AppendFile for TestFile {
    async fn append(&mut self, chunks: Vec<Bytes>) -> io::Result<()> {
        let mut content = self.disk.content();
        content.appends += 1;
        let mut bytes = chunks.concat();
        let fails = content.append_fails_after.take();
        bytes.truncate(fails.unwrap_or(usize::MAX));
        content.files.get_mut(&self.path).ok_or(io::ErrorKind::NotFound)?.extend(bytes);
        fails.map_or(Ok(()), |_| Err(io::ErrorKind::StorageFull.into()))
    }
}
