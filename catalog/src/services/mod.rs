//! What the catalog answers. Each handler is decode, call, encode.

mod cluster;
mod nodes;
mod record;
mod transfer;

pub(crate) use cluster::ClusterService;
pub(crate) use nodes::NodesService;

use crate::{
    hints::HintTable,
    log::CatalogLog,
    refusal::{done, not_leader, of_write_error},
    soft::Soft,
};
use afdg_catalog_machine::{CatalogState, Command, Reply};
use afdg_proto::peer_auth::PeerToken;
use afdg_replication::Lead;
use afdg_runtime::World;
use afdg_types::{GridError, Reason};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::{sync::watch, time::timeout};

/// One command, from proposal to outcome.
const WRITE_LIMIT: Duration = Duration::from_secs(4);
/// Finding out whether this server still leads.
const CONFIRM_LIMIT: Duration = Duration::from_secs(1);
/// Largest command that is proposed: what the machine would take at most, with room for names. A larger
/// one would be refused when applied, but would have to be replicated first.
const COMMAND_BYTES_MAX: usize = afdg_catalog_machine::limits::TYPES_BYTES_MAX + 1024 * 1024;

/// What the services share.
pub(crate) struct Core {
    pub(crate) log: Arc<dyn CatalogLog>,
    pub(crate) state: watch::Receiver<Arc<CatalogState>>,
    pub(crate) soft: Arc<Soft>,
    pub(crate) hints: Arc<HintTable>,
    pub(crate) id: u64,
    pub(crate) servers: BTreeMap<u64, String>,
    pub(crate) world: World,
    pub(crate) peer_token: PeerToken,
    pub(crate) lease: Duration,
}

impl Core {
    fn lead(&self) -> Lead {
        *self.log.lead().borrow()
    }

    fn state(&self) -> Arc<CatalogState> {
        Arc::clone(&self.state.borrow())
    }

    /// Makes sure that this server leads, now and by the word of a majority, and that its state is up to
    /// date; returns its term. A server that was cut off from the others and still believes in itself
    /// would otherwise take heartbeats that the real leader misses.
    async fn confirm_lead(&self) -> Result<u64, GridError> {
        let confirmed = timeout(CONFIRM_LIMIT, self.log.linearize()).await;
        let lead = self.lead();
        match confirmed {
            Ok(Ok(())) if lead.is_mine => Ok(lead.term),
            Ok(Ok(())) => Err(not_leader(lead, &self.servers)),
            Ok(Err(error)) => Err(of_write_error(&error, lead, &self.servers)),
            Err(_) => Err(GridError::new(
                Reason::NoLeader,
                "this catalog server leads, but can't reach a majority of the others",
            )),
        }
    }

    async fn propose(&self, command: &Command) -> Result<Reply, GridError> {
        let bytes = command.encode().map_err(|error| GridError::new(Reason::Internal, error.to_string()))?;
        if bytes.len() > COMMAND_BYTES_MAX {
            let message =
                format!("the request has {} bytes; at most {COMMAND_BYTES_MAX} are taken", bytes.len());
            return Err(GridError::new(Reason::InvalidRequest, message));
        }
        match timeout(WRITE_LIMIT, self.log.write(bytes)).await {
            Ok(Ok(outcome)) => done(outcome),
            Ok(Err(error)) => Err(of_write_error(&error, self.lead(), &self.servers)),
            Err(_) => Err(GridError::new(
                Reason::OutcomeUnknown,
                "the catalog could not commit in time; asking again tells whether it did",
            )),
        }
    }
}

#[cfg(test)]
mod tests;
