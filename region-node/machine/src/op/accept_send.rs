//! A send enters its receiver's inbox.

use super::OpOutcome;
use crate::table::{
    inbox::{self, AcceptedSend, Place},
    numbers::Numbers,
    replies,
};
use afdg_types::{AgentRef, RowsError, RowsMut};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AcceptSend {
    pub agent: AgentRef,
    pub send: AcceptedSend,
}

impl AcceptSend {
    pub(crate) fn apply(
        &self,
        numbers: &mut Numbers,
        rows: &mut dyn RowsMut,
    ) -> Result<OpOutcome, RowsError> {
        let id = self.send.message_id;
        let stands = inbox::place(rows, id)?.is_some() || replies::get(rows, id)?.is_some();
        if !stands {
            let place = Place { agent: self.agent.clone(), number: numbers.take(1, rows) };
            inbox::put(rows, &place, &self.send)?;
        }
        Ok(OpOutcome::Accepted)
    }
}
