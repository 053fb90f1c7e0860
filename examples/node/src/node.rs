//! The life of the process: settings, start, run until a signal or a failure, drain.

use crate::settings::{self, Settings};
use afdg_agent::host::AgentHost;
use afdg_region_node::RegionNodeServer;
use afdg_runtime::{World, process};
use std::{fmt::Display, process::ExitCode, sync::Arc};

/// Ends with the exit codes of `afdg server region-node`.
pub async fn run(agents: Arc<dyn AgentHost>) -> ExitCode {
    let Settings { node, log, json_logs } = match settings::read() {
        Ok(settings) => settings,
        Err(error) => return ended(process::EXIT_USAGE, format_args!("{error:#}")),
    };
    if let Err(error) = process::init_tracing(&log, json_logs) {
        return ended(process::EXIT_USAGE, error);
    }
    let node = match RegionNodeServer::start(node, World::real(), agents).await {
        Ok(node) => node,
        Err(error) => return ended(process::EXIT_SERVER_FAILED, error),
    };
    let failure = tokio::select! {
        signal = process::termination() => signal.err().map(|error| error.to_string()),
        why = node.failed() => Some(why),
    };
    // Hands over what it leads. Membership stays as it is: a restart is not a leave.
    node.drain().await;
    match failure {
        None => process::exit(process::EXIT_OK),
        Some(why) => ended(process::EXIT_SERVER_FAILED, why),
    }
}

fn ended(code: u8, why: impl Display) -> ExitCode {
    eprintln!("error: {why}");
    process::exit(code)
}
