//! What authors say of a schedule.

use crate::error::CallError;
use afdg_types::{
    AgentError, Missed, Timing, When,
    limits::{
        SCHEDULE_NAME_BYTES_MAX, SCHEDULE_PERIOD_MS_MAX, SCHEDULE_PERIOD_MS_MIN, SCHEDULE_REQUEST_BYTES_MAX,
    },
};
use std::time::{Duration, SystemTime};

/// When a message is sent again and again, for [`Context::schedule`](crate::Context::schedule).
///
/// ```
/// # use afdg_agent::{Missed, Schedule};
/// # use std::time::Duration;
/// let heartbeat = Schedule::every(Duration::from_secs(60)).missed(Missed::Skip);
/// let rent = Schedule::cron("0 9 1 * *", "Europe/Berlin").missed(Missed::All);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a schedule does nothing until it is given to Context::schedule"]
pub struct Schedule {
    pub(crate) when: When,
    pub(crate) missed: Missed,
}

impl Schedule {
    /// Once in every period, for the first time after one period. At least
    /// [`SCHEDULE_PERIOD_MS_MIN`] ms, at most [`SCHEDULE_PERIOD_MS_MAX`]; parts of a millisecond are cut off.
    pub fn every(period: Duration) -> Self {
        Self::of(Timing::Every { period_ms: u64::try_from(period.as_millis()).unwrap_or(u64::MAX) })
    }

    /// By a calendar: minute, hour, day of the month, month, day of the week, as in `0 9 * * MON-FRI`; with six
    /// fields the first is the second, with seven the last is the year. Read by the clocks of a time zone of
    /// the IANA database, such as `Europe/Berlin` or `UTC`.
    ///
    /// Where clocks are put forward, a time that does not exist is due at the first instant after it. Where
    /// they are put back, a time that comes twice is due at the first; but a calendar that names no hour, or
    /// every so many, such as `*/15 * * * *`, goes on through both.
    pub fn cron(text: impl Into<String>, zone: impl Into<String>) -> Self {
        Self::of(Timing::Cron { text: text.into(), zone: zone.into() })
    }

    fn of(timing: Timing) -> Self {
        Self { when: When { timing, start_ms: None, until_ms: None }, missed: Missed::default() }
    }

    /// What becomes of due times that nobody saw; [`Missed::Once`] unless it is said.
    pub fn missed(mut self, missed: Missed) -> Self {
        self.missed = missed;
        self
    }

    /// Not due before this. One that is due once in every period is due for the first time then, and counts
    /// its periods from there, even if it has passed.
    pub fn starting_at(mut self, start: SystemTime) -> Self {
        self.when.start_ms = Some(ms_of(start));
        self
    }

    /// Not due after this. The schedule is gone once it can't be due any more.
    pub fn until(mut self, until: SystemTime) -> Self {
        self.when.until_ms = Some(ms_of(until));
        self
    }
}

fn ms_of(time: SystemTime) -> u64 {
    let since_epoch = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
}

/// Why something is no schedule. `?` turns it into the handler's refusal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    #[error(
        "a schedule's name has 1 to {SCHEDULE_NAME_BYTES_MAX} bytes and no control characters; got '{name}'"
    )]
    Name { name: String },
    #[error(
        "a schedule's period is {SCHEDULE_PERIOD_MS_MIN} to {SCHEDULE_PERIOD_MS_MAX} ms; got {period_ms} ms"
    )]
    Period { period_ms: u64 },
    #[error(
        "'{text}' is no calendar: {why}. Write minute, hour, day of the month, month and day of the week, as \
         in '0 9 * * MON-FRI'"
    )]
    Cron { text: String, why: String },
    #[error("'{zone}' is no time zone; take a name of the IANA database such as 'Europe/Berlin' or 'UTC'")]
    Zone { zone: String },
    #[error("the schedule would never be due")]
    NeverDue,
    #[error("a schedule's request has at most {SCHEDULE_REQUEST_BYTES_MAX} bytes; this one has {bytes}")]
    RequestTooLarge { bytes: usize },
    /// The message can't be sent, or the turn has failed.
    #[error(transparent)]
    Call(#[from] CallError),
}

impl ScheduleError {
    /// The reason for programs.
    pub fn reason(&self) -> &str {
        match self {
            Self::Call(error) => error.reason(),
            _ => "SCHEDULE_MALFORMED",
        }
    }
}

impl From<ScheduleError> for AgentError {
    fn from(error: ScheduleError) -> Self {
        match error {
            ScheduleError::Call(error) => error.into(),
            error => AgentError::invalid("SCHEDULE_MALFORMED", error.to_string()),
        }
    }
}

/// A schedule's name as it is stored and shown.
pub(crate) fn check_name(name: &str) -> Result<(), ScheduleError> {
    let fits = (1..=SCHEDULE_NAME_BYTES_MAX).contains(&name.len()) && !name.chars().any(char::is_control);
    if fits {
        return Ok(());
    }
    Err(ScheduleError::Name { name: name.chars().take(80).collect::<String>().escape_debug().to_string() })
}
