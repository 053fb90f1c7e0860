//! What operators ask of a grid: `status`, `node`, `region`, `type`, `agent`, `audit`.

pub mod agent;
pub mod agent_type;
pub mod audit;
pub mod node;
pub mod region;
pub mod status;

use crate::client::{CallFailure, Client};
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
}
