//! Arguments that several commands share.

use crate::{environment, failure::usage};
use afdg_types::limits;
use clap::{Args, ValueEnum};
use std::time::Duration;

/// Where the grid listens, unless told.
pub const ENDPOINT_DEFAULT: &str = "http://127.0.0.1:7400";

#[derive(Args, Clone, Debug)]
pub struct EndpointArgs {
    /// The grid's address: an extension's, such as http://127.0.0.1:7400
    #[arg(long, env = environment::ENDPOINT, default_value = ENDPOINT_DEFAULT, value_name = "URL")]
    pub endpoint: String,
}

#[derive(Args, Clone, Copy, Debug)]
pub struct OutputArgs {
    /// How results are printed
    #[arg(short, long, value_enum, default_value_t = Format::Table, value_name = "FORMAT")]
    pub output: Format,
}

/// Who acts, and why: for the audit log.
#[derive(Args, Clone, Debug)]
pub struct ActorArgs {
    /// Why, for the audit log
    #[arg(long)]
    reason: String,
    /// Who, for the audit log [default: the user's name, or uid-N]
    #[arg(long, env = environment::ACTOR)]
    actor: Option<String>,
}

impl ActorArgs {
    /// The actor and the reason.
    pub fn checked(self) -> anyhow::Result<(String, String)> {
        if self.reason.trim().is_empty() {
            return usage("--reason is empty; say in a few words why, for the audit log");
        }
        Ok((actor(self.actor), self.reason))
    }
}

/// Who acts, for the audit log: who is given, or the user's name as the system tells it, or the user's number.
pub fn actor(given: Option<String>) -> String {
    let names = [environment::USER, environment::LOGNAME].map(|name| std::env::var(name).ok());
    let named = std::iter::once(given).chain(names).flatten().find(|name| !name.trim().is_empty());
    named.unwrap_or_else(|| format!("uid-{}", rustix::process::getuid()))
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Aligned columns for people
    Table,
    /// JSON for programs
    Json,
}

/// Longest that a command takes; gRPC can't say more than some thousand years.
const LENGTH_MAX: Duration = Duration::from_secs(3_660 * 86_400);

/// A length of time as people write it: `500ms`, `5s`, `2m`, `1h`, `1d`; above zero.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("'{text}' is no length of time; write 500ms, 5s, 2m, 1h or 1d");
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(wrong()),
    };
    match number.checked_mul(unit_ms).map(Duration::from_millis) {
        None | Some(Duration::ZERO) => Err(wrong()),
        Some(length) if length > LENGTH_MAX => {
            Err(format!("'{text}' is too long; {} days are the most", LENGTH_MAX.as_secs() / 86_400))
        }
        Some(length) => Ok(length),
    }
}

/// For how long a message is held back.
pub fn delay(text: &str) -> Result<Duration, String> {
    let delay = duration(text)?;
    let most = Duration::from_millis(limits::SEND_DELAY_MS_MAX);
    if delay > most {
        return Err(format!("a message is held back for {} days at most", most.as_secs() / 86_400));
    }
    Ok(delay)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time_read_as_people_write_them() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(duration("2d"), Ok(Duration::from_secs(172_800)));
        for wrong in [
            "",
            "5",
            "s",
            "0s",
            "-1s",
            "1.5s",
            "1w",
            "99999999999999999999s",
            "18446744073709551615h",
            "3661d",
        ] {
            assert!(duration(wrong).is_err(), "{wrong} was taken");
        }
        assert_eq!(delay("366d"), Ok(Duration::from_secs(366 * 86_400)));
        assert_eq!(delay("367d").unwrap_err(), "a message is held back for 366 days at most");
    }
}
