//! The bounds of one agent type that can be set while the grid runs. What holds for everything else stands in
//! [`crate::limits`].

use crate::limits;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt, str::FromStr};

/// One bound. A variant's place in this list is its number on disk: new ones go to the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum TypeLimit {
    MailboxMessages,
    MailboxBytes,
    InFlightMessages,
    InFlightBytes,
    TurnsConcurrent,
    TurnsPerSecond,
    TurnMs,
    TurnMemoryBytes,
    TurnEffectBytes,
    WaitMs,
}

/// What is to be known of a bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitFacts {
    pub name: &'static str,
    pub default: u64,
    pub min: u64,
    pub max: u64,
    pub meaning: &'static str,
}

const fn facts(
    name: &'static str,
    default: u64,
    (min, max): (u64, u64),
    meaning: &'static str,
) -> LimitFacts {
    LimitFacts { name, default, min, max, meaning }
}

impl TypeLimit {
    pub const COUNT: usize = 10;

    pub const ALL: [Self; Self::COUNT] = [
        Self::MailboxMessages,
        Self::MailboxBytes,
        Self::InFlightMessages,
        Self::InFlightBytes,
        Self::TurnsConcurrent,
        Self::TurnsPerSecond,
        Self::TurnMs,
        Self::TurnMemoryBytes,
        Self::TurnEffectBytes,
        Self::WaitMs,
    ];

    pub const fn facts(self) -> LimitFacts {
        // No bound is so low that a single message could not pass.
        const ONE_MESSAGE: u64 = limits::MESSAGE_BYTES_MAX as u64;
        match self {
            Self::MailboxMessages => facts(
                "mailbox_messages_max",
                limits::AGENT_MAILBOX_MESSAGES_MAX as u64,
                (1, 65_536),
                "messages that wait for one agent's turn",
            ),
            Self::MailboxBytes => facts(
                "mailbox_bytes_max",
                16 * 1024 * 1024,
                (ONE_MESSAGE, limits::REGION_IN_FLIGHT_BYTES_MAX as u64),
                "request bytes that wait for one agent's turn",
            ),
            Self::InFlightMessages => facts(
                "in_flight_messages_max",
                limits::REGION_IN_FLIGHT_MESSAGES_MAX as u64 / 2,
                (1, limits::REGION_IN_FLIGHT_MESSAGES_MAX as u64),
                "messages of the type that a region has admitted and not answered",
            ),
            Self::InFlightBytes => facts(
                "in_flight_bytes_max",
                limits::REGION_IN_FLIGHT_BYTES_MAX as u64 / 2,
                (ONE_MESSAGE, limits::REGION_IN_FLIGHT_BYTES_MAX as u64),
                "request bytes of the type that a region has admitted and not answered",
            ),
            Self::TurnsConcurrent => facts(
                "turns_concurrent_max",
                1_024,
                (1, 65_536),
                "turns of the type that run at the same time in one region; others wait",
            ),
            Self::TurnsPerSecond => facts(
                "turns_per_second_max",
                0,
                (0, 10_000_000),
                "messages of the type that one region admits in a second, with bursts of a second's worth; 0 for any \
                 number. Calls from turns are let in always",
            ),
            Self::TurnMs => facts(
                "turn_ms_max",
                limits::TURN_MS_MAX,
                (1, limits::TURN_MS_MAX),
                "milliseconds that a turn runs; one that has called others is finished all the same",
            ),
            Self::TurnMemoryBytes => facts(
                "turn_memory_bytes_max",
                256 * 1024 * 1024,
                (1024 * 1024, 16 * 1024 * 1024 * 1024),
                "bytes that a turn is given and writes: its request, rows, answers to its calls",
            ),
            Self::TurnEffectBytes => facts(
                "turn_effect_bytes_max",
                limits::TURN_EFFECT_BYTES_MAX as u64,
                (1, limits::TURN_EFFECT_BYTES_MAX as u64),
                "bytes of rows that a turn writes, and of messages that it sends",
            ),
            Self::WaitMs => facts(
                "wait_ms_max",
                100,
                (0, 60_000),
                "milliseconds that messages of the type wait for a region itself, in the mean; past it the region takes \
                 on fewer at once. 0 for any wait",
            ),
        }
    }

