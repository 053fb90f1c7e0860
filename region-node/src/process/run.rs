//! The life of the process: settings, start, run until a signal or a failure, drain.

use super::{command_line::config_file, resolve};
use crate::{RegionNodeConfig, RegionNodeServer};
use afdg_agent::host::AgentHost;
use afdg_process::{ProcessError, Settings, read_file, until_end};
use afdg_runtime::{World, process};
use std::{io::Write, process::ExitCode, sync::Arc};

/// A whole program: a region node that hosts `agents`. It is told by `--config FILE` and the environment
/// what `afdg server region-node` is told, and ends with the same exit codes.
pub async fn run(agents: impl AgentHost) -> ExitCode {
    match Box::pin(configured(Arc::new(agents))).await {
        Ok(()) => process::exit(process::EXIT_OK),
        Err(error) => {
            // That standard error is closed harms nobody.
            let _ = writeln!(std::io::stderr(), "error: {error}");
            process::exit(error.exit_code())
        }
    }
}

async fn configured(agents: Arc<dyn AgentHost>) -> Result<(), ProcessError> {
    let file = config_file(std::env::args_os())?;
    let environment = |name: &str| std::env::var(name).ok();
    let (config, process) = resolve(read_file(&file)?, &mut Settings::new(&file, &environment))?;
    process.start_log()?;
    serve(config, agents).await
}

/// Runs a region node until a signal or its own failure, and drains it.
pub async fn serve(config: RegionNodeConfig, agents: Arc<dyn AgentHost>) -> Result<(), ProcessError> {
    let node = RegionNodeServer::start(config, World::real(), agents).await.map_err(ProcessError::server)?;
    let end = until_end(node.failed()).await;
    // Hands over what it leads. Membership stays as it is: a restart is not a leave.
    node.drain().await;
    end
}
