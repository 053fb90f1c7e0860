//! One call of an agent, whichever way it came in.

use crate::{headers, key_field};
use afdg_proto::{
    pb::v1::{AttachRequest, AttachResponse, CallRequest, CallResponse, SendRequest, attach_request},
    status::{of_call_error, of_grid_error},
};
use afdg_router::{Found, OutgoingMessage, Router, unknown_method};
use afdg_types::{AgentRef, CallError, GridError, MessageId, Purpose, Reason, RegionId};
use bytes::Bytes;
use std::time::Duration;
use tokio::time::Instant;
use tonic::Status;

/// Domain of an agent's error where the agent's type is not known, since only a message's id was given.
const UNKNOWN_AGENT_DOMAIN: &str = "agent";

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
    pub(crate) purpose: Purpose,
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
            reentries: Vec::new(),
            purpose: call.purpose,
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
        let deadline = deadline_of(call.timeout_ms, transport_deadline);
        let prepared = self.prepare(&call, deadline, Purpose::Call).await;
        let prepared = prepared.map_err(|error| of_call_error(&error, &call.agent))?;
        let (response, id) = self.call(prepared).await?;
        Ok(CallResponse { response, message_id: id.to_string() })
    }

    /// A message through `afdg.v1.Grid` that nobody waits for. Returns the id under which it takes effect.
    pub(crate) async fn grid_send(
        &self,
        send: SendRequest,
        transport_deadline: Option<Instant>,
    ) -> Result<MessageId, Status> {
        let SendRequest { agent, method, request, idempotency_key, timeout_ms, delay_ms } = send;
        let deadline = deadline_of(timeout_ms, transport_deadline);
        let purpose = headers::sending(delay_ms, self.router.now_ms())
            .map_err(|error| of_call_error(&error.with("field", "delay_ms").into(), &agent))?;
        let call = CallRequest { agent, method, request, idempotency_key, timeout_ms };
        let prepared = self.prepare(&call, deadline, purpose).await;
        let prepared = prepared.map_err(|error| of_call_error(&error, &call.agent))?;
        Ok(self.call(prepared).await?.1)
    }

    /// Waits for the result of a message that was sent before.
    pub(crate) async fn grid_attach(
        &self,
        attach: AttachRequest,
        transport_deadline: Option<Instant>,
    ) -> Result<AttachResponse, Status> {
        let deadline = deadline_of(attach.timeout_ms, transport_deadline);
        if let (true, Some(attach_request::Message::MessageId(id))) =
            (attach.agent.is_empty(), &attach.message)
        {
            return self.attach_by_id(id, &attach.method, deadline).await;
        }
        let message = attached(&attach, deadline);
        let message = message.map_err(|error| of_call_error(&error.into(), &attach.agent))?;
        let (id, agent) = (message.id, message.agent.clone());
        let agent_type = agent.agent_type();
        let to = format!(" to {agent}");
        let result = self.router.call(message).await.map_err(|error| not_ended(error, &to, id));
        match result {
            Ok(response) => Ok(AttachResponse { response, message_id: id.to_string() }),
            Err(error) => Err(with_message_id(of_call_error(&error, agent_type), id)),
        }
    }

    /// The same where only the id is known: all regions are asked for it.
    async fn attach_by_id(
        &self,
        id: &str,
        method: &str,
        deadline: Instant,
    ) -> Result<AttachResponse, Status> {
        let id = parse_id(id).map_err(|error| of_grid_error(&error))?;
        match self.find_and_await(id, method, deadline).await {
            Ok(response) => Ok(AttachResponse { response, message_id: id.to_string() }),
            Err(error) => {
                Err(with_message_id(of_call_error(&not_ended(error, "", id), UNKNOWN_AGENT_DOMAIN), id))
            }
        }
    }

    async fn find_and_await(
        &self,
        id: MessageId,
        method: &str,
        deadline: Instant,
    ) -> Result<Bytes, CallError> {
        self.router.ready(deadline).await;
        match self.router.find_message(id, searched_until(deadline)).await? {
            Found::At(whereabouts) => {
                let answer = self.router.await_message(whereabouts.region, id, method, deadline).await?;
                answer.ok_or_else(|| not_known(id).into())
            }
            Found::Nowhere => Err(not_known(id).into()),
            Found::NotBy(silent) => {
                let regions = silent.iter().map(RegionId::to_string).collect::<Vec<_>>().join(", ");
                let text = format!(
                    "the regions {regions} could not be asked for the message {id}, and no other knows it: ask again"
                );
                Err(GridError::new(Reason::NoLeader, text).with("regions", regions).into())
            }
        }
    }

    /// Checks the parts. The request's key field may be empty, and is filled in then, since the handler
    /// may read it there.
    async fn prepare<'a>(
        &self,
        call: &'a CallRequest,
        deadline: Instant,
        purpose: Purpose,
    ) -> Result<Call<'a>, CallError> {
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
                request = afdg_proto::key_field::put(&request, number, agent.key());
            }
        }
        Ok(Call { agent, method: &call.method, request, idempotency_key, deadline, purpose })
    }
}

