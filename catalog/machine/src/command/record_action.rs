//! An administrator wants something done. It is checked and recorded here, with who and why, before
//! anybody carries it out: an action without a record can't happen, a record without its action can.

use crate::{
    AuditRecord, CatalogState, Refusal, Reply,
    limits::{ACTOR_BYTES_MAX, REASON_BYTES_MAX},
};
use afdg_types::{NodeId, RegionId};
use serde::{Deserialize, Serialize};
use std::fmt;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordAction {
    pub actor: String,
    pub reason: String,
    pub action: AdminAction,
    pub at_ms: u64,
}

/// What an administrator can ask for. New ones go to the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AdminAction {
    /// Carried out by the region's leader; the catalog only hears of it by reports.
    TransferLeader { region: RegionId, to: NodeId },
}

impl fmt::Display for AdminAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AdminAction::TransferLeader { region, to } => {
                write!(f, "transfer the lead of region {region} to node {to}")
            }
        }
    }
}

impl RecordAction {
    pub(crate) fn apply(self, state: &mut CatalogState, index: u64) -> Result<Reply, Refusal> {
        state.formed()?;
        check_text("actor", &self.actor, ACTOR_BYTES_MAX)?;
        check_text("reason", &self.reason, REASON_BYTES_MAX)?;
        match self.action {
            AdminAction::TransferLeader { region, to } => {
                if !state.region(region)?.replicas.contains(&to) {
                    return Err(Refusal::NotAReplica { node: to, region });
                }
            }
        }
        let (actor, reason, action) = (self.actor, self.reason, self.action.to_string());
        state.audit(AuditRecord { index, at_ms: self.at_ms, actor, reason, action });
        Ok(Reply::Recorded { index })
    }
}

fn check_text(field: &'static str, text: &str, max: usize) -> Result<(), Refusal> {
    let problem = if text.trim().is_empty() {
        "is missing: every admin action says who asks for it and why".to_owned()
    } else if text.len() > max {
        format!("must have at most {max} bytes; got {}", text.len())
    } else {
        return Ok(());
    };
    Err(Refusal::Invalid { field, problem })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Command, command::assert_frozen};

    #[test]
    fn stored_bytes_never_change() {
        assert_frozen(
            Command::RecordAction(RecordAction {
                actor: "ann".to_owned(),
                reason: "why".to_owned(),
                action: AdminAction::TransferLeader { region: RegionId(4), to: NodeId(2) },
                at_ms: 1_700_000_000_000,
            }),
            "010503616e6e0377687900040280d095ffbc31",
        );
    }
}
