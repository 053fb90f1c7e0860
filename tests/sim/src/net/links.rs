//! How the links between hosts behave: latency, loss, cuts.

use super::HostId;
use rand::{Rng, rngs::StdRng};
use std::collections::BTreeSet;

/// No latency is shorter: the time for which hosts can be run by themselves.
pub const LATENCY_NS_MIN: u64 = 1_000_000;
/// How long TCP waits before it sends a lost segment again, at first.
const RETRANSMIT_NS: u64 = 200_000_000;

/// What the whole network is like at the moment.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// Latency beyond the least, up to.
    pub jitter_ns: u64,
    /// Of 1,000 segments, so many are lost and sent again.
    pub loss_per_mille: u32,
}

impl Weather {
    pub const FAIR: Self = Self { jitter_ns: 400_000, loss_per_mille: 0 };
}

pub struct Links {
    weather: Weather,
    /// From, to: nothing gets through.
    cut: BTreeSet<(HostId, HostId)>,
}

impl Default for Links {
    fn default() -> Self {
        Self { weather: Weather::FAIR, cut: BTreeSet::new() }
    }
}

impl Links {
    pub fn set_weather(&mut self, weather: Weather) {
        self.weather = weather;
    }

    /// Cuts one direction.
    pub fn cut(&mut self, from: HostId, to: HostId) {
        self.cut.insert((from, to));
    }

    pub fn heal_all(&mut self) {
        self.cut.clear();
    }

    pub fn is_cut(&self, from: HostId, to: HostId) -> bool {
        self.cut.contains(&(from, to))
    }

    pub fn delay(&self, chance: &mut StdRng) -> u64 {
        let mut delay = LATENCY_NS_MIN + chance.random_range(0..=self.weather.jitter_ns);
        let mut retransmit = RETRANSMIT_NS;
        while self.weather.loss_per_mille > 0 && chance.random_range(0..1_000) < self.weather.loss_per_mille {
            delay += retransmit;
            retransmit *= 2;
        }
        delay
    }
}
