//! What callers get to hear: refusals of the machine and failures of the log as grid errors.

use afdg_catalog_machine::{Outcome, Refusal, Reply};
use afdg_replication::{Lead, WriteError};
use afdg_types::{GridError, Reason};
use std::collections::BTreeMap;

/// Metadata of `NOT_LEADER`: where the leader listens.
const LEADER_ADDRESS: &str = "leader_address";

pub(crate) fn done(outcome: Outcome) -> Result<Reply, GridError> {
    match outcome {
        Outcome::Done(reply) => Ok(reply),
        Outcome::Refused(refusal) => Err(of_refusal(&refusal)),
    }
}

fn of_refusal(refusal: &Refusal) -> GridError {
    let reason = match refusal {
        // A name is free once its node is heard of no more.
        Refusal::NotFormed | Refusal::NodesMissing { .. } | Refusal::NameInUse { .. } => Reason::NotReady,
        Refusal::WrongCluster { .. }
        | Refusal::DataOfAnotherNode { .. }
        | Refusal::UnknownData { .. }
        | Refusal::NodeReplaced { .. } => Reason::WrongCluster,
        Refusal::UnknownNode { .. } | Refusal::UnknownRegion { .. } => Reason::NotFound,
        Refusal::UnknownType { .. } => Reason::UnknownType,
        Refusal::AlreadyFormed { .. }
        | Refusal::AlreadyPlaced
        | Refusal::NodeStateChanged { .. }
        | Refusal::NotAReplica { .. }
        | Refusal::Invalid { .. }
        | Refusal::InvalidType { .. }
        | Refusal::Full { .. } => Reason::InvalidRequest,
        Refusal::UnknownCommand { .. } => Reason::Internal,
    };
    let error = GridError::new(reason, refusal.to_string());
    match refusal {
        Refusal::Invalid { field, .. } => error.with("field", field),
        _ => error,
    }
}

/// This server does not lead; whoever asks should ask the one that does.
pub(crate) fn not_leader(lead: Lead, servers: &BTreeMap<u64, String>) -> GridError {
    // A server that believes in itself, but could not confirm it, sends nobody back to itself.
    let leader = lead.leader.filter(|_| !lead.is_mine).and_then(|id| servers.get(&id));
    match leader {
        Some(address) => {
            let message = format!("this catalog server does not lead; {address} does");
            GridError::new(Reason::NotLeader, message).with(LEADER_ADDRESS, address)
        }
        None => GridError::new(Reason::NoLeader, "the catalog has no leader at the moment"),
    }
}

pub(crate) fn of_write_error(error: &WriteError, lead: Lead, servers: &BTreeMap<u64, String>) -> GridError {
    match error {
        WriteError::NotLeader { hint: Some((id, _)) } => {
            not_leader(Lead { term: lead.term, leader: Some(*id), is_mine: false }, servers)
        }
        WriteError::NotLeader { hint: None } => not_leader(lead, servers),
        WriteError::Unknown => GridError::new(
            Reason::OutcomeUnknown,
            "the catalog's leader changed before the outcome was known; asking again tells",
        ),
        WriteError::Stopped(why) => {
            GridError::new(Reason::Draining, format!("this catalog server is stopping: {why}"))
        }
    }
}
