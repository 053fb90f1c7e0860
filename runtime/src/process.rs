//! The life of a server process: logging, signals, exit codes.

use std::{io::IsTerminal, process::ExitCode};
use tracing_subscriber::{EnvFilter, fmt, prelude::*};

/// Everything went as asked.
pub const EXIT_OK: u8 = 0;
/// The work was done and its result is a failure (a check that did not hold, a call that was refused).
pub const EXIT_FAILED: u8 = 1;
/// The command line, a file or a config value is wrong; nothing was done.
pub const EXIT_USAGE: u8 = 2;
/// A server could not go on.
pub const EXIT_SERVER_FAILED: u8 = 3;
/// A second signal ended the process before its drain was done.
pub const EXIT_KILLED_IN_DRAIN: u8 = 4;

/// Logs to standard error: `filter` as in `info,afdg_router=debug`, as text or one JSON object a line.
pub fn init_tracing(filter: &str, json: bool) -> Result<(), String> {
    let filter =
        EnvFilter::try_new(filter).map_err(|error| format!("the log filter '{filter}' is wrong: {error}"))?;
    let registry = tracing_subscriber::registry().with(filter);
    let result = if json {
        registry.with(fmt::layer().json().with_writer(std::io::stderr)).try_init()
    } else {
        // Colours are for people: in a file they are noise.
        let colours = std::io::stderr().is_terminal();
        registry.with(fmt::layer().with_ansi(colours).with_writer(std::io::stderr)).try_init()
    };
    result.map_err(|error| error.to_string())
}

/// The threads of a server: one more than the machine runs at once, which is never lent to code that may keep it.
/// The environment variable `TOKIO_WORKER_THREADS` sets another number.
pub fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if std::env::var_os("TOKIO_WORKER_THREADS").is_none() {
        builder.worker_threads(1 + std::thread::available_parallelism().map_or(1, usize::from));
    }
    builder.enable_all().build()
}

/// Resolves at the first SIGTERM, SIGINT or SIGHUP (its terminal is gone); from then on a second SIGTERM or
/// SIGINT exits the process at once.
pub async fn termination() -> std::io::Result<()> {
    termination_by().await.map(drop)
}

/// The same, with the signal's name.
pub async fn termination_by() -> std::io::Result<&'static str> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let signal = tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
        _ = hangup.recv() => "SIGHUP",
    };
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::warn!("a second signal: stopping at once");
        std::process::exit(i32::from(EXIT_KILLED_IN_DRAIN));
    });
    Ok(signal)
}

/// `ExitCode` of one of the constants above.
pub fn exit(code: u8) -> ExitCode {
    ExitCode::from(code)
}
