//! Checkpoints in sled: one database per server, a tree per group.
//!
//! A tree is named `group-{group}-{generation}`. Which generation is a group's own stands in the default
//! tree (`group` + group u64 big endian -> generation u64 big endian), so that replacing a tree is one
//! write; trees that nothing names are leftovers, and dropped when the store opens.
//!
//! sled 0.34's flush is not power-safe on Linux: it leaves the file's length and the disk's cache to
//! chance. So [`SledStore::make_durable`] syncs every file and folder after it.

use super::{CheckpointStore, CheckpointTree, StoreError, sled_tree::SledTree};
use std::{
    collections::BTreeMap,
    fs, io,
    panic::AssertUnwindSafe,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

#[derive(Clone, Debug)]
pub struct SledOptions {
    pub folder: PathBuf,
    pub cache_bytes: u64,
}

impl SledOptions {
    pub fn new(folder: PathBuf) -> Self {
        Self { folder, cache_bytes: 64 << 20 }
    }
}

/// Cheap to clone; all clones are one store.
#[derive(Clone)]
pub struct SledStore {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub db: sled::Db,
    folder: PathBuf,
    trees: Mutex<Trees>,
    /// sled has told an error.
    failed: AtomicBool,
    /// One at a time: what waits gets its own, since it may have written after the running one began.
    durable: Mutex<()>,
}

#[derive(Default)]
struct Trees {
    current: BTreeMap<u64, Arc<SledTree>>,
    /// No group's own any more, and dropped when no reader holds them.
    retired: Vec<Arc<SledTree>>,
    last_generation: u64,
}

const POINTER: &[u8] = b"group";

/// sled's own threads let go of a store, and of its lock, a moment after it was dropped; so a server that
/// is started again inside one process waits a little. About a second in all.
const LOCK_TRIES_MAX: usize = 100;
const LOCK_WAIT: Duration = Duration::from_millis(10);

impl SledStore {
    /// Opens the store, and completes the checkpoints that a crash interrupted. Blocks.
    ///
    /// [`StoreError::Unreadable`] says that the content is damaged; any other error (locked by another
    /// process, no space, no permission) says nothing about it.
    pub fn open(options: &SledOptions) -> Result<SledStore, StoreError> {
        let folder = &options.folder;
        fs::create_dir_all(folder).map_err(io_error("make the folder", folder))?;
        let config =
            sled::Config::new().path(folder).cache_capacity(options.cache_bytes).flush_every_ms(None);
        let unreadable = |reason: String| StoreError::Unreadable { folder: folder.clone(), reason };
        // sled answers some damage with a panic.
        let open = || std::panic::catch_unwind(AssertUnwindSafe(|| config.open()));
        let mut opened = open();
        for _ in 0..LOCK_TRIES_MAX {
            if !matches!(&opened, Ok(Err(sled::Error::Io(error))) if is_locked(error)) {
                break;
            }
            std::thread::sleep(LOCK_WAIT);
            opened = open();
        }
        let db = match opened {
            Ok(Ok(db)) => db,
            Ok(Err(sled::Error::Io(error))) if !tells_of_damage(&error) => {
                return Err(io_error("open", folder)(error));
            }
            Ok(Err(error)) => return Err(unreadable(error.to_string())),
            Err(_) => return Err(unreadable("sled panicked".into())),
        };
        let shared = Arc::new(Shared {
            db,
            folder: folder.clone(),
            trees: Mutex::default(),
            failed: AtomicBool::new(false),
            durable: Mutex::default(),
        });
        let opened = std::panic::catch_unwind(AssertUnwindSafe(|| shared.open_trees()));
        opened.unwrap_or_else(|_| Err(unreadable("sled panicked".into()))).map_err(|error| match error {
            StoreError::Malformed { found } => unreadable(format!("it holds {found}")),
            StoreError::Tree { source, .. } | StoreError::Store { source, .. } if is_damage(&source) => {
                unreadable(source.to_string())
            }
            error => error,
        })?;
        shared.make_durable()?;
        if let Some(parent) = folder.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            sync(parent)?;
        }
        Ok(SledStore { shared })
    }

    /// Like [`SledStore::open`], but a damaged store is set aside (renamed to `<name>.damaged-<n>`, never
    /// deleted) and an empty one opened. Tells where the damaged one went.
    pub fn open_or_reset(options: &SledOptions) -> Result<(SledStore, Option<PathBuf>), StoreError> {
        let reason = match Self::open(options) {
            Err(StoreError::Unreadable { reason, .. }) => reason,
            opened => return opened.map(|store| (store, None)),
        };
        let folder = &options.folder;
        let mut name = folder.file_name().unwrap_or_default().to_owned();
        name.push(".damaged-");
        let aside = (0..u64::MAX).map(|n| {
            let mut name = name.clone();
            name.push(n.to_string());
            folder.with_file_name(name)
        });
        let aside =
            aside.into_iter().find(|aside| !aside.exists()).unwrap_or_else(|| folder.with_file_name(&name));
        tracing::warn!(folder = %folder.display(), aside = %aside.display(), reason, "set damaged checkpoints aside");
        fs::rename(folder, &aside).map_err(io_error("set aside", folder))?;
        Ok((Self::open(options)?, Some(aside)))
    }
}

