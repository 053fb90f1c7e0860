//! How much one router has in flight.

use afdg_types::{
    GridError, Reason,
    limits::{ROUTER_IN_FLIGHT_BYTES_MAX, ROUTER_IN_FLIGHT_MESSAGES_MAX},
};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Hint for a caller that met a full router.
const FULL_RETRY_AFTER_MS: u64 = 100;

/// Counts messages and request bytes in flight, and refuses past their bounds. The counters may pass
/// a bound for a moment while a refused message takes its share back; they never admit past it.
pub(crate) struct Admission {
    messages: AtomicUsize,
    bytes: AtomicUsize,
    messages_max: usize,
    bytes_max: usize,
}

impl Default for Admission {
    fn default() -> Self {
        Self::new(ROUTER_IN_FLIGHT_MESSAGES_MAX, ROUTER_IN_FLIGHT_BYTES_MAX)
    }
}

/// The share of one message; given back when dropped.
pub(crate) struct Admitted<'a> {
    admission: &'a Admission,
    bytes: usize,
}

impl Admission {
    pub(crate) fn new(messages_max: usize, bytes_max: usize) -> Self {
        Self { messages: AtomicUsize::new(0), bytes: AtomicUsize::new(0), messages_max, bytes_max }
    }

    pub(crate) fn admit(&self, bytes: usize) -> Result<Admitted<'_>, GridError> {
        let messages_before = self.messages.fetch_add(1, Relaxed);
        let bytes_before = self.bytes.fetch_add(bytes, Relaxed);
        let admitted = Admitted { admission: self, bytes };
        if messages_before >= self.messages_max || bytes_before.saturating_add(bytes) > self.bytes_max {
            drop(admitted);
            return Err(GridError::new(
                Reason::Overloaded,
                format!(
                    "{messages_before} messages with {bytes_before} request bytes are in flight through \
                     this server, which is all it takes; try again later"
                ),
            )
            .retry_after_ms(FULL_RETRY_AFTER_MS));
        }
        Ok(admitted)
    }

    pub(crate) fn messages_in_flight(&self) -> usize {
        self.messages.load(Relaxed)
    }
}

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        self.admission.messages.fetch_sub(1, Relaxed);
        self.admission.bytes.fetch_sub(self.bytes, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_past_a_bound_is_refused_and_takes_no_room() {
        let admission = Admission::new(2, 10);
        let one = admission.admit(4).unwrap();
        let error = admission.admit(7).err().unwrap();
        assert_eq!((error.reason, error.retry_after_ms), (Reason::Overloaded, Some(FULL_RETRY_AFTER_MS)));
        let two = admission.admit(6).unwrap();
        assert!(admission.admit(0).is_err());
        drop((one, two));
        assert_eq!(admission.messages_in_flight(), 0);
        assert!(admission.admit(10).is_ok());
    }
}
