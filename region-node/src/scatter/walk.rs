//! Finding a type's agents among a region's rows, in the order in which these lie: by slot, then by the length
//! of the key, then by the key.

use afdg_region_machine::table::entities;
use afdg_types::{AgentRef, Rows, RowsError, SLOTS, Slot, limits::AGENT_KEY_BYTES_MAX, prefix_end};
use std::cmp::Ordering;

/// Which agents are looked for.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub agent_type: String,
    pub key_prefix: String,
}

/// Some of them, and where to look on; nowhere, if these were the last.
#[derive(Debug, Default, PartialEq)]
pub struct Found {
    pub agents: Vec<AgentRef>,
    pub next: Option<Vec<u8>>,
}

impl Wanted {
    /// Where to begin: behind `after`, if it is there.
    pub fn start(&self, after: Option<&AgentRef>) -> Option<Vec<u8>> {
        match after {
            Some(after) => behind(after),
            None => Some(self.of_slot(self.only_slot().unwrap_or(Slot(0)))),
        }
    }

    /// The next of these agents from `from` on, `limit` at most, with `looks_max` rows looked at.
    pub fn page(
        &self,
        rows: &dyn Rows,
        mut from: Vec<u8>,
        limit: usize,
        looks_max: usize,
    ) -> Result<Found, RowsError> {
        let mut found = Found::default();
        let end = self.only_slot().and_then(|slot| prefix_end(&entities::slot_prefix(slot)));
        let end = end.as_deref().unwrap_or(entities::END);
        for _ in 0..looks_max {
            if found.agents.len() == limit {
                break;
            }
            let Some((key, _)) = rows.scan(&from, Some(end), 1)?.pop() else { return Ok(found) };
            let (agent, _) = entities::parse(&key)
                .ok_or_else(|| RowsError(format!("a key of the entities can't be read: {key:?}")))?;
            let next = match self.skip(&agent) {
                Some(next) => next,
                None => {
                    let next = behind(&agent);
                    found.agents.push(agent);
                    next
                }
            };
            match next {
                Some(next) => from = next,
                None => return Ok(found),
            }
        }
        found.next = Some(from);
        Ok(found)
    }

    /// None if the agent is one of them; else where the next one may lie.
    fn skip(&self, agent: &AgentRef) -> Option<Option<Vec<u8>>> {
        let slot = Slot::of(agent);
        let (agent_type, key, prefix) = (agent.agent_type(), agent.key(), &self.key_prefix);
        let by_type = (agent_type.len(), agent_type).cmp(&(self.agent_type.len(), &self.agent_type));
        let longer = key.len() + 1;
        match by_type {
            Ordering::Less => Some(Some(self.of_slot(slot))),
            Ordering::Greater => Some(self.of_next_slot(slot)),
            Ordering::Equal if key.starts_with(prefix.as_str()) => None,
            Ordering::Equal if key.len() < prefix.len() => Some(Some(self.of_slot(slot))),
            Ordering::Equal if key.as_bytes() < prefix.as_bytes() => {
                Some(Some(self.of_length(slot, key.len())))
            }
            Ordering::Equal if longer <= AGENT_KEY_BYTES_MAX => Some(Some(self.of_length(slot, longer))),
            Ordering::Equal => Some(self.of_next_slot(slot)),
        }
    }

    fn of_slot(&self, slot: Slot) -> Vec<u8> {
        self.of_length(slot, self.key_prefix.len())
    }

    fn of_next_slot(&self, slot: Slot) -> Option<Vec<u8>> {
        let next = slot.0 + 1;
        (next < SLOTS).then(|| self.of_slot(Slot(next)))
    }

    fn of_length(&self, slot: Slot, key_bytes: usize) -> Vec<u8> {
        entities::of_type(slot, &self.agent_type, key_bytes as u16, &self.key_prefix)
    }

    fn only_slot(&self) -> Option<Slot> {
        Slot::of_prefix(&self.agent_type, &self.key_prefix)
    }
}

