//! Files.
//!
//! Every method that returns has made durable what it names (fsync of file and folder), so that a
//! caller never has to think about caches. Work runs on tokio's blocking threads.

use async_trait::async_trait;
use bytes::Bytes;
use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

#[async_trait]
pub trait Disk: Send + Sync + 'static {
    /// Makes the folder and its parents.
    async fn create_folder(&self, folder: &Path) -> io::Result<()>;
    /// Keeps other servers out of the folder until what it returns is dropped. The error is of the kind
    /// `WouldBlock` if one is in there already, in this process or in another.
    async fn lock_folder(&self, folder: &Path) -> io::Result<Arc<dyn FolderLock>>;
    /// Names of the files and folders in `folder`, sorted.
    async fn list(&self, folder: &Path) -> io::Result<Vec<String>>;
    async fn read(&self, file: &Path) -> io::Result<Bytes>;
    /// Replaces the file as a whole: afterwards it holds the old bytes or the new, never a part.
    async fn write(&self, file: &Path, content: Bytes) -> io::Result<()>;
    /// Opens for appending, makes the file if there is none.
    async fn open_append(&self, file: &Path) -> io::Result<Box<dyn AppendFile>>;
    /// Cuts the file to `bytes`.
    async fn truncate(&self, file: &Path, bytes: u64) -> io::Result<()>;
    async fn remove(&self, file: &Path) -> io::Result<()>;
}

/// Held for as long as a server uses a folder. The system lets go of it when the process ends, however
/// it does.
pub trait FolderLock: fmt::Debug + Send + Sync + 'static {}

#[async_trait]
pub trait AppendFile: Send + 'static {
    /// Writes the chunks one after the other at the file's end and makes them durable.
    /// After an error the file's content past what was durable before is unknown.
    async fn append(&mut self, chunks: Vec<Bytes>) -> io::Result<()>;
}

/// The operating system's files.
#[derive(Debug)]
pub struct RealDisk;

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    fs::File::open(if folder.as_os_str().is_empty() { Path::new(".") } else { folder })?.sync_all()
}

fn sync_parent(file: &Path) -> io::Result<()> {
    file.parent().map_or(Ok(()), sync_folder)
}

#[async_trait]
impl Disk for RealDisk {
    async fn create_folder(&self, folder: &Path) -> io::Result<()> {
        let folder = folder.to_owned();
        blocking(move || {
            let missing: Vec<PathBuf> =
                folder.ancestors().take_while(|part| !part.exists()).map(Path::to_owned).collect();
            fs::create_dir_all(&folder)?;
            missing.iter().try_for_each(|made| sync_parent(made))
        })
        .await
    }

    async fn lock_folder(&self, folder: &Path) -> io::Result<Arc<dyn FolderLock>> {
        let folder = folder.to_owned();
        blocking(move || {
            let opened = fs::File::open(&folder)?;
            rustix::fs::flock(&opened, rustix::fs::FlockOperation::NonBlockingLockExclusive)?;
            Ok(Arc::new(RealLock { _folder: opened }) as Arc<dyn FolderLock>)
        })
        .await
    }

    async fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        let folder = folder.to_owned();
        blocking(move || {
            let names: io::Result<Vec<String>> = fs::read_dir(&folder)?
                .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
                .collect();
            let mut names = names?;
            names.sort();
            Ok(names)
        })
        .await
    }

    async fn read(&self, file: &Path) -> io::Result<Bytes> {
        let file = file.to_owned();
        blocking(move || fs::read(&file).map(Bytes::from)).await
    }

    async fn write(&self, file: &Path, content: Bytes) -> io::Result<()> {
        let file = file.to_owned();
        blocking(move || {
            let mut name = file.file_name().unwrap_or_default().to_owned();
            name.push(".new");
            let new = file.with_file_name(name);
            fs::write(&new, &content)?;
            fs::File::open(&new)?.sync_all()?;
            fs::rename(&new, &file)?;
            sync_parent(&file)
        })
        .await
    }

    async fn open_append(&self, file: &Path) -> io::Result<Box<dyn AppendFile>> {
        let path = file.to_owned();
        let file = blocking(move || {
            let file = fs::OpenOptions::new().create(true).append(true).open(&path)?;
            file.sync_all()?;
            sync_parent(&path)?;
            Ok(file)
        })
        .await?;
        Ok(Box::new(RealAppendFile { file: Some(file) }))
    }

    async fn truncate(&self, file: &Path, bytes: u64) -> io::Result<()> {
        let path = file.to_owned();
        blocking(move || {
            let file = fs::OpenOptions::new().write(true).open(&path)?;
            file.set_len(bytes)?;
            file.sync_all()
        })
        .await
    }

    async fn remove(&self, file: &Path) -> io::Result<()> {
        let file = file.to_owned();
        blocking(move || {
            fs::remove_file(&file)?;
            sync_parent(&file)
        })
        .await
    }
}

/// The folder itself is locked, not a file in it, so a folder of something else is left as it was.
#[derive(Debug)]
struct RealLock {
    _folder: fs::File,
}

impl FolderLock for RealLock {}

struct RealAppendFile {
    /// Absent only while a write runs on a blocking thread, or after that thread was lost.
    file: Option<fs::File>,
}

#[async_trait]
impl AppendFile for RealAppendFile {
    async fn append(&mut self, chunks: Vec<Bytes>) -> io::Result<()> {
        let mut file =
            self.file.take().ok_or_else(|| io::Error::other("an earlier write was interrupted"))?;
        let (file, result) = tokio::task::spawn_blocking(move || {
            let result = write_chunks(&mut file, &chunks);
            (file, result)
        })
        .await
        .map_err(io::Error::other)?;
        self.file = Some(file);
        result
    }
}

fn write_chunks(file: &mut fs::File, chunks: &[Bytes]) -> io::Result<()> {
    use io::Write;
    match chunks {
        [one] => file.write_all(one)?,
        many => file.write_all(&many.concat())?,
    }
    file.sync_data()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn files_hold_what_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("a/b");
        RealDisk.create_folder(&deep).await.unwrap();
        let file = deep.join("log");
        let mut log = RealDisk.open_append(&file).await.unwrap();
        log.append(vec![Bytes::from_static(b"one"), Bytes::from_static(b"two")]).await.unwrap();
        log.append(vec![Bytes::from_static(b"three")]).await.unwrap();
        assert_eq!(RealDisk.read(&file).await.unwrap(), "onetwothree");
        RealDisk.truncate(&file, 4).await.unwrap();
        assert_eq!(RealDisk.read(&file).await.unwrap(), "onet");
        RealDisk.write(&file, Bytes::from_static(b"new")).await.unwrap();
        assert_eq!(RealDisk.read(&file).await.unwrap(), "new");
        assert_eq!(RealDisk.list(&deep).await.unwrap(), ["log"]);
        RealDisk.remove(&file).await.unwrap();
        assert!(RealDisk.list(&deep).await.unwrap().is_empty());
    }
}
