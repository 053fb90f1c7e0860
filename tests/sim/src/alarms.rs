//! Schedules: clients have alarms set schedules that ring other alarms. At the end each rang once for every due
//! time (promises 3, 5, 8), under an id of its own.

use crate::events::Events;
use std::collections::{BTreeMap, BTreeSet};

/// Alarms that ring.
pub const ALARMS: u64 = 2;

pub fn ringing(number: u64) -> String {
    format!("ring-{number}")
}

/// A schedule that rings at its start and in every period from there, and sends for each of those times.
#[derive(Clone, Debug)]
pub struct Set {
    /// The alarm that has it, and its name there.
    pub from: String,
    pub name: String,
    /// The alarm that rings.
    pub to: String,
    pub period_ms: u64,
    /// All in milliseconds since the Unix epoch. Of the turn that set it:
    pub at_ms: u64,
    pub start_ms: u64,
    pub until_ms: u64,
}

impl Set {
    /// Due times, by the definition: those that had passed when it was set don't count.
    fn rings(&self) -> usize {
        let times = (0..).map(|number| self.start_ms + number * self.period_ms);
        times.take_while(|due_ms| *due_ms <= self.until_ms).filter(|due_ms| *due_ms >= self.at_ms).count()
    }
}

/// One ring, as the alarm that rang keeps it.
#[derive(Clone, Debug)]
pub struct Ring {
    pub from: String,
    pub name: String,
    pub message_id: String,
}

/// How often an alarm has to ring.
pub fn count_for(to: &str, sets: &[Set]) -> usize {
    sets.iter().filter(|set| set.to == to).map(Set::rings).sum()
}

/// Compares how an alarm rang with what was set.
pub fn check(to: &str, rings: &[Ring], sets: &[Set], events: &Events) {
    let mut by_schedule: BTreeMap<(&str, &str), BTreeSet<&str>> = BTreeMap::new();
    for Ring { from, name, message_id } in rings {
        if !by_schedule.entry((from, name)).or_default().insert(message_id) {
            let what = format_args!("{to} rang twice for the one message {message_id} of {from}'s {name}");
            events.violation("schedules fire once", what);
        }
    }
    for set in sets.iter().filter(|set| set.to == to) {
        let rang = by_schedule.remove(&(set.from.as_str(), set.name.as_str())).unwrap_or_default().len();
        if rang != set.rings() {
            let what = format_args!("{to} rang {rang} times and not {} for {set:?}", set.rings());
            events.violation("schedules fire once", what);
        }
    }
    for ((from, name), _) in by_schedule {
        events.violation("schedules fire once", format_args!("{to} rang for {from}'s {name}, which is none"));
    }
    events.add("alarms rung", rings.len() as u64);
}