/// When a request ends that allows itself `timeout_ms`, if that is not 0, inside a request with a deadline.
pub(crate) fn deadline_of(timeout_ms: u64, transport_deadline: Option<Instant>) -> Instant {
    match (timeout_ms, transport_deadline) {
        (0, Some(transport)) => transport,
        (0, None) => headers::deadline_after(None),
        (ms, transport) => {
            let own = headers::deadline_after(Some(Duration::from_millis(ms)));
            transport.map_or(own, |transport| own.min(transport))
        }
    }
}

/// What whoever waits for a message is told if it has not ended in time: nothing was asked for that could have
/// an effect.
fn not_ended(error: CallError, to: &str, id: MessageId) -> CallError {
    match error {
        CallError::Grid(error)
            if matches!(error.reason, Reason::DeadlineExceeded | Reason::DeadlineOutcomeUnknown) =>
        {
            let text = format!(
                "the message {id}{to} has not ended in this time: it waits for its turn, is held back or is \
                 tried again. Ask again to wait longer"
            );
            GridError::new(Reason::DeadlineExceeded, text).into()
        }
        error => error,
    }
}

/// A search that meets a region without a leader ends before its caller stops waiting.
fn searched_until(deadline: Instant) -> Instant {
    let now = Instant::now();
    now + deadline.saturating_duration_since(now) * 3 / 4
}

fn not_known(id: MessageId) -> GridError {
    let text = format!(
        "no message of the id {id} is known to any region: it was not sent, has not reached its receiver's region \
         yet, or its time is over"
    );
    GridError::new(Reason::NotFound, text).with("resource_type", "message").with("resource_name", id)
}

fn parse_id(id: &str) -> Result<MessageId, GridError> {
    id.parse().map_err(|error: afdg_types::MessageIdError| malformed("message_id", &error.to_string()))
}

fn malformed(field: &str, what: &str) -> GridError {
    GridError::new(Reason::RequestMalformed, what).with("field", field)
}

fn attached(attach: &AttachRequest, deadline: Instant) -> Result<OutgoingMessage, GridError> {
    if attach.agent.is_empty() && attach.message.is_some() {
        let what = "an idempotency key is one for an agent: name the agent, or attach by the message's id";
        return Err(malformed("agent", what));
    }
    let agent: AgentRef = attach.agent.parse().map_err(|error| key_field::refusal(&error))?;
    let id = match &attach.message {
        Some(attach_request::Message::MessageId(id)) => parse_id(id)?,
        Some(attach_request::Message::IdempotencyKey(key)) => {
            MessageId::from_idempotency_key(&agent, headers::check_idempotency_key(key)?)
        }
        None => return Err(malformed("message_id", "the message's id or its idempotency key is missing")),
    };
    Ok(OutgoingMessage {
        agent,
        method: attach.method.clone(),
        request: Bytes::new(),
        id,
        deadline: Some(deadline),
        chain: Vec::new(),
        reentries: Vec::new(),
        purpose: Purpose::Attach,
    })
}

/// Shows under which id the message may have taken effect, or can be repeated.
fn with_message_id(mut status: Status, id: MessageId) -> Status {
    if let Ok(value) = id.to_string().parse() {
        status.metadata_mut().insert(headers::MESSAGE_ID, value);
    }
    status
}
