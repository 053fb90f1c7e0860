//! Agent types as stock gRPC services: `/bank.v1.Account/Deposit`, bytes in, bytes out.

use crate::{
    agent_codec::AsIs,
    caller::{Call, Caller},
    headers, key_field,
};
use afdg_proto::status::of_grid_error;
use afdg_router::{unknown_method, unknown_type};
use afdg_types::{GridError, Reason, limits::MESSAGE_BYTES_MAX};
use bytes::Bytes;
use futures::future::BoxFuture;
use std::task::{Context, Poll};
use tokio::time::Instant;
use tonic::{Request, Response, Status, Streaming, body::Body, server::Grpc};

/// Serves one request of any agent type. All methods are unary; the request is read as a stream of
/// messages only to say so clearly to a client that sends another number than one.
pub(crate) async fn serve(caller: Caller, request: http::Request<Body>) -> http::Response<Body> {
    let path = request.uri().path().to_owned();
    // The HTTP headers as they are: tonic's own view leaves out some of them.
    let headers = request.headers().clone();
    let mut grpc = Grpc::new(AsIs).max_decoding_message_size(MESSAGE_BYTES_MAX);
    grpc.client_streaming(AgentCall { caller, path, headers }, request).await
}

struct AgentCall {
    caller: Caller,
    path: String,
    headers: http::HeaderMap,
}

impl tower::Service<Request<Streaming<Bytes>>> for AgentCall {
    type Response = Response<Bytes>;
    type Error = Status;
    type Future = BoxFuture<'static, Result<Response<Bytes>, Status>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        let call = Self {
            caller: self.caller.clone(),
            path: std::mem::take(&mut self.path),
            headers: std::mem::take(&mut self.headers),
        };
        Box::pin(async move { call.run(request.into_inner()).await })
    }
}

impl AgentCall {
    async fn run(self, messages: Streaming<Bytes>) -> Result<Response<Bytes>, Status> {
        let refused = |error: GridError| of_grid_error(&error);
        let timeout = headers::timeout(&self.headers).map_err(refused)?;
        let deadline = headers::deadline_after(timeout);
        let now_ms = self.caller.router.now_ms();
        let purpose = headers::purpose(&self.headers, now_ms).map_err(refused)?;
        let (agent_type, method) = split(&self.path).map_err(refused)?;
        let info = self.caller.router.agent_type(agent_type, deadline).await.map_err(refused)?;
        let Some(described) = info.methods.get(method) else {
            return Err(refused(unknown_method(&info, method)));
        };
        let request = one_message(messages, deadline).await?;
        let agent = {
            let field = described.key_field.map(|number| key_field::find(&request, number)).transpose();
            let field = field.map_err(refused)?.flatten();
            let header = headers::key(&self.headers).map_err(refused)?;
            let key = key_field::agree(field, header.as_deref()).map_err(refused)?;
            key_field::agent(agent_type, key).map_err(refused)?
        };
        let idempotency_key = headers::idempotency_key(&self.headers).map_err(refused)?;
        let call = Call { agent, method, request, idempotency_key, deadline, purpose };
        let (response, id) = self.caller.call(call).await?;
        let mut response = Response::new(response);
        if let Ok(value) = id.to_string().parse() {
            response.metadata_mut().insert(headers::MESSAGE_ID, value);
        }
        Ok(response)
    }
}

/// `/bank.v1.Account/Deposit` into its two names.
fn split(path: &str) -> Result<(&str, &str), GridError> {
    let names = path.strip_prefix('/').and_then(|path| path.split_once('/'));
    names.ok_or_else(|| unknown_type(path.trim_start_matches('/')))
}

async fn one_message(mut messages: Streaming<Bytes>, deadline: Instant) -> Result<Bytes, Status> {
    let malformed = |what: &str| of_grid_error(&GridError::new(Reason::RequestMalformed, what));
    let receive = async {
        let Some(message) = messages.message().await? else {
            return Err(malformed("the method takes one request message; none was sent"));
        };
        match messages.message().await? {
            None => Ok(message),
            Some(_) => Err(malformed("the method takes one request message; more were sent")),
        }
    };
    tokio::time::timeout_at(deadline, receive).await.unwrap_or_else(|_| {
        let what = "the deadline passed before the request was received; it has had no effect";
        Err(of_grid_error(&GridError::new(Reason::DeadlineExceeded, what)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_split_into_type_and_method() {
        assert_eq!(split("/bank.v1.Account/Deposit"), Ok(("bank.v1.Account", "Deposit")));
        assert_eq!(split("/a/b/c"), Ok(("a", "b/c")));
        for bad in ["", "/", "*", "/a"] {
            assert_eq!(split(bad).unwrap_err().reason, Reason::UnknownType);
        }
    }
}
