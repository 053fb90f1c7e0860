//! What the log holds: which groups live, which indexes of theirs, and in which segments those stand.
//!
//! The writer enters every record here before it writes it, and recovery every record that it reads, so
//! that what is refused while writing and what counts as damage while reading are the same rules. The
//! bytes of entries are not kept.

use super::record::{Body, State};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};

#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub groups: BTreeMap<u64, Group>,
    /// Oldest first; the last one is written to.
    pub segments: VecDeque<Segment>,
}

#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub first_sequence: u64,
    /// State and begin records included.
    pub records: u64,
    pub bytes: u64,
    /// Of header and state records: what a segment has before anything is appended to it.
    pub start_bytes: u64,
}

#[derive(Debug, Default)]
pub(super) struct Group {
    pub vote: Option<Bytes>,
    pub committed: Option<Bytes>,
    pub purged: Option<(u64, Bytes)>,
    /// Where the entries stand, in the order of their indexes and of the segments.
    spans: VecDeque<Span>,
    /// The index of the next entry; none while any index may come first.
    next: Option<u64>,
}

/// Entries `first..end` that stand in one segment.
#[derive(Debug)]
struct Span {
    /// First sequence number of the segment; none if it was deleted before recovery, so that a later
    /// record has to say that the entries are gone.
    segment: Option<u64>,
    first: u64,
    end: u64,
}

impl Ledger {
    /// Number of the record that is written next.
    pub fn next_sequence(&self) -> u64 {
        self.segments.back().map_or(0, |segment| segment.first_sequence + segment.records)
    }

    pub fn oldest_groups(&self) -> Vec<u64> {
        if self.segments.len() < 2 {
            return Vec::new();
        }
        let oldest = self.segments.front().map(|segment| segment.first_sequence);
        self.groups.iter().filter(|(_, group)| group.starts_in() == oldest).map(|(&id, _)| id).collect()
    }

    /// The oldest segment, if nothing in it matters any more.
    pub fn deletable(&self) -> Option<u64> {
        let oldest = self.segments.front().filter(|_| self.segments.len() > 1)?.first_sequence;
        let pinned = self.groups.values().any(|group| group.starts_in() == Some(oldest));
        (!pinned).then_some(oldest)
    }

    /// Enters a record that stands in `segment`. The error says what does not fit, and nothing changed.
    pub fn enter(&mut self, segment: u64, group: u64, body: &Body) -> Result<(), String> {
        match body {
            Body::Entry { index, .. } => {
                return self.groups.entry(group).or_default().append(segment, *index);
            }
            Body::Vote(vote) => self.groups.entry(group).or_default().vote = Some(vote.clone()),
            Body::Committed(bytes) => {
                self.groups.entry(group).or_default().committed = Some(bytes.clone());
            }
            Body::Truncate { from } => {
                if let Some(known) = self.groups.get_mut(&group) {
                    return known.truncate(*from);
                }
            }
            Body::Purge { upto, mark } => self.groups.entry(group).or_default().purge(*upto, mark),
            Body::Remove => {
                self.groups.remove(&group);
            }
            Body::State(state) => {
                let oldest = self.segments.front().is_none_or(|oldest| oldest.first_sequence == segment);
                return self.enter_state(group, state, oldest);
            }
            Body::Begin { .. } => {}
        }
        Ok(())
    }

    /// A segment's state records repeat what older segments say. Only where there are none, they are news.
    fn enter_state(&mut self, group: u64, state: &State, oldest: bool) -> Result<(), String> {
        let Some(known) = self.groups.get_mut(&group) else {
            if !oldest {
                return Err(format!("a state of group {group}, of which older segments say nothing"));
            }
            let spans = state.range.filter(|(first, next)| first < next);
            let spans = spans.map(|(first, end)| Span { segment: None, first, end });
            let group_now = Group {
                vote: state.vote.clone(),
                committed: state.committed.clone(),
                purged: state.purged.clone(),
                spans: spans.into_iter().collect(),
                next: state.range.map(|(_, next)| next),
            };
            self.groups.insert(group, group_now);
            return Ok(());
        };
        // The committed one may ride along here for the first time, so it alone may differ.
        known.committed.clone_from(&state.committed);
        let replayed = known.state();
        if replayed != *state {
            return Err(format!("group {group} is {state:?} here and {replayed:?} by the older segments"));
        }
        Ok(())
    }
}

impl Group {
    pub fn state(&self) -> State {
        State {
            vote: self.vote.clone(),
            committed: self.committed.clone(),
            purged: self.purged.clone(),
            range: self.range(),
        }
    }

    /// Indexes of the first entry and of the one that comes next.
    pub fn range(&self) -> Option<(u64, u64)> {
        let next = self.next?;
        Some((self.spans.front().map_or(next, |span| span.first), next))
    }

    pub fn entries(&self) -> u64 {
        self.range().map_or(0, |(first, next)| next - first)
    }

    /// Entries that should be there and stand in no segment that is left.
    pub fn missing(&self) -> Option<(u64, u64)> {
        self.spans.iter().find(|span| span.segment.is_none()).map(|span| (span.first, span.end))
    }

    /// Would these indexes be taken, one after the other?
    pub fn accepts(&self, indexes: impl Iterator<Item = u64>) -> Result<(), String> {
        let mut next = self.next;
        for index in indexes {
            next = Some(follows(next, index)?);
        }
        Ok(())
    }

    /// Would `from` remove anything?
    pub fn reaches(&self, from: u64) -> bool {
        self.next.is_some_and(|next| from < next)
    }

    fn starts_in(&self) -> Option<u64> {
        self.spans.front()?.segment
    }

    fn append(&mut self, segment: u64, index: u64) -> Result<(), String> {
        let end = follows(self.next, index)?;
        self.next = Some(end);
        match self.spans.back_mut() {
            Some(span) if span.segment == Some(segment) => span.end = end,
            _ => self.spans.push_back(Span { segment: Some(segment), first: index, end }),
        }
        Ok(())
    }

    fn truncate(&mut self, from: u64) -> Result<(), String> {
        if let Some((purged, _)) = &self.purged
            && from <= *purged
        {
            return Err(format!("entries from {from} can't be removed, they are purged up to {purged}"));
        }
        while self.spans.back().is_some_and(|span| span.first >= from) {
            self.spans.pop_back();
        }
        if let Some(span) = self.spans.back_mut() {
            span.end = span.end.min(from);
        }
        self.next = self.next.map(|next| next.min(from));
        Ok(())
    }

    fn purge(&mut self, upto: u64, mark: &Bytes) {
        if self.purged.as_ref().is_some_and(|(purged, _)| upto <= *purged) {
            return;
        }
        self.purged = Some((upto, mark.clone()));
        let first = upto.saturating_add(1);
        while self.spans.front().is_some_and(|span| span.end <= first) {
            self.spans.pop_front();
        }
        if let Some(span) = self.spans.front_mut() {
            span.first = span.first.max(first);
        }
        self.next = Some(self.next.map_or(first, |next| next.max(first)));
    }
}

/// The index after `index`, if that is the one that may come now.
fn follows(next: Option<u64>, index: u64) -> Result<u64, String> {
    if let Some(next) = next
        && index != next
    {
        return Err(format!("entry {index} comes where {next} should"));
    }
    index.checked_add(1).ok_or_else(|| format!("no entry comes after {index}"))
}
