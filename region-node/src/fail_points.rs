//! Places where a region node ends at once, as if it had been killed there: before and after each durable step
//! on the way of a message. For tests of what such an end leaves behind.
//!
//! They exist in builds with debug assertions. In every other build [`BUILT_IN`] is false at compile time, what
//! depends on it is left out, and a node that is told of any does not start.

use afdg_types::AgentRef;
use std::{fmt, str::FromStr};

/// Whether this build has them.
pub const BUILT_IN: bool = cfg!(debug_assertions);

macro_rules! steps {
    ($($(#[doc = $doc:literal])* $step:ident = $name:literal;)*) => {
        /// One durable step of a message, or one word between agents that is sure by then.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Step {
            $($(#[doc = $doc])* $step,)*
        }

        impl Step {
            pub const ALL: &'static [Step] = &[$(Step::$step),*];

            pub fn name(self) -> &'static str {
                match self { $(Step::$step => $name,)* }
            }
        }
    };
}

steps! {
    /// A call's turn that has touched nobody: its effects and its answer, of the called agent.
    Turn = "turn";
    /// A turn that is about to make its first call: its message into the mailbox.
    RecordTurn = "record-turn";
    /// A call of a turn: before it leaves, and after it was answered; of the calling agent.
    Call = "call";
    /// A turn that has called others: its effects and its answer.
    RecordedTurn = "recorded-turn";
    /// A send: into its receiver's inbox.
    Accept = "accept";
    /// A send that is held back: into its receiver's inbox.
    AcceptHeld = "accept-held";
    /// The turn of a send: its effects, and out of the inbox.
    InboxTurn = "inbox-turn";
    /// A failed turn of a send that is tried again: its attempt is counted.
    FailAttempt = "fail-attempt";
    /// The last failed turn of a send: among the dead letters of its receiver.
    GiveUp = "give-up";
    /// A turn that sends: its effects, and what it sends into the outbox.
    SendingTurn = "sending-turn";
    /// A send in the outbox: before it leaves, and after the receiver's region has taken it; of the sender.
    Deliver = "deliver";
    /// A send that was taken: out of the outbox; of the sender.
    SettleSends = "settle-sends";
    /// A send that can't be delivered: among the dead letters of its sender.
    GiveUpDelivery = "give-up-delivery";
    /// A turn that sets or cancels schedules: its effects, and those.
    SchedulingTurn = "scheduling-turn";
    /// A schedule that is due: what it sends into the inbox or the outbox, and its next due time.
    FireSchedule = "fire-schedule";
    /// A person cancels a schedule.
    CancelSchedule = "cancel-schedule";
    /// A person has a dead letter tried again.
    RetryDeadLetter = "retry-dead-letter";
    /// A person drops a dead letter.
    DropDeadLetter = "drop-dead-letter";
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Moment {
    /// Whatever led to the step is done, and nothing of the step is.
    Before,
    /// The step is done, and nobody was told.
    After,
}

/// Written `before-STEP` or `after-STEP`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FailPoint {
    pub moment: Moment,
    pub step: Step,
}

impl FailPoint {
    /// All that there are.
    pub fn all() -> impl Iterator<Item = Self> {
        let both = [Moment::Before, Moment::After];
        Step::ALL.iter().flat_map(move |step| both.map(|moment| Self { moment, step: *step }))
    }
}

impl fmt::Display for FailPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let moment = match self.moment {
            Moment::Before => "before",
            Moment::After => "after",
        };
        write!(f, "{moment}-{}", self.step.name())
    }
}

/// What does not name fail points.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FailPointsError {
    #[error("'{0}' is no fail point; there are: {known}", known = known())]
    Unknown(String),
    #[error("'{text}' of the fail point {point} is no agent: {error}")]
    Agent { point: FailPoint, text: String, error: String },
}

fn known() -> String {
    FailPoint::all().map(|point| point.to_string()).collect::<Vec<_>>().join(", ")
}

