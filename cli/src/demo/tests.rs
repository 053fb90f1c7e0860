//! The demo against a stand-in for a grid, which loses answers, refuses, and breaks streams as a real
//! one may, and in one test counts wrongly, as a real one must not.

use super::*;
use afdg_example_shop::v1;
use afdg_proto::{
    pb::v1::{
        AttachRequest, AttachResponse, CallManyRequest, CallManyResponse, CallRequest, CallResponse,
        CallResult, PipeRequest, PipeResponse, ScatterRequest, ScatterResponse, SendRequest, SendResponse,
        call_result,
        grid_server::{Grid, GridServer},
        pipe_request,
    },
    status::of_grid_error,
};
use afdg_types::{GridError, Reason};
use bytes::Bytes;
use futures::{StreamExt, stream::BoxStream};
use prost::Message;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};
use tonic::{Request, Response, Status, Streaming};

/// Every so many attempts ...
const REFUSED_EVERY: u64 = 7;
const LOST_EVERY: u64 = 11;
const BROKEN_EVERY: u64 = 500;

#[derive(Default)]
struct Shop {
    customers: HashMap<String, v1::Summary>,
    answered: HashMap<(String, String), Bytes>,
    attempts: u64,
    /// Takes a repeated message for a new one.
    forgets_ids: bool,
}

impl Shop {
    fn turn(&mut self, call: &CallRequest) -> Bytes {
        let summary = self.customers.entry(call.agent.clone()).or_default();
        if call.method == "GetSummary" {
            return summary.encode_to_vec().into();
        }
        let id = (call.agent.clone(), call.idempotency_key.clone());
        if let Some(answer) = self.answered.get(&id).filter(|_| !self.forgets_ids) {
            return answer.clone();
        }
        let request = v1::RecordPurchaseRequest::decode(call.request.clone()).unwrap();
        summary.count += 1;
        summary.total_cents += request.amount_cents;
        if summary.first_date.is_empty() || request.date < summary.first_date {
            summary.first_date = request.date.clone();
        }
        summary.last_date = summary.last_date.clone().max(request.date);
        let answer = v1::RecordPurchaseResponse { count: summary.count, total_cents: summary.total_cents };
        let answer = Bytes::from(answer.encode_to_vec());
        self.answered.insert(id, answer.clone());
        answer
    }

    fn attempt(&mut self, call: &CallRequest) -> Result<Bytes, GridError> {
        self.attempts += 1;
        if self.attempts.is_multiple_of(REFUSED_EVERY) {
            return Err(GridError::new(Reason::Overloaded, "full").retry_after_ms(1));
        }
        let answer = self.turn(call);
        if self.attempts.is_multiple_of(LOST_EVERY) {
            return Err(GridError::new(Reason::OutcomeUnknown, "the leader is gone"));
        }
        Ok(answer)
    }
}

#[derive(Clone, Default)]
struct StandIn(Arc<Mutex<Shop>>);

#[tonic::async_trait]
impl Grid for StandIn {
    async fn call(&self, _: Request<CallRequest>) -> Result<Response<CallResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn send(&self, _: Request<SendRequest>) -> Result<Response<SendResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn attach(&self, _: Request<AttachRequest>) -> Result<Response<AttachResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn call_many(&self, _: Request<CallManyRequest>) -> Result<Response<CallManyResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }

    type ScatterStream = BoxStream<'static, Result<ScatterResponse, Status>>;

    async fn scatter(&self, _: Request<ScatterRequest>) -> Result<Response<Self::ScatterStream>, Status> {
        Err(Status::unimplemented("not here"))
    }

    type PipeStream = BoxStream<'static, Result<PipeResponse, Status>>;

    async fn pipe(
        &self,
        requests: Request<Streaming<PipeRequest>>,
    ) -> Result<Response<Self::PipeStream>, Status> {
        let shop = self.0.clone();
        let answers = requests.into_inner().map(move |request| {
            let PipeRequest { id, message } = request?;
            let Some(pipe_request::Message::Call(call)) = message else { panic!("no call: {message:?}") };
            let mut shop = shop.lock().unwrap();
            let result = match shop.attempt(&call) {
                Ok(response) => {
                    let message_id = String::new();
                    call_result::Result::Response(CallResponse { response, message_id })
                }
                Err(error) => {
                    let status = of_grid_error(&error);
                    let status = tonic_types::pb::Status::decode(status.details()).unwrap();
                    call_result::Result::Error(status)
                }
            };
            if shop.attempts.is_multiple_of(BROKEN_EVERY) {
                return Err(Status::unavailable("the connection was cut"));
            }
            Ok(PipeResponse { id, result: Some(CallResult { result: Some(result) }) })
        });
        Ok(Response::new(answers.boxed()))
    }
}

async fn run_on(shop: Shop) -> Report {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let service = GridServer::new(StandIn(Arc::new(Mutex::new(shop))));
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    let server = tonic::transport::Server::builder().add_service(service);
    tokio::spawn(server.serve_with_incoming(incoming));
    let client = Client::connect_to(&endpoint).await.unwrap();
    let csv = made_up::csv(200, 900, 3).unwrap();
    let purchases = purchases::read("made up", csv.as_bytes()).unwrap();
    let work = Work { purchases: &purchases, in_flight: 32, top: 3 };
    let report = work.feed_and_check(&client, None, "made up".into(), "run-1".into()).await;
    assert_eq!(report.messages_not_recorded, 0, "{:?}", report.failures);
    report
}

#[tokio::test]
async fn lost_answers_and_broken_streams_lose_and_double_nothing() {
    let report = run_on(Shop::default()).await;
    assert!(report.exact, "{:?} {:?}", report.failures, report.differences);
    assert_eq!((report.messages, report.agents), (900, 200));
    assert!(report.retries > 200 && report.unknown_outcomes > 50, "{report:?}");
    assert!(report.p50_ms > 0.0 && report.p50_ms <= report.p99_ms && report.p99_ms <= report.max_ms);
    assert_eq!(report.top.len(), 3);
    assert_eq!(report.largest_total.as_ref(), report.top.first());
}

#[tokio::test]
async fn a_grid_that_counts_twice_is_found_out() {
    let report = run_on(Shop { forgets_ids: true, ..Shop::default() }).await;
    assert!(!report.exact && report.agents_wrong > 20 && report.answers_out_of_step > 20);
    assert!(report.differences[0].contains("purchases instead of"), "{:?}", report.differences);
}
