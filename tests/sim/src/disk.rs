//! A simulated disk that keeps its promises and no more.
//!
//! What a call of [`Disk`] has returned from is durable. A call that was under way when the host died may
//! have done all of its work, none of it, or, for an append, any part: the end of the file is then torn,
//! and may hold zeros or garbage beyond.

use crate::events::Events;
use afdg_runtime::{AppendFile, Blocking, Disk, FolderLock};
use async_trait::async_trait;
use bytes::Bytes;
use rand::{Rng, RngCore, SeedableRng, rngs::StdRng};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Waker,
    time::Duration,
};

/// One host's disk: outlives its processes. Cheap to clone.
#[derive(Clone)]
pub struct SimDisk {
    shared: Arc<Mutex<Shared>>,
}

struct Shared {
    host: String,
    events: Events,
    chance: StdRng,
    files: BTreeMap<PathBuf, Vec<u8>>,
    folders: BTreeSet<PathBuf>,
    locked: BTreeSet<PathBuf>,
    /// What calls under way would do, by their number.
    under_way: BTreeMap<u64, Change>,
    last_call: u64,
    /// Grows when the host dies: calls of an earlier life do nothing more.
    life: u64,
    /// A call takes up to this.
    latency: Duration,
    /// Calls that change something fail from now on, this many.
    failing: Option<(u32, io::ErrorKind)>,
    /// Kills the host at a call: how many are left, and whom to tell.
    fuse: Option<u64>,
    /// Wakes the scheduler of the host's process when the fuse has blown.
    blown_waker: Option<Waker>,
}

#[derive(Clone)]
enum Change {
    Append(PathBuf, Bytes),
    Write(PathBuf, Bytes),
    Create(PathBuf),
    Truncate(PathBuf, u64),
    Remove(PathBuf),
}

impl Change {
    fn name(&self) -> &'static str {
        match self {
            Self::Append(..) => "append",
            Self::Write(..) => "write",
            Self::Create(..) => "create",
            Self::Truncate(..) => "truncate",
            Self::Remove(..) => "remove",
        }
    }
}

impl SimDisk {
    pub fn new(host: &str, seed: u64, events: Events) -> Self {
        let shared = Shared {
            host: host.to_owned(),
            events,
            chance: StdRng::seed_from_u64(seed),
            files: BTreeMap::new(),
            folders: BTreeSet::new(),
            locked: BTreeSet::new(),
            under_way: BTreeMap::new(),
            last_call: 0,
            life: 0,
            latency: Duration::from_micros(800),
            failing: None,
            fuse: None,
            blown_waker: None,
        };
        Self { shared: Arc::new(Mutex::new(shared)) }
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The disk as a process sees it that starts now.
    pub fn for_process(&self) -> Arc<dyn Disk> {
        let life = self.lock().life;
        Arc::new(ProcessDisk { disk: self.clone(), life })
    }

    /// The host died: chance decides what became of calls under way.
    pub fn host_died(&self) {
        let mut shared = self.lock();
        shared.life += 1;
        shared.locked.clear();
        shared.fuse = None;
        for (_, change) in std::mem::take(&mut shared.under_way) {
            shared.tear(change);
        }
    }

    pub fn set_latency(&self, latency: Duration) {
        self.lock().latency = latency;
    }

    /// Lets the next `calls` changes fail; 0 mends the disk.
    pub fn fail(&self, calls: u32, kind: io::ErrorKind) {
        self.lock().failing = (calls > 0).then_some((calls, kind));
    }

    /// Stops the host in the middle of the `calls`th change from now.
    pub fn set_fuse(&self, calls: u64) {
        self.lock().fuse = Some(calls.max(1));
    }

    pub fn wake_when_blown(&self, waker: &Waker) {
        self.lock().blown_waker = Some(waker.clone());
    }

    /// Whether the fuse has blown.
    pub fn is_blown(&self) -> bool {
        self.lock().fuse == Some(0)
    }
}

impl Shared {
    /// What is left of a change that the death of its host interrupted.
    fn tear(&mut self, change: Change) {
        match change {
            Change::Append(path, bytes) => {
                let kept = match self.chance.random_range(0..4) {
                    0 => 0,
                    1 => bytes.len(),
                    _ => self.chance.random_range(0..=bytes.len()),
                };
                let mut tail = bytes[..kept].to_vec();
                if kept < bytes.len() && self.chance.random_ratio(1, 2) {
                    // Space that was reserved, or blocks that hold something else.
                    let mut beyond = vec![0; self.chance.random_range(0..64)];
                    if self.chance.random_ratio(1, 3) {
                        self.chance.fill_bytes(&mut beyond);
                    }
                    tail.extend(beyond);
                }
                let host = self.host.clone();
                self.events.note(&host, format_args!("torn append: {kept} of {} bytes", bytes.len()));
                if let Some(file) = self.files.get_mut(&path) {
                    file.extend(tail);
                }
            }
            other => {
                if self.chance.random_ratio(1, 2) {
                    self.apply(other);
                }
            }
        }
    }

    fn apply(&mut self, change: Change) {
        match change {
            Change::Append(path, bytes) => self.files.entry(path).or_default().extend(bytes),
            Change::Write(path, bytes) => {
                self.files.insert(path, bytes.to_vec());
            }
            Change::Create(path) => {
                self.files.entry(path).or_default();
            }
            Change::Truncate(path, bytes) => {
                if let Some(file) = self.files.get_mut(&path) {
                    file.resize(bytes as usize, 0);
                }
            }
            Change::Remove(path) => {
                self.files.remove(&path);
            }
        }
    }
}

struct ProcessDisk {
    disk: SimDisk,
    life: u64,
}

/// A change that is under way: if it is dropped while its host lives on, it is done all the same, as work
/// on another thread would be.
struct UnderWay {
    disk: SimDisk,
    number: u64,
    life: u64,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut shared = self.disk.lock();
        if shared.life == self.life
            && shared.fuse != Some(0)
            && let Some(change) = shared.under_way.remove(&self.number)
        {
            shared.apply(change);
        }
    }
}

