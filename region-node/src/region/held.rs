//! The sends that a region holds, of all agent types and of each: a type may hold half of what the region may, so
//! that sends which are held back for long, or can't be delivered, leave room to other types.

use std::collections::BTreeMap;

/// Sends in the inbox, by the type of their receivers; or in the outbox, by that of their senders.
pub struct Held {
    messages_max: usize,
    bytes_max: usize,
    all: Amount,
    types: BTreeMap<String, Amount>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    pub messages: usize,
    /// Of requests.
    pub bytes: usize,
}

impl Held {
    pub fn new(messages_max: usize, bytes_max: usize) -> Self {
        Self { messages_max, bytes_max, all: Amount::default(), types: BTreeMap::new() }
    }

    pub fn all(&self) -> Amount {
        self.all
    }

    pub fn add(&mut self, agent_type: &str, more: Amount) {
        self.all.add(more);
        match self.types.get_mut(agent_type) {
            Some(of_type) => of_type.add(more),
            None => drop(self.types.insert(agent_type.to_owned(), more)),
        }
    }

    pub fn remove(&mut self, agent_type: &str, less: Amount) {
        self.all.remove(less);
        let Some(of_type) = self.types.get_mut(agent_type) else { return };
        of_type.remove(less);
        if of_type.messages == 0 {
            self.types.remove(agent_type);
        }
    }

    /// Whether so much more of the type may be held.
    pub fn has_room(&self, agent_type: &str, more: Amount) -> bool {
        let of_type = self.types.get(agent_type).copied().unwrap_or_default();
        self.has_room_at_all(more) && of_type.fits(more, self.messages_max / 2, self.bytes_max / 2)
    }

    pub fn has_room_at_all(&self, more: Amount) -> bool {
        self.all.fits(more, self.messages_max, self.bytes_max)
    }
}

impl Amount {
    pub fn of(messages: usize, bytes: usize) -> Self {
        Self { messages, bytes }
    }

    fn add(&mut self, more: Self) {
        self.messages += more.messages;
        self.bytes += more.bytes;
    }

    fn remove(&mut self, less: Self) {
        self.messages = self.messages.saturating_sub(less.messages);
        self.bytes = self.bytes.saturating_sub(less.bytes);
    }

    fn fits(self, more: Self, messages_max: usize, bytes_max: usize) -> bool {
        self.messages + more.messages <= messages_max && self.bytes + more.bytes <= bytes_max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_holds_half_and_what_it_lets_go_makes_room() {
        let one = Amount::of(1, 10);
        let mut held = Held::new(8, 1_000);
        for _ in 0..4 {
            assert!(held.has_room("t.T", one));
            held.add("t.T", one);
        }
        assert!(!held.has_room("t.T", one) && held.has_room("t.U", one));
        held.remove("t.T", one);
        assert!(held.has_room("t.T", one) && !held.has_room("t.T", Amount::of(1, 471)));
        held.add("t.T", one);
        for number in 0..4 {
            held.add(&format!("t.T{number}"), one);
        }
        assert!(!held.has_room("t.U", one), "all together are bounded too");
        assert_eq!(held.all(), Amount::of(8, 80));
        held.remove("t.T", Amount::of(4, 40));
        assert_eq!(held.types.len(), 4, "who holds nothing is forgotten");
    }
}
