//! A region in memory that checks itself at every entry.

use afdg_region_machine::{Command, Op, Outcome, RegionMachine, table::entities, validate};
use afdg_types::{AgentRef, MessageId, Rows};
use bytes::Bytes;
use std::collections::BTreeMap;

pub type Table = BTreeMap<Bytes, Bytes>;

/// A machine with its rows. Each entry is applied twice: by the machine that has applied all of them, and
/// by one that was restored from the rows as they were before it. Both must do the same.
#[derive(Default)]
pub struct Region {
    machine: RegionMachine,
    pub rows: Table,
}

impl Region {
    pub fn apply(&mut self, committed_in: u64, command: &Command) -> Outcome {
        self.apply_bytes(committed_in, &command.encode().unwrap())
    }

    pub fn apply_bytes(&mut self, committed_in: u64, command: &[u8]) -> Outcome {
        let mut restored_rows = self.rows.clone();
        let mut restored = RegionMachine::default();
        restored.restore(&restored_rows).unwrap();
        let again = restored.apply(committed_in, command, &mut restored_rows).unwrap();

        let outcome = self.machine.apply(committed_in, command, &mut self.rows).unwrap();
        assert_eq!(outcome, again, "a restored machine answers as the one that went on");
        assert_eq!(self.rows, restored_rows, "a restored machine leaves the same rows");
        validate(&self.rows).unwrap();
        outcome
    }

    /// Applies an entry that must be let in, and returns the outcome of its operations.
    pub fn apply_ops(
        &mut self,
        term: u64,
        sequence: u64,
        ops: Vec<Op>,
    ) -> Vec<afdg_region_machine::OpOutcome> {
        match self.apply(term, &Command { term, sequence, ops }) {
            Outcome::Applied(outcomes) => outcomes,
            refused => panic!("entry {term}.{sequence} was refused: {refused:?}"),
        }
    }

    /// The machine forgets all that it does not keep in rows.
    pub fn restart(&mut self) {
        self.machine = RegionMachine::default();
        self.machine.restore(&self.rows).unwrap();
    }

    pub fn row(&self, agent: &AgentRef, key: &str) -> Option<Bytes> {
        Rows::get(&self.rows, &entities::key(agent, key.as_bytes())).unwrap()
    }

    pub fn rows_of_table(&self, table: u8) -> usize {
        self.rows.keys().filter(|key| key[0] == table).count()
    }
}

pub fn agent(key: &str) -> AgentRef {
    AgentRef::new("t.T", key).unwrap()
}

/// An id that lasts and is known by a number.
pub fn id(number: u64) -> MessageId {
    let mut bytes = [0; MessageId::BYTES];
    bytes[..6].copy_from_slice(&number.to_be_bytes()[2..]);
    (bytes[6], bytes[8]) = (0x80, 0x80);
    MessageId::from_bytes(&bytes).unwrap()
}

pub fn number_of(id: MessageId) -> u64 {
    let mut number = [0; 8];
    number[2..].copy_from_slice(&id.as_bytes()[..6]);
    u64::from_be_bytes(number)
}
