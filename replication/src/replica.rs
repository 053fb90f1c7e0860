//! One replica of one group: openraft around a machine.

use crate::{
    checkpoint::Checkpointer,
    codec,
    host::{ReplicaHost, StartError},
    log_store::LogStore,
    machine::{Machine, Observer, Position},
    peers::{GroupHandler, SnapshotHeader},
    raft_types::{CommandBytes, Types},
    row_store::{RowSnapshot, RowStore},
    state_machine::{SnapshotRows, StateMachine},
};
use afdg_proto::pb::internal::PeerKind;
use afdg_types::planted::{Bug, planted, stragglers};
use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use openraft::{
    Raft, ReadPolicy, ServerState,
    async_runtime::WatchReceiver,
    error::{ClientWriteError, RaftError},
    impls::{BasicNode, ProgressResponder},
    storage::Snapshot,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tokio::{sync::watch, time::Instant};

type MachineRaft<M> = Raft<Types, StateMachine<M>>;

/// Who leads a group, as this replica knows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lead {
    pub term: u64,
    pub leader: Option<u64>,
    /// This replica leads in `term`.
    pub is_mine: bool,
}

/// Why a write or a read was not done, or may not have been.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// Nothing was done. The leader's id and address, if known.
    #[error("this replica does not lead")]
    NotLeader { hint: Option<(u64, String)> },
    /// It may be done or not.
    #[error("leadership was lost before the outcome was known")]
    Unknown,
    /// The replica has stopped.
    #[error("the replica has stopped: {0}")]
    Stopped(String),
}

/// Cheap to clone.
pub struct Replica<M: Machine> {
    raft: MachineRaft<M>,
    group: u64,
    rows: Arc<RowStore>,
    checkpointer: Checkpointer,
    lead: watch::Receiver<Lead>,
    host: ReplicaHost,
}

impl<M: Machine> Clone for Replica<M> {
    fn clone(&self) -> Self {
        Self {
            raft: self.raft.clone(),
            group: self.group,
            rows: Arc::clone(&self.rows),
            checkpointer: self.checkpointer.clone(),
            lead: self.lead.clone(),
            host: self.host.clone(),
        }
    }
}

impl<M: Machine> Replica<M> {
    /// Starts the replica on what the server's folder holds of the group; a new one waits to be
    /// initialized or to hear from a leader.
    pub async fn start(
        host: &ReplicaHost,
        group: u64,
        machine: M,
        observer: Box<dyn Observer<M::Outcome>>,
    ) -> Result<Self, StartError> {
        let (log, rows, known) = host.open_group(group)?;
        // A new replica has promised nothing to anybody.
        let votes_from = Instant::now() + if known { host.vote_pause() } else { Duration::ZERO };
        Self::start_on(host, group, machine, observer, (log, rows), votes_from).await
    }

    async fn start_on(
        host: &ReplicaHost,
        group: u64,
        machine: M,
        observer: Box<dyn Observer<M::Outcome>>,
        (log, rows): (LogStore, Arc<RowStore>),
        votes_from: Instant,
    ) -> Result<Self, StartError> {
        let failed = |error: &dyn std::fmt::Display| StartError::Group { group, why: error.to_string() };
        let checkpointer = host.checkpointer();
        let witness = (group, host.witness());
        let state_machine =
            StateMachine::open(machine, Arc::clone(&rows), observer, checkpointer.clone(), witness)
                .map_err(|error| failed(&error))?;
        let raft = Raft::new(host.server_id(), host.raft_config(), host.networks(group), log, state_machine)
            .await
            .map_err(|error| failed(&error))?;
        let lead = watch_lead(host, group, &raft);
        let replica = Self { raft, group, rows, checkpointer, lead, host: host.clone() };
        let elections = replica.raft.clone();
        host.tasks().spawn("allow-elections", afdg_runtime::OnEnd::PanicStopsServer, async move {
            tokio::time::sleep_until(votes_from).await;
            elections.runtime_config().elect(true);
        });
        let handler = Handler { raft: replica.raft.clone(), rows: Arc::clone(&replica.rows), votes_from };
        host.register(group, Arc::new(handler), Arc::new(replica.clone()));
        Ok(replica)
    }