impl CheckpointStore for SledStore {
    fn tree(&self, group: u64) -> Result<Arc<dyn CheckpointTree>, StoreError> {
        let mut trees = self.shared.trees();
        if let Some(tree) = trees.current.get(&group) {
            return Ok(tree.clone());
        }
        trees.last_generation += 1;
        let tree = Arc::new(SledTree::open(&self.shared, group, trees.last_generation)?);
        self.shared.point(group, Some(trees.last_generation))?;
        trees.current.insert(group, tree.clone());
        Ok(tree)
    }

    fn drop_tree(&self, group: u64) -> Result<(), StoreError> {
        let mut trees = self.shared.trees();
        self.shared.point(group, None)?;
        if let Some(tree) = trees.current.remove(&group) {
            trees.retired.push(tree);
        }
        drop(trees);
        self.shared.sweep();
        Ok(())
    }

    fn make_durable(&self) -> Result<(), StoreError> {
        self.shared.sweep();
        self.shared.make_durable()
    }

    fn trees(&self) -> Result<Vec<u64>, StoreError> {
        Ok(self.shared.trees().current.keys().copied().collect())
    }
}

impl Drop for Shared {
    /// sled writes and syncs when it is dropped. After a write that failed it waits for ever there, and if
    /// the sync fails it panics. So on a disk that fails it is left to the end of the process, which comes
    /// next and has an error to tell.
    fn drop(&mut self) {
        let failed = match sync_all(&self.folder) {
            // It may be removed before it is closed.
            Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => None,
            synced => synced.err(),
        };
        if failed.is_some() || self.failed.load(Ordering::Relaxed) {
            let why = failed.map_or_else(|| "it has failed before".to_owned(), |error| error.to_string());
            tracing::error!(folder = %self.folder.display(), why, "the checkpoints' store is not closed");
            std::mem::forget(self.db.clone());
        }
    }
}

impl Shared {
    fn trees(&self) -> MutexGuard<'_, Trees> {
        self.trees.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For an error of sled's.
    fn failing(&self, action: &'static str) -> impl Fn(sled::Error) -> StoreError {
        move |source| {
            self.note_failure();
            StoreError::Store { action, source }
        }
    }

    pub fn note_failure(&self) {
        self.failed.store(true, Ordering::Relaxed);
    }

