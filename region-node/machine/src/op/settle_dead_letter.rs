//! What a person decides about a dead letter: it is tried again, or dropped.

use super::OpOutcome;
use crate::table::{
    dead_letters::{self, Side},
    inbox::{self, AcceptedSend, Place},
    numbers::Numbers,
    outbox::{self, OutgoingSend},
    replies,
};
use afdg_types::{AgentRef, RowsError, RowsMut};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SettleDeadLetter {
    /// On whose side it stands.
    pub agent: AgentRef,
    pub number: u64,
    pub verdict: LetterVerdict,
    /// The leader's time, milliseconds since the Unix epoch.
    pub now_ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LetterVerdict {
    TryAgain,
    Drop,
}

impl SettleDeadLetter {
    pub(crate) fn apply(
        &self,
        numbers: &mut Numbers,
        rows: &mut dyn RowsMut,
    ) -> Result<OpOutcome, RowsError> {
        let Some(letter) = dead_letters::get(rows, &self.agent, self.number)? else {
            return Ok(OpOutcome::Done { more: false });
        };
        dead_letters::delete(rows, &self.agent, self.number);
        if self.verdict == LetterVerdict::Drop {
            return Ok(OpOutcome::Done { more: false });
        }
        let mut send = letter.send;
        let message_id = send.message_id;
        if letter.side == Side::Receiver {
            // Its sender may have sent it anew once its id was forgotten.
            let known = replies::get(rows, message_id)?.map(|known| known.reply);
            let is_its_own = known.is_none() || known == send.last_failure;
            if !is_its_own || inbox::place(rows, message_id)?.is_some() {
                return Ok(OpOutcome::LetterIsOver { message_id });
            }
        }
        let number = numbers.take(1, rows);
        match letter.side {
            Side::Receiver => {
                // From now on its id is answered by the turn to come.
                replies::forget(rows, message_id)?;
                (send.due_ms, send.attempts) = (self.now_ms, 0);
                inbox::put(rows, &Place { agent: self.agent.clone(), number }, &send)?;
                Ok(OpOutcome::AcceptedAgain { send: Box::new(send) })
            }
            Side::Sender => {
                let AcceptedSend { message_id, method, request, due_ms, .. } = send;
                let bytes = request.len();
                let outgoing = OutgoingSend {
                    to: letter.to.clone(),
                    message_id,
                    method,
                    request,
                    sent_ms: self.now_ms,
                    due_ms,
                };
                outbox::put(rows, &self.agent, number, &outgoing)?;
                Ok(OpOutcome::SentAgain { to: letter.to, number, bytes })
            }
        }
    }
}
