//! Agents for tests of calls that come back to an agent of their own chain: they do what a script says, and wait
//! at doors that the test opens.

use afdg_agent::{AgentError, AgentType, Call, CallError, Context, async_trait};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::watch;
use v1::{ClosedAgent, ClosedCalls, Hasty, OpenAgent, OpenCalls, Script, Seen, step::What};

/// The package `visit.v1`: messages, the agents' traits, and callers.
pub mod v1 {
    afdg_agent::include_agent!("visit.v1");
}

/// What the handlers of all nodes share with their test.
#[derive(Clone, Default)]
pub struct Doors(Arc<Mutex<BTreeMap<String, watch::Sender<Door>>>>);

/// One door, closed until it is opened.
#[derive(Clone, Copy, Debug, Default)]
struct Door {
    open: bool,
    /// Turns that have come to it.
    reached: u64,
}

impl Doors {
    fn of(&self, name: &str) -> watch::Sender<Door> {
        let mut doors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        doors.entry(name.to_owned()).or_default().clone()
    }

    /// Lets everybody pass who waits at it and who comes.
    pub fn open(&self, name: &str) {
        self.of(name).send_modify(|door| door.open = true);
    }

    /// From now on it is closed again.
    pub fn close(&self, name: &str) {
        self.of(name).send_modify(|door| door.open = false);
    }

    /// How many turns have come to it.
    pub fn reached(&self, name: &str) -> u64 {
        self.of(name).borrow().reached
    }

    async fn pass(&self, name: &str) {
        let door = self.of(name);
        door.send_modify(|door| door.reached += 1);
        // The sender is kept above.
        let _ = door.subscribe().wait_for(|door| door.open).await;
    }
}

/// The agent type `visit.v1.Open`, for a host.
pub fn open(doors: &Doors) -> AgentType {
    v1::open_agent(Visited(doors.clone()))
}

/// The agent type `visit.v1.Closed`, for a host.
pub fn closed(doors: &Doors) -> AgentType {
    v1::closed_agent(Visited(doors.clone()))
}

struct Visited(Doors);

#[async_trait]
impl OpenAgent for Visited {
    async fn r#do(&self, ctx: &mut Context, script: Script) -> Result<Seen, AgentError> {
        self.play(ctx, script).await
    }

    async fn look(&self, ctx: &mut Context, script: Script) -> Result<Seen, AgentError> {
        self.play(ctx, script).await
    }
}

#[async_trait]
impl ClosedAgent for Visited {
    async fn r#do(&self, ctx: &mut Context, script: Script) -> Result<Seen, AgentError> {
        self.play(ctx, script).await
    }
}

impl Visited {
    async fn play(&self, ctx: &mut Context, script: Script) -> Result<Seen, AgentError> {
        let own = ctx.key().to_owned();
        let mut lines = Vec::new();
        for what in script.steps.into_iter().filter_map(|step| step.what) {
            match what {
                What::Add(add) => {
                    let number: i64 = ctx.entity(&add.entity).value().await?.unwrap_or_default();
                    ctx.entity(&add.entity).set_value(&(number + add.number)).await?;
                }
                What::Read(entity) => {
                    let number: i64 = ctx.entity(&entity).value().await?.unwrap_or_default();
                    lines.push(format!("{own}: {entity}={number}"));
                }
                What::Calls(calls) => {
                    for answer in ctx.call_all(calls.calls.into_iter().map(call).collect()).await {
                        match answer {
                            Ok(seen) => lines.extend(seen.lines),
                            Err(error) => lines.push(format!("{own}: !{}", reason_of(&error))),
                        }
                    }
                }
                What::Send(send) => {
                    ctx.send(call(send))?;
                }
                What::List(prefix) => {
                    let entities = ctx.entities(&prefix).await?.join(",");
                    lines.push(format!("{own}: {prefix}*={entities}"));
                }
                What::Door(name) => self.0.pass(&name).await,
                What::Refuse(reason) => return Err(AgentError::refused(reason, "the script says so")),
                What::Panic(text) => panic!("{text}"),
                What::Hasty(Hasty { door, call: hasty }) => {
                    let door = self.0.of(&door);
                    let mut entered = door.subscribe();
                    tokio::select! {
                        _ = ctx.call(call(hasty.unwrap_or_default())) => {}
                        _ = entered.wait_for(|door| door.reached > 0) => {}
                    }
                }
            }
        }
        Ok(Seen { lines })
    }
}

fn call(call: v1::Call) -> Call<Seen> {
    let script = call.script.unwrap_or_default();
    let key = script.agent.clone();
    match (call.closed, call.look) {
        (true, _) => ClosedCalls::r#do(&key, script),
        (false, true) => OpenCalls::look(&key, script),
        (false, false) => OpenCalls::r#do(&key, script),
    }
}

fn reason_of(error: &CallError) -> String {
    match error {
        CallError::Agent(error) => error.reason.clone(),
        CallError::Grid(error) => error.reason.to_string(),
    }
}

/// Scripts in short.
pub mod script {
    use super::v1::{Add, Call, Calls, Hasty, Script, Step, step::What};

    fn step(what: What) -> Step {
        Step { what: Some(what) }
    }

    pub fn add(entity: &str, number: i64) -> Step {
        step(What::Add(Add { entity: entity.to_owned(), number }))
    }

    pub fn read(entity: &str) -> Step {
        step(What::Read(entity.to_owned()))
    }

    pub fn list(prefix: &str) -> Step {
        step(What::List(prefix.to_owned()))
    }

    pub fn door(name: &str) -> Step {
        step(What::Door(name.to_owned()))
    }

    pub fn refuse(reason: &str) -> Step {
        step(What::Refuse(reason.to_owned()))
    }

    pub fn panic(text: &str) -> Step {
        step(What::Panic(text.to_owned()))
    }

    pub fn hasty(door: &str, to: Call) -> Step {
        step(What::Hasty(Hasty { door: door.to_owned(), call: Some(to) }))
    }

    pub fn send(to: Call) -> Step {
        step(What::Send(to))
    }

    pub fn call(to: Call) -> Step {
        call_all([to])
    }

    pub fn call_all(calls: impl IntoIterator<Item = Call>) -> Step {
        step(What::Calls(Calls { calls: calls.into_iter().collect() }))
    }

    pub fn script(agent: &str, steps: impl IntoIterator<Item = Step>) -> Script {
        Script { agent: agent.to_owned(), steps: steps.into_iter().collect() }
    }

    /// For an agent that lets its call chain enter.
    pub fn open(agent: &str, steps: impl IntoIterator<Item = Step>) -> Call {
        Call { script: Some(script(agent, steps)), ..Call::default() }
    }

    /// For one that does not.
    pub fn closed(agent: &str, steps: impl IntoIterator<Item = Step>) -> Call {
        Call { closed: true, ..open(agent, steps) }
    }

    /// By the method that only reads.
    pub fn look(agent: &str, steps: impl IntoIterator<Item = Step>) -> Call {
        Call { look: true, ..open(agent, steps) }
    }
}
