//! Messages that nobody waits for: clients send letters to boxes, and have boxes send letters to boxes. At
//! the end each box holds every letter once, and those of one box in the order in which they were sent
//! (promises 3, 5, 6, 8).

use crate::events::Events;
use std::collections::BTreeMap;

/// Boxes that receive.
pub const BOXES: u64 = 3;

pub fn receiver(number: u64) -> String {
    format!("to-{number}")
}

/// Who sends, and how many letters to each box.
#[derive(Clone, Debug, Default)]
pub struct Sent {
    /// By sending box: numbers 0 up to this, to every box.
    by_boxes: BTreeMap<String, u64>,
    /// By client and box: numbers 0 up to this.
    by_clients: BTreeMap<(String, String), u64>,
}

impl Sent {
    /// The numbers that the box is to send next.
    pub fn spread(&mut self, from: &str, count: u64) -> u64 {
        let next = self.by_boxes.entry(from.to_owned()).or_default();
        *next += count;
        *next - count
    }

    /// The number of the client's next letter to the box.
    pub fn letter(&mut self, from: &str, to: &str) -> u64 {
        let next = self.by_clients.entry((from.to_owned(), to.to_owned())).or_default();
        *next += 1;
        *next - 1
    }

    /// What a box has to hold.
    pub fn count_for(&self, to: &str) -> usize {
        let by_clients = self.by_clients.iter().filter(|((_, receiver), _)| receiver == to);
        (self.by_boxes.values().chain(by_clients.map(|(_, count)| count)).sum::<u64>()) as usize
    }

    /// Compares what a box received, sender and number in order, with what was sent.
    pub fn check(&self, to: &str, received: &[(String, u64)], events: &Events) {
        let mut by_sender: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
        for (from, number) in received {
            by_sender.entry(from).or_default().push(*number);
        }
        for (from, count) in &self.by_boxes {
            let numbers = by_sender.remove(from.as_str()).unwrap_or_default();
            if !numbers.iter().copied().eq(0..*count) {
                let what = format_args!("{to} has {numbers:?} of {from}, which sent 0 to {count}");
                events.violation("sends take effect once and in order", what);
            }
        }
        for ((from, receiver), count) in &self.by_clients {
            if receiver != to {
                continue;
            }
            // A client's letter whose turn fails is overtaken by its next.
            let mut numbers = by_sender.remove(from.as_str()).unwrap_or_default();
            numbers.sort_unstable();
            if !numbers.iter().copied().eq(0..*count) {
                let what = format_args!("{to} has {numbers:?} of {from}, which sent 0 to {count}");
                events.violation("sends take effect once", what);
            }
        }
        for (from, numbers) in by_sender {
            events.violation(
                "sends take effect once",
                format_args!("{to} has {numbers:?} of {from}, who sent none"),
            );
        }
        events.add("letters received", received.len() as u64);
    }
}
