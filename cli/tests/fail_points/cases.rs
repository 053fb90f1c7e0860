//! What is tried at which fail point.

use afdg_region_node::fail_points::{FailPoint, Moment, Step};
use std::fmt;

/// What happens, seen from the agent `here`, whose leader ends. `there` is in another region, whose leader lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// A client calls here.
    Called,
    /// There calls here, called by a client.
    CalledByAgent,
    /// Here calls there twice, called by a client, and sends there after that.
    CallsAndSends,
    /// The same, but the client is gone once the leader has ended, and asks again when all is over.
    CallerGoes,
    /// A client sends here, and the turn fails at first.
    SentByClient,
    /// A client sends here, and the turn takes long: the message has to stand before its effects do.
    SlowForClient,
    /// There sends here twice.
    SentByAgent,
    /// A client sends here, to be held back.
    HeldForClient,
    /// There sends here, to be held back.
    HeldForAgent,
    /// There sends here twice. The first one's turn fails at first, and the second waits behind it.
    FailsAtFirst,
    /// There sends here twice. The first one's turn fails for good.
    FailsForGood,
    /// Here sends there twice, and then to itself.
    Sends,
    /// Here sends to an agent whose type no node has, and its leader takes the message for older than a day.
    NeverTaken,
    /// Here sets a schedule that sends to itself three times.
    RingsItself,
    /// Here sets a schedule that sends there three times.
    RingsAnother,
    /// A person cancels here's schedule, before it has sent anything.
    Cancelled,
    /// A person has here's dead letter tried again, which succeeds.
    LetterRetried,
    /// The same of a message that here could not deliver.
    DeliveryRetried,
    /// A person drops here's dead letter.
    LetterDropped,
    /// The same of a message that here could not deliver.
    DeliveryDropped,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case {
    pub point: FailPoint,
    pub scenario: Scenario,
}

/// Each point has at least one: a step that is new does not compile without.
fn scenarios(point: FailPoint) -> &'static [Scenario] {
    use Scenario::*;
    match point.step {
        Step::Turn => &[Called, CalledByAgent],
        // Nobody knows of the turn then but its caller.
        Step::RecordTurn if point.moment == Moment::Before => &[CallsAndSends],
        Step::RecordTurn | Step::Call | Step::RecordedTurn => &[CallsAndSends, CallerGoes],
        Step::Accept => &[SentByClient, SlowForClient, SentByAgent],
        Step::AcceptHeld => &[HeldForClient, HeldForAgent],
        Step::InboxTurn => &[SlowForClient, SentByAgent, HeldForClient, RingsItself],
        Step::FailAttempt => &[FailsAtFirst],
        Step::GiveUp => &[FailsForGood],
        Step::SendingTurn | Step::Deliver | Step::SettleSends => &[Sends],
        Step::GiveUpDelivery => &[NeverTaken],
        Step::SchedulingTurn => &[RingsItself],
        Step::FireSchedule => &[RingsItself, RingsAnother],
        Step::CancelSchedule => &[Cancelled],
        Step::RetryDeadLetter => &[LetterRetried, DeliveryRetried],
        Step::DropDeadLetter => &[LetterDropped, DeliveryDropped],
    }
}

pub fn all() -> Vec<Case> {
    FailPoint::all()
        .flat_map(|point| scenarios(point).iter().map(move |scenario| Case { point, scenario: *scenario }))
        .collect()
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{:?}", self.point, self.scenario)
    }
}
