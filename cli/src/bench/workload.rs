//! What is called, and on which agents.

use crate::{
    client::{CallFailure, Client, Pipe},
    random::SplitMix,
};
use afdg_example_counter::v1::{AddManyRequest, AddRequest};
use afdg_proto::pb::v1::{CallRequest, SendRequest, pipe_request};
use anyhow::Context;
use bytes::Bytes;
use clap::ValueEnum;
use futures::{StreamExt, TryStreamExt};
use http::uri::PathAndQuery;
use prost::Message;
use std::sync::Arc;

/// Agents that calls are spread over.
const KEYS: usize = 10_000;
/// Counters that one fan-out adds to.
const FANOUT: usize = 10;
/// Calls in flight while counters are filled.
const FILL_IN_FLIGHT: usize = 256;

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkloadKind {
    /// Adds 1 to one of 10,000 counters
    Update,
    /// Reads one of 10,000 counters
    Read,
    /// Adds 1 to 10 counters through one agent: 11 turns a call
    Fanout,
    /// Adds 1 to always the same counter
    Hot,
    /// Adds 1 to one of 10,000 counters by a message that nobody waits for
    Send,
}

impl WorkloadKind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Update => "update",
            Self::Read => "read",
            Self::Fanout => "fanout",
            Self::Hot => "hot",
            Self::Send => "send",
        }
    }
}

const COUNTER: &str = "counter.v1.Counter";
const FANOUT_TYPE: &str = "counter.v1.Fanout";

/// One agent and the encoded request for it.
#[derive(Clone, Debug)]
struct Target {
    agent: String,
    request: Bytes,
}

/// Where calls go: one method, and agents of which each call takes one at random.
#[derive(Clone, Debug)]
pub struct Targets {
    agent_type: &'static str,
    method: &'static str,
    is_send: bool,
    all: Arc<[Target]>,
    random: SplitMix,
}

impl Targets {
    pub fn of(workload: WorkloadKind, seed: u64) -> Self {
        let mut random = SplitMix::new(seed);
        let (agent_type, method, all): (_, _, Arc<[Target]>) = match workload {
            WorkloadKind::Update | WorkloadKind::Send => {
                (COUNTER, "Add", (0..KEYS).map(|n| add(n, 1)).collect())
            }
            WorkloadKind::Read => (COUNTER, "Get", (0..KEYS).map(|n| add(n, 0)).collect()),
            WorkloadKind::Hot => (COUNTER, "Add", Arc::new([add(0, 1)])),
            WorkloadKind::Fanout => {
                (FANOUT_TYPE, "AddMany", (0..KEYS).map(|n| add_many(n, &mut random)).collect())
            }
        };
        Self { agent_type, method, is_send: workload == WorkloadKind::Send, all, random }
    }

    /// The same agents, taken in another order.
    pub fn for_worker(&self, worker: usize) -> Self {
        let mut random = self.random.clone();
        let mixed = random.next() ^ worker as u64;
        Self { random: SplitMix::new(mixed), ..self.clone() }
    }

    /// The next message for `Grid/Pipe`.
    pub fn next_piped(&mut self) -> pipe_request::Message {
        let (method, is_send) = (self.method.to_owned(), self.is_send);
        let Target { agent, request } = self.next().clone();
        if is_send {
            pipe_request::Message::Send(SendRequest { agent, method, request, ..Default::default() })
        } else {
            pipe_request::Message::Call(CallRequest { agent, method, request, ..Default::default() })
        }
    }

    /// Whether nobody waits for the messages' answers.
    pub fn is_send(&self) -> bool {
        self.is_send
    }

    /// The next call's message for the type's own service.
    pub fn next_message(&mut self) -> Bytes {
        self.next().request.clone()
    }

    /// The path of the type's own service and method.
    pub fn path(&self) -> anyhow::Result<PathAndQuery> {
        Ok(format!("/{}/{}", self.agent_type, self.method).parse()?)
    }

    fn next(&mut self) -> &Target {
        let place = self.random.below(self.all.len() as u64) as usize;
        &self.all[place]
    }
}

fn counter(number: usize) -> String {
    format!("bench-{number}")
}

/// A request to add; with a delta of 0, which protobuf leaves out, it is one to get as well.
fn add(number: usize, delta: i64) -> Target {
    let counter = counter(number);
    let agent = format!("{COUNTER}/{counter}");
    Target { agent, request: AddRequest { counter, delta }.encode_to_vec().into() }
}

fn add_many(number: usize, random: &mut SplitMix) -> Target {
    // Distinct by their stride, which is below KEYS / FANOUT.
    let first = random.below(KEYS as u64) as usize;
    let stride = 1 + random.below((KEYS / FANOUT) as u64 - 1) as usize;
    let counters = (0..FANOUT).map(|place| counter((first + place * stride) % KEYS)).collect();
    let name = format!("bench-{number}");
    let agent = format!("{FANOUT_TYPE}/{name}");
    let request = AddManyRequest { fanout: name, counters, delta: 1 };
    Target { agent, request: request.encode_to_vec().into() }
}

/// Gives every counter a value, so that reads find one.
pub async fn fill(client: &Client) -> anyhow::Result<()> {
    let pipe = Pipe::new(client);
    let targets = Targets::of(WorkloadKind::Update, 0);
    let calls = targets.all.iter().map(|target| {
        let call = CallRequest {
            agent: target.agent.clone(),
            method: targets.method.to_owned(),
            request: target.request.clone(),
            ..Default::default()
        };
        let pipe = pipe.clone();
        async move { pipe.call(call).await.map(drop).map_err(CallFailure::of_call_error) }
    });
    let filled = futures::stream::iter(calls).buffer_unordered(FILL_IN_FLIGHT).try_collect::<()>().await;
    filled.context("the counters can't be filled before the reads")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_follow_from_the_seed_and_name_the_agents_key() {
        for workload in WorkloadKind::value_variants() {
            let (mut one, mut other) = (Targets::of(*workload, 7), Targets::of(*workload, 7));
            for _ in 0..100 {
                let (call, message) = (one.next().clone(), other.next_message());
                assert_eq!(call.request, message);
                let key = call.agent.split_once('/').unwrap().1;
                assert_eq!(&message[2..2 + key.len()], key.as_bytes());
            }
        }
    }

    #[test]
    fn workers_take_different_orders() {
        let targets = Targets::of(WorkloadKind::Update, 7);
        let first = |worker| {
            (0..20)
                .map({
                    let mut own = targets.for_worker(worker);
                    move |_| own.next().agent.clone()
                })
                .collect::<Vec<_>>()
        };
        assert_ne!(first(0), first(1));
        assert_eq!(first(1), first(1));
    }

    #[test]
    fn a_fan_out_names_ten_different_counters() {
        let mut random = SplitMix::new(3);
        for number in 0..1_000 {
            let request = AddManyRequest::decode(add_many(number, &mut random).request).unwrap();
            let different: std::collections::BTreeSet<_> = request.counters.iter().collect();
            assert_eq!(different.len(), FANOUT);
        }
    }
}
