//! What operators ask of a grid: `status`, `node`, `region`, `type`, `agent`, `dead-letter`, `schedule`,
//! `audit`.

mod activity;
pub mod agent;
pub mod agent_type;
pub mod audit;
pub mod dead_letter;
pub mod node;
pub mod region;
pub mod schedule;
pub mod status;

use crate::{
    call::fetch_types,
    client::{CallFailure, Client},
};
use afdg_types::AgentRef;
use anyhow::Context;
use std::fmt;
use tonic::{Response, Status};

/// The answer to a question, or what to tell a person of the failure.
fn answer<T>(
    result: Result<Response<T>, Status>,
    client: &Client,
    what: impl fmt::Display,
) -> anyhow::Result<T> {
    outcome(result.map_err(|status| CallFailure::of_read(&status)), client, what)
}

/// What became of something asked for, whether it could be told or not.
fn outcome<T>(
    result: Result<Response<T>, CallFailure>,
    client: &Client,
    what: impl fmt::Display,
) -> anyhow::Result<T> {
    result.map(Response::into_inner).with_context(|| format!("{what}, asked of {}", client.endpoint()))
}

/// For a question that found nothing: a name in it that the grid does not know is an error, since "there are none"
/// would hide that it is misspelt. A question that found something needs no check: what is left of a type that is
/// gone is still there to be asked for. Empty parts are not asked for.
async fn check_names(client: &Client, agent: &str, agent_type: &str, method: &str) -> anyhow::Result<()> {
    let agent_type = match agent.parse::<AgentRef>() {
        Ok(agent) if agent_type.is_empty() => agent.agent_type().to_owned(),
        _ => agent_type.to_owned(),
    };
    match (&*agent_type, method) {
        ("", "") => Ok(()),
        ("", method) => fetch_types(client).await?.have_method(method),
        (agent_type, "") => fetch_types(client).await?.named(agent_type).map(drop),
        (agent_type, method) => fetch_types(client).await?.method(agent_type, method).map(drop),
    }
}

/// `1234567` as `1,234,567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number of bytes with the unit that suits it.
fn bytes(number: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if number < 1024 {
        return format!("{number} B");
    }
    let mut value = number as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

fn ids(numbers: &[u64]) -> String {
    numbers.iter().map(u64::to_string).collect::<Vec<_>>().join(",")
}

/// Unix time in milliseconds as `2024-02-29T12:34:56Z`.
fn utc(at_ms: u64) -> String {
    let seconds = at_ms / 1_000;
    let (hour, minute, second) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    // Days to civil date: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms".
    let days = seconds / 86_400 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_easily() {
        assert_eq!(
            [grouped(0), grouped(999), grouped(1_000), grouped(69_659)],
            ["0", "999", "1,000", "69,659"]
        );
        assert_eq!(grouped(u64::MAX), "18,446,744,073,709,551,615");
        assert_eq!(
            [bytes(0), bytes(1023), bytes(1536), bytes(5 << 30)],
            ["0 B", "1023 B", "1.5 KiB", "5.0 GiB"]
        );
        assert_eq!(ids(&[1, 2, 30]), "1,2,30");
    }

    #[test]
    fn times_are_told_as_dates() {
        assert_eq!(utc(0), "1970-01-01T00:00:00Z");
        assert_eq!(utc(951_827_696_000), "2000-02-29T12:34:56Z");
        assert_eq!(utc(1_735_689_599_999), "2024-12-31T23:59:59Z");
        assert_eq!(utc(1_735_689_600_000), "2025-01-01T00:00:00Z");
    }
}
