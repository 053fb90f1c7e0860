//! A turn of an accepted send failed: it is tried again later, or given up. Its effects are lost either way.

use super::OpOutcome;
use crate::table::{
    dead_letters::{self, DeadLetter, Side},
    inbox, mailbox,
    numbers::Numbers,
    refusals,
    replies::{self, Reply, TurnReply},
};
use afdg_types::{AgentRef, MessageId, RowsError, RowsMut, Slot};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FailAttempt {
    pub agent: AgentRef,
    pub message_id: MessageId,
    /// How the turn ended.
    pub failure: TurnReply,
    pub next: Next,
    /// The leader's time, milliseconds since the Unix epoch.
    pub now_ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Next {
    /// It gets another turn then, milliseconds since the Unix epoch.
    TryAgain { due_ms: u64 },
    /// It becomes a dead letter; the failure is what its id is answered with until this second.
    GiveUp { expires_at_s: u64 },
}

impl FailAttempt {
    pub(crate) fn apply(
        &self,
        term: u64,
        any_refused: bool,
        numbers: &mut Numbers,
        rows: &mut dyn RowsMut,
    ) -> Result<OpOutcome, RowsError> {
        if any_refused && refusals::stands(rows, &self.agent, term)? {
            return Ok(OpOutcome::RefusedBase);
        }
        let Some(place) = inbox::place(rows, self.message_id)?.filter(|place| place.agent == self.agent)
        else {
            return Ok(OpOutcome::RefusedGone);
        };
        let mut send = inbox::get(rows, &place)?;
        send.attempts = send.attempts.saturating_add(1);
        if matches!(self.failure, TurnReply::Refused(_)) {
            send.refusals = send.refusals.saturating_add(1);
        }
        send.last_failure = Some(self.failure.clone());
        if mailbox::get(rows, &self.agent)?.is_some_and(|turn| turn.message_id == self.message_id) {
            mailbox::delete(rows, &self.agent);
        }
        match self.next {
            Next::TryAgain { due_ms } => {
                send.due_ms = due_ms;
                inbox::put(rows, &place, &send)?;
            }
            Next::GiveUp { expires_at_s } => {
                inbox::delete(rows, &place, self.message_id);
                let reply = Reply {
                    slot: Slot::of(&self.agent),
                    digest: send.digest,
                    expires_at_s,
                    reply: self.failure.clone(),
                };
                replies::put(rows, self.message_id, reply)?;
                let (to, died_ms) = (self.agent.clone(), self.now_ms);
                let letter = DeadLetter { to, side: Side::Receiver, send, died_ms };
                let number = numbers.take(1, rows);
                dead_letters::put(rows, &self.agent, number, &letter)?;
            }
        }
        Ok(OpOutcome::Done { more: false })
    }
}
