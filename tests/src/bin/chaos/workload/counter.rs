//! Additions to counters and reads of them.

use super::{Client, LAST_READER, Workloads};
use crate::history::{Book, Limits};
use afdg_example_counter::v1::{AddRequest, Count, GetRequest};
use afdg_tests::linearizability::{Counter, CounterOp};
use rand::Rng;
use std::sync::Arc;

pub const LIMITS: Limits = Limits { name: "counter", agents: 3, operations_max: 300, unknown_max: 8 };
pub const ADD: &str = "/counter.v1.Counter/Add";
const GET: &str = "/counter.v1.Counter/Get";

pub async fn call(all: &Workloads, client: &mut Client) {
    let counter = all.counters.agent(&mut client.random);
    let (extension, key) = (client.extension(), client.key());
    if client.chance(40) {
        let called = all.caller.once(extension, GET, GetRequest { counter: counter.clone() }).await;
        all.counters.note(&counter, client.number, CounterOp::Get, &called, value);
        return;
    }
    let delta = client.random.random_range(1..6);
    let request = AddRequest { counter: counter.clone(), delta };
    let called = match client.chance(70) {
        true => all.caller.with_key(extension, ADD, request, &key).await,
        false => all.caller.once(extension, ADD, request).await,
    };
    all.counters.note(&counter, client.number, CounterOp::Add(delta), &called, value);
}

pub fn in_counters(all: &Workloads) -> &Book<Counter> {
    &all.counters
}

pub async fn read(all: Arc<Workloads>, book: fn(&Workloads) -> &Book<Counter>, counter: String) {
    let called = all.caller.read(0, GET, GetRequest { counter: counter.clone() }).await;
    book(&all).note(&counter, LAST_READER, CounterOp::Get, &called, value);
}

pub fn value(answer: &Count) -> i64 {
    answer.value
}
