//! An administrator wants something done. It is checked and recorded here, with who and why, before
//! anybody carries it out: an action without a record can't happen, a record without its action can.

use crate::{
    AuditRecord, CatalogState, Refusal, Reply,
    limits::{ACTION_PART_BYTES_MAX, ACTOR_BYTES_MAX, REASON_BYTES_MAX},
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
    /// Carried out by the leaders of the regions that they stand in. `first` is one's name, `filter` says in words
    /// by what they were chosen, and is empty if by name.
    SettleDeadLetters { retry: bool, count: u32, first: String, filter: String },
    /// Carried out by the leaders of their agents' regions. `first` names one, `filter` is as above.
    CancelSchedules { count: u32, first: String, filter: String },
}

impl fmt::Display for AdminAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AdminAction::TransferLeader { region, to } => {
                write!(f, "transfer the lead of region {region} to node {to}")
            }
            AdminAction::SettleDeadLetters { retry, count, first, filter } => {
                let verb = if *retry { "retry" } else { "drop" };
                let (letters, others) = if *count == 1 { ("letter", "") } else { ("letters", " and others") };
                write!(f, "{verb} {count} dead {letters}: {first}{others}")?;
                if filter.is_empty() { Ok(()) } else { write!(f, " ({filter})") }
            }
            AdminAction::CancelSchedules { count, first, filter } => {
                let (schedules, others) =
                    if *count == 1 { ("schedule", "") } else { ("schedules", " and others") };
                write!(f, "cancel {count} {schedules}: {first}{others}")?;
                if filter.is_empty() { Ok(()) } else { write!(f, " ({filter})") }
            }
        }
    }
}

impl RecordAction {
    pub(crate) fn apply(self, state: &mut CatalogState, index: u64) -> Result<Reply, Refusal> {
        state.formed()?;
        check_who_and_why(&self.actor, &self.reason)?;
        match &self.action {
            AdminAction::TransferLeader { region, to } => {
                if !state.region(*region)?.replicas.contains(to) {
                    return Err(Refusal::NotAReplica { node: *to, region: *region });
                }
            }
            AdminAction::SettleDeadLetters { first, filter, .. }
            | AdminAction::CancelSchedules { first, filter, .. } => {
                check_text("names", first, ACTION_PART_BYTES_MAX)?;
                check_length("filter", filter, ACTION_PART_BYTES_MAX)?;
            }
        }
        let (actor, reason, action) = (self.actor, self.reason, self.action.to_string());
        state.audit(AuditRecord { index, at_ms: self.at_ms, actor, reason, action });
        Ok(Reply::Recorded { index })
    }
}

/// Every admin action says who asks for it and why.
pub(super) fn check_who_and_why(actor: &str, reason: &str) -> Result<(), Refusal> {
    check_text("actor", actor, ACTOR_BYTES_MAX)?;
    check_text("reason", reason, REASON_BYTES_MAX)
}

fn check_text(field: &'static str, text: &str, max: usize) -> Result<(), Refusal> {
    if text.trim().is_empty() {
        let problem = "is missing: every admin action says who asks for it and why".to_owned();
        return Err(Refusal::Invalid { field, problem });
    }
    check_length(field, text, max)
}

fn check_length(field: &'static str, text: &str, max: usize) -> Result<(), Refusal> {
    if text.len() <= max {
        return Ok(());
    }
    let problem = format!("must have at most {max} bytes; got {}", text.len());
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
        assert_frozen(
            Command::RecordAction(RecordAction {
                actor: "ann".to_owned(),
                reason: "why".to_owned(),
                action: AdminAction::SettleDeadLetters {
                    retry: true,
                    count: 300,
                    first: "17@t.T/a".to_owned(),
                    filter: "type t.T".to_owned(),
                },
                at_ms: 1_700_000_000_000,
            }),
            "010503616e6e037768790101ac0208313740742e542f61087479706520742e5480d095ffbc31",
        );
        assert_frozen(
            Command::RecordAction(RecordAction {
                actor: "ann".to_owned(),
                reason: "why".to_owned(),
                action: AdminAction::CancelSchedules {
                    count: 300,
                    first: "rent of t.T/a".to_owned(),
                    filter: "type t.T".to_owned(),
                },
                at_ms: 1_700_000_000_000,
            }),
            "010503616e6e0377687902ac020d72656e74206f6620742e542f61087479706520742e5480d095ffbc31",
        );
    }
}
