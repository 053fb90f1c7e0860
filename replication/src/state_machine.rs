//! A [`Machine`] over a [`RowStore`], as openraft wants it.
//!
//! Building a snapshot is making a checkpoint: the rows below are then durable up to it, and the log may
//! be purged. What is sent to a peer is a consistent view of the rows at the time it is asked for.

use crate::{
    checkpoint::Checkpointer,
    codec,
    machine::{Machine, Observer, Position},
    raft_types::{Answer, Entry, LogId, SnapshotMeta, StoredMembership, Types},
    row_store::{RowSnapshot, RowStore, RowWriter},
    substitutes::Witness,
};
use afdg_types::planted::{Bug, planted};
use bytes::Bytes;
use futures::{Stream, TryStreamExt};
use openraft::{
    EntryPayload, OptionalSend, RaftSnapshotBuilder,
    storage::{EntryResponder, RaftStateMachine, Snapshot},
};
use std::{io, sync::Arc};

/// What a snapshot is made of.
pub enum SnapshotRows {
    /// This replica's rows, to be sent.
    Own(RowSnapshot),
    /// A peer's rows, received whole and checked, in the chunks they came in.
    Received(Vec<Bytes>),
}

pub struct StateMachine<M: Machine> {
    machine: M,
    rows: Arc<RowStore>,
    observer: Box<dyn Observer<M::Outcome>>,
    applied: Option<LogId>,
    membership: StoredMembership,
    checkpointer: Checkpointer,
    witness: (u64, Arc<dyn Witness>),
}

impl<M: Machine> StateMachine<M> {
    pub fn open(
        mut machine: M,
        rows: Arc<RowStore>,
        observer: Box<dyn Observer<M::Outcome>>,
        checkpointer: Checkpointer,
        witness: (u64, Arc<dyn Witness>),
    ) -> Result<Self, io::Error> {
        let (applied, membership) = read_mark(&rows)?;
        machine.restore(rows.as_ref()).map_err(io::Error::other)?;
        witness.1.restored(witness.0, position(applied.as_ref()), &rows);
        Ok(Self { machine, rows, observer, applied, membership, checkpointer, witness })
    }

    pub fn applied(&self) -> Position {
        position(self.applied.as_ref())
    }

    /// Applies the next entry, if it is there and both hold commands, and then `first` in its place.
    async fn swap_with_next<S>(&mut self, first: &Entry, entries: &mut S) -> Result<bool, io::Error>
    where
        S: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + OptionalSend,
    {
        let EntryPayload::Normal(command) = &first.payload else { return Ok(false) };
        let Some((second, _)) = entries.try_next().await? else { return Ok(false) };
        if let EntryPayload::Normal(later) = &second.payload {
            let (command, later) =
                (EntryPayload::Normal(command.clone()), EntryPayload::Normal(later.clone()));
            self.apply_one(Entry { log_id: first.log_id, payload: later })?;
            self.apply_one(Entry { log_id: second.log_id, payload: command })?;
        } else {
            self.apply_one(first.clone())?;
            self.apply_one(second)?;
        }
        Ok(true)
    }

    fn apply_one(&mut self, entry: Entry) -> Result<Option<M::Outcome>, io::Error> {
        let at = Position { term: entry.log_id.committed_leader_id().term, index: entry.log_id.index() };
        let mut writer = RowWriter::new(&self.rows);
        let mut applied = None;
        let outcome = match entry.payload {
            EntryPayload::Blank => None,
            EntryPayload::Normal(command) => {
                applied = Some(command.0.clone());
                Some(self.machine.apply(at, command.0, &mut writer).map_err(io::Error::other)?)
            }
            EntryPayload::Membership(membership) => {
                self.membership = StoredMembership::new(Some(entry.log_id), membership);
                None
            }
        };
        self.applied = Some(entry.log_id);
        writer.commit(codec::encode_mark(self.applied.as_ref(), &self.membership));
        self.machine.visible();
        let (group, witness) = &self.witness;
        let said = outcome.as_ref().map(|outcome| outcome as &dyn std::fmt::Debug);
        witness.applied(*group, at, applied.as_ref(), said, &self.rows);
        Ok(outcome)
    }
}

