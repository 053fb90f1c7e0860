//! The one place that makes a gRPC status of a [`CallError`] and reads one back.
//!
//! Every status carries a `google.rpc.ErrorInfo`. The domain tells whose error it is: `afdg` for the
//! grid's, the agent type's name for a handler's. Where they fit, `RetryInfo`, `BadRequest` and
//! `ResourceInfo` come with it.

use crate::pb::internal;
use afdg_types::{AgentError, CallError, Code, GridError, Reason};
use std::{collections::HashMap, time::Duration};
use tonic::Status;
use tonic_types::{ErrorDetails, StatusExt};

/// `ErrorInfo.domain` of the grid's own errors.
pub const GRID_DOMAIN: &str = "afdg";

/// The status for a client. `agent_type` is the domain of a handler's error.
pub fn of_call_error(error: &CallError, agent_type: &str) -> Status {
    match error {
        CallError::Agent(error) => of_agent_error(error, agent_type),
        CallError::Grid(error) => of_grid_error(error),
    }
}

fn of_agent_error(error: &AgentError, agent_type: &str) -> Status {
    let mut details = ErrorDetails::new();
    details.set_error_info(
        error.reason.clone(),
        agent_type,
        error.metadata.clone().into_iter().collect::<HashMap<_, _>>(),
    );
    Status::with_error_details(code(error.code), error.message.clone(), details)
}

/// The status of a grid error.
pub fn of_grid_error(error: &GridError) -> Status {
    let mut details = ErrorDetails::new();
    details.set_error_info(
        error.reason.as_str(),
        GRID_DOMAIN,
        error.metadata.clone().into_iter().collect::<HashMap<_, _>>(),
    );
    if let Some(delay) = error.retry_after_ms {
        details.set_retry_info(Some(Duration::from_millis(delay)));
    }
    match error.reason {
        Reason::KeyMissing | Reason::KeyMalformed | Reason::RequestMalformed | Reason::InvalidRequest => {
            let field = error.metadata.get("field").cloned().unwrap_or_else(|| "request".to_owned());
            details.add_bad_request_violation(field, error.message.clone());
        }
        Reason::UnknownType | Reason::UnknownMethod | Reason::NotFound => {
            let of = |key: &str| error.metadata.get(key).cloned().unwrap_or_default();
            details.set_resource_info(of("resource_type"), of("resource_name"), "", error.message.clone());
        }
        _ => {}
    }
    Status::with_error_details(code(error.reason.code()), error.message.clone(), details)
}

/// Reads a status that a server of the grid made; one of another origin (a proxy, a broken
/// connection) becomes the grid error that fits its code.
pub fn to_call_error(status: &Status) -> CallError {
    let details = status.get_error_details();
    let retry_after_ms =
        details.retry_info().and_then(|info| info.retry_delay).map(|delay| delay.as_millis() as u64);
    let Some(info) = details.error_info() else {
        return CallError::Grid(of_foreign_status(status));
    };
    let metadata = info.metadata.clone().into_iter().collect();
    if info.domain == GRID_DOMAIN {
        let Some(reason) = Reason::from_text(&info.reason) else {
            return CallError::Grid(of_foreign_status(status));
        };
        return CallError::Grid(GridError {
            reason,
            message: status.message().to_owned(),
            metadata,
            retry_after_ms,
        });
    }
    CallError::Agent(AgentError {
        code: Code::from_number(status.code() as i32).unwrap_or(Code::Unknown),
        reason: info.reason.clone(),
        message: status.message().to_owned(),
        metadata,
    })
}

/// A status without our details: what the transport says of itself.
fn of_foreign_status(status: &Status) -> GridError {
    let reason = match status.code() {
        tonic::Code::DeadlineExceeded => Reason::DeadlineOutcomeUnknown,
        tonic::Code::ResourceExhausted | tonic::Code::OutOfRange => Reason::MessageTooLarge,
        tonic::Code::Unimplemented => Reason::UnknownMethod,
        tonic::Code::InvalidArgument => Reason::RequestMalformed,
        tonic::Code::PermissionDenied | tonic::Code::Unauthenticated => Reason::NotAPeer,
        _ => Reason::OutcomeUnknown,
    };
    GridError::new(reason, format!("{:?}: {}", status.code(), status.message()))
}

fn code(code: Code) -> tonic::Code {
    tonic::Code::from_i32(code as i32)
}

/// Between servers errors travel inside frames, not as statuses.
pub fn to_wire(error: CallError, leader_hint: u64) -> internal::outcome::Result {
    match error {
        CallError::Agent(error) => internal::outcome::Result::AgentError(internal::AgentError {
            code: error.code as i32,
            reason: error.reason,
            message: error.message,
            metadata: error.metadata.into_iter().collect(),
        }),
        CallError::Grid(error) => internal::outcome::Result::GridError(internal::GridError {
            reason: error.reason.as_str().to_owned(),
            message: error.message,
            metadata: error.metadata.into_iter().collect(),
            retry_after_ms: error.retry_after_ms.unwrap_or(0),
            leader_hint,
        }),
    }
}

pub fn agent_error_from_wire(error: internal::AgentError) -> AgentError {
    AgentError {
        code: Code::from_number(error.code).unwrap_or(Code::Unknown),
        reason: error.reason,
        message: error.message,
        metadata: error.metadata.into_iter().collect(),
    }
}

/// An unknown reason comes from a newer server: what it did is not known here.
pub fn grid_error_from_wire(error: internal::GridError) -> GridError {
    GridError {
        reason: Reason::from_text(&error.reason).unwrap_or(Reason::OutcomeUnknown),
        message: error.message,
        metadata: error.metadata.into_iter().collect(),
        retry_after_ms: (error.retry_after_ms > 0).then_some(error.retry_after_ms),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_grid_error_survives_the_status_and_the_frame() {
        for reason in Reason::ALL {
            let error =
                GridError::new(*reason, "what was wrong").with("resource_name", "x").retry_after_ms(250);
            let status = of_grid_error(&error);
            assert_eq!(status.code() as i32, reason.code() as i32);
            assert_eq!(to_call_error(&status), CallError::Grid(error.clone()));
            let internal::outcome::Result::GridError(wire) = to_wire(error.clone().into(), 7) else {
                panic!()
            };
            assert_eq!(wire.leader_hint, 7);
            assert_eq!(grid_error_from_wire(wire), error);
        }
    }

    #[test]
    fn every_agent_error_survives_the_status_and_the_frame() {
        for code in Code::ALL {
            let error = AgentError::new(code, "BALANCE_SHORT", "short by 3").with("cents", 3);
            let status = of_call_error(&error.clone().into(), "bank.v1.Account");
            assert_eq!(to_call_error(&status), CallError::Agent(error.clone()));
            let internal::outcome::Result::AgentError(wire) = to_wire(error.clone().into(), 0) else {
                panic!()
            };
            assert_eq!(agent_error_from_wire(wire), error);
        }
    }

    #[test]
    fn a_status_from_elsewhere_is_never_taken_for_a_refusal() {
        let CallError::Grid(error) = to_call_error(&Status::unavailable("connection reset")) else {
            panic!()
        };
        assert_eq!(error.reason, Reason::OutcomeUnknown);
    }
}
