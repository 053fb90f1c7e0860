//! How long the machine keeps a thread waiting that wants to run: what a time that was measured beside
//! others' work has to be judged by.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// How many times as long as on an idle machine work takes that needs all of it, by the number of tasks that
/// wanted to run in the last minute; 1 at least.
pub fn crowding() -> f64 {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load: f64 = load.split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(1.0);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    (load / cores as f64).max(1.0)
}

const NAP: Duration = Duration::from_millis(10);

/// Watches as long as it lives.
pub struct Stalls {
    longest_us: Arc<AtomicU64>,
}

impl Stalls {
    /// A thread that sleeps, and looks how much later than it wanted it wakes up.
    pub fn watch() -> Self {
        let longest_us = Arc::new(AtomicU64::new(0));
        let watched = Arc::downgrade(&longest_us);
        std::thread::spawn(move || {
            loop {
                let begin = Instant::now();
                std::thread::sleep(NAP);
                let stall = begin.elapsed().saturating_sub(NAP);
                let Some(longest_us) = watched.upgrade() else { return };
                longest_us.fetch_max(stall.as_micros() as u64, Ordering::Relaxed);
            }
        });
        Self { longest_us }
    }

    pub fn forget(&self) {
        self.longest_us.store(0, Ordering::Relaxed);
    }

    /// Since it was last told to forget.
    pub fn longest(&self) -> Duration {
        Duration::from_micros(self.longest_us.load(Ordering::Relaxed))
    }
}
