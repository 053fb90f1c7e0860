//! The machine as replication drives it.

use crate::{CatalogState, Command, Outcome, Refusal, Reply, rows};
use afdg_types::{Epoch, Rows, RowsError, RowsMut};
use std::sync::Arc;

/// The catalog's replicated state, decoded, before its rows.
#[derive(Debug, Default)]
pub struct CatalogMachine {
    state: Arc<CatalogState>,
}

impl CatalogMachine {
    pub fn new() -> Self {
        Self::default()
    }

    /// The state after the last applied command; a copy that never changes.
    pub fn state(&self) -> &Arc<CatalogState> {
        &self.state
    }

    /// Reads the state from its rows.
    pub fn restore(&mut self, rows: &dyn Rows) -> Result<(), RowsError> {
        self.state = Arc::new(rows::load(rows)?);
        Ok(())
    }

    /// Applies the committed command at `index`. An error means that the rows can't be used; whatever a
    /// command holds, and be it not readable, is answered with an outcome.
    pub fn apply(
        &mut self,
        index: u64,
        command: &[u8],
        rows: &mut dyn RowsMut,
    ) -> Result<Outcome, RowsError> {
        match Command::decode(command).and_then(|command| self.state.after(index, command)) {
            Ok((next, reply)) => {
                if next != *self.state {
                    rows::store(&self.state, &next, rows)?;
                    self.state = Arc::new(next);
                }
                Ok(Outcome::Done(reply))
            }
            Err(refusal) => Ok(Outcome::Refused(refusal)),
        }
    }
}

impl CatalogState {
    /// The state that `command` leads to. It is made on a copy, so that a refusal changes nothing.
    fn after(&self, index: u64, command: Command) -> Result<(CatalogState, Reply), Refusal> {
        let mut next = self.clone();
        let reply = match command {
            Command::FormCluster(command) => command.apply(&mut next),
            Command::RegisterNode(command) => command.apply(&mut next),
            Command::SetNodeState(command) => command.apply(&mut next),
            Command::PlaceRegions(command) => command.apply(&mut next),
            Command::RegionReady(command) => command.apply(&mut next),
            Command::RecordAction(command) => command.apply(&mut next, index),
            Command::SetTypeLimits(command) => command.apply(&mut next, index),
        }?;
        let new_types = next.types != self.types || next.limits != self.limits;
        if new_types || next.nodes != self.nodes || next.regions != self.regions {
            next.epoch = Epoch(self.epoch.0 + 1);
        }
        if new_types {
            next.types_epoch = next.epoch;
        }
        debug_assert_eq!(next.validate_after(self), Ok(()));
        Ok((next, reply))
    }
}
