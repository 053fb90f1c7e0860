//! How long a server process runs.

use crate::ProcessError;
use afdg_runtime::process;

/// Waits for a signal, which is a good end, or for the server's own, which is a failure. The server is
/// drained after either.
pub async fn until_end(failed: impl Future<Output = String>) -> Result<(), ProcessError> {
    tokio::select! {
        signal = process::termination() => {
            signal.map_err(ProcessError::server)?;
            tracing::info!("stopping");
            Ok(())
        }
        why = failed => Err(ProcessError::Server(why)),
    }
}
