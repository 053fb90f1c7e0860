//! Sends leave their sender's outbox: their receivers' regions have accepted them, or they are given up.

use super::OpOutcome;
use crate::table::{
    dead_letters::{self, DeadLetter, Side},
    inbox::AcceptedSend,
    numbers::Numbers,
    outbox,
    replies::{self, TurnReply},
};
use afdg_types::{AgentRef, RowsError, RowsMut};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SettleSends {
    pub sender: AgentRef,
    /// Numbers of those that were accepted.
    pub accepted: Vec<u64>,
    pub given_up: Option<GivenUp>,
    /// The leader's time, milliseconds since the Unix epoch.
    pub now_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GivenUp {
    pub number: u64,
    pub attempts: u32,
    pub failure: TurnReply,
}

impl SettleSends {
    pub(crate) fn apply(
        &self,
        numbers: &mut Numbers,
        rows: &mut dyn RowsMut,
    ) -> Result<OpOutcome, RowsError> {
        for number in &self.accepted {
            outbox::delete(rows, &self.sender, *number);
        }
        if let Some(GivenUp { number, attempts, failure }) = &self.given_up
            && let Some(send) = outbox::get(rows, &self.sender, *number)?
        {
            outbox::delete(rows, &self.sender, *number);
            let letter = DeadLetter {
                side: Side::Sender,
                send: AcceptedSend {
                    message_id: send.message_id,
                    digest: replies::digest(&send.to, &send.method, &send.request),
                    method: send.method,
                    request: send.request,
                    sender: Some(self.sender.clone()),
                    accepted_ms: send.sent_ms,
                    due_ms: send.due_ms,
                    attempts: *attempts,
                    refusals: 0,
                    last_failure: Some(failure.clone()),
                },
                to: send.to,
                died_ms: self.now_ms,
            };
            let number = numbers.take(1, rows);
            dead_letters::put(rows, &self.sender, number, &letter)?;
        }
        Ok(OpOutcome::Done { more: false })
    }
}
