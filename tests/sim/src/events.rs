//! The event log of one seed: what happened, in order, with its simulated time. Two runs of a seed have
//! the same log, byte for byte; a running hash tells without keeping it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use xxhash_rust::xxh3::Xxh3;

/// Cheap to clone.
#[derive(Clone)]
pub struct Events {
    shared: Arc<Mutex<Shared>>,
}

struct Shared {
    now_ns: u64,
    hash: Xxh3,
    lines: Option<Vec<String>>,
    count: u64,
    /// What was exercised, by name.
    counts: BTreeMap<&'static str, u64>,
    violations: Vec<String>,
}

impl Events {
    /// `keep` keeps the lines, for a person to read.
    pub fn new(keep: bool) -> Self {
        let shared = Shared {
            now_ns: 0,
            hash: Xxh3::new(),
            lines: keep.then(Vec::new),
            count: 0,
            counts: BTreeMap::new(),
            violations: Vec::new(),
        };
        Self { shared: Arc::new(Mutex::new(shared)) }
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn set_now(&self, ns: u64) {
        self.lock().now_ns = ns;
    }

    pub fn now_ns(&self) -> u64 {
        self.lock().now_ns
    }

    /// Notes an event of `host`.
    pub fn note(&self, host: &str, what: std::fmt::Arguments<'_>) {
        let mut shared = self.lock();
        let ms = shared.now_ns as f64 / 1e6;
        let line = format!("{ms:>10.3} {host:<12} {what}");
        shared.hash.update(line.as_bytes());
        shared.hash.update(b"\n");
        shared.count += 1;
        if let Some(lines) = &mut shared.lines {
            lines.push(line);
        }
    }

    /// Something that must not be. The run goes on, so that the log shows what it led to.
    pub fn violation(&self, invariant: &str, what: std::fmt::Arguments<'_>) {
        self.note("VIOLATION", format_args!("{invariant}: {what}"));
        self.lock().violations.push(format!("{invariant}: {what}"));
    }

    pub fn count(&self, what: &'static str) {
        self.add(what, 1);
    }

    pub fn add(&self, what: &'static str, number: u64) {
        *self.lock().counts.entry(what).or_default() += number;
    }

    pub fn violations(&self) -> Vec<String> {
        self.lock().violations.clone()
    }

    pub fn has_violation(&self) -> bool {
        !self.lock().violations.is_empty()
    }

    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.lock().counts.clone()
    }

    pub fn take_lines(&self) -> Vec<String> {
        self.lock().lines.take().unwrap_or_default()
    }

    /// Of all lines so far.
    pub fn digest(&self) -> u128 {
        self.lock().hash.digest128()
    }
}
