//! How long a server process runs.

use crate::ProcessError;
use afdg_runtime::process;
use std::time::Duration;

/// How long a server that has failed may take to drain. What it waits for may never come: a disk that
/// fails can keep whoever writes to it waiting for ever.
const FAILED_DRAIN_LIMIT: Duration = Duration::from_secs(20);

/// Waits for a signal, which is a good end, or for the server's own, which is a failure. The server is
/// drained after either.
pub async fn until_end(failed: impl Future<Output = String>) -> Result<(), ProcessError> {
    tokio::select! {
        signal = process::termination() => {
            signal.map_err(ProcessError::server)?;
            tracing::info!("stopping");
            Ok(())
        }
        why = failed => {
            exit_after(FAILED_DRAIN_LIMIT);
            Err(ProcessError::Server(why))
        }
    }
}

/// Ends the process in a while, if it has not ended by then. In a thread of its own: those of the runtime
/// may be what is stuck.
fn exit_after(limit: Duration) {
    std::thread::spawn(move || {
        std::thread::sleep(limit);
        tracing::error!(?limit, "the drain takes too long");
        std::process::exit(i32::from(process::EXIT_SERVER_FAILED));
    });
}
