//! Running handlers without a cluster.
//!
//! A [`TestGrid`] keeps agents' rows in memory, as the bytes that a region would store, and runs turns
//! as the grid does: a refused or failed turn changes nothing, agents may call one another, a call
//! that would close a cycle is refused or enters, as the type of the called agent says, and time and randomness are what the test sets. What turns send
//! is delivered once the message from outside is answered, or when it is due and the test asks for it. So is
//! what schedules send: due times that [`TestGrid::set_now_ms`] passes over are missed ones.
//!
//! What it leaves out on purpose: everything that takes more than one machine. It runs one turn after
//! the other, so calls of [`Context::call_all`](crate::Context::call_all) go in the order of their
//! list, and a message has no deadline. A send whose turn fails is not tried again: the test can look at
//! it. A panic of a handler reaches the test.

mod schedules;

use self::schedules::Schedules;
use crate::{
    call::{Call, Target},
    error::CallError,
    host::{
        AgentHost, Reentrancy, RowWrite, Turn, TurnBounds, TurnFailure, TurnSend, TurnView, TypeDescription,
    },
    inspect,
    native::{AgentType, NativeHost},
    read_set::{ReadSet, entity_of},
    row::Row,
};
use afdg_types::{AgentRef, GridError, MessageId, Reason, Rows, limits::CALL_CHAIN_AGENTS_MAX};
use async_trait::async_trait;
use bytes::Bytes;
use prost::Message;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// 2024-01-01T00:00:00Z: the time until a test sets another.
pub const NOW_MS_DEFAULT: u64 = 1_704_067_200_000;

/// An agent's rows as a region stores them.
pub(crate) type AgentRows = BTreeMap<Bytes, Bytes>;

/// Agents in memory. Cheap to clone; clones share everything.
#[derive(Clone)]
pub struct TestGrid {
    host: Arc<dyn AgentHost>,
    types: Arc<[TypeDescription]>,
    state: Arc<Mutex<State>>,
    /// One message from outside at a time, with all the calls that it leads to.
    one_message: Arc<tokio::sync::Mutex<()>>,
}

struct State {
    now_ms: u64,
    seed: u64,
    messages: u64,
    agents: BTreeMap<AgentRef, Arc<AgentRows>>,
    /// What the turns see that run or wait.
    seen: BTreeMap<AgentRef, Arc<Mutex<Seen>>>,
    last_turn_bytes: usize,
    /// On their way, by when they are due and in which order they were sent.
    sends: BTreeMap<(u64, u64), (MessageId, Target)>,
    sent: u64,
    schedules: Schedules,
    failed_sends: Vec<FailedSend>,
}

/// A message that a turn sent and whose own turn failed.
#[derive(Clone, Debug, PartialEq)]
pub struct FailedSend {
    pub agent: AgentRef,
    pub method: String,
    pub error: CallError,
}

impl TestGrid {
    /// A grid with these agent types: `TestGrid::new([account()])`.
    pub fn new(types: impl IntoIterator<Item = AgentType>) -> Self {
        Self::with_host(types.into_iter().fold(NativeHost::new(), NativeHost::with))
    }

    /// A grid over any host of agents.
    pub fn with_host(host: impl AgentHost) -> Self {
        let state = State {
            now_ms: NOW_MS_DEFAULT,
            seed: 0,
            messages: 0,
            agents: BTreeMap::new(),
            seen: BTreeMap::new(),
            last_turn_bytes: 0,
            sends: BTreeMap::new(),
            sent: 0,
            schedules: Schedules::default(),
            failed_sends: Vec::new(),
        };
        Self {
            types: host.types().into(),
            host: Arc::new(host),
            state: Arc::new(Mutex::new(state)),
            one_message: Arc::default(),
        }
    }

    /// Sets the time of the turns to come, milliseconds since the Unix epoch.
    pub fn set_now_ms(&self, now_ms: u64) {
        self.state().now_ms = now_ms;
    }

