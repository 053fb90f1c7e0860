//! A message to another agent, made by a generated caller such as `AccountCalls::deposit`.

use crate::error::CallError;
use afdg_types::{AgentRef, AgentRefError, Reason, limits::MESSAGE_BYTES_MAX};
use bytes::Bytes;
use prost::Message;
use std::{fmt, marker::PhantomData};

/// One message to one agent and the type of its response. Nothing is sent until it is given to
/// [`Context::call`](crate::Context::call), [`Context::call_all`](crate::Context::call_all),
/// [`Context::send`](crate::Context::send) or, in tests, [`TestGrid::call`](crate::testing::TestGrid::call).
///
/// A wrong key and a request that is too large show as an error of the call.
#[must_use = "a call does nothing until it is given to Context::call"]
pub struct Call<R> {
    target: Result<Target, CallError>,
    response: PhantomData<fn() -> R>,
}

#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) agent: AgentRef,
    pub(crate) method: String,
    pub(crate) request: Bytes,
}

impl<R: Message + Default> Call<R> {
    /// A message to the agent `agent_type/key`.
    pub fn new(agent_type: &str, key: &str, method: &str, request: &impl Message) -> Self {
        let target = AgentRef::new(agent_type, key).map_err(key_error).and_then(|agent| {
            let bytes = request.encoded_len();
            if bytes > MESSAGE_BYTES_MAX {
                return Err(CallError::grid(
                    Reason::MessageTooLarge,
                    format!("the request to {agent}/{method} has {bytes} bytes; at most {MESSAGE_BYTES_MAX}"),
                ));
            }
            Ok(Target { agent, method: method.to_owned(), request: request.encode_to_vec().into() })
        });
        Self { target, response: PhantomData }
    }

    /// As [`Call::new`], for a request that holds the key itself: `key_of` names the field. It is
    /// filled in if it is empty; another agent's key in it is an error of the call.
    pub fn keyed<Q: Message>(
        agent_type: &str,
        key: &str,
        method: &str,
        mut request: Q,
        key_of: impl FnOnce(&mut Q) -> &mut String,
    ) -> Self {
        let field = key_of(&mut request);
        if field.is_empty() {
            key.clone_into(field);
        }
        if field == key {
            return Self::new(agent_type, key, method, &request);
        }
        let message = format!(
            "a call of {method} to {agent_type}/{} holds the key of another agent in its request; \
             leave that field empty",
            key.escape_debug()
        );
        Self { target: Err(CallError::grid(Reason::KeyMalformed, message)), response: PhantomData }
    }

    pub(crate) fn target(&self) -> Result<Target, CallError> {
        self.target.clone()
    }

    pub(crate) fn response(answer: Bytes) -> Result<R, CallError> {
        R::decode(answer).map_err(|error| {
            CallError::grid(Reason::Internal, format!("the called agent's response can't be read: {error}"))
        })
    }
}

impl<R> fmt::Debug for Call<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.target {
            Ok(target) => write!(f, "Call({}/{})", target.agent, target.method),
            Err(error) => write!(f, "Call({error})"),
        }
    }
}

fn key_error(error: AgentRefError) -> CallError {
    let reason = match error {
        AgentRefError::KeyMissing => Reason::KeyMissing,
        _ => Reason::KeyMalformed,
    };
    CallError::grid(reason, error.to_string())
}
