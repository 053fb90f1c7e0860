//! A message on its way out.

use afdg_proto::pb::internal::{self, Forwarded};
use afdg_types::{AgentRef, Cancel, Epoch, MessageId, ProbeStage, Purpose, RegionId};
use bytes::Bytes;
use tokio::time::Instant;

/// A message to one agent. Its id is the same for all attempts to deliver it.
#[derive(Clone, Debug)]
pub struct OutgoingMessage {
    pub agent: AgentRef,
    pub method: String,
    /// The encoded request message.
    pub request: Bytes,
    pub id: MessageId,
    /// When the caller stops waiting. None stands for a call of a recorded turn: it is tried until
    /// there is an answer that stays the same.
    pub deadline: Option<Instant>,
    /// The agents that wait for this message, outermost first.
    pub chain: Vec<AgentRef>,
    /// The calls of agents of the chain while which messages of the chain may enter, outermost first.
    pub reentries: Vec<MessageId>,
    pub purpose: Purpose,
}

impl OutgoingMessage {
    /// One attempt's message for the wire.
    pub(crate) fn forwarded(&self, region: RegionId, epoch: Epoch, caller: u64) -> Forwarded {
        Forwarded {
            request_id: 0,
            region: region.0,
            epoch: epoch.0,
            r#type: self.agent.agent_type().to_owned(),
            key: self.agent.key().to_owned(),
            method: self.method.clone(),
            message_id: Bytes::copy_from_slice(self.id.as_bytes()),
            request: self.request.clone(),
            timeout_ms: self.deadline.map_or(0, timeout_ms),
            chain: self.chain.iter().map(|agent| agent.as_str().to_owned()).collect(),
            reentries: self.reentries.iter().map(|id| Bytes::copy_from_slice(id.as_bytes())).collect(),
            send: self.sending(),
            attach: self.purpose == Purpose::Attach,
            probe: self.probe(),
            caller,
            cancel: match self.purpose {
                Purpose::Cancel(Cancel::Turn) => Some(internal::Cancel { caller: 0 }),
                Purpose::Cancel(Cancel::Caller(caller)) => Some(internal::Cancel { caller }),
                Purpose::Call | Purpose::Send(_) | Purpose::Attach | Purpose::Probe(_) => None,
            },
        }
    }

    fn probe(&self) -> Option<internal::Probe> {
        let Purpose::Probe(probe) = &self.purpose else { return None };
        let (stage, at) = match probe.stage {
            ProbeStage::Search => (internal::probe::Stage::Search, 0),
            ProbeStage::Confirm(at) => (internal::probe::Stage::Confirm, at as u32),
            ProbeStage::Break => (internal::probe::Stage::Break, 0),
        };
        let waits = probe.waits.iter().map(|wait| internal::Wait {
            agent: wait.agent.as_str().to_owned(),
            turn: Bytes::copy_from_slice(wait.turn.as_bytes()),
            call: Bytes::copy_from_slice(wait.call.as_bytes()),
            callee: wait.callee.as_str().to_owned(),
            queued: wait.queued,
        });
        Some(internal::Probe { waits: waits.collect(), stage: stage.into(), at })
    }

    fn sending(&self) -> Option<internal::Sending> {
        let Purpose::Send(sending) = &self.purpose else { return None };
        Some(internal::Sending {
            sender: sending.sender.as_ref().map(|sender| sender.as_str().to_owned()).unwrap_or_default(),
            due_ms: sending.due_ms,
            after: sending.after.map(|id| Bytes::copy_from_slice(id.as_bytes())).unwrap_or_default(),
        })
    }
}

/// At least 1, since 0 stands for none.
fn timeout_ms(deadline: Instant) -> u64 {
    let left = deadline.saturating_duration_since(Instant::now());
    u64::try_from(left.as_millis()).unwrap_or(u64::MAX).max(1)
}
