//! A failed call, told to people and to programs.

use afdg_proto::status::to_call_error;
use afdg_types::{CallError, Reason, Retry};
use prost::Message;
use serde_json::{Value, json};
use std::{collections::BTreeMap, error::Error, fmt};
use tonic::Status;

/// What went wrong with a call, as the grid, the agent or the connection says.
#[derive(Clone, Debug)]
pub struct CallFailure {
    pub code: String,
    pub reason: String,
    pub message: String,
    pub metadata: BTreeMap<String, String>,
    /// The agent's own refusal, not the grid's error.
    pub by_agent: bool,
    pub retry: Retry,
    pub retry_after_ms: Option<u64>,
    /// It was a question that changes nothing.
    pub asks_only: bool,
    /// The command to repeat the call safely with, where one is known.
    pub repeat_with: Option<String>,
    /// Whether its message was given up, where that was asked.
    pub letter: Option<LetterKnown>,
}

/// What is known of a message that has failed for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LetterKnown {
    /// It is the dead letter of that name.
    Is(String),
    /// It is none: it was dropped, or it was a call.
    IsNot,
    /// Not all regions have told their dead letters in time.
    NotAsked,
}

impl LetterKnown {
    fn name(&self) -> Option<&str> {
        match self {
            Self::Is(name) => Some(name),
            Self::IsNot | Self::NotAsked => None,
        }
    }
}

impl fmt::Display for LetterKnown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Is(name) => write!(f, "it was given up: see 'afdg dead-letter show {name}'"),
            Self::IsNot => write!(f, "no: it was a call, or it was dropped, which 'afdg audit list' shows"),
            Self::NotAsked => write!(f, "not known: a region has not told its dead letters in time"),
        }
    }
}

impl CallFailure {
    pub fn of_status(status: &Status) -> Self {
        let mut failure = Self::of_call_error(to_call_error(status));
        // The transport says "transport error" and keeps the fact that helps in the causes below.
        let mut cause = status.source();
        while let Some(error) = cause {
            let text = error.to_string();
            if !failure.message.contains(&text) {
                failure.message = format!("{}: {text}", failure.message);
            }
            cause = error.source();
        }
        failure
    }

    /// Of a question that changes nothing, whatever became of it.
    pub fn of_read(status: &Status) -> Self {
        let failure = Self { asks_only: true, ..Self::of_status(status) };
        match failure.retry {
            Retry::Unknown => Self { retry: Retry::Same, ..failure },
            _ => failure,
        }
    }

    pub fn of_call_error(error: CallError) -> Self {
        match error {
            CallError::Agent(error) => Self {
                code: error.code.to_string(),
                reason: error.reason,
                message: error.message,
                metadata: error.metadata,
                by_agent: true,
                retry: Retry::Never,
                retry_after_ms: None,
                asks_only: false,
                repeat_with: None,
                letter: None,
            },
            CallError::Grid(error) => Self {
                code: error.reason.code().to_string(),
                reason: error.reason.as_str().to_owned(),
                retry: error.retry(),
                message: error.message,
                metadata: error.metadata,
                by_agent: false,
                retry_after_ms: error.retry_after_ms,
                asks_only: false,
                repeat_with: None,
                letter: None,
            },
        }
    }

    /// The request is wrong in itself, so the grid has done nothing.
    pub fn is_malformed(&self) -> bool {
        let malformed =
            [Reason::RequestMalformed, Reason::InvalidRequest, Reason::KeyMalformed, Reason::KeyMissing];
        !self.by_agent && malformed.iter().any(|reason| reason.as_str() == self.reason)
    }

    fn letter_name(&self) -> Option<&str> {
        self.letter.as_ref().and_then(LetterKnown::name)
    }

    /// What the caller should do now.
    pub fn advice(&self) -> String {
        if let Some(name) = self.letter_name() {
            return format!("by 'afdg dead-letter retry {name} --because TEXT', once its cause is mended");
        }
        let after = self.retry_after_ms.map_or(String::new(), |ms| format!(" after {ms} ms"));
        match (self.retry, &self.repeat_with) {
            (Retry::Same | Retry::Elsewhere | Retry::Unknown, _) if self.asks_only => {
                format!("yes{after}: asking changes nothing")
            }
            (Retry::Never, _) if self.by_agent => "no: the agent has refused it".to_owned(),
            (Retry::Never, _) => "no: the same call fails the same way".to_owned(),
            (Retry::Same | Retry::Elsewhere, _) => {
                format!("yes{after}: nothing took effect, the same call may pass later")
            }
            (Retry::Unknown, Some(with)) => {
                format!(
                    "yes{after}, with {with}: it may have taken effect, and with this key it does so once"
                )
            }
            (Retry::Unknown, None) => {
                format!("unknown: it may have taken effect; repeat it{after} with the same idempotency key")
            }
        }
    }

