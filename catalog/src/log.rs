//! The replicated log as the rest of the server sees it.
//!
//! A trait, so that services and the reconciler can be tested on a log in memory.

use crate::shared_machine::SharedMachine;
use afdg_catalog_machine::Outcome;
use afdg_replication::{Lead, Replica, WriteError};
use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::watch;

#[async_trait]
pub(crate) trait CatalogLog: Send + Sync + 'static {
    /// Commits a command and waits until it is applied here.
    async fn write(&self, command: Bytes) -> Result<Outcome, WriteError>;
    /// After it returns, the state here holds everything acknowledged before it was called, and this
    /// server led at a moment in between.
    async fn linearize(&self) -> Result<(), WriteError>;
    fn lead(&self) -> watch::Receiver<Lead>;
    fn applied_index(&self) -> u64;
}

#[async_trait]
impl CatalogLog for Replica<SharedMachine> {
    async fn write(&self, command: Bytes) -> Result<Outcome, WriteError> {
        Replica::write(self, command).await
    }

    async fn linearize(&self) -> Result<(), WriteError> {
        Replica::linearize(self).await
    }

    fn lead(&self) -> watch::Receiver<Lead> {
        Replica::lead(self)
    }

    fn applied_index(&self) -> u64 {
        self.applied().index
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! A log in memory: every write is committed at once while `lead.is_mine`.

    use super::*;
    use afdg_catalog_machine::{CatalogState, Command};
    use afdg_replication::{Machine, Position};
    use std::{
        collections::BTreeMap,
        sync::{Arc, Mutex},
    };

    pub(crate) struct MemoryLog {
        inner: Mutex<(SharedMachine, BTreeMap<Bytes, Bytes>, u64)>,
        pub(crate) lead: watch::Sender<Lead>,
        pub(crate) state: watch::Receiver<Arc<CatalogState>>,
    }

    impl MemoryLog {
        pub(crate) fn new() -> Arc<Self> {
            let (machine, state) = SharedMachine::new();
            let lead = Lead { term: 1, leader: Some(1), is_mine: true };
            let inner = Mutex::new((machine, BTreeMap::new(), 0));
            Arc::new(Self { inner, lead: watch::Sender::new(lead), state })
        }

        pub(crate) fn apply(&self, command: Command) -> Outcome {
            self.apply_bytes(command.encode().unwrap())
        }

        fn apply_bytes(&self, command: Bytes) -> Outcome {
            let mut inner = self.inner.lock().unwrap();
            let (machine, rows, index) = &mut *inner;
            *index += 1;
            let outcome = machine.apply(Position { term: 1, index: *index }, command, rows).unwrap();
            machine.visible();
            outcome
        }
    }

    #[async_trait]
    impl CatalogLog for MemoryLog {
        async fn write(&self, command: Bytes) -> Result<Outcome, WriteError> {
            self.linearize().await?;
            Ok(self.apply_bytes(command))
        }

        async fn linearize(&self) -> Result<(), WriteError> {
            if self.lead.borrow().is_mine { Ok(()) } else { Err(WriteError::NotLeader { hint: None }) }
        }

        fn lead(&self) -> watch::Receiver<Lead> {
            self.lead.subscribe()
        }

        fn applied_index(&self) -> u64 {
            self.inner.lock().unwrap().2
        }
    }
}
