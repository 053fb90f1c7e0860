//! Every request's first stop: is it gRPC, which service is it for, and does its error say enough.

use crate::{
    agent_calls, agents_admin::AgentsAdmin, budget::Budget, caller::Caller, cluster_admin::ClusterAdmin,
    config::ENVELOPE_BYTES_MAX, dead_letters_admin::DeadLettersAdmin, grid::Grid, health::HealthService,
    intake::Intake, reflection::Reflection, schedules_admin::SchedulesAdmin,
};
use afdg_proto::{
    pb::{
        admin::{
            agents_server::AgentsServer, cluster_server::ClusterServer,
            dead_letters_server::DeadLettersServer, schedules_server::SchedulesServer,
        },
        v1::grid_server::GridServer,
    },
    status::of_grid_error,
};
use afdg_types::{GridError, Reason, limits::MESSAGE_BYTES_MAX};
use bytes::{Buf, Bytes};
use futures::future::BoxFuture;
use http::{HeaderValue, Method, StatusCode, Version, header};
use std::{
    convert::Infallible,
    task::{Context, Poll},
};
use tonic::{Code, Status, body::Body};
use tonic_reflection::pb::{
    v1::server_reflection_server::ServerReflectionServer as ReflectionV1,
    v1alpha::server_reflection_server::ServerReflectionServer as ReflectionV1Alpha,
};
use tower::Service;

/// Largest message of the built-in services: a request and what is around it.
const ENVELOPED_BYTES_MAX: usize = MESSAGE_BYTES_MAX + ENVELOPE_BYTES_MAX;
/// Largest request to reflection, which asks for names.
const REFLECTION_BYTES_MAX: usize = 64 * 1024;

/// All services of the main port, or health alone. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Gateway {
    health: HealthService,
    rest: Option<Rest>,
    receiving: Budget,
}

#[derive(Clone)]
struct Rest {
    caller: Caller,
    grid: GridServer<Grid>,
    cluster: ClusterServer<ClusterAdmin>,
    agents: AgentsServer<AgentsAdmin>,
    dead_letters: DeadLettersServer<DeadLettersAdmin>,
    schedules: SchedulesServer<SchedulesAdmin>,
    reflection_v1: ReflectionV1<Reflection>,
    reflection_v1alpha: ReflectionV1Alpha<Reflection>,
}

impl Gateway {
    pub(crate) fn health_only(health: HealthService, receiving: Budget) -> Self {
        Self { health, rest: None, receiving }
    }

    pub(crate) fn new(
        caller: Caller,
        grid: Grid,
        cluster: ClusterAdmin,
        health: HealthService,
        receiving: Budget,
    ) -> Self {
        let router = caller.router.clone();
        let reflection = Reflection::new(router.clone());
        let letters = DeadLettersAdmin { catalog: cluster.catalog.clone(), router: router.clone() };
        let schedules = SchedulesAdmin { catalog: cluster.catalog.clone(), router: router.clone() };
        let rest = Rest {
            caller,
            grid: GridServer::new(grid).max_decoding_message_size(ENVELOPED_BYTES_MAX),
            cluster: ClusterServer::new(cluster).max_decoding_message_size(ENVELOPED_BYTES_MAX),
            agents: AgentsServer::new(AgentsAdmin { router: router.clone() })
                .max_decoding_message_size(ENVELOPED_BYTES_MAX),
            dead_letters: DeadLettersServer::new(letters).max_decoding_message_size(ENVELOPED_BYTES_MAX),
            schedules: SchedulesServer::new(schedules).max_decoding_message_size(ENVELOPED_BYTES_MAX),
            reflection_v1: ReflectionV1::new(reflection.clone())
                .max_decoding_message_size(REFLECTION_BYTES_MAX),
            reflection_v1alpha: ReflectionV1Alpha::new(reflection)
                .max_decoding_message_size(REFLECTION_BYTES_MAX),
        };
        Self { health, rest: Some(rest), receiving }
    }

    fn intake<B>(&self, request: http::Request<B>) -> http::Request<Body>
    where
        B: http_body::Body + Send + Unpin + 'static,
        B::Data: Buf,
        B::Error: Into<tonic::codegen::StdError>,
    {
        let is_stream = is_stream(request.uri().path());
        let share = self.receiving.share();
        request.map(|body| {
            Body::new(if is_stream {
                Intake::of_stream(body, share)
            } else {
                Intake::of_message(body, share)
            })
        })
    }

    fn dispatch(&mut self, request: http::Request<Body>) -> Answer {
        let service = request.uri().path().trim_start_matches('/').split('/').next().unwrap_or_default();
        if service == "grpc.health.v1.Health" {
            return self.health.call(request);
        }
        let Some(rest) = &mut self.rest else {
            let response = Status::unimplemented("this port serves grpc.health.v1.Health only").into_http();
            return Box::pin(std::future::ready(Ok(response)));
        };
        match service {
            "afdg.v1.Grid" => rest.grid.call(request),
            "afdg.admin.v1.Cluster" => rest.cluster.call(request),
            "afdg.admin.v1.Agents" => rest.agents.call(request),
            "afdg.admin.v1.DeadLetters" => rest.dead_letters.call(request),
            "afdg.admin.v1.Schedules" => rest.schedules.call(request),
            "grpc.reflection.v1.ServerReflection" => rest.reflection_v1.call(request),
            "grpc.reflection.v1alpha.ServerReflection" => rest.reflection_v1alpha.call(request),
            _ => {
                let caller = rest.caller.clone();
                Box::pin(async move { Ok(agent_calls::serve(caller, request).await) })
            }
        }
    }
}

