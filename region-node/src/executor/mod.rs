//! Runs turns: the author's code over the agent's view, to its output or its failure.

pub mod calls;
pub mod overlay;
pub mod reentry;
pub mod threads;
pub mod view;

use afdg_agent::host::{AgentHost, Turn, TurnFailure, TurnOutput};
use futures::FutureExt;
use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};
use threads::HandlerThreads;
use view::View;

/// How a turn ended that has no output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunFailure {
    Turn(TurnFailure),
    /// The handler ran past its limit without having touched others.
    TimedOut {
        limit_ms: u64,
    },
}

/// Runs one turn. `begins` is called once its handler has a thread; what it returns is kept for as long as the
/// handler runs. `limited` says whether the time limit holds: a turn that has touched others is finished however
/// long it takes.
pub async fn run<G: Send + 'static>(
    threads: &HandlerThreads,
    host: Arc<dyn AgentHost>,
    turn: Turn,
    view: Arc<View>,
    limit_ms: u64,
    begins: impl FnOnce() -> G + Send + 'static,
    limited: impl Fn() -> bool,
) -> Result<TurnOutput, RunFailure> {
    let agent_type = turn.agent.agent_type().to_owned();
    // The future is dropped after a panic, and what it wrote with it: nothing half done is seen.
    let handler = Box::pin(async move {
        let _runs = begins();
        AssertUnwindSafe(host.run(turn, view)).catch_unwind().await
    });
    let mut handler = std::pin::pin!(threads.run(&agent_type, handler));
    loop {
        match tokio::time::timeout(Duration::from_millis(limit_ms), &mut handler).await {
            Ok(Ok(result)) => return result.map_err(RunFailure::Turn),
            Ok(Err(panic)) => {
                return Err(RunFailure::Turn(TurnFailure::Panicked(panic_text(panic.as_ref()))));
            }
            Err(_) if limited() => return Err(RunFailure::TimedOut { limit_ms }),
            Err(_) => {}
        }
    }
}

/// Longest text of a panic that is kept.
const PANIC_TEXT_CHARS_MAX: usize = 500;

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "without a text".to_owned());
    text.chars().take(PANIC_TEXT_CHARS_MAX).collect()
}

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
