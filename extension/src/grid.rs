//! `afdg.v1.Grid`: calls for callers without stubs.

use crate::{
    budget::Budget,
    caller::{Caller, deadline_of},
    config::{
        CALL_MANY_PARALLEL_DEFAULT, CALL_MANY_PARALLEL_MAX, CALL_MANY_RESPONSE_BYTES_MAX,
        PIPE_UNREAD_BYTES_MAX,
    },
    headers,
    pipe::{self, PipeStream},
    region_questions::bounded,
    scatter::{ScatterStream, Scatters},
};
use afdg_proto::{
    pb::v1::{
        AttachRequest, AttachResponse, CallManyRequest, CallManyResponse, CallRequest, CallResponse,
        CallResult, PipeRequest, ScatterRequest, SendRequest, SendResponse, call_result, grid_server,
    },
    status::{of_call_error, of_grid_error},
};
use afdg_runtime::Tasks;
use afdg_types::{GridError, Reason, limits::CALL_MANY_CALLS_MAX};
use futures::StreamExt;
use tokio::time::Instant;
use tonic::{Request, Response, Status, Streaming, metadata::MetadataMap};
use tonic_types::pb::Status as StatusMessage;

pub(crate) struct Grid {
    caller: Caller,
    tasks: Tasks,
    pipe_unread: Budget,
    scatters: Scatters,
}

impl Grid {
    pub(crate) fn new(caller: Caller, tasks: Tasks) -> Self {
        Self { caller, tasks, pipe_unread: Budget::new(PIPE_UNREAD_BYTES_MAX), scatters: Scatters::new() }
    }

    /// A call that does not leave if its turn among others comes after their deadline.
    async fn call_before(
        &self,
        call: CallRequest,
        deadline: Option<Instant>,
    ) -> Result<CallResponse, Status> {
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            let text = format!(
                "the time for all calls passed before the one of {} began; it has had no effect",
                call.agent.escape_debug()
            );
            return Err(of_grid_error(&GridError::new(Reason::DeadlineExceeded, text)));
        }
        self.caller.grid_call(call, deadline).await
    }
}

#[tonic::async_trait]
impl grid_server::Grid for Grid {
    async fn call(&self, request: Request<CallRequest>) -> Result<Response<CallResponse>, Status> {
        let deadline = transport_deadline(request.metadata())?;
        let response = self.caller.grid_call(request.into_inner(), deadline).await?;
        Ok(Response::new(response))
    }

    async fn call_many(
        &self,
        request: Request<CallManyRequest>,
    ) -> Result<Response<CallManyResponse>, Status> {
        let transport = transport_deadline(request.metadata())?;
        let CallManyRequest { calls, parallel_max, timeout_ms } = request.into_inner();
        if calls.len() > CALL_MANY_CALLS_MAX {
            let message =
                format!("{} calls are more than {CALL_MANY_CALLS_MAX}; use Pipe for them", calls.len());
            return Err(of_grid_error(
                &GridError::new(Reason::InvalidRequest, message).with("field", "calls"),
            ));
        }
        let parallel =
            bounded("parallel_max", parallel_max, CALL_MANY_PARALLEL_DEFAULT, CALL_MANY_PARALLEL_MAX);
        let parallel = parallel.map_err(|error| of_grid_error(&error))? as usize;
        let deadline = match timeout_ms {
            0 => transport,
            ms => Some(deadline_of(ms, transport)),
        };
        let mut bytes = 0;
        let results = futures::stream::iter(calls)
            .map(|call| self.call_before(call, deadline))
            .buffered(parallel)
            .map(|result| within_response(result, &mut bytes))
            .collect()
            .await;
        Ok(Response::new(CallManyResponse { results }))
    }

    async fn send(&self, request: Request<SendRequest>) -> Result<Response<SendResponse>, Status> {
        let deadline = transport_deadline(request.metadata())?;
        let id = self.caller.grid_send(request.into_inner(), deadline).await?;
        Ok(Response::new(SendResponse { message_id: id.to_string() }))
    }

    async fn attach(&self, request: Request<AttachRequest>) -> Result<Response<AttachResponse>, Status> {
        let deadline = transport_deadline(request.metadata())?;
        self.caller.grid_attach(request.into_inner(), deadline).await.map(Response::new)
    }

