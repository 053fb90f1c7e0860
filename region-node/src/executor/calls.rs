//! A turn's calls to other agents.

use super::reentry::ReentrantTypes;
use crate::{
    fail_points::{FailPoints, Moment, Step},
    region::RecordTurn,
};
use afdg_region_machine::table::replies;
use afdg_router::{Found, OutgoingMessage, Router, Whereabouts};
use afdg_types::{
    AgentRef, CallError, Cancel, GridError, MessageId, Purpose, Reason, limits,
    planted::{Bug, planted},
};
use bytes::Bytes;
use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{sync::OnceCell, time::Instant};

/// How long all regions are asked whether a turn that is run again called another agent before.
const SEARCH_TIME_MAX: Duration = Duration::from_secs(2);
/// How long a cancel looks for its callee's region.
const CANCEL_TIME_MAX: Duration = Duration::from_secs(2);
/// What a call is told that was refused to set a ring free, with the ring.
pub const MET_RING: &str = "agents waited for one another in a ring, and this call was chosen to be refused";
/// Pause before a call that is still waited for is cut short again.
const CUT_AGAIN_AFTER: Duration = Duration::from_millis(250);

/// How one turn calls others.
#[derive(Clone)]
pub struct Calls {
    inner: Arc<Inner>,
}

/// Whose calls they are.
pub struct Caller {
    pub agent: AgentRef,
    /// Of the turn.
    pub message_id: MessageId,
    /// The id from which those of the calls follow.
    pub parent: MessageId,
    /// The agents that wait for the turn, outermost first.
    pub chain: Vec<AgentRef>,
    /// The calls of agents of the chain while which messages of the chain may enter, outermost first.
    pub reentries: Vec<MessageId>,
    /// The turn has run before, and may have called others then.
    pub runs_again: bool,
    /// The turn has entered while another one of its agent waits: it calls nobody.
    pub is_inner: bool,
    pub fail_points: FailPoints,
}

struct Inner {
    message_id: MessageId,
    runs_again: bool,
    fail_points: FailPoints,
    parent: MessageId,
    /// The agents that wait for this turn, outermost first, with the turn's own agent at the end.
    chain: Vec<AgentRef>,
    reentries: Vec<MessageId>,
    /// Messages of the chain may enter while the turn waits.
    lets_in: bool,
    is_inner: bool,
    types: Arc<ReentrantTypes>,
    router: Arc<Router>,
    /// Has the turn's message put into the mailbox; absent where it stands there, and for a turn that
    /// reads only and so leaves nothing behind.
    record: Option<RecordTurn>,
    asked: AtomicBool,
    /// What was said of calls that were refused to set a ring free.
    rings: Mutex<String>,
    recorded: OnceCell<()>,
    /// By ordinal, whom the turn waits for.
    waiting: Mutex<BTreeMap<u32, WaitingCall>>,
}

/// A call that has left and is not answered.
#[derive(Clone, Debug)]
pub struct WaitingCall {
    pub id: MessageId,
    pub callee: AgentRef,
    pub method: Arc<str>,
    pub since: Instant,
}

/// Takes a call out of those that are waited for, however its wait ends.
struct Waits<'a> {
    inner: &'a Inner,
    ordinal: u32,
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.inner.waiting().remove(&self.ordinal);
    }
}

impl Inner {
    fn waiting(&self) -> MutexGuard<'_, BTreeMap<u32, WaitingCall>> {
        // Held for one operation on the map, which can't panic half way.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait(&self, ordinal: u32, id: MessageId, callee: AgentRef, method: &str) -> Waits<'_> {
        let call = WaitingCall { id, callee, method: method.into(), since: Instant::now() };
        self.waiting().insert(ordinal, call);
        Waits { inner: self, ordinal }
    }
}

impl Calls {
    pub fn new(
        caller: Caller,
        router: Arc<Router>,
        types: Arc<ReentrantTypes>,
        record: Option<RecordTurn>,
    ) -> Self {
        let Caller { agent, message_id, parent, mut chain, reentries, runs_again, is_inner, fail_points } =
            caller;
        let lets_in = types.let_in(agent.agent_type());
        chain.push(agent);
        Self {
            inner: Arc::new(Inner {
                message_id,
                runs_again,
                fail_points,
                parent,
                chain,
                reentries,
                lets_in,
                is_inner,
                types,
                router,
                record,
                asked: AtomicBool::new(false),
                rings: Mutex::default(),
                recorded: OnceCell::new(),
                waiting: Mutex::default(),
            }),
        }
    }