    /// Sets what the randomness of the turns to come follows from.
    pub fn set_seed(&self, seed: u64) {
        self.state().seed = seed;
    }

    /// Calls an agent as a client would; what its turn and those that follow from it send is delivered
    /// before this returns, as far as it is due.
    pub async fn call<R: Message + Default>(&self, call: Call<R>) -> Result<R, CallError> {
        let target = call.target()?;
        let _one_message = self.one_message.lock().await;
        let message_id = {
            let mut state = self.state();
            state.messages += 1;
            MessageId::from_router(state.now_ms, state.messages.into())
        };
        let answer = self.run(message_id, target, Vec::new()).await;
        self.deliver().await;
        Call::response(answer?)
    }

    /// Delivers what was sent and is due: after [`TestGrid::set_now_ms`].
    pub async fn deliver_due(&self) {
        let _one_message = self.one_message.lock().await;
        self.deliver().await;
    }

    /// Messages that turns have sent and that are not due yet.
    pub fn sends_waiting(&self) -> usize {
        self.state().sends.len()
    }

    /// The agent's schedules, by name, with when each is due next, milliseconds since the Unix epoch.
    pub fn schedules(&self, agent: &AgentRef) -> Vec<(String, u64)> {
        self.state().schedules.of(agent)
    }

    /// Sends whose turn failed, in that order; they are forgotten here.
    pub fn take_failed_sends(&self) -> Vec<FailedSend> {
        std::mem::take(&mut self.state().failed_sends)
    }

    async fn deliver(&self) {
        while let Some((message_id, target)) = self.next_due() {
            let (agent, method) = (target.agent.clone(), target.method.clone());
            if let Err(error) = self.run(message_id, target, Vec::new()).await {
                self.state().failed_sends.push(FailedSend { agent, method, error });
            }
        }
    }

    fn next_due(&self) -> Option<(MessageId, Target)> {
        let mut state = self.state();
        loop {
            let first = state.sends.first_key_value().map(|((due_ms, _), _)| *due_ms);
            let schedule = state.schedules.first_due_ms().filter(|due_ms| *due_ms <= state.now_ms);
            match (first, schedule) {
                (_, Some(due_ms)) if first.is_none_or(|first| due_ms <= first) => state.fire_schedule(),
                (Some(first), _) if first <= state.now_ms => break,
                _ => return None,
            }
        }
        state.sends.pop_first().map(|(_, send)| send)
    }

    /// All items of an agent's entity as JSON; none if there is no such entity.
    pub async fn items(
        &self,
        agent: &AgentRef,
        entity: &str,
    ) -> Result<Vec<serde_json::Value>, inspect::InspectError> {
        let (mut items, mut next) = (Vec::new(), Some(0));
        while let Some(first) = next {
            let page = inspect::items(self.view(agent), entity, first, u32::MAX).await?;
            items.extend(page.items);
            next = page.next;
        }
        Ok(items)
    }

    /// A view of an agent's committed rows, for [`inspect`]. It refuses calls.
    pub fn view(&self, agent: &AgentRef) -> Arc<dyn TurnView> {
        let rows = self.state().agents.get(agent).cloned().unwrap_or_default();
        view_of(rows)
    }

    /// Bytes of rows that the last turn that ended wrote, keys included: what a region would replicate.
    pub fn last_turn_bytes(&self) -> usize {
        self.state().last_turn_bytes
    }

