//! A queue in which those who put in much do not stand ahead of those who put in little.

use std::collections::{BTreeMap, VecDeque};

/// What one flow may take out in a round, bytes. A round of all flows is what a newcomer waits for.
const QUANTUM_BYTES: usize = 16 * 1024;
/// What an item counts beside its own bytes, since handling it costs something.
const ITEM_BYTES: usize = 256;

/// Items of several flows (such as agent types), taken out by deficit round robin: in each round every flow with
/// items may take as many bytes as another, and what it has left of that counts for the next round, as long as it
/// has items. Within a flow the order stays. (M. Shreedhar, G. Varghese: Efficient Fair Queueing Using Deficit
/// Round Robin, SIGCOMM 1995.)
///
/// It has no bound of its own.
pub struct FairQueue<T> {
    flow_of: fn(&T) -> &str,
    bytes_of: fn(&T) -> usize,
    flows: BTreeMap<String, Flow<T>>,
    /// Flows with items, in the order of their turns.
    round: VecDeque<String>,
    /// The first of them has been given its bytes of this round.
    is_served: bool,
    items: usize,
}

struct Flow<T> {
    items: VecDeque<(usize, T)>,
    deficit_bytes: usize,
}

impl<T> FairQueue<T> {
    /// `flow_of` tells whose an item is, `bytes_of` what it takes of that one's share.
    pub fn new(flow_of: fn(&T) -> &str, bytes_of: fn(&T) -> usize) -> Self {
        let (flows, round) = (BTreeMap::new(), VecDeque::new());
        Self { flow_of, bytes_of, flows, round, is_served: false, items: 0 }
    }

    pub fn len(&self) -> usize {
        self.items
    }

    pub fn is_empty(&self) -> bool {
        self.items == 0
    }

    /// Items of one flow.
    pub fn len_of(&self, flow: &str) -> usize {
        self.flows.get(flow).map_or(0, |flow| flow.items.len())
    }

    /// All items, in no order that means anything.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.flows.values().flat_map(|flow| flow.items.iter().map(|(_, item)| item))
    }

    /// Puts an item behind the others of its flow.
    pub fn push(&mut self, item: T) {
        self.items += 1;
        let bytes = (self.bytes_of)(&item).saturating_add(ITEM_BYTES);
        let name = (self.flow_of)(&item);
        if let Some(flow) = self.flows.get_mut(name) {
            return flow.items.push_back((bytes, item));
        }
        let name = name.to_owned();
        self.round.push_back(name.clone());
        self.flows.insert(name, Flow { items: [(bytes, item)].into(), deficit_bytes: 0 });
    }

    /// Takes out the next item.
    pub fn pop(&mut self) -> Option<T> {
        loop {
            let is_alone = self.round.len() == 1;
            let name = self.round.front()?;
            let flow = self.flows.get_mut(name)?;
            if !std::mem::replace(&mut self.is_served, true) {
                flow.deficit_bytes += QUANTUM_BYTES;
            }
            match flow.items.front() {
                Some((bytes, _)) if *bytes > flow.deficit_bytes && !is_alone => {
                    self.round.rotate_left(1);
                    self.is_served = false;
                    continue;
                }
                _ => {}
            }
            let taken = flow.items.pop_front();
            if let Some((bytes, _)) = &taken {
                // Who is alone takes from nobody.
                flow.deficit_bytes = flow.deficit_bytes.saturating_sub(*bytes);
                self.items -= 1;
            }
            if flow.items.is_empty() {
                self.flows.remove(name);
                self.round.pop_front();
                self.is_served = false;
            }
            if let Some((_, item)) = taken {
                return Some(item);
            }
        }
    }

    /// Takes out what `keep` does not want.
    pub fn retain(&mut self, keep: impl Fn(&T) -> bool) {
        for flow in self.flows.values_mut() {
            flow.items.retain(|(_, item)| keep(item));
        }
        self.flows.retain(|_, flow| !flow.items.is_empty());
        let first = self.round.front().cloned();
        self.round.retain(|name| self.flows.contains_key(name));
        self.is_served &= self.round.front() == first.as_ref();
        self.items = self.flows.values().map(|flow| flow.items.len()).sum();
    }

    pub fn clear(&mut self) {
        *self = Self::new(self.flow_of, self.bytes_of);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Item = (&'static str, usize, usize);

    /// Of items with a flow, bytes and a number.
    fn queue() -> FairQueue<Item> {
        FairQueue::new(|(flow, ..)| flow, |(_, bytes, _)| *bytes)
    }

    fn popped(queue: &mut FairQueue<Item>, count: usize) -> Vec<Item> {
        (0..count).map_while(|_| queue.pop()).collect()
    }

    fn numbers(items: &[Item], of: &str) -> Vec<usize> {
        items.iter().filter(|(flow, ..)| *flow == of).map(|(.., number)| *number).collect()
    }

    #[test]
    fn one_who_comes_late_does_not_wait_for_all_that_another_put_in() {
        let mut queue = queue();
        (0..10_000).for_each(|number| queue.push(("t.Flood", 64, number)));
        popped(&mut queue, 1_000);
        assert_eq!((queue.len_of("t.Flood"), queue.len_of("t.Other")), (9_000, 0));
        (0..3).for_each(|number| queue.push(("t.Other", 64, number)));
        let next = popped(&mut queue, 100);
        assert_eq!(numbers(&next, "t.Other"), [0, 1, 2], "within one round of the flood's");
        assert_eq!(numbers(&next, "t.Flood"), (1_000..1_097).collect::<Vec<_>>(), "in order");
        assert_eq!(popped(&mut queue, usize::MAX).len(), 8_903);
        assert!(queue.is_empty() && queue.round.is_empty() && queue.flows.is_empty());
    }

    #[test]
    fn shares_are_equal_in_bytes_and_not_in_items() {
        let mut queue = queue();
        (0..100).for_each(|number| queue.push(("t.Large", 40_000, number)));
        (0..10_000).for_each(|number| queue.push(("t.Small", 144, number)));
        let taken = popped(&mut queue, 4_000);
        let (large, small) =
            (numbers(&taken, "t.Large").len() * 40_256, numbers(&taken, "t.Small").len() * 400);
        assert!(large.abs_diff(small) <= 40_256 + 2 * QUANTUM_BYTES, "{large} and {small}");
    }

    #[test]
    fn what_is_larger_than_a_share_gets_its_turn() {
        let mut queue = queue();
        queue.push(("t.Large", 100 * QUANTUM_BYTES, 0));
        (0..100_000).for_each(|number| queue.push(("t.Small", 144, number)));
        let taken = popped(&mut queue, usize::MAX);
        let before = taken.iter().position(|(flow, ..)| *flow == "t.Large").unwrap();
        assert!((4_000..5_000).contains(&before), "{before}");
    }

    #[test]
    fn what_nobody_wants_any_more_is_left_out() {
        let mut queue = queue();
        (0..4).for_each(|number| queue.push((["t.A", "t.B"][number % 2], 1, number)));
        queue.retain(|(.., number)| number % 2 == 1);
        assert_eq!((queue.len(), queue.iter().count()), (2, 2));
        assert_eq!(numbers(&popped(&mut queue, 3), "t.B"), [1, 3]);
        queue.push(("t.A", 1, 5));
        queue.clear();
        assert!(queue.is_empty() && queue.pop().is_none());
    }
}
