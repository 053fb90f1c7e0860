//! Xorshift: the same numbers for the same seed, on every machine.

use crate::raft_types::{CommandBytes, Entry, LogId, Membership};
use bytes::Bytes;
use openraft::{EntryPayload, entry::RaftEntry, impls::BasicNode};
use std::collections::{BTreeMap, BTreeSet};

pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    pub fn bytes(&mut self, length: u64) -> Vec<u8> {
        (0..length).map(|_| self.below(256) as u8).collect()
    }

    /// Small numbers and large ones.
    pub fn number(&mut self) -> u64 {
        match self.below(4) {
            0 => self.below(3),
            1 => self.below(1 << 40),
            _ => self.below(300),
        }
    }

    pub fn log_id(&mut self) -> LogId {
        LogId::new_term_index(self.number(), self.number())
    }

    pub fn membership(&mut self) -> Membership {
        let config = |random: &mut Self| -> BTreeSet<u64> { (0..=random.below(4)).collect() };
        let configs: Vec<_> = (0..=self.below(2)).map(|_| config(self)).collect();
        // The last are learners.
        let nodes: BTreeMap<u64, BasicNode> =
            (0..5 + self.below(3)).map(|id| (id, BasicNode::new(format!("node-{id}:70{id}")))).collect();
        Membership::new(configs, nodes).unwrap()
    }

    pub fn entry(&mut self, id: LogId) -> Entry {
        let payload = match self.below(5) {
            0 => EntryPayload::Blank,
            1 => EntryPayload::Membership(self.membership()),
            _ => {
                let length = self.below(40);
                EntryPayload::Normal(CommandBytes(Bytes::from(self.bytes(length))))
            }
        };
        Entry::new(id, payload)
    }
}
