//! What one host's replicas tell the [`Referee`].

use crate::referee::Referee;
use afdg_replication::{Position, RowStore, Witness};
use bytes::Bytes;
use std::fmt;

pub struct HostWitness {
    pub host: String,
    pub referee: Referee,
}

impl HostWitness {
    /// What was in the process's memory is gone.
    pub fn process_ended(&self) {
        self.referee.process_ended(&self.host);
    }
}

impl Witness for HostWitness {
    fn opened(&self, group: u64, purged: Position, entries: &[(Position, Bytes)]) {
        self.referee.opened(&self.host, group, purged, entries);
    }

    fn lacks_rows(&self, group: u64) {
        self.referee.lacks_rows(&self.host, group);
    }

    fn appended(&self, group: u64, at: Position, entry: &Bytes) {
        self.referee.appended(&self.host, group, at, entry);
    }

    fn truncated(&self, group: u64, from: u64) {
        self.referee.truncated(&self.host, group, from);
    }

    fn led(&self, group: u64, term: u64) {
        self.referee.led(&self.host, group, term);
    }

    fn applied(
        &self,
        group: u64,
        at: Position,
        command: Option<&Bytes>,
        outcome: Option<&dyn fmt::Debug>,
        rows: &RowStore,
    ) {
        self.referee.applied(&self.host, group, at, command, outcome, rows);
    }

    fn restored(&self, group: u64, at: Position, rows: &RowStore) {
        self.referee.restored(&self.host, group, at, rows);
    }
}
