//! What all replicas of one server share: the write-ahead log, the store of checkpoints, the links to
//! peers, and the schedule of checkpoints.

use crate::{
    checkpoint::Checkpointer,
    log_store::LogStore,
    peers::{GroupHandler, Links, PeerEndpoint, PeerNetworks, PeerService},
    replica::Checkpointed,
    row_store::{CheckpointStore, RowStore, SledOptions, SledStore},
    substitutes::{Substitutes, Witness},
    wal::{RecoveredGroup, Wal, WalError, WalOptions},
};
use afdg_proto::peer_auth::PeerToken;
use afdg_runtime::{Blocking, OnEnd, Tasks, World, blocking};
use openraft::{Config, SnapshotPolicy};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// How a server replicates.
#[derive(Clone, Debug)]
pub struct HostConfig {
    /// Holds `wal/` and `rows/`.
    pub folder: PathBuf,
    /// This server's id among its peers.
    pub server_id: u64,
    pub peer_token: PeerToken,
    pub timing: Timing,
    pub checkpoints: CheckpointPolicy,
    pub substitutes: Substitutes,
}

/// When a group looks for a new leader. Milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    pub heartbeat_ms: u64,
    pub election_min_ms: u64,
    pub election_max_ms: u64,
}

impl Default for Timing {
    fn default() -> Self {
        Self { heartbeat_ms: 120, election_min_ms: 500, election_max_ms: 900 }
    }
}

/// When checkpoints are made: whichever comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointPolicy {
    /// A group whose rows in memory exceed this.
    pub group_dirty_bytes: usize,
    /// The groups that pin the oldest part of a log that exceeds this.
    pub wal_bytes: u64,
    /// How often to look, milliseconds.
    pub look_every_ms: u64,
}

impl Default for CheckpointPolicy {
    fn default() -> Self {
        Self { group_dirty_bytes: 32 * 1024 * 1024, wal_bytes: 256 * 1024 * 1024, look_every_ms: 500 }
    }
}

/// Why replication can't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the write-ahead log: {0}")]
    Wal(#[from] WalError),
    #[error("the folder {folder}: {why}")]
    Folder { folder: String, why: String },
    #[error("the stored rows: {0}")]
    Store(String),
    #[error("the timing is impossible: {0}")]
    Timing(String),
    #[error("group {group}: {why}")]
    Group { group: u64, why: String },
}

/// Cheap to clone.
#[derive(Clone)]
pub struct ReplicaHost {
    shared: Arc<Shared>,
}

struct Shared {
    config: HostConfig,
    raft_config: Arc<Config>,
    wal: Wal,
    store: Arc<dyn CheckpointStore>,
    /// Where a store went that was damaged.
    aside: Option<PathBuf>,
    checkpointer: Checkpointer,
    links: Links,
    service: PeerService,
    tasks: Tasks,
    recovered: Mutex<BTreeMap<u64, RecoveredGroup>>,
    /// Groups that were opened, well or not.
    opened: Mutex<BTreeSet<u64>>,
    groups: Mutex<BTreeMap<u64, ScheduledGroup>>,
}

#[derive(Clone)]
struct ScheduledGroup {
    replica: Arc<dyn Checkpointed>,
    /// Index of the last checkpoint: up to where the next one lets the log be purged.
    last_checkpoint: Option<u64>,
}

impl ReplicaHost {
    /// Opens the server's folder. Its tasks live in `tasks`; when the log or a replica fails, they do.
    pub async fn open(world: &World, tasks: &Tasks, config: HostConfig) -> Result<Self, StartError> {
        let folder_error = |folder: &PathBuf, error: std::io::Error| StartError::Folder {
            folder: folder.display().to_string(),
            why: error.to_string(),
        };
        let wal_folder = config.folder.join("wal");
        let rows_folder = config.folder.join("rows");
        for folder in [&wal_folder, &rows_folder] {
            world.disk.create_folder(folder).await.map_err(|error| folder_error(folder, error))?;
        }
        let (wal, recovered) = Wal::open(Arc::clone(&world.disk), wal_folder, WalOptions::default()).await?;
        let store = match &config.substitutes.store {
            Some(store) => (Arc::clone(store), None),
            None => open_sled(&world.threads, rows_folder).await?,
        };
        Self::new(world, tasks, config, (wal, recovered), store)
    }