    fn open_trees(self: &Arc<Self>) -> Result<(), StoreError> {
        let read = self.failing("read the list");
        let mut trees = self.trees();
        for row in self.db.scan_prefix(POINTER) {
            let (key, generation) = row.map_err(&read)?;
            let number = |bytes: &[u8]| bytes.try_into().ok().map(u64::from_be_bytes);
            let (Some(group), Some(generation)) = (number(&key[POINTER.len()..]), number(&generation)) else {
                return Err(StoreError::Malformed { found: format!("a pointer {key:?} -> {generation:?}") });
            };
            let tree = SledTree::open(self, group, generation)?;
            trees.current.insert(group, Arc::new(tree));
            trees.last_generation = trees.last_generation.max(generation);
        }
        let known: Vec<String> = trees.current.values().map(|tree| tree.name()).collect();
        for name in self.db.tree_names() {
            if name.starts_with(b"group-") && !known.iter().any(|known| known.as_bytes() == &name[..]) {
                self.db.drop_tree(&name).map_err(&read)?;
            }
        }
        Ok(())
    }

    /// Says which generation is the group's own, if any.
    fn point(&self, group: u64, generation: Option<u64>) -> Result<(), StoreError> {
        let key = [POINTER, &group.to_be_bytes()].concat();
        let changed = match generation {
            Some(generation) => self.db.insert(key, &generation.to_be_bytes()),
            None => self.db.remove(key),
        };
        changed.map(|_| ()).map_err(self.failing("change the list"))
    }

    pub fn make_durable(&self) -> Result<(), StoreError> {
        let _one = self.durable.lock().unwrap_or_else(PoisonError::into_inner);
        self.db.flush().map_err(self.failing("flush"))?;
        sync_all(&self.folder)
    }

    pub fn new_generation(self: &Arc<Self>, group: u64) -> Result<Arc<SledTree>, StoreError> {
        let mut trees = self.trees();
        trees.last_generation += 1;
        Ok(Arc::new(SledTree::open(self, group, trees.last_generation)?))
    }

    /// Makes a filled tree durable, and then the group's own.
    pub fn replace(&self, group: u64, tree: Arc<SledTree>) -> Result<(), StoreError> {
        self.make_durable()?;
        let mut trees = self.trees();
        self.point(group, Some(tree.generation))?;
        if let Some(old) = trees.current.insert(group, tree) {
            trees.retired.push(old);
        }
        drop(trees);
        self.make_durable()
    }

    pub fn retire(&self, tree: Arc<SledTree>) {
        self.trees().retired.push(tree);
    }

    /// Drops the retired trees that nobody reads. What is left waits for the next time.
    fn sweep(&self) {
        let mut trees = self.trees();
        let (free, held): (Vec<_>, Vec<_>) =
            std::mem::take(&mut trees.retired).into_iter().partition(|tree| Arc::strong_count(tree) == 1);
        trees.retired = held;
        drop(trees);
        for tree in free {
            if let Err(error) = self.db.drop_tree(tree.name()) {
                self.note_failure();
                tracing::warn!(%error, tree = tree.name(), "can't drop a checkpoint that nobody needs");
            }
        }
    }
}

fn io_error<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> StoreError + 'a {
    move |source| StoreError::Io { action, path: path.to_owned(), source }
}

/// sled has no error of its own for it.
fn is_locked(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Other && error.to_string().contains("could not acquire lock")
}

fn tells_of_damage(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
    matches!(error.kind(), InvalidData | InvalidInput | UnexpectedEof)
}

fn is_damage(error: &sled::Error) -> bool {
    !matches!(error, sled::Error::Io(error) if !tells_of_damage(error))
}

fn sync(path: &Path) -> Result<(), StoreError> {
    match fs::File::open(path).and_then(|file| file.sync_all()) {
        // sled removes files on its own.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        synced => synced.map_err(io_error("sync", path)),
    }
}

/// Syncs every file and folder below, then the folder itself.
fn sync_all(folder: &Path) -> Result<(), StoreError> {
    for entry in fs::read_dir(folder).map_err(io_error("list", folder))? {
        let entry = entry.map_err(io_error("list", folder))?;
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            sync_all(&path)?;
        } else {
            sync(&path)?;
        }
    }
    sync(folder)
}
