//! One call of an agent, whichever way it came in.

use crate::{headers, key_field};
use afdg_proto::{
    pb::v1::{CallRequest, CallResponse},
    status::of_call_error,
};
use afdg_router::{OutgoingMessage, Router, unknown_method};
use afdg_types::{AgentRef, CallError, MessageId};
use bytes::Bytes;
use std::time::Duration;
use tokio::time::Instant;
use tonic::Status;

/// Hands calls to the router and turns what comes back into gRPC.
#[derive(Clone)]
pub(crate) struct Caller {
    pub(crate) router: Router,
}

/// A call whose parts are checked.
pub(crate) struct Call<'a> {
    pub(crate) agent: AgentRef,
    pub(crate) method: &'a str,
    pub(crate) request: Bytes,
    pub(crate) idempotency_key: Option<&'a str>,
    pub(crate) deadline: Instant,
}

impl Caller {
    /// Returns the response and the id under which the call took effect.
    pub(crate) async fn call(&self, call: Call<'_>) -> Result<(Bytes, MessageId), Status> {
        let id = match call.idempotency_key {
            Some(key) => MessageId::from_idempotency_key(&call.agent, key),
            None => self.router.new_message_id(),
        };
        let agent = call.agent.clone();
        let message = OutgoingMessage {
            agent: call.agent,
            method: call.method.to_owned(),
            request: call.request,
            id,
            deadline: Some(call.deadline),
            chain: Vec::new(),
        };
        match self.router.call(message).await {
            Ok(response) => Ok((response, id)),
            Err(error) => Err(with_message_id(of_call_error(&error, agent.agent_type()), id)),
        }
    }

    /// A call through `afdg.v1.Grid`. `transport_deadline` is that of the request around it.
    pub(crate) async fn grid_call(
        &self,
        call: CallRequest,
        transport_deadline: Option<Instant>,
    ) -> Result<CallResponse, Status> {
        let deadline = match (call.timeout_ms, transport_deadline) {
            (0, Some(transport)) => transport,
            (0, None) => headers::deadline_after(None),
            (ms, transport) => {
                let own = headers::deadline_after(Some(Duration::from_millis(ms)));
                transport.map_or(own, |transport| own.min(transport))
            }
        };
        let prepared = self.prepare(&call, deadline).await;
        let prepared = prepared.map_err(|error| of_call_error(&error, &call.agent))?;
        let (response, id) = self.call(prepared).await?;
        Ok(CallResponse { response, message_id: id.to_string() })
    }

    /// Checks the parts. The request's key field may be empty, and is filled in then, since the handler
    /// may read it there.
    async fn prepare<'a>(&self, call: &'a CallRequest, deadline: Instant) -> Result<Call<'a>, CallError> {
        let agent: AgentRef = call.agent.parse().map_err(|error| key_field::refusal(&error))?;
        let idempotency_key = match call.idempotency_key.as_str() {
            "" => None,
            key => Some(headers::check_idempotency_key(key)?),
        };
        let info = self.router.agent_type(agent.agent_type(), deadline).await?;
        let Some(method) = info.methods.get(&call.method) else {
            return Err(unknown_method(&info, &call.method).into());
        };
        let mut request = call.request.clone();
        if let Some(number) = method.key_field {
            let field = key_field::find(&request, number)?;
            key_field::agree(field, Some(agent.key()))?;
            if field.is_none() {
                request = key_field::insert(&request, number, agent.key());
            }
        }
        Ok(Call { agent, method: &call.method, request, idempotency_key, deadline })
    }
}

/// Shows under which id the message may have taken effect, or can be repeated.
fn with_message_id(mut status: Status, id: MessageId) -> Status {
    if let Ok(value) = id.to_string().parse() {
        status.metadata_mut().insert(headers::MESSAGE_ID, value);
    }
    status
}
