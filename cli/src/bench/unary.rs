//! Load over stock gRPC: the agent type's own service, one call a request, as any client makes it.

use super::{
    recorder::{Recorder, Window},
    workload::Targets,
};
use crate::client::{CallFailure, Client};
use bytes::{Buf, BufMut, Bytes};
use futures::future::try_join_all;
use http::uri::PathAndQuery;
use std::time::{Duration, Instant};
use tonic::{
    Request, Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    metadata::MetadataValue,
    transport::Channel,
};

/// The deadline of each call.
const CALL_MS_MAX: u64 = 30_000;

/// Keeps `in_flight` callers busy on one connection until the window's end.
pub async fn load(
    client: &Client,
    targets: Targets,
    in_flight: usize,
    window: Window,
) -> anyhow::Result<Recorder> {
    let path = targets.path()?;
    let callers = (0..in_flight).map(|worker| {
        let caller = caller(client.channel(), targets.for_worker(worker), path.clone(), window);
        tokio::spawn(caller)
    });
    let mut all = Recorder::new(window);
    for recorder in try_join_all(callers).await? {
        all.merge(recorder);
    }
    Ok(all)
}

async fn caller(channel: Channel, mut targets: Targets, path: PathAndQuery, window: Window) -> Recorder {
    let mut recorder = Recorder::new(window);
    let mut grpc = Grpc::new(channel);
    let mut sent = Instant::now();
    while sent < window.end {
        let result = one_call(&mut grpc, targets.next_message(), &path, targets.is_send()).await;
        let now = Instant::now();
        match result {
            Ok(()) => recorder.answered(sent, now),
            Err(status) => recorder.failed(1, || CallFailure::of_status(&status).to_string()),
        }
        sent = now;
    }
    recorder
}

async fn one_call(
    grpc: &mut Grpc<Channel>,
    message: Bytes,
    path: &PathAndQuery,
    is_send: bool,
) -> Result<(), Status> {
    grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let mut request = Request::new(message);
    request.set_timeout(Duration::from_millis(CALL_MS_MAX));
    if is_send {
        request.metadata_mut().insert("afdg-mode", MetadataValue::from_static("send"));
    }
    grpc.unary(request, path.clone(), Raw).await?;
    Ok(())
}

/// Sends bytes that are already encoded, and lets answers go unread.
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = ();
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Raw
    }

    fn decoder(&mut self) -> Self {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(message);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = ();
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<()>, Status> {
        from.advance(from.remaining());
        Ok(Some(()))
    }
}