    /// Whether the turn has asked for its message to be recorded: from then on it is finished however
    /// long it takes.
    pub fn have_left(&self) -> bool {
        self.inner.asked.load(Ordering::Relaxed)
    }

    /// The agents of rings for which calls of the turn, or of those that it called, were refused; in the words of
    /// the refusals, and empty if there was none.
    pub fn rings(&self) -> String {
        self.inner.rings().clone()
    }

    /// Those of the calls that the turn waits for which were made to one of these agents.
    pub fn waiting_for(&self, agents: &[AgentRef]) -> Vec<WaitingCall> {
        self.inner.waiting().values().filter(|call| agents.contains(&call.callee)).cloned().collect()
    }

    /// The calls that the turn waits for.
    pub fn waiting(&self) -> Vec<WaitingCall> {
        self.inner.waiting().values().cloned().collect()
    }

    /// Whether the turn waits for one of these calls.
    pub fn waits_for_any(&self, ids: &[MessageId]) -> bool {
        self.inner.waiting().values().any(|call| ids.contains(&call.id))
    }

    /// Since when the turn has waited for a call, if it waits for any.
    pub fn waiting_since(&self) -> Option<Instant> {
        self.inner.waiting().values().map(|call| call.since).min()
    }

    /// Calls `agent` and waits for an answer that stays the same when asked again. From `until_ms` on, if
    /// given, the call is cut short where it still waits for its turn.
    pub async fn call(
        &self,
        ordinal: u32,
        agent: AgentRef,
        method: &str,
        request: Bytes,
        until_ms: Option<u64>,
    ) -> Result<Bytes, CallError> {
        let inner = &self.inner;
        if inner.is_inner {
            return Err(inner.refuse_from_within(&agent).into());
        }
        if let Some(error) = refuse(&inner.chain, &agent, &inner.types) {
            return Err(error.into());
        }
        // An output of the turn: it waits until everything it was based on is committed, and until the
        // turn's message is, so that a turn that has touched others is always finished.
        if let Some(record) = &inner.record {
            inner.asked.store(true, Ordering::Relaxed);
            if planted(Bug::CallBeforeRecord) {
                return self.send(ordinal, agent, method, request, until_ms).await;
            }
            inner.recorded.get_or_init(|| record.recorded()).await;
        }
        self.send(ordinal, agent, method, request, until_ms).await
    }

    async fn send(
        &self,
        ordinal: u32,
        agent: AgentRef,
        method: &str,
        request: Bytes,
        until_ms: Option<u64>,
    ) -> Result<Bytes, CallError> {
        let inner = &self.inner;
        let numbered = if planted(Bug::CallIdFromTime) { ordinal ^ milliseconds() } else { ordinal };
        let id = MessageId::derived(inner.parent, numbered);
        let _waits = inner.wait(ordinal, id, agent.clone(), method);
        if inner.runs_again
            && let Some(error) = inner.called_another(ordinal, id, &agent, method, &request).await
        {
            return Err(error.into());
        }
        let cuts = inner.cut_from(until_ms, agent.clone(), id);
        let message = OutgoingMessage {
            agent,
            method: method.to_owned(),
            request,
            id,
            deadline: None,
            chain: inner.chain.clone(),
            reentries: inner.reentries_with(id),
            purpose: Purpose::Call,
        };
        inner.reach(Moment::Before);
        tokio::select! {
            result = inner.router.call(message) => {
                inner.reach(Moment::After);
                inner.note_ring(&result);
                result.map_err(|error| inner.explain(ordinal, error))
            }
            never = cuts => match never {},
        }
    }
}

impl Inner {
    fn rings(&self) -> MutexGuard<'_, String> {
        self.rings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A handler that was refused for a ring may have passed that on as its own refusal.
    fn note_ring(&self, result: &Result<Bytes, CallError>) {
        let (reason, message) = match result {
            Err(CallError::Grid(error)) => (error.reason.as_str(), &error.message),
            Err(CallError::Agent(error)) => (&*error.reason, &error.message),
            Ok(_) => return,
        };
        if reason == Reason::CallCycle.as_str() && message.contains(MET_RING) {
            *self.rings() += message;
        }
    }

    fn reach(&self, moment: Moment) {
        if let Some(caller) = self.chain.last() {
            self.fail_points.reach(moment, Step::Call, caller);
        }
    }

    fn reentries_with(&self, call: MessageId) -> Vec<MessageId> {
        let own = self.lets_in.then_some(call);
        self.reentries.iter().copied().chain(own).collect()
    }

