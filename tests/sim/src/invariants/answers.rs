//! What clients saw: calls to one agent are linearizable (promises 1, 3, 4, 10, 11, 13), an id takes effect
//! once and gets its answer again (promise 5), money is neither made nor lost (promise 7).

use crate::events::Events;
use afdg_tests::linearizability::{self, Model, Operation, Verdict, shrink};
use std::{collections::BTreeMap, time::Duration};

/// Simulated time stands still while histories are checked, so this bounds nothing; the memory of the search
/// does.
const CHECK_LIMIT: Duration = Duration::from_secs(1);

/// What a client asked an agent to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    Add(i64),
    Get,
    RecordPurchase(i64),
    GetSummary,
    Deposit(i64),
    GetBalance,
    /// To another account, which is noted as a deposit there.
    Take(i64),
}

/// What it was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Value(i64),
    Summary(u64, i64),
    /// The balance is short.
    Short,
}

/// An agent of any type: a number, and how many items it has.
pub struct Agent;

impl Model for Agent {
    type State = (u64, i64);
    type Op = Op;
    type Answer = Answer;

    fn step(state: &(u64, i64), op: &Op) -> ((u64, i64), Answer) {
        let (count, value) = *state;
        let value_of = |state: (u64, i64)| (state, Answer::Value(state.1));
        match op {
            Op::Add(delta) | Op::Deposit(delta) => value_of((count, value + delta)),
            Op::Get | Op::GetBalance => value_of(*state),
            Op::RecordPurchase(cents) => {
                ((count + 1, value + cents), Answer::Summary(count + 1, value + cents))
            }
            Op::GetSummary => (*state, Answer::Summary(count, value)),
            Op::Take(cents) if value < *cents => (*state, Answer::Short),
            Op::Take(cents) => value_of((count, value - cents)),
        }
    }

    fn is_read(op: &Op) -> bool {
        matches!(op, Op::Get | Op::GetSummary | Op::GetBalance)
    }
}

/// All operations by agent.
pub type History = BTreeMap<String, Vec<Operation<Op, Answer>>>;

pub fn check(history: &History, events: &Events) {
    for (agent, operations) in history {
        match linearizability::check::<Agent>(operations, CHECK_LIMIT) {
            Verdict::Linearizable => {}
            Verdict::Violation => {
                let shrunk = shrink::<Agent>(operations);
                events.note(agent, format_args!("held {:?} when this began:", shrunk.state));
                tell(agent, &shrunk.history, events);
                let (kept, all) = (shrunk.history.len(), operations.len());
                let what = format_args!("{agent}: {kept} of {all} operations fit in no order");
                events.violation("linearizable", what);
            }
            Verdict::Undecided => {
                tell(agent, operations, events);
                events.violation("linearizable", format_args!("{agent}: the search was given up"));
            }
        }
    }
}

/// A history, for a person to read.
fn tell(agent: &str, operations: &[Operation<Op, Answer>], events: &Events) {
    let mut sorted: Vec<_> = operations.iter().collect();
    sorted.sort_by_key(|operation| operation.called);
    let ms = |ns: u64| ns as f64 / 1e6;
    for Operation { client, op, called, answered } in sorted {
        let called = ms(*called);
        match answered {
            Some((at, answer)) => {
                let until = ms(*at);
                events.note(
                    agent,
                    format_args!("client {client}: {op:?} from {called:.0} to {until:.0}: {answer:?}"),
                );
            }
            None => events.note(agent, format_args!("client {client}: {op:?} from {called:.0}: unknown")),
        }
    }
}
