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
    /// Opens for appending, makes the file if there is none. Space may be reserved ahead: the file may
    /// end in zeros that nobody appended, and whoever opens it again cuts them off first.
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
            let file = fs::OpenOptions::new().create(true).write(true).truncate(false).open(&path)?;
            file.sync_all()?;
            sync_parent(&path)?;
            let end = file.metadata()?.len();
            Ok(ReservedFile { file, end, reserved: end })
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
    file: Option<ReservedFile>,
}

#[async_trait]
impl AppendFile for RealAppendFile {
    async fn append(&mut self, chunks: Vec<Bytes>) -> io::Result<()> {
        let mut file =
            self.file.take().ok_or_else(|| io::Error::other("an earlier write was interrupted"))?;
        let (file, result) = tokio::task::spawn_blocking(move || {
            let result = file.append(&chunks);
            (file, result)
        })
        .await
        .map_err(io::Error::other)?;
        self.file = Some(file);
        result
    }
}

/// A file whose space is reserved ahead of its end. A write that makes a file grow has the file system
/// write its journal as well, which about doubles the time of an fsync where several files do it.
struct ReservedFile {
    file: fs::File,
    /// Up to here it was appended to.
    end: u64,
    /// Up to here it has space; zeros past its end.
    reserved: u64,
}

impl ReservedFile {
    const RESERVE_BYTES: u64 = 4 << 20;

    fn append(&mut self, chunks: &[Bytes]) -> io::Result<()> {
        let end = match chunks {
            [one] => self.write(one)?,
            many => self.write(&many.concat())?,
        };
        self.file.sync_data()?;
        self.end = end;
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<u64> {
        use std::os::unix::fs::FileExt;
        let end = self.end + bytes.len() as u64;
        if end > self.reserved {
            self.reserve(end);
        }
        self.file.write_all_at(bytes, self.end)?;
        Ok(end)
    }

    /// Without space to reserve, or on a file system that can't, the file grows as it is written.
    fn reserve(&mut self, end: u64) {
        let upto = end.next_multiple_of(Self::RESERVE_BYTES);
        self.reserved = if allocate(&self.file, self.end, upto - self.end) { upto } else { end };
    }
}

#[cfg(target_os = "linux")]
fn allocate(file: &fs::File, from: u64, bytes: u64) -> bool {
    rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), from, bytes).is_ok()
}

#[cfg(not(target_os = "linux"))]
fn allocate(_file: &fs::File, _from: u64, _bytes: u64) -> bool {
    false
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
        let reserved = RealDisk.read(&file).await.unwrap();
        assert!(reserved.starts_with(b"onetwothree") && reserved[11..].iter().all(|&byte| byte == 0));
        drop(log);
        RealDisk.truncate(&file, 11).await.unwrap();
        assert_eq!(RealDisk.read(&file).await.unwrap(), "onetwothree");
        let mut log = RealDisk.open_append(&file).await.unwrap();
        log.append(vec![Bytes::from_static(b"four")]).await.unwrap();
        drop(log);
        RealDisk.truncate(&file, 15).await.unwrap();
        assert_eq!(RealDisk.read(&file).await.unwrap(), "onetwothreefour");
        RealDisk.truncate(&file, 4).await.unwrap();
        assert_eq!(RealDisk.read(&file).await.unwrap(), "onet");
        RealDisk.write(&file, Bytes::from_static(b"new")).await.unwrap();
        assert_eq!(RealDisk.read(&file).await.unwrap(), "new");
        assert_eq!(RealDisk.list(&deep).await.unwrap(), ["log"]);
        RealDisk.remove(&file).await.unwrap();
        assert!(RealDisk.list(&deep).await.unwrap().is_empty());
    }
}
