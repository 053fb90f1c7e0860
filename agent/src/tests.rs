//! Shared by the crate's tests: one agent in memory, turn by turn.

mod calls;
mod entities;
mod host;
mod limits;

use crate::{
    Context,
    host::{RowWrite, Turn, TurnBounds, TurnView},
    testing::{AgentRows, apply, view_of},
};
use afdg_types::{AgentRef, MessageId};
use bytes::Bytes;
use std::sync::Arc;

/// One agent's stored rows.
#[derive(Default)]
struct Stored {
    rows: Arc<AgentRows>,
}

impl Stored {
    fn turn(&self) -> Context {
        Context::new(&turn("Test", false), self.view())
    }

    fn view(&self) -> Arc<dyn TurnView> {
        view_of(self.rows.clone())
    }

    /// Commits the turn and returns what it wrote, in bytes.
    fn commit(&mut self, context: Context) -> usize {
        let writes = writes(context);
        apply(Arc::make_mut(&mut self.rows), writes)
    }
}

fn writes(context: Context) -> Vec<RowWrite> {
    context.finish(Ok(Bytes::new())).expect("the turn failed").writes
}

fn turn(method: &str, read_only: bool) -> Turn {
    Turn {
        agent: AgentRef::new("test.v1.Agent", "a").unwrap(),
        method: method.to_owned(),
        message_id: MessageId::from_router(1, 1),
        parent: MessageId::from_router(1, 1),
        request: Bytes::new(),
        now_ms: 1_700_000_000_123,
        seed: 42,
        read_only,
        bounds: TurnBounds::default(),
    }
}