    type ScatterStream = ScatterStream;

    async fn scatter(
        &self,
        request: Request<ScatterRequest>,
    ) -> Result<Response<Self::ScatterStream>, Status> {
        let deadline = transport_deadline(request.metadata())?;
        let started = self.scatters.start(&self.caller, &self.tasks, request.into_inner(), deadline).await;
        started.map(Response::new).map_err(|error| of_call_error(&error, ""))
    }

    type PipeStream = PipeStream;

    async fn pipe(&self, request: Request<Streaming<PipeRequest>>) -> Result<Response<PipeStream>, Status> {
        let deadline = transport_deadline(request.metadata())?;
        let requests = request.into_inner();
        let results = pipe::start(&self.tasks, self.caller.clone(), requests, deadline, &self.pipe_unread);
        Ok(Response::new(results))
    }
}

/// When the request around the calls ends; none if it names no deadline.
fn transport_deadline(metadata: &MetadataMap) -> Result<Option<Instant>, Status> {
    headers::refuse_messaging(metadata.as_ref()).map_err(|error| of_grid_error(&error))?;
    let timeout = headers::timeout(metadata.as_ref()).map_err(|error| of_grid_error(&error))?;
    Ok(timeout.map(|timeout| headers::deadline_after(Some(timeout))))
}

pub(crate) fn result_of(result: Result<CallResponse, Status>) -> CallResult {
    let result = match result {
        Ok(response) => call_result::Result::Response(response),
        Err(status) => call_result::Result::Error(message_of(&status)),
    };
    CallResult { result: Some(result) }
}

/// The details of a status are the same message again, encoded.
pub(crate) fn message_of(status: &Status) -> StatusMessage {
    prost::Message::decode(status.details()).ok().filter(|_| !status.details().is_empty()).unwrap_or_else(
        || StatusMessage {
            code: status.code() as i32,
            message: status.message().to_owned(),
            details: Vec::new(),
        },
    )
}

/// Past the bound of one response a result is left out; the call itself has taken effect.
fn within_response(result: Result<CallResponse, Status>, bytes: &mut usize) -> CallResult {
    match result {
        Ok(response) if *bytes + response.response.len() > CALL_MANY_RESPONSE_BYTES_MAX => {
            let message = format!(
                "the call took effect, but the results of one CallMany together have at most \
                 {CALL_MANY_RESPONSE_BYTES_MAX} bytes; ask for fewer at once"
            );
            let error = GridError::new(Reason::MessageTooLarge, message);
            result_of(Err(of_grid_error(&error.with("message_id", response.message_id))))
        }
        result => {
            *bytes += result.as_ref().map_or(0, |response| response.response.len());
            result_of(result)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use afdg_proto::status::to_call_error;
    use afdg_types::CallError;

    #[test]
    fn a_result_carries_the_status_with_its_details() {
        let error = GridError::new(Reason::Overloaded, "full").retry_after_ms(5);
        let Some(call_result::Result::Error(message)) = result_of(Err(of_grid_error(&error))).result else {
            panic!()
        };
        let details = prost::Message::encode_to_vec(&message);
        let code = tonic::Code::from_i32(message.code);
        let status = Status::with_details(code, message.message, details.into());
        assert_eq!(to_call_error(&status), CallError::Grid(error));
        let Some(call_result::Result::Error(message)) = result_of(Err(Status::internal("x"))).result else {
            panic!()
        };
        assert_eq!((message.code, message.message.as_str()), (13, "x"));
    }

    #[test]
    fn results_past_the_bound_are_left_out_one_by_one() {
        let mut bytes = 0;
        let of = |length: usize| {
            Ok(CallResponse { response: vec![0; length].into(), message_id: "id".to_owned() })
        };
        let is_response =
            |result: CallResult| matches!(result.result, Some(call_result::Result::Response(_)));
        assert!(is_response(within_response(of(CALL_MANY_RESPONSE_BYTES_MAX - 1), &mut bytes)));
        assert!(!is_response(within_response(of(2), &mut bytes)));
        assert!(is_response(within_response(of(1), &mut bytes)));
    }
}
