//! A server that has lost its rows, and not its log, gets them from a peer.
//!
//! Rows are what the committed entries of a group make, the same on every replica. So a peer's rows can take
//! the place of lost ones if they reach up to where this server's own log begins, and the replica goes on
//! from there as after any restart. Its log and its vote stay: nothing that it has promised is forgotten.
//! What the log holds in contradiction to the peer's rows was never committed, and is cut off, as it is when
//! a leader's snapshot is installed (Ongaro and Ousterhout, In Search of an Understandable Consensus
//! Algorithm, section 7).

use crate::{
    codec,
    host::{ReplicaHost, StartError, lock},
    peers::SnapshotHeader,
    raft_types::{LogId, SnapshotMeta},
    row_store::RowStore,
};
use afdg_types::planted::{Bug, planted};
use bytes::Bytes;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::{sync::oneshot, time::timeout};

/// How long one peer may take to send all rows.
const FETCH_TIMEOUT: Duration = Duration::from_secs(60);
/// Between two rounds of asking all peers.
const ASK_AGAIN: Duration = Duration::from_secs(1);

impl ReplicaHost {
    /// Whether the group's rows end before the log begins, so that its replica can't start until they were
    /// fetched.
    pub fn lacks_rows(&self, group: u64) -> Result<bool, StartError> {
        let applied = self.stored_rows(group)?.1;
        let lacks = self.purged(group) > applied;
        if lacks {
            self.witness().lacks_rows(group);
        }
        Ok(lacks)
    }

    /// Gets the group's rows from the first peer that has them. `peers` tells the ids and addresses of the
    /// group's other members, and is asked before each round; rounds go on until one succeeds. An error says
    /// that this server can't store them.
    pub async fn fetch_rows(
        &self,
        group: u64,
        peers: impl Fn() -> BTreeMap<u64, String>,
    ) -> Result<(), StartError> {
        loop {
            for (peer, address) in peers() {
                let fetched =
                    timeout(FETCH_TIMEOUT, self.links().fetch_snapshot(&address, peer, group)).await;
                let checked = match fetched {
                    Ok(Ok(fetched)) => self.check(group, fetched),
                    Ok(Err(error)) => Err(error.to_string()),
                    Err(_) => Err(format!("not all of them came within {FETCH_TIMEOUT:?}")),
                };
                match checked {
                    Ok((meta, chunks)) => {
                        self.take_over(group, meta, chunks).await.map_err(|why| StartError::Group {
                            group,
                            why: format!("a peer's rows can't be stored: {why}"),
                        })?;
                        tracing::info!(group, peer, "the rows were rebuilt from a peer's");
                        return Ok(());
                    }
                    Err(why) => tracing::warn!(group, peer, why, "no rows to rebuild this server's from"),
                }
            }
            tokio::time::sleep(ASK_AGAIN).await;
        }
    }

    /// What a peer sent, if it can be used here.
    fn check(
        &self,
        group: u64,
        (header, chunks): (SnapshotHeader, Vec<Bytes>),
    ) -> Result<(SnapshotMeta, Vec<Bytes>), String> {
        let meta = codec::decode_snapshot_meta(&header.meta).map_err(|error| error.to_string())?;
        let (upto, purged) = (meta.last_log_id.map(|id| id.index()), self.purged(group));
        if upto < purged && !planted(Bug::RebuildBehindLog) {
            return Err(format!("they reach up to {upto:?}, and the log here begins after {purged:?}"));
        }
        for chunk in &chunks {
            codec::decode_rows(chunk).map_err(|error| error.to_string())?;
        }
        Ok((meta, chunks))
    }

    async fn take_over(&self, group: u64, meta: SnapshotMeta, chunks: Vec<Bytes>) -> Result<(), String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        if let Some(last) = &meta.last_log_id {
            self.cut_contradiction(group, last).await?;
        }
        let (rows, _) = self.stored_rows(group).map_err(|error| text(&error))?;
        let mark = codec::encode_snapshot_meta(&meta);
        self.checkpointer().install(&rows, chunks, mark).await.map_err(|error| text(&error))
    }

    /// Cuts the log where it holds another entry than the committed one, before the rows are stored: an end
    /// that was never committed may be gone at any time, rows that contradict the log may not be there.
    async fn cut_contradiction(&self, group: u64, committed: &LogId) -> Result<(), String> {
        let from = committed.index();
        let (done, cut) = oneshot::channel();
        {
            let mut recovered = lock(self.recovered());
            let Some(recovered) = recovered.get_mut(&group) else { return Ok(()) };
            let Some((_, entry)) = recovered.entries.iter().find(|(index, _)| *index == from) else {
                return Ok(());
            };
            let entry = codec::decode_entry(entry).map_err(|error| error.to_string())?;
            if entry.log_id == *committed {
                return Ok(());
            }
            recovered.entries.retain(|(index, _)| *index < from);
            self.witness().truncated(group, from);
            self.wal().truncate_from(group, from, Box::new(move |result| drop(done.send(result))));
        }
        cut.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
    }

    /// The last index that the recovered log lacks.
    fn purged(&self, group: u64) -> Option<u64> {
        lock(self.recovered()).get(&group)?.purged.as_ref().map(|(index, _)| *index)
    }

    /// The group's rows, and up to where they reach.
    pub(crate) fn stored_rows(&self, group: u64) -> Result<(Arc<RowStore>, Option<u64>), StartError> {
        let failed = |error: &dyn std::fmt::Display| StartError::Group { group, why: error.to_string() };
        let tree = self.store().tree(group).map_err(|error| failed(&error))?;
        let rows = RowStore::open(tree).map_err(|error| failed(&error))?;
        let applied = match rows.mark() {
            Some(mark) => codec::decode_mark(&mark).map_err(|error| failed(&error))?.0,
            None => None,
        };
        Ok((Arc::new(rows), applied.map(|id| id.index())))
    }
}