fn is_stream(path: &str) -> bool {
    path == "/afdg.v1.Grid/Pipe" || path.starts_with("/grpc.reflection.")
}

type Answer = BoxFuture<'static, Result<http::Response<Body>, Infallible>>;

impl<B> Service<http::Request<B>> for Gateway
where
    B: http_body::Body + Send + Unpin + 'static,
    B::Data: Buf,
    B::Error: Into<tonic::codegen::StdError>,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Answer {
        if let Some(answer) = not_grpc(request.version(), request.method(), request.headers()) {
            return Box::pin(std::future::ready(Ok(answer)));
        }
        let request = self.intake(request);
        let answer = self.dispatch(request);
        Box::pin(async move { answer.await.map(explained) })
    }
}

/// The answer to a request that is not gRPC: in words, for whoever pointed a browser here.
fn not_grpc(version: Version, method: &Method, headers: &http::HeaderMap) -> Option<http::Response<Body>> {
    let content_type = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let (status, what) = if version < Version::HTTP_2 {
        (StatusCode::HTTP_VERSION_NOT_SUPPORTED, "This request came over HTTP/1.")
    } else if *method != Method::POST {
        (StatusCode::METHOD_NOT_ALLOWED, "A gRPC call is a POST.")
    } else if !is_grpc(content_type) {
        (StatusCode::UNSUPPORTED_MEDIA_TYPE, "A gRPC call has the content type application/grpc.")
    } else {
        return None;
    };
    let text = format!(
        "{what} This is an AFDG extension: it speaks gRPC over HTTP/2. \
         Call agents with a gRPC client; server reflection tells which there are.\n"
    );
    let mut response = http::Response::new(Body::new(OneChunk(Some(Bytes::from(text)))));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    if status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(header::ALLOW, HeaderValue::from_static("POST"));
    }
    Some(response)
}

/// `application/grpc`, alone or with protobuf as its format or with parameters.
fn is_grpc(content_type: &[u8]) -> bool {
    let Some(rest) = content_type.strip_prefix(b"application/grpc") else { return false };
    let rest = rest.strip_prefix(b"+proto").unwrap_or(rest);
    matches!(rest.first(), None | Some(b';' | b' '))
}

struct OneChunk(Option<Bytes>);

impl http_body::Body for OneChunk {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.take().map(|chunk| Ok(http_body::Frame::data(chunk))))
    }
}

/// An error that the framework made of a request it could not read gets our details.
fn explained(response: http::Response<Body>) -> http::Response<Body> {
    let is_error = response.headers().get("grpc-status").is_some_and(|code| code != "0");
    if !is_error || response.headers().contains_key("grpc-status-details-bin") {
        return response;
    }
    match Status::from_header_map(response.headers()) {
        // What encodings are spoken here stands in the headers of this very response.
        Some(status) if !response.headers().contains_key("grpc-accept-encoding") => {
            explain(status).into_http()
        }
        _ => response,
    }
}

/// Our own errors have details; one without them comes from the framework's reading of a request.
pub(crate) fn explain(status: Status) -> Status {
    if !status.details().is_empty() {
        return status;
    }
    let message = status.message();
    match status.code() {
        Code::OutOfRange | Code::ResourceExhausted => of_grid_error(
            &GridError::new(Reason::MessageTooLarge, format!("the message is too large: {message}"))
                .with("bytes_max", MESSAGE_BYTES_MAX),
        ),
        Code::Internal => of_grid_error(
            &GridError::new(Reason::RequestMalformed, format!("the request can't be read: {message}"))
                .with("field", "request"),
        ),
        Code::Unimplemented if message.is_empty() => of_grid_error(
            &GridError::new(Reason::UnknownMethod, "the service has no such method")
                .with("resource_type", "method"),
        ),
        _ => status,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use afdg_proto::status::to_call_error;
    use afdg_types::CallError;

    #[test]
    fn only_grpc_over_http2_passes() {
        let of = |version, method, content_type: &str| {
            let mut headers = http::HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, content_type.parse().unwrap());
            not_grpc(version, &method, &headers).map(|response| response.status().as_u16())
        };
        for good in ["application/grpc", "application/grpc+proto", "application/grpc;charset=utf-8"] {
            assert_eq!(of(Version::HTTP_2, Method::POST, good), None, "{good}");
        }
        for bad in ["", "application/json", "application/grpc+json", "application/grpc-web"] {
            assert_eq!(of(Version::HTTP_2, Method::POST, bad), Some(415), "{bad}");
        }
        assert_eq!(of(Version::HTTP_2, Method::GET, "application/grpc"), Some(405));
        assert_eq!(of(Version::HTTP_11, Method::POST, "application/grpc"), Some(505));
    }

    #[test]
    fn the_frameworks_errors_get_our_reasons() {
        let reason = |status| match to_call_error(&explained(Status::into_http(status)).into_status()) {
            CallError::Grid(error) => error.reason,
            CallError::Agent(error) => panic!("{error:?}"),
        };
        assert_eq!(reason(Status::out_of_range("length too large")), Reason::MessageTooLarge);
        assert_eq!(reason(Status::internal("Unexpected EOF")), Reason::RequestMalformed);
        assert_eq!(reason(Status::unimplemented("")), Reason::UnknownMethod);
        let own = of_grid_error(&GridError::new(Reason::Internal, "a defect"));
        assert_eq!(reason(own), Reason::Internal);
    }

    trait IntoStatus {
        fn into_status(self) -> Status;
    }

    impl IntoStatus for http::Response<Body> {
        fn into_status(self) -> Status {
            Status::from_header_map(self.headers()).unwrap()
        }
    }
}
