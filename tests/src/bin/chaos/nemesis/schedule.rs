//! One fault after the other, until the time is up.
//!
//! Every kind has its turn before one has another. Before each fault the grid is well, which it has to be
//! within a minute after the one before. Sometimes a second fault comes with the first.

use super::{Fault, Field, Kind};
use anyhow::Context;
use rand::{Rng, SeedableRng, rngs::StdRng, seq::SliceRandom};
use std::time::Duration;
use tokio::time::Instant;

const HOLD_MS: std::ops::Range<u64> = 1_500..6_000;
const QUIET_MS: std::ops::Range<u64> = 300..2_000;
/// Of 100 faults, how many have company.
const IN_COMPANY: f64 = 0.2;
/// Faults that may come with another: they leave all processes running and ask for nothing.
const COMPANY: [Kind; 4] = [Kind::Loss, Kind::Clock, Kind::SlowFsync, Kind::Delay];

/// A fault that was done. Times are nanoseconds since the run began.
#[derive(Clone, Debug)]
pub struct Event {
    pub kind: Kind,
    pub what: String,
    pub began: u64,
    pub ended: u64,
    /// Of a leader that died while nothing else was wrong.
    pub death: Option<LeaderDeath>,
}

#[derive(Clone, Debug)]
pub struct LeaderDeath {
    pub at: u64,
    pub regions: Vec<u64>,
}

pub struct Schedule {
    kinds: Vec<Kind>,
    /// What has its turn before the kinds are shuffled again.
    deck: Vec<Kind>,
    random: StdRng,
    began: Instant,
    pub events: Vec<Event>,
}

impl Schedule {
    pub fn new(kinds: Vec<Kind>, seed: u64, began: Instant) -> Self {
        Self { kinds, deck: Vec::new(), random: StdRng::seed_from_u64(seed), began, events: Vec::new() }
    }

    /// Disturbs the grid for `time`. An error says what the grid has not lived through as it should.
    pub async fn run(&mut self, field: &mut Field, time: Duration) -> anyhow::Result<()> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            let quiet = self.random.random_range(QUIET_MS);
            tokio::time::sleep(Duration::from_millis(quiet)).await;
            field.grid.until_well().await.context("the grid is not well again")?;
            let Some(kind) = self.next_kind() else {
                // Nothing can be done here, or nothing is wanted: calls alone.
                tokio::time::sleep_until(end).await;
                break;
            };
            self.disturb(kind, field).await?;
        }
        field.grid.until_well().await.context("the grid is not well at the end")
    }

    async fn disturb(&mut self, kind: Kind, field: &mut Field) -> anyhow::Result<()> {
        let mut faults = vec![Fault::draw(kind, &field.servers, &mut self.random)];
        // Whose end is waited for has to hear what to write.
        let has_to_end = [Kind::FsyncError, Kind::FullDisk].contains(&kind);
        if !has_to_end && self.random.random_bool(IN_COMPANY) {
            let company: Vec<Kind> =
                COMPANY.into_iter().filter(|other| *other != kind && self.kinds.contains(other)).collect();
            if let Some(other) = company.get(self.random.random_range(0..COMPANY.len())) {
                faults.insert(0, Fault::draw(*other, &field.servers, &mut self.random));
            }
        }
        let hold = Duration::from_millis(self.random.random_range(HOLD_MS));
        let (alone, clock) = (faults.len() == 1, self.began);
        let now = move || u64::try_from(clock.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let (began, mut death) = (now(), None);
        for fault in &mut faults {
            field.grid.tell(format_args!("{kind}: {fault}"));
            let lost = field.begin(fault, now).await.with_context(|| format!("{kind}: {fault}"))?;
            death = death.or(lost.filter(|_| alone));
        }
        tokio::time::sleep(hold).await;
        for fault in faults.iter().rev() {
            field.end(fault).with_context(|| format!("after {kind}: {fault}"))?;
        }
        let what: Vec<String> = faults.iter().rev().map(ToString::to_string).collect();
        field.grid.tell(format_args!("over: {}", what.join("; ")));
        self.events.push(Event { kind, what: what.join("; "), began, ended: now(), death });
        Ok(())
    }

    fn next_kind(&mut self) -> Option<Kind> {
        if self.deck.is_empty() {
            self.deck.clone_from(&self.kinds);
            self.deck.shuffle(&mut self.random);
        }
        self.deck.pop()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_kind_has_its_turn_before_one_has_another() {
        let kinds = vec![Kind::Kill, Kind::Freeze, Kind::Clock];
        let mut schedule = Schedule::new(kinds.clone(), 5, Instant::now());
        for _ in 0..10 {
            let turn: BTreeSet<Kind> = (0..3).filter_map(|_| schedule.next_kind()).collect();
            assert_eq!(turn.len(), kinds.len());
        }
        assert_eq!(Schedule::new(Vec::new(), 5, Instant::now()).next_kind(), None);
    }
}
