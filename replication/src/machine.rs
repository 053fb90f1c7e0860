//! What is replicated: any machine that changes rows by applying commands.

use afdg_types::{Rows, RowsError, RowsMut};
use bytes::Bytes;

/// Place of an entry in a group's log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    pub term: u64,
    pub index: u64,
}

/// A deterministic state machine. All its state stands in rows; what it keeps besides is derived from
/// them and read again by [`Machine::restore`].
pub trait Machine: Send + Sync + 'static {
    /// What one command did: its answer, and actions for the leader.
    type Outcome: std::fmt::Debug + Send + Sync + 'static;

    /// Reads what the machine keeps decoded: once before the first command, and again after the rows
    /// were replaced by a snapshot.
    fn restore(&mut self, rows: &dyn Rows) -> Result<(), RowsError>;

    /// Applies one committed command. The only function that changes rows.
    fn apply(
        &mut self,
        at: Position,
        command: Bytes,
        rows: &mut dyn RowsMut,
    ) -> Result<Self::Outcome, RowsError>;

    /// What the last [`Machine::apply`] changed is visible to readers of the rows from here on.
    fn visible(&mut self) {}
}

/// Told of every applied entry, in log order, on every replica. Must not block.
pub trait Observer<O>: Send + Sync + 'static {
    /// `outcome` is none for an entry without a command (a new leader's first, a membership change), and
    /// for a command whose proposer waits for the outcome itself ([`crate::Replica::write`]).
    fn applied(&mut self, at: Position, outcome: Option<O>);

    /// The rows were replaced by a snapshot that reaches up to `at`.
    fn restored(&mut self, at: Position);
}
