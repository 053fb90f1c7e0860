//! What one attempt's result means for the retry loop.

use afdg_region_client::{Answer, ForwardError, ForwardResult};
use afdg_types::{CallError, GridError, NodeId, Reason, Retry};
use bytes::Bytes;

pub(crate) enum Verdict {
    /// The answer for the caller.
    Done(Result<Bytes, CallError>),
    Again(Again),
}

/// A result that another attempt may better.
pub(crate) struct Again {
    pub(crate) how: How,
    pub(crate) error: GridError,
    /// Who leads, as far as the node knows.
    pub(crate) leader: Option<NodeId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// Nothing took effect there; the next replica may take it.
    Elsewhere,
    /// The route is old; a newer one may be on its way.
    NewerRoute,
    /// It may have taken effect; the next replica knows or will know.
    Unknown,
    /// Nothing took effect; the region needs time.
    Later,
    /// Nothing took effect; the server has no room.
    Overloaded,
}

pub(crate) fn of(result: ForwardResult) -> Verdict {
    match result {
        Ok(Answer::Response(response)) => Verdict::Done(Ok(response)),
        Ok(Answer::AgentError(error)) => Verdict::Done(Err(error.into())),
        Ok(Answer::GridError { error, leader }) => of_grid_error(error, leader),
        Err(ForwardError::Refused(error)) => of_grid_error(error, None),
        Err(ForwardError::NotSent(why)) => of_grid_error(GridError::new(Reason::Unreachable, why), None),
        Err(ForwardError::Lost(why)) => of_grid_error(GridError::new(Reason::OutcomeUnknown, why), None),
    }
}

fn of_grid_error(error: GridError, leader: Option<NodeId>) -> Verdict {
    let how = match (error.retry(), error.reason) {
        (Retry::Never, _) => return Verdict::Done(Err(error.into())),
        (Retry::Elsewhere, Reason::StaleRoute) => How::NewerRoute,
        (Retry::Elsewhere, _) => How::Elsewhere,
        (Retry::Unknown, _) => How::Unknown,
        (Retry::Same, Reason::Overloaded) => How::Overloaded,
        (Retry::Same, _) => How::Later,
    };
    Verdict::Again(Again { how, error, leader })
}

/// Whether another replica may say otherwise than this final answer, since it is about the program that the
/// node runs and not about the message: it does not show that an earlier attempt had no effect.
pub(crate) fn is_of_one_node(error: &GridError) -> bool {
    matches!(error.reason, Reason::UnknownType | Reason::UnknownMethod)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_answer_that_stays_the_same_ends_the_loop() {
        for reason in Reason::ALL {
            let error = GridError::new(*reason, "why");
            let done = matches!(of(Ok(Answer::GridError { error, leader: None })), Verdict::Done(_));
            assert_eq!(done, reason.retry() == Retry::Never, "{reason}");
        }
    }

    #[test]
    fn not_sent_goes_elsewhere_and_lost_is_unknown() {
        for (error, how) in [
            (ForwardError::NotSent(String::new()), How::Elsewhere),
            (ForwardError::Lost(String::new()), How::Unknown),
            (ForwardError::Refused(GridError::new(Reason::Overloaded, "")), How::Overloaded),
        ] {
            let Verdict::Again(again) = of(Err(error)) else { panic!() };
            assert_eq!(again.how, how);
        }
    }
}