    fn new(
        world: &World,
        tasks: &Tasks,
        config: HostConfig,
        (wal, recovered): (Wal, BTreeMap<u64, RecoveredGroup>),
        (store, aside): (Arc<dyn CheckpointStore>, Option<PathBuf>),
    ) -> Result<Self, StartError> {
        let raft_config = raft_config(config.timing).map_err(StartError::Timing)?;
        let host = Self {
            shared: Arc::new(Shared {
                raft_config: Arc::new(raft_config),
                wal,
                checkpointer: Checkpointer::new(Arc::clone(&store), Arc::clone(&world.threads)),
                store,
                aside,
                links: Links::new(Arc::clone(&world.net), config.peer_token.clone()),
                service: PeerService::default(),
                tasks: tasks.clone(),
                recovered: Mutex::new(recovered),
                opened: Mutex::default(),
                groups: Mutex::default(),
                config,
            }),
        };
        let schedule = host.clone();
        tasks.spawn("checkpoints", OnEnd::StopServer, async move { schedule.run_checkpoints().await });
        let watch = host.clone();
        tasks.spawn("watch-wal", OnEnd::Finish, async move {
            let why = watch.shared.wal.failed().await;
            watch.shared.tasks.fail(format!("the write-ahead log can't be written: {why}"));
        });
        Ok(host)
    }

    pub fn server_id(&self) -> u64 {
        self.shared.config.server_id
    }

    pub fn tasks(&self) -> &Tasks {
        &self.shared.tasks
    }

    /// The service that peers call, to be added to the server.
    pub fn peer_endpoint(&self) -> PeerEndpoint {
        self.shared.service.endpoint(self.server_id(), self.shared.config.peer_token.clone())
    }

    /// Groups that the folder held when it was opened.
    pub fn recovered_groups(&self) -> Vec<u64> {
        lock(&self.shared.recovered).keys().copied().collect()
    }

    /// Writes what waits for the log and lets go of the folder, once all replicas are shut down.
    pub async fn close(&self) {
        self.shared.wal.close().await;
    }

    /// Bytes in the write-ahead log.
    pub fn wal_bytes(&self) -> u64 {
        self.shared.wal.status().bytes
    }

    /// Whether `dirty_bytes` of one group, or the log, are so far past what starts a checkpoint that no more
    /// should be taken in.
    pub(crate) fn is_behind(&self, dirty_bytes: usize) -> bool {
        /// Times the sizes that start a checkpoint.
        const BEHIND_FACTOR: usize = 6;
        let policy = self.shared.config.checkpoints;
        dirty_bytes > BEHIND_FACTOR * policy.group_dirty_bytes
            || self.wal_bytes() > BEHIND_FACTOR as u64 * policy.wal_bytes
    }

    /// How long a replica that was just started may neither stand for election nor vote: as long as it may
    /// have promised an earlier leader not to, before it stopped.
    pub(crate) fn vote_pause(&self) -> Duration {
        Duration::from_millis(self.shared.config.timing.election_max_ms)
    }

    pub(crate) fn witness(&self) -> Arc<dyn Witness> {
        Arc::clone(&self.shared.config.substitutes.witness)
    }

    pub(crate) fn raft_config(&self) -> Arc<Config> {
        Arc::clone(&self.shared.raft_config)
    }

    pub(crate) fn checkpointer(&self) -> Checkpointer {
        self.shared.checkpointer.clone()
    }

    pub(crate) fn wal(&self) -> &Wal {
        &self.shared.wal
    }

    pub(crate) fn recovered(&self) -> &Mutex<BTreeMap<u64, RecoveredGroup>> {
        &self.shared.recovered
    }

    pub(crate) fn store(&self) -> &Arc<dyn CheckpointStore> {
        &self.shared.store
    }

    pub(crate) fn links(&self) -> &Links {
        &self.shared.links
    }

    pub(crate) fn networks(&self, group: u64) -> PeerNetworks {
        PeerNetworks { group, links: self.shared.links.clone() }
    }