    fn refuse_from_within(&self, agent: &AgentRef) -> GridError {
        let own = self.chain.last().map(AgentRef::as_str).unwrap_or_default();
        GridError::new(
            Reason::ReentrantCall,
            format!(
                "the message has entered {own} while a turn of it waits for this call chain; until that turn has \
                 ended, such a message calls nobody, and not {agent}: send instead, or answer and let the waiting \
                 turn call"
            ),
        )
    }

    /// Cuts the call short again and again from `until_ms` on, until it is answered: a cancel may come before its
    /// call does, or get lost. Never ends.
    async fn cut_from(&self, until_ms: Option<u64>, callee: AgentRef, id: MessageId) -> Infallible {
        let Some(until_ms) = until_ms else { return std::future::pending().await };
        let left_ms = until_ms.saturating_sub(self.router.now_ms());
        tokio::time::sleep(Duration::from_millis(left_ms)).await;
        loop {
            cancel_call(&self.router, callee.clone(), id).await;
            tokio::time::sleep(CUT_AGAIN_AFTER).await;
        }
    }

    /// Says of a call whose id was used before which of the turn's it is: whoever wrote the handler can't know
    /// the id.
    fn explain(&self, ordinal: u32, error: CallError) -> CallError {
        match error {
            CallError::Grid(error) if error.reason == Reason::IdReused => {
                let differs = error.metadata.get("differs").cloned().unwrap_or_default();
                self.made_another_call(ordinal, &differs, error).into()
            }
            error => error,
        }
    }

    /// Why the call may not leave: when the turn ran before, it called another agent in its place. The region of
    /// the one that is called now does not know that id, and would do a second thing under it.
    ///
    /// As far as the regions can be asked in time: one without a leader must not keep the turn.
    async fn called_another(
        &self,
        ordinal: u32,
        id: MessageId,
        agent: &AgentRef,
        method: &str,
        request: &[u8],
    ) -> Option<GridError> {
        let found = self.router.find_message(id, Instant::now() + SEARCH_TIME_MAX).await;
        let Ok(Found::At(Whereabouts { region, slot, digest })) = found else { return None };
        // What else differs its region finds.
        if replies::is_for(digest, agent) {
            return None;
        }
        let differs = replies::differences(digest, replies::digest(agent, method, request)).join(", ");
        let text =
            format!("{differs}; it called an agent of slot {slot} in region {region} before, now {agent}");
        let error = GridError::new(Reason::IdReused, "").with("differs", differs);
        Some(self.made_another_call(ordinal, &text, error).with("slot", slot).with("region", region))
    }

    fn made_another_call(&self, ordinal: u32, differs: &str, mut error: GridError) -> GridError {
        let (number, turn) = (u64::from(ordinal) + 1, self.message_id);
        let agent = self.chain.last().map(AgentRef::as_str).unwrap_or_default();
        error.message = format!(
            "call or send number {number} of the turn of message {turn} on {agent}: run again, the handler made \
             another call than before (what differs: {differs}). A handler may take time, chance and facts from \
             its Context only"
        );
        error.with("turn", turn).with("ordinal", number)
    }
}

/// Tells the callee's region that nobody waits for a turn's call any more.
pub async fn cancel_call(router: &Router, callee: AgentRef, call: MessageId) {
    let message = OutgoingMessage {
        agent: callee,
        method: String::new(),
        request: Bytes::new(),
        id: call,
        deadline: Some(Instant::now() + CANCEL_TIME_MAX),
        chain: Vec::new(),
        reentries: Vec::new(),
        purpose: Purpose::Cancel(Cancel::Turn),
    };
    // One that does not get there is sent again.
    let _ = router.call(message).await;
}

fn milliseconds() -> u32 {
    std::time::UNIX_EPOCH.elapsed().map_or(0, |time| time.as_millis() as u32)
}

