//! The catalog's machine as replication drives it, sharing each new state with the server around it.

use afdg_catalog_machine::{CatalogMachine, CatalogState, Outcome};
use afdg_replication::{Machine, Observer, Position};
use afdg_types::{Rows, RowsError, RowsMut};
use bytes::Bytes;
use std::sync::Arc;
use tokio::sync::watch;

pub(crate) struct SharedMachine {
    machine: CatalogMachine,
    state: watch::Sender<Arc<CatalogState>>,
}

impl SharedMachine {
    /// The machine, and its state after every applied command: what a proposer's outcome tells is
    /// already to be seen there.
    pub(crate) fn new() -> (Self, watch::Receiver<Arc<CatalogState>>) {
        let machine = CatalogMachine::new();
        let (state, receiver) = watch::channel(Arc::clone(machine.state()));
        (Self { machine, state }, receiver)
    }

    fn share(&self) {
        let new = self.machine.state();
        self.state.send_if_modified(|held| {
            let changed = !Arc::ptr_eq(held, new);
            if changed {
                *held = Arc::clone(new);
            }
            changed
        });
    }
}

impl Machine for SharedMachine {
    type Outcome = Outcome;

    fn restore(&mut self, rows: &dyn Rows) -> Result<(), RowsError> {
        self.machine.restore(rows)?;
        self.share();
        Ok(())
    }

    fn apply(&mut self, at: Position, command: Bytes, rows: &mut dyn RowsMut) -> Result<Outcome, RowsError> {
        self.machine.apply(at.index, &command, rows)
    }

    fn visible(&mut self) {
        self.share();
    }
}

/// Nobody needs to hear of single entries: the shared state says all.
pub(crate) struct NoObserver;

impl Observer<Outcome> for NoObserver {
    fn applied(&mut self, _at: Position, _outcome: Option<Outcome>) {}

    fn restored(&mut self, _at: Position) {}
}
