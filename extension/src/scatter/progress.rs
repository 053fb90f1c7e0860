//! How far a scatter is, as a token says it to whoever goes on with it.
//!
//! Regions are begun in the order of their ids, so a token names the first that is not begun, and a place in
//! each that is begun and not done: as many as are asked at the same time.

use afdg_proto::pb::internal::{ScatterPlace, ScatterToken};
use afdg_types::{
    GridError, Reason, RegionId,
    limits::{AGENT_KEY_BYTES_MAX, IDEMPOTENCY_KEY_BYTES_MAX},
};
use bytes::Bytes;
use prost::Message;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, PartialEq)]
pub(super) struct Progress {
    digest: u64,
    idempotency_key: String,
    /// Begun and not done, with the key up to which all are done; empty if that is none yet.
    places: BTreeMap<RegionId, String>,
    /// Of these, those of an earlier stream that this one has not begun.
    left_over: BTreeSet<RegionId>,
    /// Those from `next` on are not begun.
    regions: BTreeSet<RegionId>,
    next: RegionId,
}

impl Progress {
    pub(super) fn new(digest: u64, idempotency_key: String, regions: BTreeSet<RegionId>) -> Self {
        let places = BTreeMap::new();
        Self { digest, idempotency_key, places, left_over: BTreeSet::new(), regions, next: RegionId(0) }
    }

    pub(super) fn resume(
        token: &[u8],
        digest: u64,
        idempotency_key: &str,
        regions: BTreeSet<RegionId>,
    ) -> Result<Self, GridError> {
        let wrong = |what: &str| {
            let text = format!("the resume token {what}");
            Err(GridError::new(Reason::InvalidRequest, text).with("field", "resume_token"))
        };
        let Ok(token) = ScatterToken::decode(token) else {
            return wrong("is none that this service has given out");
        };
        let key = token.idempotency_key;
        let places: BTreeMap<RegionId, String> =
            token.places.into_iter().map(|place| (RegionId(place.region), place.after)).collect();
        if token.digest != digest {
            return wrong(
                "is of another request: type, prefix, method, request and 'send' have to be the same",
            );
        }
        if !idempotency_key.is_empty() && idempotency_key != key {
            return wrong("is of another idempotency key; leave that out, the token holds it");
        }
        let is_known = |region: &RegionId| regions.contains(region);
        let fits = (1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&key.len())
            && places.keys().all(is_known)
            && places.values().all(|after| after.len() <= AGENT_KEY_BYTES_MAX);
        if !fits {
            return wrong("does not fit this cluster");
        }
        let left_over = places.keys().copied().collect();
        let next = RegionId(token.next_region);
        Ok(Self { digest, idempotency_key: key, places, left_over, regions, next })
    }

    pub(super) fn idempotency_key(&self) -> &str {
        &self.idempotency_key
    }

    /// Regions that are not done.
    pub(super) fn regions_left(&self) -> usize {
        self.places.len() + self.regions.range(self.next..).count()
    }

    /// The next region to begin with, and where in it.
    pub(super) fn begin(&mut self) -> Option<(RegionId, String)> {
        if let Some(region) = self.left_over.pop_first() {
            let after = self.places.get(&region).cloned().unwrap_or_default();
            return Some((region, after));
        }
        let region = self.regions.range(self.next..).next().copied()?;
        self.next = RegionId(region.0 + 1);
        self.places.insert(region, String::new());
        Some((region, String::new()))
    }

    pub(super) fn advance(&mut self, region: RegionId, after: &str) {
        if let Some(place) = self.places.get_mut(&region) {
            after.clone_into(place);
        }
    }

    pub(super) fn done(&mut self, region: RegionId) {
        self.places.remove(&region);
    }

    pub(super) fn token(&self) -> Bytes {
        let places = self.places.iter();
        let places = places.map(|(region, after)| ScatterPlace { region: region.0, after: after.clone() });
        let token = ScatterToken {
            digest: self.digest,
            idempotency_key: self.idempotency_key.clone(),
            next_region: self.next.0,
            places: places.collect(),
        };
        token.encode_to_vec().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn regions() -> BTreeSet<RegionId> {
        [1, 2, 3, 5].map(RegionId).into()
    }

    fn resumed(progress: &Progress) -> Result<Progress, GridError> {
        Progress::resume(&progress.token(), 7, "", regions())
    }

    #[test]
    fn what_is_not_done_is_begun_again_where_it_was() {
        let mut progress = Progress::new(7, "key".to_owned(), regions());
        for region in [1, 2, 3] {
            assert_eq!(progress.begin(), Some((RegionId(region), String::new())));
        }
        progress.advance(RegionId(1), "m");
        progress.advance(RegionId(3), "x");
        progress.done(RegionId(2));
        progress.done(RegionId(3));
        let mut again = resumed(&progress).unwrap();
        assert_eq!((again.idempotency_key(), again.regions_left()), ("key", 2));
        // A token of a stream that has begun nothing says the same.
        assert_eq!(resumed(&again).unwrap(), again);
        assert_eq!(again.begin(), Some((RegionId(1), "m".to_owned())));
        assert_eq!(again.begin(), Some((RegionId(5), String::new())));
        assert_eq!(again.begin(), None);
        again.done(RegionId(5));
        again.done(RegionId(1));
        assert_eq!(resumed(&again).unwrap().begin(), None);
    }

    #[test]
    fn a_token_that_does_not_fit_is_refused() {
        let mut progress = Progress::new(7, "key".to_owned(), regions());
        progress.begin();
        let token = progress.token();
        assert!(Progress::resume(&token, 7, "key", regions()).is_ok());
        let refused = [
            Progress::resume(b"\xff", 7, "", regions()),
            Progress::resume(&token, 8, "", regions()),
            Progress::resume(&token, 7, "other", regions()),
            Progress::resume(&token, 7, "", BTreeSet::new()),
        ];
        for refused in refused {
            let error = refused.unwrap_err();
            assert_eq!(
                (error.reason, error.metadata["field"].as_str()),
                (Reason::InvalidRequest, "resume_token")
            );
        }
    }

    #[test]
    fn tokens_of_other_servers_never_change() {
        let mut progress = Progress::new(7, "k".to_owned(), regions());
        progress.begin();
        progress.advance(RegionId(1), "a");
        assert_eq!(
            progress.token().as_ref(),
            b"\x09\x07\0\0\0\0\0\0\0\x12\x01k\x18\x02\x22\x05\x08\x01\x12\x01a"
        );
    }
}
