//! Load over one `Grid/Pipe` stream.

use super::{
    recorder::{Recorder, Window},
    workload::Targets,
};
use crate::client::{CallFailure, Client, outcome_of};
use afdg_proto::pb::v1::PipeRequest;
use afdg_types::limits::CALL_TIMEOUT_MS_DEFAULT;
use anyhow::Context;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// Answers are waited for this much longer than the grid's own limit.
const LAST_ANSWERS_MS: u64 = CALL_TIMEOUT_MS_DEFAULT + 5_000;

/// Keeps `in_flight` calls on one stream until the window's end, then awaits the last answers. One task
/// does it all: what a load generator spends is taken from the grid on the same machine.
pub async fn load(
    client: &Client,
    mut targets: Targets,
    in_flight: usize,
    window: Window,
) -> anyhow::Result<Recorder> {
    let mut recorder = Recorder::new(window);
    let (requests, queue) = mpsc::channel(in_flight);
    let answers =
        client.grid().pipe(ReceiverStream::new(queue)).await.map_err(|s| CallFailure::of_status(&s));
    let mut answers = answers.context("the grid opened no pipe")?.into_inner();
    let mut sent = vec![Instant::now(); in_flight];
    let mut under_way = 0;
    for (id, sent) in sent.iter_mut().enumerate() {
        *sent = Instant::now();
        under_way += send(&requests, id, &mut targets, &mut recorder);
    }
    let give_up = tokio::time::sleep_until((window.end + Duration::from_millis(LAST_ANSWERS_MS)).into());
    tokio::pin!(give_up);
    while under_way > 0 {
        let answer = tokio::select! {
            biased;
            answer = answers.message() => answer,
            () = &mut give_up => {
                recorder.failed(under_way, || "no answer long after the run's end".to_owned());
                break;
            }
        };
        let answer = match answer {
            Ok(Some(answer)) => answer,
            Ok(None) => {
                recorder.failed(under_way, || "the grid ended the pipe".to_owned());
                break;
            }
            Err(status) => {
                recorder.failed(under_way, || format!("the pipe broke: {}", status.message()));
                break;
            }
        };
        let now = Instant::now();
        let id = answer.id as usize;
        let Some(sent) = sent.get_mut(id) else {
            recorder.failed(under_way, || format!("an answer has the id {id}, which no call has"));
            break;
        };
        under_way -= 1;
        match outcome_of(answer) {
            Ok(_) => recorder.answered(*sent, now),
            Err(error) => recorder.failed(1, || CallFailure::of_call_error(error).to_string()),
        }
        if now < window.end {
            *sent = now;
            under_way += send(&requests, id, &mut targets, &mut recorder);
        }
    }
    Ok(recorder)
}

/// How many calls it put under way: one, or none if the stream is closed. There is always room: at most
/// as many calls are under way as the queue holds.
fn send(
    requests: &mpsc::Sender<PipeRequest>,
    id: usize,
    targets: &mut Targets,
    recorder: &mut Recorder,
) -> u64 {
    match requests.try_send(PipeRequest { id: id as u64, message: Some(targets.next_piped()) }) {
        Ok(()) => 1,
        Err(_) => {
            recorder.failed(1, || "the pipe is closed".to_owned());
            0
        }
    }
}
