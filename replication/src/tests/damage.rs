//! Whole groups on real files: what a server does whose files were damaged or lost while it was down. It
//! starts with the rows that its peers have, or it does not start. It never has others.

use super::server::{command, id};
use crate::{
    CheckpointPolicy, HostConfig, Machine, Observer, Position, Replica, ReplicaHost, RowSnapshot, RowStore,
    StartError, Substitutes, Timing, codec,
    peers::{GroupHandler, PeerService, SnapshotHeader},
    raft_types::StoredMembership,
    row_store::{CheckpointStore, MemoryStore},
    wal::{Wal, WalOptions},
};
use afdg_proto::{pb::internal::PeerKind, peer_auth::PeerToken};
use afdg_runtime::{Net, RealDisk, Tasks, TcpNet, World, serve};
use afdg_types::{Rows, RowsError, RowsMut};
use bytes::Bytes;
use futures::{FutureExt, StreamExt, future::BoxFuture};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::time::Instant;

const GROUP: u64 = 7;
const LIMIT: Duration = Duration::from_secs(30);

/// Commands are `key=value`, and `key=` deletes.
struct Keeping;

impl Machine for Keeping {
    type Outcome = ();

    fn restore(&mut self, _: &dyn Rows) -> Result<(), RowsError> {
        Ok(())
    }

    fn apply(&mut self, _: Position, command: Bytes, rows: &mut dyn RowsMut) -> Result<(), RowsError> {
        let at = command.iter().position(|&byte| byte == b'=').unwrap();
        let (key, value) = (command.slice(..at), command.slice(at + 1..));
        if value.is_empty() {
            rows.delete(key)
        } else {
            rows.put(key, value)
        }
        Ok(())
    }
}

struct Nobody;

impl Observer<()> for Nobody {
    fn applied(&mut self, _: Position, _: Option<()>) {}
    fn restored(&mut self, _: Position) {}
}

struct Server {
    host: ReplicaHost,
    replica: Replica<Keeping>,
    tasks: Tasks,
}

impl Server {
    async fn start(folder: &Path, id: u64, addresses: &BTreeMap<u64, String>) -> Result<Server, StartError> {
        let tasks = Tasks::new();
        let started = Self::start_in(&tasks, folder, id, addresses).await;
        if started.is_err() {
            tasks.drain(LIMIT).await;
        }
        started
    }

    async fn start_in(
        tasks: &Tasks,
        folder: &Path,
        id: u64,
        addresses: &BTreeMap<u64, String>,
    ) -> Result<Server, StartError> {
        let config = HostConfig {
            folder: folder.to_owned(),
            server_id: id,
            peer_token: PeerToken::new("secret").unwrap(),
            timing: Timing::default(),
            checkpoints: CheckpointPolicy { group_dirty_bytes: 4_096, wal_bytes: 1 << 30, look_every_ms: 5 },
            substitutes: Substitutes::default(),
        };
        let host = ReplicaHost::open(&World::real(), tasks, config).await?;
        let mut peers = addresses.clone();
        peers.remove(&id);
        if !peers.is_empty() && host.lacks_rows(GROUP)? {
            host.fetch_rows(GROUP, || peers.clone()).await?;
        }
        let replica = Replica::start(&host, GROUP, Keeping, Box::new(Nobody)).await?;
        let listener = TcpNet.bind(&addresses[&id]).await.unwrap();
        let router = tonic::transport::Server::builder().add_service(host.peer_endpoint());
        let draining = tasks.draining();
        tokio::spawn(async move { serve(router, listener, draining).await.unwrap() });
        Ok(Server { host, replica, tasks: tasks.clone() })
    }

    async fn stop(self) {
        self.replica.shutdown().await;
        self.tasks.drain(LIMIT).await;
        self.host.close().await;
    }

    fn rows(&self) -> Vec<(Bytes, Bytes)> {
        self.replica.rows().scan(b"", None, usize::MAX).unwrap()
    }

    /// None if the server has failed instead.
    async fn caught_up(&self, with: &Server) -> Option<()> {
        self.applied(with.replica.applied()).await
    }

    /// Waits until all entries up to `upto` are applied. None if the server has failed instead.
    async fn applied(&self, upto: Position) -> Option<()> {
        let give_up = Instant::now() + LIMIT;
        while self.replica.applied() < upto {
            if self.tasks.is_failing() {
                return None;
            }
            assert!(Instant::now() < give_up, "{:?} of {upto:?}", self.replica.applied());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Some(())
    }
}

/// A group of three, of which one is down.
struct Group {
    folder: tempfile::TempDir,
    addresses: BTreeMap<u64, String>,
    up: Vec<Server>,
}

const DOWN: u64 = 3;

impl Group {
    /// Written to until everybody's log has been purged, and a bit more.
    async fn start() -> Group {
        let folder = tempfile::tempdir().unwrap();
        let mut addresses = BTreeMap::new();
        for id in 1..=3 {
            let listener = TcpNet.bind("127.0.0.1:0").await.unwrap();
            addresses.insert(id, listener.local_address().unwrap().to_string());
        }
        let mut up = Vec::new();
        for id in 1..=3 {
            up.push(Server::start(&folder.path().join(id.to_string()), id, &addresses).await.unwrap());
        }
        up[0].replica.initialize(addresses.clone()).await.unwrap();
        let mut group = Group { folder, addresses, up };
        group.write(0..2_000).await;
        let down = group.up.pop().unwrap();
        down.caught_up(&group.up[0]).await.unwrap();
        down.stop().await;
        group.write(2_000..2_050).await;
        group
    }