    pub fn group(&self) -> u64 {
        self.group
    }

    /// Committed and applied rows.
    pub fn rows(&self) -> &Arc<RowStore> {
        &self.rows
    }

    /// Whether the group was ever formed here.
    pub async fn is_initialized(&self) -> bool {
        self.raft.is_initialized().await.unwrap_or(false)
    }

    /// Forms the group. Harmless if it is formed already.
    pub async fn initialize(&self, members: BTreeMap<u64, String>) -> Result<(), WriteError> {
        if self.is_initialized().await {
            return Ok(());
        }
        let members: BTreeMap<u64, BasicNode> =
            members.into_iter().map(|(id, addr)| (id, BasicNode { addr })).collect();
        match self.raft.initialize(members).await {
            Ok(()) | Err(RaftError::APIError(openraft::error::InitializeError::NotAllowed(_))) => Ok(()),
            Err(error) => Err(WriteError::Stopped(error.to_string())),
        }
    }

    /// Writes a command if this replica still leads in `term`, and waits for its outcome. Writes whose
    /// futures are first polled one after the other enter the log in that order; in a set of futures that
    /// takes [`afdg_runtime::in_order`]. Any error leaves open whether the command took effect.
    pub async fn write_in_term(&self, term: u64, command: Bytes) -> Result<M::Outcome, WriteError> {
        let leader = crate::raft_types::LogId::new_term_index(term, 0);
        let (responder, complete) = ProgressResponder::complete_only();
        let submitted = self
            .raft
            .write(CommandBytes(command.clone()))
            .with_leader(*leader.committed_leader_id())
            .responder(responder);
        submitted.await.map_err(|error| WriteError::Stopped(error.to_string()))?;
        match complete.await {
            Ok(Ok(response)) => {
                let outcome = response.data.0.and_then(|answer| answer.downcast::<M::Outcome>().ok());
                outcome.map(|outcome| *outcome).ok_or(WriteError::Unknown)
            }
            Ok(Err(_)) | Err(_) => {
                if stragglers() {
                    tokio::spawn(straggle(self.raft.clone(), command));
                }
                Err(WriteError::Unknown)
            }
        }
    }

    /// Writes a command and waits for its outcome.
    pub async fn write(&self, command: Bytes) -> Result<M::Outcome, WriteError> {
        let response = self.raft.client_write(CommandBytes(command)).await.map_err(|error| match error {
            RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => WriteError::NotLeader {
                hint: forward.leader_id.zip(forward.leader_node.map(|node| node.addr)),
            },
            RaftError::APIError(error) => WriteError::Stopped(error.to_string()),
            // The core dropped the responder: a new leader may have cut the entry off, or not.
            RaftError::Fatal(error) => WriteError::Stopped(error.to_string()),
        })?;
        let outcome = response.data.0.and_then(|answer| answer.downcast::<M::Outcome>().ok());
        outcome.map(|outcome| *outcome).ok_or(WriteError::Unknown)
    }

    /// After it returns, the rows hold everything that was acknowledged before it was called. Uses the
    /// leader's lease where it stands, and asks a majority where it does not.
    pub async fn linearize(&self) -> Result<(), WriteError> {
        if planted(Bug::ReadWithoutLease) {
            return Ok(());
        }
        if self.raft.ensure_linearizable(ReadPolicy::LeaseRead).await.is_ok() {
            return Ok(());
        }
        match self.raft.ensure_linearizable(ReadPolicy::ReadIndex).await {
            Ok(_) => Ok(()),
            Err(RaftError::Fatal(error)) => Err(WriteError::Stopped(error.to_string())),
            Err(RaftError::APIError(_)) => {
                let lead = *self.lead.borrow();
                let address = lead.leader.and_then(|leader| self.address_of(leader));
                Err(WriteError::NotLeader { hint: lead.leader.zip(address) })
            }
        }
    }

