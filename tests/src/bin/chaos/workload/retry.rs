//! Additions to counters under keys that come again: at once through both extensions, soon after, and at
//! the end. Every time the answer has to be the same, and the counter shows one effect.

use super::{
    Client, LastCalls, Workloads,
    counter::{ADD, value},
};
use crate::{
    caller::{Called, Outcome, lock},
    history::{Book, Limits},
};
use afdg_example_counter::v1::{AddRequest, Count};
use afdg_tests::linearizability::{Counter, CounterOp};
use rand::Rng;
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

const LIMITS: Limits = Limits { name: "retried", agents: 3, operations_max: 200, unknown_max: 8 };
/// Answered additions that are kept to be repeated.
const KEPT_MAX: usize = 4_000;

pub struct Retries {
    pub book: Book<Counter>,
    answered: Mutex<VecDeque<Addition>>,
}

#[derive(Clone)]
struct Addition {
    key: String,
    request: AddRequest,
    answer: i64,
}

impl Retries {
    pub fn new() -> Self {
        Self { book: Book::new(LIMITS), answered: Mutex::default() }
    }

    /// One that was answered.
    fn any(&self, client: &mut Client) -> Option<Addition> {
        let answered = lock(&self.answered);
        let last = answered.len().checked_sub(1)?;
        answered.get(client.random.random_range(0..=last)).cloned()
    }
}

pub fn in_retries(all: &Workloads) -> &Book<Counter> {
    &all.retries.book
}

pub async fn call(all: &Workloads, client: &mut Client) {
    if client.chance(40) {
        if let Some(addition) = all.retries.any(client) {
            again(all, addition, client.extension()).await;
        }
        return;
    }
    let counter = all.retries.book.agent(&mut client.random);
    let (extension, key) = (client.extension(), client.key());
    let delta = client.random.random_range(1..6);
    let request = AddRequest { counter: counter.clone(), delta };
    let first = all.caller.with_key(extension, ADD, request.clone(), &key);
    let called: Called<Count> = match client.chance(50) {
        true => first.await,
        false => {
            let second = all.caller.with_key(extension + 1, ADD, request.clone(), &key);
            let (first, second): (Called<Count>, Called<Count>) = tokio::join!(first, second);
            one_of(all, &key, first, second)
        }
    };
    all.retries.book.note(&counter, client.number, CounterOp::Add(delta), &called, value);
    if let Outcome::Answered(Count { value: answer }) = called.outcome {
        let mut known = lock(&all.retries.answered);
        if known.len() == KEPT_MAX {
            known.pop_front();
        }
        known.push_back(Addition { key, request, answer });
    }
}

/// Two calls with the same key are one operation, which is answered with the first answer.
fn one_of(all: &Workloads, key: &str, first: Called<Count>, second: Called<Count>) -> Called<Count> {
    let called = first.called.min(second.called);
    if let (Outcome::Answered(one), Outcome::Answered(other)) = (&first.outcome, &second.outcome)
        && one != other
    {
        let text = format!("{key} was answered {one:?} and, side by side, {other:?}");
        all.caller.tell_wrong(text);
    }
    let is_answered = |call: &Called<Count>| matches!(call.outcome, Outcome::Answered(_));
    let mut calls = [first, second];
    calls.sort_by_key(|call| (!is_answered(call), call.ended));
    let [mut best, other] = calls;
    best.called = called;
    if best.outcome == Outcome::NoEffect {
        best.outcome = other.outcome;
    }
    best
}

async fn again(all: &Workloads, addition: Addition, extension: usize) {
    let Addition { key, request, answer } = addition;
    let called: Called<Count> = all.caller.with_key(extension, ADD, request, &key).await;
    if let Outcome::Answered(Count { value }) = called.outcome
        && value != answer
    {
        all.caller.tell_wrong(format!("{key} was answered {answer} and, repeated, {value}"));
    }
}

/// Repeats all that were answered.
pub fn repeat(all: &Arc<Workloads>, calls: &mut LastCalls) {
    for (number, addition) in lock(&all.retries.answered).iter().cloned().enumerate() {
        let all = all.clone();
        calls.spawn(async move { again(&all, addition, number).await });
    }
}