    /// What the folder holds of the group, and whether it held any of it.
    pub(crate) fn open_group(&self, group: u64) -> Result<(LogStore, Arc<RowStore>, bool), StartError> {
        let failed = |why: String| StartError::Group { group, why };
        if !lock(&self.shared.opened).insert(group) {
            // What was recovered of it is taken: a second time it would look like a new one, without its vote.
            return Err(failed("it was opened before".to_owned()));
        }
        let recovered = lock(&self.shared.recovered).remove(&group);
        let known = recovered.is_some();
        let purged =
            recovered.as_ref().and_then(|recovered| recovered.purged.as_ref().map(|(index, _)| *index));
        let log = LogStore::new(group, self.shared.wal.clone(), recovered, self.witness())
            .map_err(|error| failed(error.to_string()))?;
        let (rows, applied) = self.stored_rows(group)?;
        // Rows older than what the log still holds can't be brought up to date from here.
        if purged > applied {
            return Err(failed(format!(
                "the stored rows reach up to {applied:?}, but the log begins after {purged:?}, and there is no \
                 peer to get them from{}",
                self.aside(),
            )));
        }
        if !known && applied.is_some() {
            return Err(failed(format!(
                "the stored rows reach up to {applied:?}, but the log does not know the group: it was removed. \
                 What this server promised to its peers is lost with it. Put the folder 'wal' back, or move the \
                 server's whole folder away and start it as a new server; its peers have the data",
            )));
        }
        Ok((log, rows, known))
    }

    /// Where damaged rows went, for an error.
    fn aside(&self) -> String {
        let aside = self.shared.aside.as_ref();
        aside
            .map_or_else(String::new, |aside| format!("; the damaged rows were moved to {}", aside.display()))
    }

    pub(crate) fn register(
        &self,
        group: u64,
        handler: Arc<dyn GroupHandler>,
        replica: Arc<dyn Checkpointed>,
    ) {
        self.shared.service.add(group, handler);
        lock(&self.shared.groups).insert(group, ScheduledGroup { replica, last_checkpoint: None });
    }

    pub(crate) fn unregister(&self, group: u64) {
        self.shared.service.remove(group);
        lock(&self.shared.groups).remove(&group);
    }

    async fn run_checkpoints(&self) {
        let policy = self.shared.config.checkpoints;
        let mut look = tokio::time::interval(Duration::from_millis(policy.look_every_ms));
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            look.tick().await;
            for group in self.due(policy) {
                self.checkpoint(group).await;
            }
        }
    }

    fn due(&self, policy: CheckpointPolicy) -> Vec<u64> {
        let mut due: Vec<u64> = {
            let groups = lock(&self.shared.groups);
            groups
                .iter()
                .filter(|(_, group)| group.replica.dirty_bytes() >= policy.group_dirty_bytes)
                .map(|(id, _)| *id)
                .collect()
        };
        if self.shared.wal.status().bytes >= policy.wal_bytes {
            due.extend(self.shared.wal.oldest_groups());
        }
        due.sort_unstable();
        due.dedup();
        due
    }

    async fn checkpoint(&self, group: u64) {
        let Some(scheduled) = lock(&self.shared.groups).get(&group).cloned() else { return };
        match scheduled.replica.checkpoint(scheduled.last_checkpoint).await {
            Ok(made) => {
                if let Some(scheduled) = lock(&self.shared.groups).get_mut(&group) {
                    scheduled.last_checkpoint = made.or(scheduled.last_checkpoint);
                }
            }
            // The rows stay in memory and the log keeps what led to them: nothing is lost, but neither
            // may grow for ever.
            Err(why) => {
                tracing::error!(group, why, "a checkpoint failed");
                self.shared.tasks.fail(format!("a checkpoint of group {group} failed: {why}"));
            }
        }
    }
}

async fn open_sled(
    threads: &Arc<dyn Blocking>,
    folder: PathBuf,
) -> Result<(Arc<dyn CheckpointStore>, Option<PathBuf>), StartError> {
    let failed = |error: &dyn std::fmt::Display| StartError::Store(error.to_string());
    let opened = blocking(threads, move || SledStore::open_or_reset(&SledOptions::new(folder))).await;
    let (store, aside) = opened.map_err(|error| failed(&error))?.map_err(|error| failed(&error))?;
    Ok((Arc::new(store), aside))
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn raft_config(timing: Timing) -> Result<Config, String> {
    let config = Config {
        cluster_name: "afdg".to_owned(),
        heartbeat_interval: timing.heartbeat_ms,
        election_timeout_min: timing.election_min_ms,
        election_timeout_max: timing.election_max_ms,
        install_snapshot_timeout: 60_000,
        max_payload_entries: 256,
        replication_lag_threshold: 100_000,
        // Checkpoints are scheduled by this file, and the log is purged up to the one before the last.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX,
        enable_pre_vote: Some(true),
        // Switched on a while after the start: see `vote_pause`.
        enable_elect: false,
        // A leader that restarts must not lead on without an election: its rows may be behind.
        enable_leader_restore: Some(false),
        backoff: "20ms 40ms 80ms ...200ms".to_owned(),
        ..Config::default()
    };
    config.validate().map_err(|error| error.to_string())
}