impl FromStr for FailPoint {
    type Err = FailPointsError;

    fn from_str(text: &str) -> Result<Self, FailPointsError> {
        let found = Self::all().find(|point| point.to_string() == text);
        found.ok_or_else(|| FailPointsError::Unknown(text.to_owned()))
    }
}

/// Those that are armed in this process: none, as a rule.
#[derive(Clone, Copy, Debug, Default)]
pub struct FailPoints {
    /// Never freed: read once, at the start of a process that is to end.
    armed: &'static [(FailPoint, Option<AgentRef>)],
}

impl FailPoints {
    pub fn any(&self) -> bool {
        BUILT_IN && !self.armed.is_empty()
    }

    /// Ends the process if the point is armed for this agent, or for any.
    #[inline(always)]
    pub(crate) fn reach(&self, moment: Moment, step: Step, agent: &AgentRef) {
        if self.any() && self.is_armed(FailPoint { moment, step }, agent) {
            end_at(FailPoint { moment, step }, agent);
        }
    }

    fn is_armed(&self, point: FailPoint, agent: &AgentRef) -> bool {
        self.armed.iter().any(|(armed, of)| *armed == point && of.as_ref().is_none_or(|of| of == agent))
    }
}

/// Without destructors, and with nothing written that was not: as SIGKILL does.
fn end_at(point: FailPoint, agent: &AgentRef) -> ! {
    tracing::warn!(%point, %agent, "fail point: the process ends here");
    std::process::abort()
}

/// `POINT` or `POINT:AGENT`, with commas between several.
impl FromStr for FailPoints {
    type Err = FailPointsError;

    fn from_str(text: &str) -> Result<Self, FailPointsError> {
        let one = |part: &str| {
            let Some((point, agent)) = part.trim().split_once(':') else {
                return Ok((part.trim().parse()?, None));
            };
            let point: FailPoint = point.parse()?;
            let parsed = agent.parse().map_err(|error| FailPointsError::Agent {
                point,
                text: agent.to_owned(),
                error: format!("{error}"),
            });
            Ok((point, Some(parsed?)))
        };
        let armed: Vec<_> = text.split(',').map(one).collect::<Result<_, _>>()?;
        Ok(Self { armed: armed.leak() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn armed(text: &str, point: &str, agent: &str) -> bool {
        let points: FailPoints = text.parse().unwrap();
        points.is_armed(point.parse().unwrap(), &agent.parse().unwrap())
    }

    #[test]
    fn every_step_has_a_point_before_and_after_it_under_names_of_their_own() {
        let names: BTreeSet<_> = FailPoint::all().map(|point| point.to_string()).collect();
        assert_eq!(names.len(), 2 * Step::ALL.len());
        for point in FailPoint::all() {
            assert_eq!(point.to_string().parse(), Ok(point));
        }
    }

    #[test]
    fn a_point_is_armed_for_one_agent_or_for_all() {
        let text = "before-turn:t.T/a, after-accept,after-turn:t.T/b:c";
        assert!(armed(text, "before-turn", "t.T/a"));
        assert!(!armed(text, "before-turn", "t.T/b"));
        assert!(!armed(text, "after-turn", "t.T/a"));
        assert!(armed(text, "after-turn", "t.T/b:c"));
        assert!(armed(text, "after-accept", "t.T/a") && armed(text, "after-accept", "t.T/b"));
        assert!(!FailPoints::default().any());
    }

    #[test]
    fn what_is_no_point_or_no_agent_is_told_with_what_there_is() {
        let error = |text: &str| text.parse::<FailPoints>().unwrap_err().to_string();
        let unknown = error("before-turn,befor-turn:t.T/a");
        assert!(unknown.starts_with("'befor-turn' is no fail point; there are: before-turn, "), "{unknown}");
        assert!(error("").starts_with("'' is no fail point"));
        assert!(error("after-turn:alice").starts_with("'alice' of the fail point after-turn is no agent: "));
    }
}
