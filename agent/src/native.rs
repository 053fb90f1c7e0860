//! Agents written in Rust and linked into the program.

use crate::{
    context::Context,
    host::{AgentHost, Turn, TurnFailure, TurnOutput, TurnView, TypeDescription},
};
use afdg_types::AgentError;
use async_trait::async_trait;
use bytes::Bytes;
use prost::Message;
use std::{collections::BTreeMap, fmt, sync::Arc};

/// Runs the agent types that were registered with [`NativeHost::with`].
#[derive(Default)]
pub struct NativeHost {
    types: BTreeMap<String, AgentType>,
}

impl NativeHost {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an agent type, as made by the generated `account_agent(..)`.
    ///
    /// # Panics
    ///
    /// If a type of that name was added before: which one would run is the program's mistake to mend.
    pub fn with(mut self, agent_type: AgentType) -> Self {
        let name = agent_type.description.name.clone();
        let before = self.types.insert(name, agent_type);
        assert!(before.is_none(), "agent type {} is registered twice", before_name(before.as_ref()));
        self
    }
}

fn before_name(agent_type: Option<&AgentType>) -> &str {
    agent_type.map_or("", |agent_type| &agent_type.description.name)
}

impl fmt::Debug for NativeHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.types.keys()).finish()
    }
}

#[async_trait]
impl AgentHost for NativeHost {
    fn types(&self) -> Vec<TypeDescription> {
        self.types.values().map(|agent_type| agent_type.description.clone()).collect()
    }

    async fn run(&self, mut turn: Turn, view: Arc<dyn TurnView>) -> Result<TurnOutput, TurnFailure> {
        let name = turn.agent.agent_type();
        let agent_type = self.types.get(name).ok_or_else(|| TurnFailure::UnknownType(name.to_owned()))?;
        let methods = &agent_type.description.methods;
        let method = methods.iter().find(|method| method.name == turn.method);
        let method = method.ok_or_else(|| TurnFailure::UnknownMethod(turn.method.clone()))?;
        turn.read_only |= method.read_only;
        let mut context = Context::new(&turn, view);
        let reply = agent_type.handlers.handle(&mut context, &turn.method, turn.request).await?;
        context.finish(reply)
    }
}

/// A described agent type together with its handlers.
pub struct AgentType {
    description: TypeDescription,
    handlers: Box<dyn Handlers>,
}

impl AgentType {
    /// Called by generated code.
    pub fn new(description: TypeDescription, handlers: impl Handlers) -> Self {
        Self { description, handlers: Box::new(handlers) }
    }

    pub fn description(&self) -> &TypeDescription {
        &self.description
    }
}

impl fmt::Debug for AgentType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AgentType({})", self.description.name)
    }
}

/// A handler's response as bytes, or its refusal.
pub type Reply = Result<Bytes, AgentError>;

/// The handlers of one agent type by method name. Implemented by generated code.
#[async_trait]
pub trait Handlers: Send + Sync + 'static {
    async fn handle(&self, context: &mut Context, method: &str, request: Bytes)
    -> Result<Reply, TurnFailure>;
}

/// Called by generated code: the request as the method's message.
pub fn decode<M: Message + Default>(request: Bytes, message: &str) -> Result<M, TurnFailure> {
    M::decode(request).map_err(|error| TurnFailure::RequestMalformed {
        message: message.to_owned(),
        error: error.to_string(),
    })
}

/// Called by generated code.
pub fn encode<M: Message>(response: Result<M, AgentError>) -> Reply {
    response.map(|message| message.encode_to_vec().into())
}
