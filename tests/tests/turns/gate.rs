//! A host whose transfers stop between what they did and their end.

use afdg_agent::{
    NativeHost, async_trait,
    host::{AgentHost, Turn, TurnFailure, TurnOutput, TurnView, TypeDescription},
};
use anyhow::{Context, Result};
use std::sync::Arc;
use tokio::sync::watch;

/// What is held at the gate.
const HELD_METHOD: &str = "Transfer";

/// Opened and watched by a test; shared by the hosts of all nodes.
#[derive(Clone)]
pub struct Gate {
    open: Arc<watch::Sender<bool>>,
    seen: Arc<watch::Sender<Seen>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Runs of a transfer that have come to the gate: all that it does is done, and nothing is committed. One
    /// for each leader; on a busy machine there may be more of those than a test has made.
    pub reached: usize,
    /// Runs that found no code for them.
    pub without_code: usize,
}

impl Gate {
    /// Closed.
    pub fn new() -> Self {
        Self {
            open: Arc::new(watch::Sender::new(false)),
            seen: Arc::new(watch::Sender::new(Seen::default())),
        }
    }

    /// Lets everybody pass who waits and who comes.
    pub fn open(&self) {
        self.open.send_replace(true);
    }

    pub fn seen(&self) -> Seen {
        *self.seen.borrow()
    }

    /// Waits until `enough` says so.
    pub async fn until(&self, what: &str, enough: impl FnMut(&Seen) -> bool) -> Result<()> {
        let mut seen = self.seen.subscribe();
        let waited = tokio::time::timeout(afdg_tests::PATIENCE, seen.wait_for(enough)).await;
        waited.with_context(|| format!("waited in vain: {what}"))??;
        Ok(())
    }

    /// `agents`, held at this gate.
    pub fn before(&self, agents: NativeHost) -> Arc<dyn AgentHost> {
        Arc::new(Gated { agents, gate: self.clone() })
    }

    async fn pass(&self) {
        self.seen.send_modify(|seen| seen.reached += 1);
        // The sender lives as long as the gate.
        let _ = self.open.subscribe().wait_for(|open| *open).await;
    }
}

struct Gated {
    agents: NativeHost,
    gate: Gate,
}

#[async_trait]
impl AgentHost for Gated {
    fn types(&self) -> Vec<TypeDescription> {
        self.agents.types()
    }

    async fn run(&self, turn: Turn, view: Arc<dyn TurnView>) -> Result<TurnOutput, TurnFailure> {
        let is_held = turn.method == HELD_METHOD;
        let result = self.agents.run(turn, view).await;
        match &result {
            Err(TurnFailure::UnknownType(_)) => {
                self.gate.seen.send_modify(|seen| seen.without_code += 1);
            }
            _ if is_held => self.gate.pass().await,
            _ => {}
        }
        result
    }
}