/// The first place after all rows of an agent.
fn behind(agent: &AgentRef) -> Option<Vec<u8>> {
    prefix_end(&entities::prefix(agent))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use std::{
        cell::Cell,
        collections::{BTreeMap, BTreeSet},
    };

    struct Counted {
        rows: BTreeMap<Bytes, Bytes>,
        looks: Cell<usize>,
    }

    impl Rows for Counted {
        fn get(&self, key: &[u8]) -> Result<Option<Bytes>, RowsError> {
            Rows::get(&self.rows, key)
        }
        fn last_at_or_before(&self, from: &[u8], at: &[u8]) -> Result<Option<(Bytes, Bytes)>, RowsError> {
            self.rows.last_at_or_before(from, at)
        }
        fn scan(
            &self,
            from: &[u8],
            to: Option<&[u8]>,
            limit: usize,
        ) -> Result<Vec<(Bytes, Bytes)>, RowsError> {
            self.looks.set(self.looks.get() + 1);
            self.rows.scan(from, to, limit)
        }
    }

    const TYPES: [&str; 5] = ["a.A", "a.B", "a.C", "a.Bb", "a.b.B"];
    const KEYS: [&str; 14] =
        ["a", "d", "e", "de", "df", "dd", "de-1", "de-22", "dz-9", "{de}", "{de}1", "{de", "x{de}", "dé"];

    fn agents() -> Vec<AgentRef> {
        let of = |agent_type: &&str| {
            let many = (0..300).map(|number| format!("de-{number:03}"));
            let keys = KEYS.iter().map(|key| (*key).to_owned()).chain(many);
            keys.map(|key| AgentRef::new(agent_type, &key).unwrap()).collect::<Vec<_>>()
        };
        TYPES.iter().flat_map(of).collect()
    }

    fn rows() -> Counted {
        let rows = agents().into_iter().flat_map(|agent| {
            ["", "one", "two"].map(|row| (entities::key(&agent, row.as_bytes()), Bytes::new()))
        });
        let mut rows: BTreeMap<_, _> = rows.collect();
        // Of other tables, on both sides.
        rows.insert(Bytes::from_static(b"\x02"), Bytes::new());
        rows.insert(Bytes::from_static(b"\x20\x00"), Bytes::new());
        Counted { rows, looks: Cell::new(0) }
    }

    fn wanted(agent_type: &str, key_prefix: &str) -> Wanted {
        Wanted { agent_type: agent_type.to_owned(), key_prefix: key_prefix.to_owned() }
    }

    fn all(rows: &Counted, wanted: &Wanted, limit: usize, looks_max: usize) -> Vec<AgentRef> {
        let (mut agents, mut from) = (Vec::new(), wanted.start(None));
        while let Some(at) = from {
            let found = wanted.page(rows, at, limit, looks_max).unwrap();
            assert!(found.agents.len() <= limit);
            agents.extend(found.agents);
            from = found.next;
        }
        agents
    }

    #[test]
    fn all_of_a_type_and_a_prefix_are_found_once_and_no_others() {
        let rows = rows();
        for agent_type in TYPES.iter().chain(&["a.None", "Z", "a.b.Longer"]) {
            for prefix in ["", "d", "de", "de-", "de-1", "{de}", "{de", "{", "x{de}", "dé", "zz", "dz-99999"]
            {
                let wanted = wanted(agent_type, prefix);
                let mut expected: Vec<_> = agents()
                    .into_iter()
                    .filter(|agent| agent.agent_type() == *agent_type && agent.key().starts_with(prefix))
                    .collect();
                for (limit, looks_max) in [(1, 1), (7, 3), (1_000, 10_000)] {
                    let mut found = all(&rows, &wanted, limit, looks_max);
                    let distinct: BTreeSet<_> = found.iter().cloned().collect();
                    assert_eq!(distinct.len(), found.len(), "{agent_type}/{prefix}*");
                    found.sort();
                    expected.sort();
                    assert_eq!(found, expected, "{agent_type}/{prefix}*");
                }
            }
        }
    }

    #[test]
    fn a_walk_goes_on_behind_any_agent() {
        let rows = rows();
        for prefix in ["", "de", "{de}"] {
            let wanted = wanted("a.B", prefix);
            let found = all(&rows, &wanted, 1_000, 10_000);
            for (index, agent) in found.iter().enumerate() {
                let from = wanted.start(Some(agent)).unwrap();
                let rest = wanted.page(&rows, from, 1_000, 10_000).unwrap().agents;
                assert_eq!(rest, found[index + 1..]);
            }
        }
    }

    #[test]
    fn agents_of_other_types_and_keys_are_skipped_and_not_looked_at() {
        let rows = rows();
        let looks = |wanted: &Wanted| {
            rows.looks.set(0);
            let found = all(&rows, wanted, 1_000, 10_000).len();
            (found, rows.looks.get())
        };
        // A slot of one tag, whatever else there is.
        assert!(matches!(looks(&wanted("a.B", "{de}")), (2, looks) if looks <= 4));
        // Two for each slot that holds anything, and one for each agent that is found.
        let slots: BTreeSet<_> = agents().iter().map(Slot::of).collect();
        let (found, looked) = looks(&wanted("a.B", ""));
        assert!(found == 314 && looked <= found + 2 * slots.len() + 1, "{looked}");
    }
}
