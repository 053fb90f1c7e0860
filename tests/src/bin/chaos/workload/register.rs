//! Writes, compares and reads of registers; each value is written once.

use super::{Client, LAST_READER, Workloads};
use crate::history::Limits;
use afdg_tests::{
    linearizability::{RegisterAnswer, RegisterOp},
    register::v1::{
        CompareAndSetRequest, CompareAndSetResponse, ReadRequest, Value, WriteRequest, WriteResponse,
    },
};
use rand::Rng;
use std::sync::Arc;

pub const LIMITS: Limits = Limits { name: "register", agents: 3, operations_max: 200, unknown_max: 6 };
const WRITE: &str = "/register.v1.Register/Write";
const READ: &str = "/register.v1.Register/Read";
const SET: &str = "/register.v1.Register/CompareAndSet";

pub async fn call(all: &Workloads, client: &mut Client) {
    let register = all.registers.agent(&mut client.random);
    let (extension, key) = (client.extension(), client.key());
    let (caller, number) = (&all.caller, client.number);
    match client.random.random_range(0..10) {
        0..4 => {
            let request = ReadRequest { register: register.clone() };
            let called = caller.once(extension, READ, request).await;
            all.registers.note(&register, number, RegisterOp::Read, &called, value);
        }
        4..8 => {
            let request = WriteRequest { register: register.clone(), value: key.clone() };
            let called = match client.chance(70) {
                true => caller.with_key(extension, WRITE, request, &key).await,
                false => caller.once(extension, WRITE, request).await,
            };
            let done = |_: &WriteResponse| RegisterAnswer::Done;
            all.registers.note(&register, number, RegisterOp::Write(key), &called, done);
        }
        _ => {
            let request = ReadRequest { register: register.clone() };
            let read = caller.once(extension, READ, request).await;
            all.registers.note(&register, number, RegisterOp::Read, &read, value);
            let crate::caller::Outcome::Answered(Value { value: expected }) = read.outcome else { return };
            let request = CompareAndSetRequest {
                register: register.clone(),
                expected: expected.clone(),
                value: key.clone(),
            };
            let called = match client.chance(70) {
                true => caller.with_key(extension, SET, request, &key).await,
                false => caller.once(extension, SET, request).await,
            };
            let op = RegisterOp::CompareAndSet { expected, value: key };
            let written = |answer: &CompareAndSetResponse| RegisterAnswer::Written(answer.written);
            all.registers.note(&register, number, op, &called, written);
        }
    }
}

pub async fn read(all: Arc<Workloads>, register: String) {
    let request = ReadRequest { register: register.clone() };
    let called = all.caller.read(0, READ, request).await;
    all.registers.note(&register, LAST_READER, RegisterOp::Read, &called, value);
}

fn value(answer: &Value) -> RegisterAnswer {
    RegisterAnswer::Value(answer.value.clone())
}