impl ProcessDisk {
    async fn pause(&self) {
        let pause = {
            let mut shared = self.disk.lock();
            let longest = shared.latency.as_nanos() as u64;
            // Mostly quick, sometimes not.
            let shortest = longest / 8;
            shared.chance.random_range(shortest..=longest.max(shortest))
        };
        tokio::time::sleep(Duration::from_nanos(pause)).await;
    }

    async fn change(&self, change: Change) -> io::Result<()> {
        let name = change.name();
        let (under_way, error) = {
            let mut shared = self.disk.lock();
            shared.last_call += 1;
            let number = shared.last_call;
            let blown = match &mut shared.fuse {
                Some(calls) if *calls > 0 => {
                    *calls -= 1;
                    *calls == 0
                }
                _ => false,
            };
            if blown && let Some(waker) = shared.blown_waker.take() {
                waker.wake();
            }
            let failing = match &mut shared.failing {
                Some((0, _)) | None => None,
                Some((calls, kind)) => {
                    *calls -= 1;
                    Some(*kind)
                }
            };
            if failing.is_none() {
                shared.under_way.insert(number, change.clone());
            }
            (UnderWay { disk: self.disk.clone(), number, life: self.life }, failing)
        };
        self.pause().await;
        if self.disk.is_blown() {
            // The host is dead from here on; it is taken down as soon as it comes to rest.
            std::future::pending::<()>().await;
        }
        if let Some(kind) = error {
            let mut shared = self.disk.lock();
            let host = shared.host.clone();
            shared.events.note(&host, format_args!("disk: {name} fails with {kind:?}"));
            shared.events.count("disk errors");
            // An append that fails may have written something.
            if matches!(change, Change::Append(..)) {
                shared.tear(change);
            }
            return Err(kind.into());
        }
        drop(under_way);
        Ok(())
    }
}

#[async_trait]
impl Disk for ProcessDisk {
    async fn create_folder(&self, folder: &Path) -> io::Result<()> {
        self.pause().await;
        let parts = folder.ancestors().map(Path::to_owned);
        self.disk.lock().folders.extend(parts);
        Ok(())
    }

    async fn lock_folder(&self, folder: &Path) -> io::Result<Arc<dyn FolderLock>> {
        self.pause().await;
        if !self.disk.lock().locked.insert(folder.to_owned()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Arc::new(SimLock { disk: self.disk.clone(), folder: folder.to_owned(), life: self.life }))
    }

    async fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        self.pause().await;
        let shared = self.disk.lock();
        if !shared.folders.contains(folder) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let all = shared.files.keys().chain(&shared.folders);
        let inside = all.filter(|path| path.parent() == Some(folder)).filter_map(|path| path.file_name());
        let names: BTreeSet<String> = inside.map(|name| name.to_string_lossy().into_owned()).collect();
        Ok(names.into_iter().collect())
    }

    async fn read(&self, file: &Path) -> io::Result<Bytes> {
        self.pause().await;
        let shared = self.disk.lock();
        let found = shared.files.get(file).map(|content| Bytes::copy_from_slice(content));
        found.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    async fn write(&self, file: &Path, content: Bytes) -> io::Result<()> {
        self.change(Change::Write(file.to_owned(), content)).await
    }

    async fn open_append(&self, file: &Path) -> io::Result<Box<dyn AppendFile>> {
        self.change(Change::Create(file.to_owned())).await?;
        let disk = ProcessDisk { disk: self.disk.clone(), life: self.life };
        Ok(Box::new(SimFile { disk, path: file.to_owned() }))
    }

    async fn truncate(&self, file: &Path, bytes: u64) -> io::Result<()> {
        self.change(Change::Truncate(file.to_owned(), bytes)).await
    }

    async fn remove(&self, file: &Path) -> io::Result<()> {
        if !self.disk.lock().files.contains_key(file) {
            return Err(io::ErrorKind::NotFound.into());
        }
        self.change(Change::Remove(file.to_owned())).await
    }
}

struct SimFile {
    disk: ProcessDisk,
    path: PathBuf,
}

#[async_trait]
impl AppendFile for SimFile {
    async fn append(&mut self, chunks: Vec<Bytes>) -> io::Result<()> {
        self.disk.change(Change::Append(self.path.clone(), chunks.concat().into())).await
    }
}

struct SimLock {
    disk: SimDisk,
    folder: PathBuf,
    life: u64,
}

impl std::fmt::Debug for SimLock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "lock of {}", self.folder.display())
    }
}

impl FolderLock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut shared = self.disk.lock();
        if shared.life == self.life {
            shared.locked.remove(&self.folder);
        }
    }
}

/// Blocking work is done where it is asked for, between two pauses.
pub struct SimThreads(pub SimDisk);

#[async_trait]
impl Blocking for SimThreads {
    async fn run(&self, work: Box<dyn FnOnce() + Send>) -> io::Result<()> {
        let disk = ProcessDisk { disk: self.0.clone(), life: self.0.lock().life };
        disk.pause().await;
        work();
        disk.pause().await;
        Ok(())
    }
}
