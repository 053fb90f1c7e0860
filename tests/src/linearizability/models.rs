//! The agents whose histories are checked.

use super::Model;

/// One value that is overwritten; the empty text at first.
pub struct Register;

#[derive(Clone, Debug, PartialEq)]
pub enum RegisterOp {
    Write(String),
    Read,
    CompareAndSet { expected: String, value: String },
}

#[derive(Clone, Debug, PartialEq)]
pub enum RegisterAnswer {
    Done,
    Value(String),
    Written(bool),
}

impl Model for Register {
    type State = String;
    type Op = RegisterOp;
    type Answer = RegisterAnswer;

    fn step(state: &String, op: &RegisterOp) -> (String, RegisterAnswer) {
        match op {
            RegisterOp::Write(value) => (value.clone(), RegisterAnswer::Done),
            RegisterOp::Read => (state.clone(), RegisterAnswer::Value(state.clone())),
            RegisterOp::CompareAndSet { expected, value } if expected == state => {
                (value.clone(), RegisterAnswer::Written(true))
            }
            RegisterOp::CompareAndSet { .. } => (state.clone(), RegisterAnswer::Written(false)),
        }
    }

    fn is_read(op: &RegisterOp) -> bool {
        *op == RegisterOp::Read
    }
}

/// A number that is added to; also an account's balance, of which transfers are additions to two accounts.
pub struct Counter;

#[derive(Clone, Debug, PartialEq)]
pub enum CounterOp {
    /// Answered with the new value.
    Add(i64),
    Get,
}

impl Model for Counter {
    type State = i64;
    type Op = CounterOp;
    type Answer = i64;

    fn step(state: &i64, op: &CounterOp) -> (i64, i64) {
        let after = match op {
            CounterOp::Add(delta) => state + delta,
            CounterOp::Get => *state,
        };
        (after, after)
    }

    fn is_read(op: &CounterOp) -> bool {
        *op == CounterOp::Get
    }
}

/// A list that is appended to and read as a whole.
pub struct List;

#[derive(Clone, Debug, PartialEq)]
pub enum ListOp {
    Append(i64),
    Read,
}

#[derive(Clone, Debug, PartialEq)]
pub enum ListAnswer {
    /// How many items there are with the new one, and their sum.
    Appended {
        count: u64,
        total: i64,
    },
    Items(Vec<i64>),
}

impl Model for List {
    type State = Vec<i64>;
    type Op = ListOp;
    type Answer = ListAnswer;

    fn step(state: &Vec<i64>, op: &ListOp) -> (Vec<i64>, ListAnswer) {
        match op {
            ListOp::Append(item) => {
                let mut after = state.clone();
                after.push(*item);
                let answer = ListAnswer::Appended { count: after.len() as u64, total: after.iter().sum() };
                (after, answer)
            }
            ListOp::Read => (state.clone(), ListAnswer::Items(state.clone())),
        }
    }

    fn is_read(op: &ListOp) -> bool {
        *op == ListOp::Read
    }
}