    async fn write(&self, numbers: std::ops::Range<u64>) {
        let write = async |number: u64| {
            let value = if number % 7 == 3 { String::new() } else { format!("{number:0>40}") };
            let command = Bytes::from(format!("key-{:03}={value}", number * 31 % 500));
            let give_up = Instant::now() + LIMIT;
            for server in self.up.iter().cycle() {
                match server.replica.write(command.clone()).await {
                    Ok(()) => return,
                    Err(error) => assert!(Instant::now() < give_up, "{error}"),
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        futures::stream::iter(numbers).for_each_concurrent(64, write).await;
    }

    /// Starts the server that is down on `folder`, and looks at what it has: its peers' rows, or nothing.
    async fn bring_back(&self, folder: &Path) -> Result<(), String> {
        let server = Server::start(folder, DOWN, &self.addresses).await.map_err(|error| error.to_string())?;
        let end = match server.caught_up(&self.up[0]).await {
            Some(()) => {
                assert_eq!(server.rows(), self.up[0].rows());
                Ok(())
            }
            None => Err(server.tasks.failed().await),
        };
        server.stop().await;
        end
    }

    fn folder_of(&self, id: u64) -> PathBuf {
        self.folder.path().join(id.to_string())
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_lost_are_a_peers_and_a_log_that_is_lost_is_not() {
    let group = Group::start().await;
    let without_rows = group.folder_of(DOWN);
    fs::remove_dir_all(without_rows.join("rows")).unwrap();
    group.bring_back(&without_rows).await.unwrap();
    group.bring_back(&without_rows).await.unwrap();

    // Its vote stood there.
    let without_log = group.folder.path().join("without-log");
    copy(&without_rows, &without_log);
    fs::remove_dir_all(without_log.join("wal")).unwrap();
    let why = group.bring_back(&without_log).await.unwrap_err();
    assert!(why.contains("the log does not know the group"), "{why}");
}

/// Entries that were never committed, since another leader wrote others in their place, and rows that were
/// made of those others.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_contradicts_the_fetched_rows_is_cut() {
    let folder = tempfile::tempdir().unwrap();
    let wal_folder = folder.path().join("wal");
    let (wal, _) = Wal::open(Arc::new(RealDisk), wal_folder.clone(), WalOptions::default()).await.unwrap();
    let entry = |term, index| (index, codec::encode_entry(&command(term, index, "old=1")));
    let (done, appended) = tokio::sync::oneshot::channel();
    wal.append(
        GROUP,
        (0..=9).map(|index| entry(1, index)).collect(),
        Box::new(|result| done.send(result).unwrap()),
    );
    appended.await.unwrap().unwrap();
    wal.purge(GROUP, 5, codec::encode_log_id(Some(&id(1, 5))));
    wal.close().await;

    let rows = Arc::new(RowStore::open(MemoryStore::default().tree(GROUP).unwrap()).unwrap());
    let mark = codec::encode_mark(Some(&id(2, 7)), &StoredMembership::default());
    rows.write(vec![("new".into(), Some("2".into()))], mark);
    let peers = PeerService::default();
    peers.add(GROUP, Arc::new(OnlyRows(rows)));
    let listener = TcpNet.bind("127.0.0.1:0").await.unwrap();
    let addresses =
        BTreeMap::from([(1, listener.local_address().unwrap().to_string()), (2, "127.0.0.1:0".to_owned())]);
    let token = PeerToken::new("secret").unwrap();
    let router = tonic::transport::Server::builder().add_service(peers.endpoint(1, token));
    let tasks = Tasks::new();
    let draining = tasks.draining();
    tokio::spawn(async move { serve(router, listener, draining).await.unwrap() });

    let server = Server::start(folder.path(), 2, &addresses).await.unwrap();
    assert_eq!(server.rows(), [("new".into(), "2".into())]);
    // Told a moment after the start.
    server.applied(Position { term: 2, index: 7 }).await.unwrap();
    server.stop().await;
    tasks.drain(LIMIT).await;
    let (wal, found) = Wal::open(Arc::new(RealDisk), wal_folder, WalOptions::default()).await.unwrap();
    let found = &found[&GROUP];
    assert!(found.entries.iter().all(|(index, _)| *index < 7), "{found:?}");
    wal.close().await;
}

/// A peer that gives its rows and does nothing else.
struct OnlyRows(Arc<RowStore>);

impl GroupHandler for OnlyRows {
    fn handle(&self, _: PeerKind, _: Bytes) -> BoxFuture<'static, Result<Bytes, String>> {
        futures::future::ready(Err("only rows".to_owned())).boxed()
    }

    fn install_snapshot(
        &self,
        _: SnapshotHeader,
        _: Vec<Bytes>,
    ) -> BoxFuture<'static, Result<Bytes, String>> {
        futures::future::ready(Err("only rows".to_owned())).boxed()
    }

    fn snapshot(&self) -> RowSnapshot {
        self.0.snapshot()
    }
}

/// Nobody but this server has its rows, so nothing may be thrown away.
#[tokio::test(flavor = "multi_thread")]
async fn the_only_replica_does_not_start_without_its_rows() {
    let folder = tempfile::tempdir().unwrap();
    let listener = TcpNet.bind("127.0.0.1:0").await.unwrap();
    let addresses = BTreeMap::from([(1, listener.local_address().unwrap().to_string())]);
    drop(listener);
    let server = Server::start(folder.path(), 1, &addresses).await.unwrap();
    server.replica.initialize(addresses.clone()).await.unwrap();
    let group = Group { folder, addresses, up: vec![server] };
    group.write(0..2_000).await;
    let Group { folder, addresses, mut up } = group;
    up.pop().unwrap().stop().await;

    let conf = folder.path().join("rows/conf");
    let mut content = fs::read(&conf).unwrap();
    content.iter_mut().for_each(|byte| *byte ^= 0x55);
    fs::write(&conf, content).unwrap();
    let Err(error) = Server::start(folder.path(), 1, &addresses).await else { panic!("it has started") };
    let why = error.to_string();
    assert!(why.contains("no peer to get them from; the damaged rows were moved to"), "{why}");
    assert!(folder.path().join("rows.damaged-0/conf").exists());
}

/// More than the log's last append has, which says that the log ends.
const LAST_APPEND_BYTES: usize = 400;

/// Of each kind of file in turn, and its kind.
fn some_file(folder: &Path, turn: usize, chance: &mut StdRng) -> (String, PathBuf) {
    let mut kinds: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for file in files(folder).into_iter().filter(|file| fs::metadata(file).unwrap().len() > 0) {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let kind = name.split(['-', '.']).next().unwrap_or_default().to_owned();
        kinds.entry(kind).or_default().push(file);
    }
    let (kind, files) = kinds.iter().nth(turn % kinds.len()).unwrap();
    (kind.clone(), files.choose(chance).unwrap().clone())
}

/// `AFDG_FLIPS` says how many of them, `AFDG_SEED` which.
#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_in_any_file_is_refused_or_mended() {
    let number = |name: &str, otherwise: u64| {
        std::env::var(name).map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
    };
    let (flips, seed) = (number("AFDG_FLIPS", 30), number("AFDG_SEED", 1));
    let group = Group::start().await;
    let folder = group.folder_of(DOWN);
    let mut chance = StdRng::seed_from_u64(seed);
    let mut ends: BTreeMap<String, [u32; 3]> = BTreeMap::new();
    for flip in 0..flips {
        let (kind, file) = some_file(&folder, flip as usize, &mut chance);
        let whole = fs::read(&file).unwrap();
        // Space that is only reserved is not looked at, and what the last append was can't be told from one
        // that was cut off: see wal/recovery.rs.
        let used = whole.iter().rposition(|&byte| byte != 0).map_or(1, |last| last + 1);
        let bits = if kind == "wal" { used - LAST_APPEND_BYTES } else { used } * 8;
        let bit = chance.random_range(0..bits);
        let mut damaged = whole.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        fs::write(&file, damaged).unwrap();

        let mut end = group.bring_back(&folder).await;
        if kind != "wal" && end.is_err() {
            // It found out only when it read there.
            end = group.bring_back(&folder).await;
        }
        let rebuilt = fs::remove_dir_all(folder.join("rows.damaged-0")).is_ok();
        eprintln!("seed {seed}, flip {flip}: {}, bit {bit}: {end:?}, rebuilt: {rebuilt}", file.display());
        let counts = ends.entry(kind).or_default();
        match (&end, rebuilt) {
            (Err(why), _) => {
                assert!(why.contains("damaged at byte"), "{why}");
                fs::write(&file, whole).unwrap();
                group.bring_back(&folder).await.unwrap();
                counts[0] += 1;
            }
            (Ok(()), true) => counts[1] += 1,
            (Ok(()), false) => counts[2] += 1,
        }
        let from = 3_000 + 100 * flip;
        group.write(from..from + chance.random_range(0..50)).await;
    }
    eprintln!("refused, rebuilt, without harm: {ends:?}");
    let all = |which: usize| ends.values().map(|counts| counts[which]).sum::<u32>();
    assert!(all(0) > 0 && all(1) > 0, "{ends:?}");
}