    fn address_of(&self, server: u64) -> Option<String> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        metrics.membership_config.membership().get_node(&server).map(|node| node.addr.clone())
    }

    pub fn lead(&self) -> watch::Receiver<Lead> {
        self.lead.clone()
    }

    /// Up to where entries were applied.
    pub fn applied(&self) -> Position {
        let metrics = self.raft.data_metrics();
        let applied = metrics.borrow_watched().last_applied;
        applied.map_or_else(Position::default, |id| Position {
            term: id.committed_leader_id().term,
            index: id.index(),
        })
    }

    /// The group's members.
    pub fn members(&self) -> BTreeSet<u64> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        metrics.membership_config.membership().voter_ids().collect()
    }

    /// The followers that have all but a few entries, if this replica leads.
    pub fn followers_in_step(&self) -> BTreeSet<u64> {
        /// Entries that a follower may lack and still take over quickly.
        const IN_STEP_ENTRIES: u64 = 1_000;
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let last = metrics.last_log_index.unwrap_or(0);
        let in_step = |matched: &Option<crate::raft_types::LogId>| {
            matched.as_ref().is_some_and(|id| id.index() + IN_STEP_ENTRIES >= last)
        };
        let progress = metrics.replication.iter().flatten();
        progress.filter(|(id, matched)| **id != metrics.id && in_step(matched)).map(|(id, _)| *id).collect()
    }

    /// Whether checkpoints don't keep up with what is applied, so that memory and the log would grow.
    pub fn storage_is_behind(&self) -> bool {
        self.host.is_behind(self.rows.dirty_bytes())
    }

    /// Asks the group to be led by `to`; returns before it is. Nothing happens if this replica is `to`:
    /// openraft would wait for ever to be followed by itself.
    pub async fn transfer_leader(&self, to: u64) -> Result<(), WriteError> {
        if to == self.host.server_id() {
            return Ok(());
        }
        self.raft.trigger().transfer_leader(to).await.map_err(|error| WriteError::Stopped(error.to_string()))
    }

    pub async fn shutdown(&self) {
        self.host.unregister(self.group);
        if let Err(error) = self.raft.shutdown().await {
            tracing::warn!(group = self.group, %error, "a replica did not stop cleanly");
        }
    }
}

/// A replica as the server's checkpoint schedule sees it.
pub(crate) trait Checkpointed: Send + Sync + 'static {
    fn dirty_bytes(&self) -> usize;
    /// Makes a checkpoint, and has the log purged up to the one before it.
    fn checkpoint(&self, previous: Option<u64>) -> BoxFuture<'_, Result<Option<u64>, String>>;
}

impl<M: Machine> Checkpointed for Replica<M> {
    fn dirty_bytes(&self) -> usize {
        self.rows.dirty_bytes()
    }

    fn checkpoint(&self, previous: Option<u64>) -> BoxFuture<'_, Result<Option<u64>, String>> {
        async move {
            let mark = self.checkpointer.checkpoint(&self.rows).await.map_err(|error| error.to_string())?;
            let Some(mark) = mark else { return Ok(None) };
            let (applied, _) = codec::decode_mark(&mark).map_err(|error| error.to_string())?;
            // openraft purges no further than the snapshot that it knows of; building one is cheap right
            // after a checkpoint, since nothing or little is dirty.
            self.raft.trigger().snapshot().await.map_err(|error| error.to_string())?;
            if let Some(upto) = previous {
                self.raft.trigger().purge_log(upto).await.map_err(|error| error.to_string())?;
            }
            Ok(applied.map(|id| id.index()))
        }
        .boxed()
    }
}

/// Writes the command once more as soon as this replica leads again, in whatever term.
async fn straggle<M: Machine>(raft: MachineRaft<M>, command: Bytes) {
    const TRIES: u32 = 40;
    for _ in 0..TRIES {
        tokio::time::sleep(Duration::from_millis(100)).await;
        if raft.client_write(CommandBytes(command.clone())).await.is_ok() {
            return;
        }
    }
}

