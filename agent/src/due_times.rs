//! Works out when schedules are due. Calendars and time zones are evaluated here and nowhere else: by
//! [`crate::Context`] to say at once what is wrong, by a region's leader to fire, and by
//! [`crate::testing::TestGrid`]. The database of time zones is the one that the program was built with.

use crate::schedule::ScheduleError;
use afdg_types::{
    Missed, Timing, When,
    limits::{
        SCHEDULE_CRON_BYTES_MAX, SCHEDULE_FIRINGS_AT_ONCE_MAX, SCHEDULE_LATE_MS_MAX, SCHEDULE_PERIOD_MS_MAX,
        SCHEDULE_PERIOD_MS_MIN, SCHEDULE_ZONE_BYTES_MAX,
    },
};
use croner::parser::{CronParser, Seconds, Year};
use jiff::{Timestamp, Zoned, tz::TimeZone};

/// The due times of one schedule; all times are milliseconds since the Unix epoch.
pub struct DueTimes {
    calendar: Calendar,
    start_ms: Option<u64>,
    until_ms: u64,
}

enum Calendar {
    Every { period_ms: u64 },
    Cron { cron: Box<croner::Cron>, zone: TimeZone },
}

/// What a schedule does whose due time has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Firing {
    /// Due times that send a message, in order, at most [`SCHEDULE_FIRINGS_AT_ONCE_MAX`].
    pub firings: Vec<u64>,
    /// The next due time; it may have passed as well. None if there is none.
    pub next_due_ms: Option<u64>,
}

impl DueTimes {
    pub fn new(when: &When) -> Result<Self, ScheduleError> {
        let calendar = match &when.timing {
            Timing::Every { period_ms }
                if !(SCHEDULE_PERIOD_MS_MIN..=SCHEDULE_PERIOD_MS_MAX).contains(period_ms) =>
            {
                return Err(ScheduleError::Period { period_ms: *period_ms });
            }
            Timing::Every { period_ms } => Calendar::Every { period_ms: *period_ms },
            Timing::Cron { text, zone } => {
                Calendar::Cron { cron: Box::new(parse_cron(text)?), zone: parse_zone(zone)? }
            }
        };
        Ok(Self { calendar, start_ms: when.start_ms, until_ms: when.until_ms.unwrap_or(u64::MAX) })
    }

    /// The first due time of a schedule that is set at `now_ms`.
    pub fn first(&self, now_ms: u64) -> Option<u64> {
        let first = match (&self.calendar, self.start_ms) {
            (Calendar::Every { period_ms }, None) => now_ms.checked_add(*period_ms)?,
            // A start that has passed says at which times it is due, counted from there.
            (Calendar::Every { period_ms }, Some(start_ms)) => {
                let periods = now_ms.saturating_sub(start_ms).div_ceil(*period_ms);
                start_ms.checked_add(periods.checked_mul(*period_ms)?)?
            }
            (Calendar::Cron { cron, zone }, Some(start_ms)) if start_ms > now_ms => {
                next_of(cron, zone, start_ms.div_ceil(1_000), true)?
            }
            (Calendar::Cron { cron, zone }, _) => next_of(cron, zone, now_ms / 1_000, false)?,
        };
        Some(first).filter(|first| *first <= self.until_ms)
    }

    /// The due time after `due_ms`.
    pub fn after(&self, due_ms: u64) -> Option<u64> {
        let next = match &self.calendar {
            Calendar::Every { period_ms } => due_ms.checked_add(*period_ms)?,
            Calendar::Cron { cron, zone } => next_of(cron, zone, due_ms / 1_000, false)?,
        };
        Some(next).filter(|next| (due_ms + 1..=self.until_ms).contains(next))
    }

    /// The latest due time that has passed by `now_ms`, of a schedule that stands at `due_ms`.
    fn latest(&self, due_ms: u64, now_ms: u64) -> u64 {
        let until_ms = now_ms.min(self.until_ms);
        match &self.calendar {
            Calendar::Every { period_ms } => due_ms + until_ms.saturating_sub(due_ms) / period_ms * period_ms,
            Calendar::Cron { cron, zone } => at(until_ms / 1_000, zone)
                .and_then(|now| ms_of(&cron.find_previous_occurrence(&now, true).ok()?))
                .map_or(due_ms, |latest| latest.max(due_ms)),
        }
    }

    /// What a schedule does at `now_ms` that stands at `due_ms`, which has passed.
    pub fn fire(&self, missed: Missed, due_ms: u64, now_ms: u64) -> Firing {
        if missed != Missed::All {
            let latest_ms = self.latest(due_ms, now_ms);
            let fires = missed == Missed::Once || now_ms.saturating_sub(latest_ms) <= SCHEDULE_LATE_MS_MAX;
            let firings = if fires { vec![latest_ms] } else { Vec::new() };
            return Firing { firings, next_due_ms: self.after(latest_ms) };
        }
        let (mut firings, mut next) = (vec![due_ms], self.after(due_ms));
        while let Some(due_ms) = next.filter(|due_ms| *due_ms <= now_ms)
            && firings.len() < SCHEDULE_FIRINGS_AT_ONCE_MAX
        {
            firings.push(due_ms);
            next = self.after(due_ms);
        }
        Firing { firings, next_due_ms: next }
    }
}

fn parse_cron(text: &str) -> Result<croner::Cron, ScheduleError> {
    let wrong = |why: String| ScheduleError::Cron { text: shown(text), why };
    if text.len() > SCHEDULE_CRON_BYTES_MAX {
        return Err(wrong(format!("it has {} bytes; at most {SCHEDULE_CRON_BYTES_MAX}", text.len())));
    }
    let parser = CronParser::builder().seconds(Seconds::Optional).year(Year::Optional).build();
    parser.parse(text).map_err(|error| wrong(error.to_string()))
}

fn parse_zone(name: &str) -> Result<TimeZone, ScheduleError> {
    let known = (name.len() <= SCHEDULE_ZONE_BYTES_MAX).then(|| TimeZone::get(name).ok()).flatten();
    known.ok_or_else(|| ScheduleError::Zone { zone: shown(name) })
}

fn shown(text: &str) -> String {
    text.chars().take(80).collect::<String>().escape_debug().to_string()
}

fn at(second: u64, zone: &TimeZone) -> Option<Zoned> {
    let timestamp = Timestamp::from_second(i64::try_from(second).ok()?).ok()?;
    Some(timestamp.to_zoned(zone.clone()))
}

fn ms_of(time: &Zoned) -> Option<u64> {
    u64::try_from(time.timestamp().as_millisecond()).ok()
}

/// The first time after `second` that fits; `second` itself, if it fits and `inclusive` says so.
fn next_of(cron: &croner::Cron, zone: &TimeZone, second: u64, inclusive: bool) -> Option<u64> {
    let found = cron.find_next_occurrence(&at(second, zone)?, inclusive).ok()?;
    ms_of(&found)
}

#[cfg(test)]
mod tests;