    pub const fn name(self) -> &'static str {
        self.facts().name
    }

    /// Whether the bound can be set to `value`; if not, what it can be.
    pub fn check(self, value: u64) -> Result<(), LimitOutOfRange> {
        let LimitFacts { min, max, .. } = self.facts();
        if (min..=max).contains(&value) { Ok(()) } else { Err(LimitOutOfRange { limit: self, value }) }
    }
}

impl fmt::Display for TypeLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitOutOfRange {
    pub limit: TypeLimit,
    pub value: u64,
}

impl fmt::Display for LimitOutOfRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LimitFacts { name, min, max, .. } = self.limit.facts();
        write!(f, "{name} can be {min} to {max}, not {}", self.value)
    }
}

impl std::error::Error for LimitOutOfRange {}

/// A name that is no bound's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownLimit(String);

impl fmt::Display for UnknownLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = TypeLimit::ALL.map(TypeLimit::name).join(", ");
        let shown: String = self.0.chars().take(80).collect();
        write!(f, "there is no limit '{}'; there are: {known}", shown.escape_debug())
    }
}

impl std::error::Error for UnknownLimit {}

impl FromStr for TypeLimit {
    type Err = UnknownLimit;

    fn from_str(name: &str) -> Result<Self, UnknownLimit> {
        let found = Self::ALL.into_iter().find(|limit| limit.name() == name);
        found.ok_or_else(|| UnknownLimit(name.to_owned()))
    }
}

/// The bounds of one agent type: those that were set, and the defaults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TypeLimits([Option<u64>; TypeLimit::COUNT]);

impl TypeLimits {
    /// The defaults, but for those that were set.
    pub fn of(set: &BTreeMap<TypeLimit, u64>) -> Self {
        let mut limits = Self::default();
        for (limit, value) in set {
            limits = limits.with(*limit, *value);
        }
        limits
    }

    pub fn with(mut self, limit: TypeLimit, value: u64) -> Self {
        self.0[limit as usize] = Some(value);
        self
    }

    pub const fn get(&self, limit: TypeLimit) -> u64 {
        match self.0[limit as usize] {
            Some(value) => value,
            None => limit.facts().default,
        }
    }

    pub const fn is_set(&self, limit: TypeLimit) -> bool {
        self.0[limit as usize].is_some()
    }

    /// A bound on what is counted in memory.
    pub fn size(&self, limit: TypeLimit) -> usize {
        usize::try_from(self.get(limit)).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bound_has_its_place_and_its_name_and_its_default_can_be_set() {
        for (place, limit) in TypeLimit::ALL.into_iter().enumerate() {
            assert_eq!(limit as usize, place);
            assert_eq!(limit.name().parse(), Ok(limit));
            let facts = limit.facts();
            assert_eq!(limit.check(facts.default), Ok(()), "{limit}");
            assert_eq!(limit.check(facts.min), Ok(()));
            assert!(limit.check(facts.max + 1).is_err());
            assert_eq!(TypeLimits::default().get(limit), facts.default);
        }
    }

    #[test]
    fn what_was_set_takes_the_place_of_the_default() {
        let limits = TypeLimits::of(&[(TypeLimit::TurnMs, 250)].into());
        assert_eq!((limits.get(TypeLimit::TurnMs), limits.size(TypeLimit::MailboxMessages)), (250, 1_024));
        assert!(limits.is_set(TypeLimit::TurnMs) && !limits.is_set(TypeLimit::MailboxMessages));
    }

    #[test]
    fn what_is_wrong_is_said_with_what_would_be_right() {
        let error = TypeLimit::TurnMs.check(0).unwrap_err().to_string();
        assert_eq!(error, "turn_ms_max can be 1 to 60000, not 0");
        let error = "turn_ms".parse::<TypeLimit>().unwrap_err().to_string();
        assert!(
            error.starts_with("there is no limit 'turn_ms'; there are: mailbox_messages_max, mailbox_"),
            "{error}"
        );
    }
}
