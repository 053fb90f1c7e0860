//! Fail points on real processes: a region node ends before and after each durable step on the way of a call, a
//! send, what lies in an outbox, a timer and a dead letter. Another one takes over, and everything has taken
//! effect once, by the agents' own books.
//!
//! This program is also the region nodes' program, since they host agents of the tests and, for some cases, run
//! under a clock of their own. So it has a `main` of its own, and takes parts of cases' names for arguments:
//! `cargo test -p afdg-cli --test fail_points -- before-accept`.

mod arena;
mod cases;
mod clients;
mod node;
mod run;

use afdg_region_node::fail_points;
use afdg_runtime::process;
use std::{io::Write, process::ExitCode};

const AFDG: &str = env!("CARGO_BIN_EXE_afdg");

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let program = async {
        match arguments.first().map(String::as_str) {
            Some("--config") => node::run(arguments.get(1)).await,
            _ => tests(&arguments).await,
        }
    };
    let ended = process::runtime().map_err(anyhow::Error::from).and_then(|runtime| runtime.block_on(program));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell(&format!("error: {error:?}"));
            ExitCode::FAILURE
        }
    }
}

async fn tests(arguments: &[String]) -> anyhow::Result<()> {
    let wanted: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let mut cases = cases::all();
    cases.retain(|case| wanted.is_empty() || wanted.iter().any(|part| case.to_string().contains(*part)));
    if arguments.iter().any(|argument| argument == "--list") {
        cases.iter().for_each(|case| tell(&format!("{case}: test")));
        return Ok(());
    }
    if !fail_points::BUILT_IN {
        tell(
            "fail points: none of the cases runs, for this build has no fail points (debug assertions are off)",
        );
        return Ok(());
    }
    run::all(cases).await
}

/// To standard error, as the harness of other tests does. That it is closed harms nobody.
fn tell(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