    async fn run(
        &self,
        message_id: MessageId,
        target: Target,
        mut chain: Vec<AgentRef>,
    ) -> Result<Bytes, CallError> {
        let Target { agent, method, request } = target;
        let is_inner = chain.contains(&agent) && self.lets_in(agent.agent_type());
        check_chain(&chain, &agent, is_inner)?;
        chain.push(agent.clone());
        let read_only = self.is_read_only(agent.agent_type(), &method);
        let (now_ms, seed, rows) = {
            let state = self.state();
            let rows = state.agents.get(&agent).cloned().unwrap_or_default();
            (state.now_ms, state.seed ^ low_half(message_id), rows)
        };
        let turn = Turn {
            agent: agent.clone(),
            method,
            message_id,
            parent: message_id,
            request,
            now_ms,
            seed,
            read_only,
            bounds: TurnBounds::default(),
        };
        let caller = Caller { grid: self.clone(), message_id, chain, is_inner, one_call: Default::default() };
        let seen = Arc::new(Mutex::new(Seen { rows, reads: ReadSet::default() }));
        let view = Arc::new(TestView { seen: Arc::clone(&seen), caller: Some(caller) });
        if !is_inner {
            self.state().seen.insert(agent.clone(), seen);
        }
        let output = self.host.run(turn, view).await;
        if !is_inner {
            self.state().seen.remove(&agent);
        }
        let output = output.map_err(|failure| CallError::Grid(GridError::from(&failure)))?;
        let response = output.reply.map_err(CallError::Agent)?;
        let mut state = self.state();
        let outer = state.seen.get(&agent).cloned();
        if let Some(outer) = &outer
            && let Some(key) = lock(outer).reads.changed_by(&output.writes)
        {
            let text = format!(
                "the message has entered {agent} while a turn of it waits, and would have changed the entity '{}', \
                 which that turn has read",
                entity_of(key)
            );
            return Err(CallError::grid(Reason::ReentrantConflict, text));
        }
        let changed = state.schedules.change(&agent, output.schedules, now_ms);
        changed.map_err(|failure| CallError::Grid(GridError::from(&failure)))?;
        let rows = state.agents.entry(agent).or_default();
        let bytes = apply(Arc::make_mut(rows), output.writes);
        if let Some(outer) = outer {
            lock(&outer).rows = Arc::clone(rows);
        }
        state.last_turn_bytes = bytes;
        for TurnSend { ordinal, agent, method, request, delay_ms } in output.sends {
            state.sent += 1;
            let place = (now_ms.saturating_add(delay_ms), state.sent);
            let target = Target { agent, method, request };
            state.sends.insert(place, (MessageId::of_send(message_id, ordinal), target));
        }
        Ok(response)
    }

    fn lets_in(&self, agent_type: &str) -> bool {
        let lets_in = |known: &TypeDescription| known.reentrancy == Reentrancy::CallChain;
        self.types.iter().find(|known| known.name == agent_type).is_some_and(lets_in)
    }

