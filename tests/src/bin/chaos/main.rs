//! Chaos: clients call a grid of real processes (three catalog servers, three region nodes, two extensions)
//! while processes are killed and frozen, networks cut, clocks moved and disks filled up. Every call is
//! recorded, and at the end each agent's history has to be linearizable.
//!
//! ```text
//! cargo run --release -p afdg-tests --bin chaos -- --minutes 10 --seed 1
//! ```
//!
//! Started as root, or where ordinary users may have namespaces of their own, it does everything within
//! such namespaces ([`enclosure`]). Elsewhere it leaves out what needs them, and says so.
//!
//! Exits with 0 if nothing was wrong, 1 if something was, 2 if the run could not take place.

mod arguments;
mod caller;
mod check;
mod enclosure;
mod history;
mod nemesis;
mod network;
mod node;
mod probes;
mod report;
mod rights;
mod run;
mod shim;
mod small_disk;
mod workload;

use afdg_tests::afdg;
use arguments::Arguments;
use clap::Parser;
use enclosure::Place;
use std::{io::Write, process::ExitCode};

const EXIT_VIOLATION: u8 = 1;
const EXIT_NO_RUN: u8 = 2;

#[tokio::main]
async fn main() -> ExitCode {
    if node::is_meant() {
        return node::run().await;
    }
    match Box::pin(chaos()).await {
        Ok(code) => code,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::from(EXIT_NO_RUN)
        }
    }
}

async fn chaos() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let afdg = afdg::find(arguments.afdg.as_deref())?;
    let place = match enclosure::enter().await? {
        Place::Ended(status) => {
            let code = status.code().and_then(|code| u8::try_from(code).ok());
            return Ok(ExitCode::from(code.unwrap_or(EXIT_NO_RUN)));
        }
        place => place,
    };
    tokio::select! {
        report = run::run(&arguments, &afdg, &place) => {
            let report = report?;
            std::io::stdout().write_all(report.to_string().as_bytes())?;
            for page in report.write_pages(&arguments.report)? {
                writeln!(std::io::stdout(), "see {}", page.display())?;
            }
            Ok(if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_VIOLATION) })
        }
        told = enclosure::told_to_end(&place) => {
            told?;
            anyhow::bail!("told to end: nothing was checked")
        }
    }
}
