//! Calls at a rate, whether earlier ones are answered or not, on a few streams.

use afdg_example_counter::v1::AddRequest;
use afdg_proto::pb::v1::{
    CallRequest, PipeRequest, PipeResponse, call_result, grid_client::GridClient, pipe_request,
};
use prost::Message;
use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tokio::{sync::mpsc, task::JoinSet};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming, transport::Channel};

pub const TYPE: &str = "counter.v1.Counter";
const STREAMS: u64 = 8;
/// Requests of one stream that wait to be written.
const WRITES_WAITING_MAX: usize = 1_024;
/// Calls of one stream that wait for their answers while the best rate is looked for.
const ANSWERS_WAITING: usize = 32;
const COUNTERS: u64 = 10_000;
/// How long answers are waited for after the last call was sent.
const LAST_ANSWERS: Duration = Duration::from_secs(30);
/// A rate is kept to in steps of this.
const STEP: Duration = Duration::from_millis(2);

pub struct Sender {
    channel: Channel,
}

/// What became of calls.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    pub sent: u64,
    pub done: u64,
    /// For now.
    pub refused: u64,
    pub failed: u64,
    /// When their time was over.
    pub unanswered: u64,
    /// One of those that failed.
    pub first_failure: Option<String>,
}

#[derive(Default)]
struct Counters {
    sent: AtomicU64,
    done: AtomicU64,
    refused: AtomicU64,
    failed: AtomicU64,
    first_failure: OnceLock<String>,
}

impl Counters {
    fn answered(&self) -> u64 {
        self.done.load(Relaxed) + self.refused.load(Relaxed) + self.failed.load(Relaxed)
    }

    fn take(&self, response: PipeResponse) {
        let counter = match response.result.and_then(|result| result.result) {
            Some(call_result::Result::Response(_)) => &self.done,
            Some(call_result::Result::Error(error)) if error.code == Code::ResourceExhausted as i32 => {
                &self.refused
            }
            other => {
                self.first_failure.get_or_init(|| format!("{other:?}"));
                &self.failed
            }
        };
        counter.fetch_add(1, Relaxed);
    }

    fn counts(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Relaxed);
        Counts {
            sent: read(&self.sent),
            done: read(&self.done),
            refused: read(&self.refused),
            failed: read(&self.failed),
            unanswered: 0,
            first_failure: None,
        }
    }
}

impl Sender {
    pub async fn connect(endpoint: &str) -> anyhow::Result<Self> {
        Ok(Self { channel: Channel::from_shared(endpoint.to_owned())?.connect().await? })
    }

    async fn stream(&self) -> anyhow::Result<(mpsc::Sender<PipeRequest>, Streaming<PipeResponse>)> {
        let (requests, queue) = mpsc::channel(WRITES_WAITING_MAX);
        let responses = GridClient::new(self.channel.clone()).pipe(ReceiverStream::new(queue)).await?;
        Ok((requests, responses.into_inner()))
    }

    /// As many calls as are answered, with a few under way all the time. Those that are refused are tried again
    /// at once, so what is done is all that can be.
    pub async fn answered_in(&self, time: Duration) -> anyhow::Result<Counts> {
        let (counters, end) = (Arc::<Counters>::default(), Instant::now() + time);
        let mut streams = JoinSet::new();
        for number in 0..STREAMS {
            let (requests, mut responses) = self.stream().await?;
            let counters = Arc::clone(&counters);
            streams.spawn(async move {
                let mut id = number;
                for _ in 0..ANSWERS_WAITING {
                    id += STREAMS;
                    requests.send(add(id)).await?;
                }
                while let Some(response) = responses.message().await? {
                    if Instant::now() >= end {
                        break;
                    }
                    let refused = counters.refused.load(Relaxed);
                    counters.take(response);
                    if counters.refused.load(Relaxed) > refused {
                        tokio::time::sleep(STEP).await;
                    }
                    id += STREAMS;
                    requests.send(add(id)).await?;
                }
                anyhow::Ok(())
            });
        }
        while let Some(ended) = streams.join_next().await {
            ended??;
        }
        Ok(counters.counts())
    }

    /// So many calls a second for that time; then their answers are waited for. What can't be written to a
    /// stream in time is not sent.
    pub async fn send_at(&self, per_second: u64, time: Duration) -> anyhow::Result<Counts> {
        let counters = Arc::<Counters>::default();
        let (mut senders, mut readers) = (JoinSet::new(), JoinSet::new());
        for number in 0..STREAMS {
            let (requests, mut responses) = self.stream().await?;
            let (sending, reading) = (Arc::clone(&counters), Arc::clone(&counters));
            senders.spawn(async move {
                let began = Instant::now();
                let mut planned = 0;
                while began.elapsed() < time {
                    let due = (began.elapsed().as_secs_f64() * per_second as f64) as u64 / STREAMS;
                    for id in planned..due {
                        if requests.try_send(add(id * STREAMS + number)).is_ok() {
                            sending.sent.fetch_add(1, Relaxed);
                        }
                    }
                    planned = due;
                    tokio::time::sleep(STEP).await;
                }
                requests
            });
            readers.spawn(async move {
                loop {
                    match responses.message().await {
                        Ok(Some(response)) => reading.take(response),
                        Ok(None) => return,
                        Err(status) => return drop(reading.first_failure.set(format!("a stream: {status}"))),
                    }
                }
            });
        }
        // The streams stay open until their answers are there.
        let open = senders.join_all().await;
        let end = Instant::now() + LAST_ANSWERS;
        while counters.answered() < counters.sent.load(Relaxed) && Instant::now() < end {
            tokio::time::sleep(STEP).await;
        }
        let mut counts = counters.counts();
        counts.unanswered = counts.sent - counters.answered().min(counts.sent);
        counts.first_failure = counters.first_failure.get().cloned();
        drop(open);
        readers.join_all().await;
        Ok(counts)
    }
}

fn add(id: u64) -> PipeRequest {
    let counter = format!("c-{}", id % COUNTERS);
    let request = AddRequest { counter: String::new(), delta: 1 };
    let call = CallRequest {
        agent: format!("{TYPE}/{counter}"),
        method: "Add".to_owned(),
        request: request.encode_to_vec().into(),
        ..CallRequest::default()
    };
    PipeRequest { id, message: Some(pipe_request::Message::Call(call)) }
}