/// Why `agent` can't be called by the last agent of `chain`, whom the others wait for.
pub fn refuse(chain: &[AgentRef], agent: &AgentRef, types: &ReentrantTypes) -> Option<GridError> {
    if chain.contains(agent) && !types.may_let_in(agent.agent_type()) {
        let path: Vec<&str> = chain.iter().chain([agent]).map(AgentRef::as_str).collect();
        let path = path.join(" -> ");
        return Some(
            GridError::new(
                Reason::CallCycle,
                format!("the call would wait for itself: {path}. An agent takes one message at a time; send instead of calling, let the first agent do both steps, or have the type of {agent} let its call chain enter: option (afdg.reentrant) = CALL_CHAIN"),
            )
            .with("chain", &path),
        );
    }
    if chain.len() >= limits::CALL_CHAIN_AGENTS_MAX {
        return Some(GridError::new(
            Reason::CallChainTooLong,
            format!(
                "{} agents already wait for one another; at most {} may",
                chain.len(),
                limits::CALL_CHAIN_AGENTS_MAX
            ),
        ));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executor::testing::router;
    use afdg_agent::host::{Reentrancy, TypeDescription};

    fn types(reentrancy: Reentrancy) -> ReentrantTypes {
        let methods = Vec::new();
        let (descriptors, send_retry) = (Bytes::new(), Default::default());
        let name = "t.T".to_owned();
        ReentrantTypes::of(&[TypeDescription { name, descriptors, methods, send_retry, reentrancy }])
    }

    fn agents(count: usize) -> Vec<AgentRef> {
        (0..count).map(|number| AgentRef::new("t.T", &number.to_string()).unwrap()).collect()
    }

    #[test]
    fn a_call_that_would_wait_for_itself_is_refused_with_the_way_round() {
        let (chain, types) = (agents(3), types(Reentrancy::None));
        for agent in &chain {
            let error = refuse(&chain, agent, &types).unwrap();
            assert_eq!(error.reason, Reason::CallCycle);
            let way = format!("t.T/0 -> t.T/1 -> t.T/2 -> {agent}");
            assert_eq!(error.metadata["chain"], way);
            assert!(error.message.contains(&way), "{}", error.message);
            assert!(error.message.contains("(afdg.reentrant) = CALL_CHAIN"), "{}", error.message);
        }
        assert_eq!(refuse(&chain, &"t.T/3".parse().unwrap(), &types), None);
        assert_eq!(refuse(&chain, &"t.U/1".parse().unwrap(), &types), None);
        assert_eq!(refuse(&[], &chain[0], &types), None);
    }

    #[test]
    fn a_chain_has_a_bound() {
        let most = agents(limits::CALL_CHAIN_AGENTS_MAX);
        let types = types(Reentrancy::None);
        let new = "t.T/new".parse().unwrap();
        assert_eq!(refuse(&most[1..], &new, &types), None);
        assert_eq!(refuse(&most, &new, &types).unwrap().reason, Reason::CallChainTooLong);
        assert_eq!(refuse(&most, &most[5], &types).unwrap().reason, Reason::CallCycle, "a cycle stays one");
    }

    #[test]
    fn a_call_comes_back_to_a_type_that_lets_its_chain_enter() {
        let most = agents(limits::CALL_CHAIN_AGENTS_MAX);
        let types = types(Reentrancy::CallChain);
        assert_eq!(refuse(&most[1..], &most[5], &types), None);
        assert_eq!(refuse(&most, &most[5], &types).unwrap().reason, Reason::CallChainTooLong);
        // Whoever hosts it knows.
        let chain = ["t.Other/1".parse().unwrap()];
        assert_eq!(refuse(&chain, &chain[0], &types), None);
    }

    #[tokio::test]
    async fn an_inner_turn_calls_nobody() {
        let id = MessageId::from_router(1, 1);
        let agent: AgentRef = "t.T/own".parse().unwrap();
        let caller = Caller { is_inner: true, ..caller(agent, id, agents(2)) };
        let calls = Calls::new(caller, router(), Arc::new(types(Reentrancy::CallChain)), None);
        for agent in ["t.T/0", "t.T/own", "t.T/other"] {
            let error = calls.call(0, agent.parse().unwrap(), "Do", Bytes::new(), None).await.unwrap_err();
            let CallError::Grid(error) = error else { panic!("an agent answered: {error}") };
            assert_eq!(error.reason, Reason::ReentrantCall, "{agent}");
        }
        assert!(!calls.have_left());
    }

    fn caller(agent: AgentRef, id: MessageId, chain: Vec<AgentRef>) -> Caller {
        Caller {
            agent,
            message_id: id,
            parent: id,
            chain,
            reentries: Vec::new(),
            runs_again: false,
            is_inner: false,
            fail_points: FailPoints::default(),
        }
    }

    #[tokio::test]
    async fn a_refused_call_does_not_leave() {
        let chain = agents(2);
        let id = MessageId::from_router(1, 1);
        let agent = "t.T/own".parse().unwrap();
        let types = Arc::new(types(Reentrancy::None));
        let calls = Calls::new(caller(agent, id, chain.clone()), router(), types, None);
        for agent in ["t.T/0", "t.T/1", "t.T/own"] {
            let error = calls.call(0, agent.parse().unwrap(), "Do", Bytes::new(), None).await.unwrap_err();
            let CallError::Grid(error) = error else { panic!("an agent answered: {error}") };
            assert_eq!(error.reason, Reason::CallCycle, "{agent}");
        }
        assert!(!calls.have_left());
    }
}
