//! How long the machine keeps a thread waiting that wants to run: what a time that was measured beside
//! others' work has to be judged by.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

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
