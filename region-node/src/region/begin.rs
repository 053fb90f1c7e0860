//! The start of a leadership: what comes before it is applied, and what earlier leaders did not finish is read.

use crate::replica::RegionReplica;
use afdg_region_machine::{
    Command, Outcome,
    table::{
        dead_letters,
        fence::Fence,
        inbox::{self, AcceptedSend},
        mailbox::{self, RecordedTurn},
        outbox,
        schedules::{self, Progress},
    },
};
use afdg_replication::WriteError;
use afdg_runtime::Blocking;
use afdg_types::{
    AgentRef, Rows, RowsError,
    planted::{Bug, planted},
};
use std::sync::Arc;

/// What earlier leaders left to do.
#[derive(Default)]
pub struct Backlog {
    /// Turns that may have touched others.
    pub(super) recorded: Vec<(AgentRef, RecordedTurn)>,
    pub(super) inbox: Vec<(AgentRef, AcceptedSend)>,
    pub(super) outbox: Vec<outbox::Lying>,
    pub(super) schedules: Vec<(AgentRef, String, Progress)>,
    pub(super) dead_letters: usize,
}

impl Backlog {
    fn read(rows: &dyn Rows) -> Result<Self, RowsError> {
        Ok(Self {
            recorded: mailbox::all(rows)?,
            inbox: inbox::all(rows)?,
            outbox: outbox::all(rows)?,
            schedules: schedules::all(rows)?,
            dead_letters: dead_letters::count(rows)?,
        })
    }
}

/// Why a new leader can't start.
pub enum ReadyError {
    Write(WriteError),
    Rows(RowsError),
}

/// Begins a leadership; returns what earlier leaders did not finish.
pub(super) async fn begin(
    replica: RegionReplica,
    threads: Arc<dyn Blocking>,
    term: u64,
    leadership: u64,
) -> Result<Backlog, ReadyError> {
    let first = Command { term, sequence: Fence::first_of(leadership), ops: Vec::new() };
    let encoded = first.encode().map_err(|error| ReadyError::Rows(RowsError(error.to_string())))?;
    match replica.write_in_term(term, encoded).await.map_err(ReadyError::Write)? {
        Outcome::Applied(_) => {}
        // An entry of a later leadership came first; or the term is over.
        Outcome::Fenced { .. } | Outcome::Unreadable(_) => {
            return Err(ReadyError::Write(WriteError::Unknown));
        }
    }
    let rows = Arc::clone(replica.rows());
    let read = afdg_runtime::blocking(&threads, move || Backlog::read(rows.as_ref())).await;
    let read = read.map_err(|error| ReadyError::Rows(RowsError(error.to_string())))?;
    let mut backlog = read.map_err(ReadyError::Rows)?;
    if planted(Bug::RecordedTurnForgotten) {
        backlog.recorded.clear();
    }
    if planted(Bug::InboxForgotten) {
        backlog.inbox.clear();
    }
    if planted(Bug::OutboxForgotten) {
        backlog.outbox.clear();
    }
    if planted(Bug::SchedulesForgotten) {
        backlog.schedules.clear();
    }
    Ok(backlog)
}