    pub fn to_json(&self) -> Value {
        let retry = match self.retry {
            Retry::Never => "never",
            Retry::Same => "same",
            Retry::Elsewhere => "elsewhere",
            Retry::Unknown => "unknown",
        };
        json!({
            "code": self.code,
            "reason": self.reason,
            "by": if self.by_agent { "agent" } else { "grid" },
            "message": self.message,
            "metadata": self.metadata,
            "dead_letter": self.letter_name(),
            "retry": retry,
            "retry_after_ms": self.retry_after_ms,
            "advice": self.advice(),
        })
    }
}

impl fmt::Display for CallFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut facts = crate::output::Table::facts();
        facts.fact("  code", &self.code);
        facts.fact("  reason", &self.reason);
        facts.fact("  message", &self.message);
        for (key, value) in &self.metadata {
            facts.fact("  metadata", format!("{key} = {value}"));
        }
        if let Some(letter) = &self.letter {
            facts.fact("  dead letter", letter);
        }
        facts.fact("  retry", self.advice());
        let by = match self.by_agent {
            _ if self.letter_name().is_some() => "the message is a dead letter",
            true => "the agent refused the call",
            false => "the grid could not do it",
        };
        write!(f, "{by}\n{}", facts.to_string().trim_end())
    }
}

impl Error for CallFailure {}

/// The status inside a result of `CallMany` or `Pipe`, as if the call had been made by itself.
pub fn status_of(error: &tonic_types::pb::Status) -> Status {
    let details = error.encode_to_vec().into();
    Status::with_details(tonic::Code::from_i32(error.code), error.message.clone(), details)
}

#[cfg(test)]
mod tests {
    use super::*;
    use afdg_proto::status::of_grid_error;
    use afdg_types::{AgentError, GridError, Reason};

    #[test]
    fn a_status_in_a_result_says_as_much_as_one_by_itself() {
        let error = GridError::new(Reason::Overloaded, "queue full").with("limit", 8).retry_after_ms(50);
        let status = of_grid_error(&error);
        let inside = tonic_types::pb::Status::decode(status.details()).unwrap();
        let failure = CallFailure::of_status(&status_of(&inside));
        assert_eq!(failure.reason, "OVERLOADED");
        assert_eq!(failure.metadata["limit"], "8");
        assert_eq!(failure.retry_after_ms, Some(50));
        assert_eq!(failure.retry, Retry::Same);
    }

    #[test]
    fn an_unknown_outcome_names_the_key_that_makes_a_repeat_safe() {
        let error = GridError::new(Reason::OutcomeUnknown, "leader lost");
        let mut failure = CallFailure::of_call_error(error.into());
        failure.repeat_with = Some("--idempotency-key k1".to_owned());
        assert!(failure.to_string().contains("with --idempotency-key k1"), "{failure}");
    }

    #[test]
    fn a_dead_letter_is_told_with_what_can_be_done_about_it() {
        let mut failure = CallFailure::of_call_error(AgentError::refused("SHORT", "too little").into());
        assert!(failure.advice().starts_with("no: "));
        assert_eq!(failure.to_json()["dead_letter"], Value::Null);
        failure.letter = Some(LetterKnown::IsNot);
        let told = failure.to_string();
        assert!(
            told.starts_with("the agent refused the call\n") && told.contains("it was dropped"),
            "{told}"
        );
        failure.letter = Some(LetterKnown::Is("17@a.B/c".to_owned()));
        let told = failure.to_string();
        for part in ["is a dead letter", "afdg dead-letter show 17@a.B/c", "afdg dead-letter retry 17@a.B/c"]
        {
            assert!(told.contains(part), "{told}");
        }
        assert_eq!(failure.to_json()["dead_letter"], "17@a.B/c");
    }

    #[test]
    fn a_broken_connection_tells_its_cause() {
        let cause = std::io::Error::new(std::io::ErrorKind::ConnectionReset, "reset by peer");
        let failure = CallFailure::of_status(&Status::from_error(Box::new(cause)));
        assert!(failure.message.contains("reset by peer"), "{}", failure.message);
        assert_eq!(failure.retry, Retry::Unknown);
    }
}
