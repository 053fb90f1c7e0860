//! Which replica gets the next attempt.

/// The replicas that were tried in this round, as bits. A round ends when each was tried once.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Itinerary {
    tried: u64,
    last: usize,
}

/// Replicas of one region that a router keeps in mind.
pub(crate) const REPLICAS_MAX: usize = 64;

impl Itinerary {
    /// The replica to try next: who is said to lead, else the one after the last tried. Those in `open`
    /// already have the message and are left out. None if the round is over.
    pub(crate) fn next(&mut self, replicas: usize, leader: Option<usize>, open: u64) -> Option<usize> {
        let replicas = replicas.min(REPLICAS_MAX);
        let taken = self.tried | open;
        let is_free = |index: &usize| *index < replicas && taken & (1 << *index) == 0;
        let after_last = (0..replicas).map(|step| (self.last + 1 + step) % replicas);
        // Nobody was tried: the first replica is the preferred leader.
        let in_order = if self.tried == 0 && open == 0 { 0..replicas } else { 0..0 };
        let next = leader.into_iter().chain(in_order).chain(after_last).find(is_free)?;
        self.tried |= 1 << next;
        self.last = next;
        Some(next)
    }

    pub(crate) fn begin_round(&mut self) {
        self.tried = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_replica_is_tried_once_a_round_and_the_leader_first() {
        let mut itinerary = Itinerary::default();
        assert_eq!(itinerary.next(3, Some(1), 0), Some(1));
        assert_eq!(itinerary.next(3, Some(1), 0), Some(2));
        assert_eq!(itinerary.next(3, Some(0), 0), Some(0));
        assert_eq!(itinerary.next(3, Some(0), 0), None);
        itinerary.begin_round();
        assert_eq!(itinerary.next(3, Some(2), 0), Some(2));
    }

    #[test]
    fn without_a_leader_the_preferred_one_is_first() {
        let mut itinerary = Itinerary::default();
        assert_eq!([0; 4].map(|_| itinerary.next(3, None, 0)), [Some(0), Some(1), Some(2), None]);
    }

    #[test]
    fn a_replica_with_an_open_attempt_is_left_out() {
        let mut itinerary = Itinerary::default();
        assert_eq!(itinerary.next(3, Some(0), 0b001), Some(1));
        assert_eq!(itinerary.next(3, Some(0), 0b001), Some(2));
        assert_eq!(itinerary.next(3, Some(0), 0b001), None);
        assert_eq!(Itinerary::default().next(0, None, 0), None);
        assert_eq!(Itinerary::default().next(1, Some(7), 0), Some(0));
    }
}
