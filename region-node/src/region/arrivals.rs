//! Messages that have arrived and that the owner has not looked at yet: types take turns, and none may keep all
//! places.

use super::{admission::Admission, owner::overloaded};
use afdg_types::FairQueue;
use tokio::sync::mpsc;

/// Messages on their way to the owner.
const ON_THEIR_WAY_MAX: usize = 4_096;
/// Messages of one agent type that wait for the owner.
const OF_TYPE_MAX: usize = 4_096;
/// Messages of all types that wait for the owner.
const WAITING_MAX: usize = 16_384;

/// What those who bring messages hold.
pub type Doors = mpsc::Sender<Admission>;

pub struct Arrivals {
    on_their_way: mpsc::Receiver<Admission>,
    waiting: FairQueue<Admission>,
}

impl Arrivals {
    pub fn new() -> (Doors, Self) {
        let (doors, on_their_way) = mpsc::channel(ON_THEIR_WAY_MAX);
        let bytes_of = |admission: &Admission| admission.request.len();
        let waiting = FairQueue::new(|admission: &Admission| admission.agent.agent_type(), bytes_of);
        (doors, Self { on_their_way, waiting })
    }

    /// Returns once a message waits; false once none will come any more.
    pub async fn arrived(&mut self) -> bool {
        if self.waiting.is_empty() {
            let Some(first) = self.on_their_way.recv().await else { return false };
            self.let_wait(first);
        }
        true
    }

    /// Takes out the next of those that wait.
    pub fn next(&mut self) -> Option<Admission> {
        self.waiting.pop()
    }

    /// Has all wait that are on their way. Makes room there, for other types too.
    pub fn gather(&mut self) {
        for _ in 0..ON_THEIR_WAY_MAX {
            let Ok(admission) = self.on_their_way.try_recv() else { return };
            self.let_wait(admission);
        }
    }

    fn let_wait(&mut self, admission: Admission) {
        let agent_type = admission.agent.agent_type();
        if self.waiting.len() >= WAITING_MAX || self.waiting.len_of(agent_type) >= OF_TYPE_MAX {
            let text = format!("as many messages for agents of {agent_type} arrive in the region as may");
            return admission.reply_to.refuse(overloaded(&text));
        }
        self.waiting.push(admission);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::region::{Outgoing, ReplyTo};
    use afdg_proto::pb::internal::outcome;
    use afdg_types::{AgentRef, MessageId, Purpose};
    use std::sync::Arc;
    use tokio::sync::Semaphore;

    struct Sender {
        doors: Doors,
        outcomes: mpsc::UnboundedSender<Outgoing>,
        places: Arc<Semaphore>,
    }

    impl Sender {
        fn send(&self, agent_type: &str, number: u64) -> bool {
            let place = Arc::clone(&self.places).try_acquire_owned().unwrap();
            let admission = Admission {
                agent: AgentRef::new(agent_type, &number.to_string()).unwrap(),
                method: "Add".to_owned(),
                message_id: MessageId::from_router(1, u128::from(number)),
                request: Default::default(),
                deadline: None,
                chain: Vec::new(),
                reentries: Vec::new(),
                caller: 0,
                purpose: Purpose::Call,
                arrived: tokio::time::Instant::now(),
                reply_to: ReplyTo::new(number, self.outcomes.clone(), place),
            };
            self.doors.try_send(admission).is_ok()
        }
    }

    #[tokio::test]
    async fn a_type_that_floods_leaves_room_to_others_and_does_not_stand_ahead_of_them() {
        let (doors, mut arrivals) = Arrivals::new();
        let (outcomes, mut refused) = mpsc::unbounded_channel();
        let sender = Sender { doors, outcomes, places: Arc::new(Semaphore::new(100_000)) };
        let mut number = 0;
        while refused.is_empty() {
            number += 1;
            if !sender.send("t.Flood", number) {
                arrivals.gather();
            }
        }
        arrivals.gather();
        assert_eq!(arrivals.waiting.len(), OF_TYPE_MAX, "past its bound a type's messages are refused");
        let Outgoing { outcome, .. } = refused.recv().await.unwrap();
        assert!(matches!(outcome.result, Some(outcome::Result::GridError(_))), "{outcome:?}");

        assert!(sender.send("t.Other", 7));
        assert!(arrivals.arrived().await);
        arrivals.gather();
        let mut next = std::iter::from_fn(|| arrivals.next());
        let ahead = next.position(|admission| admission.agent.agent_type() == "t.Other").unwrap();
        assert!(ahead < 100, "{ahead} messages of the flood come first");
        assert_eq!(
            next.last().unwrap().agent.key(),
            OF_TYPE_MAX.to_string(),
            "in the order in which they came"
        );
        drop(sender);
        assert!(!arrivals.arrived().await);
    }
}
