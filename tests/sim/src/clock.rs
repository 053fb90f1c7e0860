//! A host's clocks: its part of simulated time, and a wall clock that may be wrong.

use afdg_runtime::Clock;
use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};
use tokio::time::Instant;

/// What a right wall clock shows when a simulation begins: the first of November 2026.
const WALL_EPOCH_MS: i64 = 1_793_491_200_000;

/// Cheap to clone; all clones are the clocks of one host.
#[derive(Clone)]
pub struct HostClock {
    origin: Instant,
    wall_offset_ms: Arc<AtomicI64>,
}

impl HostClock {
    /// `origin` is the instant at which the simulation began.
    pub fn new(origin: Instant) -> Self {
        Self { origin, wall_offset_ms: Arc::default() }
    }

    /// Since the simulation began. While the host runs, this may be ahead of the others by less than the
    /// shortest latency.
    pub fn now_ns(&self) -> u64 {
        self.instant_ns(Instant::now())
    }

    pub fn instant_ns(&self, instant: Instant) -> u64 {
        instant.saturating_duration_since(self.origin).as_nanos() as u64
    }

    /// Sets the wall clock wrong by so much, from now on.
    pub fn set_wall_offset_ms(&self, offset: i64) {
        self.wall_offset_ms.store(offset, Ordering::Relaxed);
    }
}

impl Clock for HostClock {
    fn now_ms(&self) -> u64 {
        let right = WALL_EPOCH_MS + (self.now_ns() / 1_000_000) as i64;
        (right + self.wall_offset_ms.load(Ordering::Relaxed)).max(0) as u64
    }
}
