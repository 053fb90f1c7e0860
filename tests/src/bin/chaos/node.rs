//! This program as a region node: the examples, and a register.

use afdg_agent::NativeHost;
use afdg_example_bank::account;
use afdg_example_counter::{counter, fanout};
use afdg_example_shop::customer;
use afdg_tests::register::register;
use std::process::ExitCode;

/// Started as `chaos --config FILE`, which is what a program that is a region node takes.
pub fn is_meant() -> bool {
    std::env::args_os().nth(1).is_some_and(|argument| argument == "--config")
}

pub async fn run() -> ExitCode {
    let host = NativeHost::new().with(counter()).with(fanout()).with(account()).with(customer());
    afdg_region_node::process::run(host.with(register())).await
}