/// Tells who leads, and stops the server when the replica dies.
fn watch_lead<M: Machine>(host: &ReplicaHost, group: u64, raft: &MachineRaft<M>) -> watch::Receiver<Lead> {
    let mut metrics = raft.server_metrics();
    let own = host.server_id();
    let tasks = host.tasks().clone();
    let raft = raft.clone();
    let witness = host.witness();
    let read = move |metrics: &openraft::type_config::alias::WatchReceiverOf<
        Types,
        openraft::metrics::RaftServerMetrics<Types>,
    >| {
        let metrics = metrics.borrow_watched();
        Lead {
            term: metrics.vote.leader_id.term,
            leader: metrics.current_leader,
            is_mine: metrics.state == ServerState::Leader && metrics.current_leader == Some(own),
        }
    };
    let (sender, lead) = watch::channel(read(&metrics));
    host.tasks().spawn("watch-lead", afdg_runtime::OnEnd::Finish, async move {
        while metrics.changed().await.is_ok() {
            let now = read(&metrics);
            if now.is_mine {
                witness.led(group, now.term);
            }
            sender.send_if_modified(|lead| std::mem::replace(lead, now) != now);
        }
        sender.send_replace(Lead::default());
        if let Err(error) = raft.metrics().borrow_watched().running_state.clone()
            && !matches!(error, openraft::error::Fatal::Stopped)
        {
            tracing::error!(group, %error, "a replica died");
            tasks.fail(format!("the replica of group {group} died: {error}"));
        }
    });
    lead
}

struct Handler<M: Machine> {
    raft: MachineRaft<M>,
    rows: Arc<RowStore>,
    /// Before it stopped this replica may have promised a leader to vote for nobody else for a while; the
    /// leader reads by that promise, and openraft does not remember it.
    votes_from: Instant,
}

impl<M: Machine> GroupHandler for Handler<M> {
    fn handle(&self, kind: PeerKind, body: Bytes) -> BoxFuture<'static, Result<Bytes, String>> {
        let raft = self.raft.clone();
        let votes = Instant::now() >= self.votes_from;
        async move {
            let text = |error: &dyn std::fmt::Display| error.to_string();
            match kind {
                PeerKind::Vote | PeerKind::PreVote if !votes => Err("it has just started".to_owned()),
                PeerKind::Append => {
                    let request = codec::decode_append_request(&body).map_err(|error| text(&error))?;
                    let response = raft.append_entries(request).await.map_err(|error| text(&error))?;
                    Ok(codec::encode_append_response(&response))
                }
                PeerKind::Vote => {
                    let request = codec::decode_vote_request(&body).map_err(|error| text(&error))?;
                    let response = raft.vote(request).await.map_err(|error| text(&error))?;
                    Ok(codec::encode_vote_response(&response))
                }
                PeerKind::PreVote => {
                    let request = codec::decode_vote_request(&body).map_err(|error| text(&error))?;
                    let response = raft.pre_vote(request).await.map_err(|error| text(&error))?;
                    Ok(codec::encode_vote_response(&response))
                }
                PeerKind::TransferLeader => {
                    let request = codec::decode_transfer(&body).map_err(|error| text(&error))?;
                    raft.handle_transfer_leader(request)
                        .await
                        .map_err(|error| text(&error))?
                        .map_err(|error| text(&error))?;
                    Ok(Bytes::new())
                }
                PeerKind::Unspecified => Err("the kind is missing".to_owned()),
            }
        }
        .boxed()
    }

    fn install_snapshot(
        &self,
        header: SnapshotHeader,
        chunks: Vec<Bytes>,
    ) -> BoxFuture<'static, Result<Bytes, String>> {
        let raft = self.raft.clone();
        async move {
            let vote = codec::decode_vote(&header.vote).map_err(|error| error.to_string())?;
            let meta = codec::decode_snapshot_meta(&header.meta).map_err(|error| error.to_string())?;
            // What can't be read must not reach openraft, for which a failed install is fatal.
            for chunk in &chunks {
                codec::decode_rows(chunk).map_err(|error| error.to_string())?;
            }
            let snapshot = Snapshot { meta, snapshot: SnapshotRows::Received(chunks) };
            let response =
                raft.install_full_snapshot(vote, snapshot).await.map_err(|error| error.to_string())?;
            Ok(codec::encode_vote(&response.vote))
        }
        .boxed()
    }

    fn snapshot(&self) -> RowSnapshot {
        self.rows.snapshot()
    }
}