fn read_mark(rows: &RowStore) -> Result<(Option<LogId>, StoredMembership), io::Error> {
    match rows.mark() {
        Some(mark) => Ok(codec::decode_mark(&mark)?),
        None => Ok((None, StoredMembership::default())),
    }
}

fn position(id: Option<&LogId>) -> Position {
    id.map_or_else(Position::default, |id| Position {
        term: id.committed_leader_id().term,
        index: id.index(),
    })
}

fn snapshot_of(rows: &Arc<RowStore>) -> Result<Option<(SnapshotMeta, RowSnapshot)>, io::Error> {
    let snapshot = rows.snapshot();
    let Some(mark) = snapshot.mark() else { return Ok(None) };
    let meta = codec::decode_snapshot_meta(mark)?;
    Ok(Some((meta, snapshot)))
}

impl<M: Machine> RaftStateMachine<Types> for StateMachine<M> {
    type SnapshotData = SnapshotRows;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            if planted(Bug::ApplyOutOfOrder)
                && responder.is_none()
                && self.swap_with_next(&entry, &mut entries).await?
            {
                continue;
            }
            let at = position(Some(&entry.log_id));
            let outcome = self.apply_one(entry)?;
            match responder {
                Some(responder) => {
                    responder.send(Answer(outcome.map(|outcome| Box::new(outcome) as _)));
                    self.observer.applied(at, None);
                }
                None => self.observer.applied(at, outcome),
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        SnapshotBuilder { rows: Arc::clone(&self.rows), checkpointer: self.checkpointer.clone() }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: SnapshotRows,
    ) -> Result<(), io::Error> {
        let SnapshotRows::Received(chunks) = snapshot else {
            return Err(io::Error::other("a replica's own rows can't be installed over themselves"));
        };
        let mark = codec::encode_snapshot_meta(meta);
        self.checkpointer.install(&self.rows, chunks, mark).await?;
        let (applied, membership) = read_mark(&self.rows)?;
        self.applied = applied;
        self.membership = membership;
        self.machine.restore(self.rows.as_ref()).map_err(io::Error::other)?;
        let at = self.applied();
        self.witness.1.restored(self.witness.0, at, &self.rows);
        tracing::info!(index = at.index, "a peer's snapshot took the place of a replica's rows");
        self.observer.restored(at);
        Ok(())
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> Result<Option<openraft::type_config::alias::SnapshotOf<Types, SnapshotRows>>, io::Error> {
        Ok(snapshot_of(&self.rows)?.map(|(meta, rows)| Snapshot { meta, snapshot: SnapshotRows::Own(rows) }))
    }
}

/// Makes a checkpoint, and hands out the rows as they are then.
pub struct SnapshotBuilder {
    rows: Arc<RowStore>,
    checkpointer: Checkpointer,
}

impl RaftSnapshotBuilder<Types> for SnapshotBuilder {
    type SnapshotData = SnapshotRows;

    async fn build_snapshot(
        &mut self,
    ) -> Result<openraft::type_config::alias::SnapshotOf<Types, SnapshotRows>, io::Error> {
        let mark = self.checkpointer.checkpoint(&self.rows).await?;
        let Some(mark) = mark else {
            return Err(io::Error::other("nothing was applied yet: there is no snapshot to make"));
        };
        // The checkpoint's own position, though the rows handed out may be newer: the log may be purged
        // up to what is durable, no further.
        let meta = codec::decode_snapshot_meta(&mark)?;
        Ok(Snapshot { meta, snapshot: SnapshotRows::Own(self.rows.snapshot()) })
    }
}