    fn is_read_only(&self, agent_type: &str, method: &str) -> bool {
        let mut types = self.types.iter();
        types
            .find(|known| known.name == agent_type)
            .and_then(|known| known.methods.iter().find(|known| known.name == method))
            .is_some_and(|method| method.read_only)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A handler's panic can't leave the state half changed: nothing runs while it is locked.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn fire_schedule(&mut self) {
        for (due_ms, id, target) in self.schedules.fire_first(self.now_ms) {
            self.sent += 1;
            self.sends.insert((due_ms, self.sent), (id, target));
        }
    }
}

/// Applies a turn's writes as a region would and returns their bytes.
pub(crate) fn apply(rows: &mut AgentRows, writes: Vec<RowWrite>) -> usize {
    let mut bytes = 0;
    for write in writes {
        bytes += match write {
            RowWrite::Put(key, row) => {
                let value = row.encode();
                let bytes = key.len() + value.len();
                rows.insert(key, value);
                bytes
            }
            RowWrite::Delete(key) => {
                rows.remove(&key);
                key.len()
            }
            RowWrite::DropPrefix(prefix) => {
                rows.retain(|key, _| !key.starts_with(&prefix));
                prefix.len()
            }
        };
    }
    bytes
}

/// A view of these rows that refuses calls.
pub(crate) fn view_of(rows: Arc<AgentRows>) -> Arc<dyn TurnView> {
    let seen = Arc::new(Mutex::new(Seen { rows, reads: ReadSet::default() }));
    Arc::new(TestView { seen, caller: None })
}

fn check_chain(chain: &[AgentRef], called: &AgentRef, enters: bool) -> Result<(), CallError> {
    let (reason, what) = if chain.contains(called) && !enters {
        (Reason::CallCycle, "the call would close a cycle of agents that wait for each other")
    } else if chain.len() >= CALL_CHAIN_AGENTS_MAX {
        (Reason::CallChainTooLong, "too many agents wait for one another")
    } else {
        return Ok(());
    };
    let chain: Vec<&str> = chain.iter().chain([called]).map(AgentRef::as_str).collect();
    Err(CallError::grid(reason, format!("{what}: {}", chain.join(" -> "))))
}

fn low_half(id: MessageId) -> u64 {
    id.as_bytes()[8..].iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// What one turn sees: its agent's rows as they were when it began, and what inner turns have changed since.
struct TestView {
    seen: Arc<Mutex<Seen>>,
    caller: Option<Caller>,
}

struct Seen {
    rows: Arc<AgentRows>,
    reads: ReadSet,
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The turn as the caller of others.
struct Caller {
    grid: TestGrid,
    message_id: MessageId,
    /// Agents that wait, from the first to this turn's own.
    chain: Vec<AgentRef>,
    /// The turn has entered while another one of its agent waits.
    is_inner: bool,
    /// One call after the other, so that what runs is always one chain, and cycles are all there is of
    /// deadlocks.
    one_call: tokio::sync::Mutex<()>,
}

#[async_trait]
impl TurnView for TestView {
    async fn row(&self, key: &[u8]) -> Result<Option<Arc<Row>>, TurnFailure> {
        let mut seen = lock(&self.seen);
        seen.reads.row(key);
        Rows::get(&*seen.rows, key).map_err(storage)?.map(|row| decode(&row)).transpose()
    }

    async fn last_row_at_or_before(
        &self,
        from: &[u8],
        at: &[u8],
    ) -> Result<Option<(Bytes, Arc<Row>)>, TurnFailure> {
        let mut seen = lock(&self.seen);
        let found = seen.rows.last_at_or_before(from, at).map_err(storage)?;
        seen.reads.last_at_or_before(from, at, found.as_ref().map(|(key, _)| &key[..]));
        found.map(|(key, row)| Ok((key, decode(&row)?))).transpose()
    }

    async fn rows(
        &self,
        from: &[u8],
        to: &[u8],
        limit: usize,
    ) -> Result<Vec<(Bytes, Arc<Row>)>, TurnFailure> {
        let mut seen = lock(&self.seen);
        let found = seen.rows.scan(from, Some(to), limit).map_err(storage)?;
        seen.reads.rows_from(from, to, limit, found.len(), found.last().map(|(key, _)| &key[..]));
        found.into_iter().map(|(key, row)| Ok((key, decode(&row)?))).collect()
    }

    async fn call(
        &self,
        ordinal: u32,
        agent: AgentRef,
        method: &str,
        request: Bytes,
    ) -> Result<Bytes, afdg_types::CallError> {
        let Some(caller) = &self.caller else {
            return Err(GridError::new(Reason::Internal, "a view for inspection makes no calls").into());
        };
        if caller.is_inner {
            let text = "a message that has entered while a turn of its agent waits calls nobody";
            return Err(GridError::new(Reason::ReentrantCall, text).into());
        }
        let _one_call = caller.one_call.lock().await;
        let message_id = MessageId::derived(caller.message_id, ordinal);
        let target = Target { agent, method: method.to_owned(), request };
        Ok(caller.grid.run(message_id, target, caller.chain.clone()).await?)
    }
}

fn storage(error: impl std::fmt::Display) -> TurnFailure {
    TurnFailure::Storage(error.to_string())
}

fn decode(row: &[u8]) -> Result<Arc<Row>, TurnFailure> {
    Row::decode(row).map(Arc::new).map_err(storage)
}
