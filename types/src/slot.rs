//! Which of the 16,384 slots an agent falls into.

use crate::AgentRef;
use serde::{Deserialize, Serialize};
use std::fmt;
use xxhash_rust::xxh3::xxh3_64;

/// Number of slots.
pub const SLOTS: u16 = 16_384;

/// A hash slot, below [`SLOTS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Slot(pub u16);

impl Slot {
    /// `xxh3_64(type "/" tag(key)) mod 16384`.
    pub fn of(agent: &AgentRef) -> Self {
        let (text, key) = (agent.as_str(), agent.key());
        let tag = tag(key);
        let hash = if tag.len() == key.len() {
            xxh3_64(text.as_bytes())
        } else {
            xxh3_64([agent.agent_type(), "/", tag].concat().as_bytes())
        };
        Slot((hash % u64::from(SLOTS)) as u16)
    }

    /// The slot of all agents of a type whose keys begin with `key_prefix`, if it holds a whole tag; they may
    /// be in any slot otherwise.
    pub fn of_prefix(agent_type: &str, key_prefix: &str) -> Option<Self> {
        if tag(key_prefix).len() == key_prefix.len() {
            return None;
        }
        AgentRef::new(agent_type, key_prefix).ok().map(|agent| Self::of(&agent))
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The part of a key that is hashed: the text between the first `{` and the following `}`, or all of
/// it without such a pair. An empty pair counts as none, so that `{}` doesn't gather every such key.
pub fn tag(key: &str) -> &str {
    let Some(open) = key.find('{') else { return key };
    match key[open + 1..].find('}') {
        Some(0) | None => key,
        Some(length) => &key[open + 1..open + 1 + length],
    }
}

/// Slots `first..=last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SlotRange {
    pub first: Slot,
    pub last: Slot,
}

impl SlotRange {
    pub fn contains(self, slot: Slot) -> bool {
        self.first <= slot && slot <= self.last
    }

    /// Cuts all slots into `parts` ranges whose sizes differ by at most one. `parts` from 1 to [`SLOTS`].
    pub fn split_all(parts: u16) -> Vec<SlotRange> {
        assert!((1..=SLOTS).contains(&parts), "parts {parts} not in 1..={SLOTS}");
        let bound = |part: u16| (u32::from(part) * u32::from(SLOTS) / u32::from(parts)) as u16;
        (0..parts)
            .map(|part| SlotRange { first: Slot(bound(part)), last: Slot(bound(part + 1) - 1) })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_with_one_tag_share_a_slot() {
        let one = AgentRef::new("bank.v1.Account", "{alice}/savings").unwrap();
        let other = AgentRef::new("bank.v1.Account", "alice").unwrap();
        assert_eq!(Slot::of(&one), Slot::of(&other));
        assert_eq!(tag("a{}b"), "a{}b");
        assert_eq!(tag("a{b"), "a{b");
        assert_eq!(tag("a{b}c}"), "b");
    }

    #[test]
    fn a_prefix_with_a_whole_tag_is_of_one_slot() {
        let of = |prefix: &str| Slot::of_prefix("bank.v1.Account", prefix);
        let alice = Slot::of(&AgentRef::new("bank.v1.Account", "alice").unwrap());
        assert_eq!([of("{alice}"), of("{alice}/s"), of("{alice}{")], [Some(alice); 3]);
        for open in ["", "alice", "{", "{alice", "a{}", "{}b{c}"] {
            assert_eq!(of(open), None, "{open}");
        }
    }

    #[test]
    fn slots_of_known_agents_never_change() {
        // Stored data lies where these numbers say: frozen.
        let slot = |t, k| Slot::of(&AgentRef::new(t, k).unwrap()).0;
        assert_eq!(
            [
                slot("bank.v1.Account", "alice"),
                slot("shop.v1.Customer", "1"),
                slot("counter.v1.Counter", "c")
            ],
            [15604, 10661, 3442]
        );
    }

    #[test]
    fn a_split_covers_every_slot_once() {
        for parts in [1, 2, 3, 6, 7, 64, SLOTS] {
            let ranges = SlotRange::split_all(parts);
            assert_eq!(ranges.len(), usize::from(parts));
            assert_eq!(ranges[0].first, Slot(0));
            assert_eq!(ranges.last().unwrap().last, Slot(SLOTS - 1));
            assert!(ranges.windows(2).all(|pair| pair[0].last.0 + 1 == pair[1].first.0));
        }
    }
}
