//! What a handler may know and do during its turn.

use crate::{
    call::{Call, Target},
    due_times::DueTimes,
    entity::Entity,
    error::{CallError, refusal_of},
    host::{Turn, TurnFailure, TurnOutput, TurnSchedule, TurnSend, TurnView},
    schedule::{Schedule, ScheduleError, check_name},
    store::Store,
};
use afdg_types::{
    AgentError, AgentRef, GridError, MessageId, Reason,
    limits::{
        MESSAGE_BYTES_MAX, SCHEDULE_REQUEST_BYTES_MAX, SEND_DELAY_MS_MAX, TURN_CALLS_MAX,
        TURN_CALLS_PARALLEL_MAX, TURN_SCHEDULE_CHANGES_MAX,
    },
};
use bytes::Bytes;
use futures::{StreamExt, stream};
use prost::Message;
use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

/// Most entities that one [`Context::entities`] returns.
pub const ENTITIES_LISTED_MAX: usize = 10_000;
/// Longest message of a refusal; the rest is cut off. A refusal travels in headers, which clients bound.
pub const REFUSAL_MESSAGE_BYTES_MAX: usize = 2 * 1024;
/// Most bytes of a refusal's metadata, keys and values; entries past it are left out.
pub const REFUSAL_METADATA_BYTES_MAX: usize = 4 * 1024;

/// The turn's view of its agent and of the grid. Time and randomness come from here only, so that a
/// turn that is run again takes the same way.
///
/// Everything that changes something takes `&mut self`: a handler does one thing after the other, so
/// its calls get the same ordinals when it is run again. What may go side by side does so in
/// [`Context::call_all`].
///
/// Writes take effect when the handler returns `Ok`. When it returns `Err`, or when anything here
/// failed for the grid's reasons (storage, a limit, a write in a read-only method), nothing does, even
/// if the handler ignored that error.
pub struct Context {
    agent: AgentRef,
    method: String,
    message_id: MessageId,
    parent: MessageId,
    now_ms: u64,
    random: u64,
    read_only: bool,
    /// Calls and sends so far.
    messages: u32,
    sends: Vec<TurnSend>,
    schedules: Vec<TurnSchedule>,
    /// Of sends and schedules.
    send_bytes: usize,
    failure: Option<TurnFailure>,
    pub(crate) store: Store,
}

impl Context {
    pub fn new(turn: &Turn, view: Arc<dyn TurnView>) -> Self {
        Self {
            agent: turn.agent.clone(),
            method: turn.method.clone(),
            message_id: turn.message_id,
            parent: turn.parent,
            now_ms: turn.now_ms,
            random: turn.seed,
            read_only: turn.read_only,
            messages: 0,
            sends: Vec::new(),
            schedules: Vec::new(),
            send_bytes: 0,
            failure: None,
            store: Store::new(view, turn.bounds),
        }
    }

    /// This agent.
    pub fn agent(&self) -> &AgentRef {
        &self.agent
    }

    /// This agent's key.
    pub fn key(&self) -> &str {
        self.agent.key()
    }

    /// The id of the message whose turn this is. The same message has the same id whenever it is sent.
    pub fn message_id(&self) -> MessageId {
        self.message_id
    }

    /// The turn's time. It stands still during the turn, and it is not the wall clock: a turn that is
    /// run again has the time of its first run.
    pub fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(self.now_ms)
    }

    /// [`Context::now`] in milliseconds since the Unix epoch.
    pub fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// The next of the turn's random numbers, by SplitMix64 (Steele, Lea and Flood, 2014). Not fit for
    /// secrets.
    pub fn random_u64(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// The agent's entity of that key, 1 to 255 bytes. It exists as soon as it has an item.
    pub fn entity<'a>(&'a mut self, key: &'a str) -> Entity<'a> {
        Entity::new(self, key)
    }

    /// Keys of the agent's entities that start with `prefix` and have items, sorted. More than
    /// [`ENTITIES_LISTED_MAX`] fail the turn.
    pub async fn entities(&mut self, prefix: &str) -> Result<Vec<String>, AgentError> {
        let found = self.store.entities(prefix, None, ENTITIES_LISTED_MAX + 1).await;
        let found = found.map_err(|failure| self.fail(failure))?;
        if found.len() > ENTITIES_LISTED_MAX {
            return Err(self.fail(TurnFailure::TooLarge(format!(
                "more than {ENTITIES_LISTED_MAX} entities start with '{prefix}'; ask for a longer prefix"
            ))));
        }
        let mut keys: Vec<String> = found.into_iter().map(|(key, _)| key).collect();
        keys.sort_unstable();
        Ok(keys)
    }

    /// Calls another agent and waits for its response. It takes effect once, however often the turn
    /// is run; once it has, this turn's message is finished as well, even when its caller is gone.
    pub async fn call<R: Message + Default>(&mut self, call: Call<R>) -> Result<R, CallError> {
        match self.call_all(vec![call]).await.pop() {
            Some(result) => result,
            None => Err(CallError::grid(Reason::Internal, "a call has no result")),
        }
    }

    /// Calls agents side by side, [`TURN_CALLS_PARALLEL_MAX`] at a time, and waits for all. Results
    /// stand in the order of the calls, each by itself. A turn makes at most [`TURN_CALLS_MAX`] calls and sends.
    pub async fn call_all<R: Message + Default>(&mut self, calls: Vec<Call<R>>) -> Vec<Result<R, CallError>> {
        self.call_all_limited(TURN_CALLS_PARALLEL_MAX, calls).await
    }

    /// [`Context::call_all`], cut short once `within` has passed since the turn's time: a call that still waits
    /// for its turn then is refused with `CALL_CANCELLED`, has had no effect and never will; what it in turn
    /// waits for is cut in the same way. The turn waits for the word of each, so that one that is run again
    /// hears the same; a call whose handler runs by then is waited for to its end.
    pub async fn call_all_within<R: Message + Default>(
        &mut self,
        within: Duration,
        calls: Vec<Call<R>>,
    ) -> Vec<Result<R, CallError>> {
        let within_ms = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
        let until_ms = self.now_ms.saturating_add(within_ms);
        self.call_side_by_side(TURN_CALLS_PARALLEL_MAX, Some(until_ms), calls).await
    }

    /// [`Context::call_all`] with at most `parallel_max` calls under way at the same time: for calls that
    /// are costly where they go. Below 1 counts as 1, above [`TURN_CALLS_PARALLEL_MAX`] as that.
    pub async fn call_all_limited<R: Message + Default>(
        &mut self,
        parallel_max: usize,
        calls: Vec<Call<R>>,
    ) -> Vec<Result<R, CallError>> {
        self.call_side_by_side(parallel_max, None, calls).await
    }

    async fn call_side_by_side<R: Message + Default>(
        &mut self,
        parallel_max: usize,
        until_ms: Option<u64>,
        calls: Vec<Call<R>>,
    ) -> Vec<Result<R, CallError>> {
        let Some(first) = self.number_messages(calls.len()) else {
            // A turn that can't commit must not go on touching others.
            return calls.into_iter().map(|_| Err(self.has_failed())).collect();
        };
        let view = self.store.view();
        let answers = (first..).zip(calls).map(|(ordinal, call)| {
            let view = view.clone();
            async move {
                let Target { agent, method, request } = call.target()?;
                let answer = match until_ms {
                    None => view.call(ordinal, agent, &method, request).await?,
                    Some(until_ms) => view.call_until(ordinal, agent, &method, request, until_ms).await?,
                };
                let bytes = answer.len();
                Ok((Call::response(answer)?, bytes))
            }
        });
        let answers: Vec<Result<(R, usize), CallError>> =
            stream::iter(answers).buffered(parallel_max.clamp(1, TURN_CALLS_PARALLEL_MAX)).collect().await;
        let given = answers.iter().flatten().map(|(_, bytes)| bytes).sum();
        if let Err(failure) = self.store.give(given) {
            self.fail(failure);
        }
        answers.into_iter().map(|answer| answer.map(|(response, _)| response)).collect()
    }

    /// Sends a message to another agent, or to this one, and waits for nothing: it leaves once this turn is
    /// committed, and takes effect exactly once. Messages from this agent to one other agent take effect in
    /// the order in which they were sent; one whose turn fails is tried again, and stands in the list of
    /// dead letters if it keeps failing. The response is recorded under the id that this returns.
    ///
    /// It counts among the turn's calls, and its bytes among those that a turn may write.
    pub fn send<R: Message + Default>(&mut self, call: Call<R>) -> Result<MessageId, CallError> {
        self.send_after(Duration::ZERO, call)
    }

    /// [`Context::send`], held back until `delay` has passed since the turn's time, at most
    /// [`SEND_DELAY_MS_MAX`]. Delayed messages take effect in the order in which they are due.
    pub fn send_after<R: Message + Default>(
        &mut self,
        delay: Duration,
        call: Call<R>,
    ) -> Result<MessageId, CallError> {
        let target = call.target()?;
        let delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        if delay_ms > SEND_DELAY_MS_MAX {
            return Err(CallError::grid(
                Reason::RequestMalformed,
                format!("a message is held back for {SEND_DELAY_MS_MAX} ms at most; this one for {delay_ms}"),
            ));
        }
        self.check_writable().map_err(CallError::Agent)?;
        let Some(ordinal) = self.number_messages(1) else { return Err(self.has_failed()) };
        let Target { agent, method, request } = target;
        let send = TurnSend { ordinal, agent, method, request, delay_ms };
        self.count_bytes(send.bytes())?;
        self.sends.push(send);
        Ok(MessageId::of_send(self.parent, ordinal))
    }

    fn count_bytes(&mut self, bytes: usize) -> Result<(), CallError> {
        self.send_bytes += bytes;
        let max = self.store.bounds().effect_bytes_max;
        if self.send_bytes > max {
            let text = format!("the turn sends more than {max} bytes of messages");
            return Err(CallError::Agent(self.fail(TurnFailure::TooLarge(text))));
        }
        Ok(())
    }

    /// Has a message sent whenever the schedule is due, for as long as the agent has a schedule of that name:
    /// each is a send of this agent's like one of [`Context::send`], to itself or to another agent. The
    /// schedule stands once this turn is committed; it outlasts every server.
    ///
    /// It takes the place of an earlier schedule of the name. If that one is due at the same times, its next
    /// due time stays, so a handler may set its schedule again at every turn; otherwise it begins anew.
    ///
    /// An agent has at most [`AGENT_SCHEDULES_MAX`](afdg_types::limits::AGENT_SCHEDULES_MAX) schedules; a turn
    /// after which it would have more fails.
    pub fn schedule<R: Message + Default>(
        &mut self,
        name: impl Into<String>,
        schedule: Schedule,
        call: Call<R>,
    ) -> Result<(), ScheduleError> {
        let name = name.into();
        check_name(&name)?;
        let Schedule { when, missed } = schedule;
        if DueTimes::new(&when)?.first(self.now_ms).is_none() {
            return Err(ScheduleError::NeverDue);
        }
        let Target { agent, method, request } = call.target()?;
        if request.len() > SCHEDULE_REQUEST_BYTES_MAX {
            return Err(ScheduleError::RequestTooLarge { bytes: request.len() });
        }
        Ok(self.change_schedules(TurnSchedule::Set { name, when, missed, agent, method, request })?)
    }

    /// Ends the schedule of that name, if there is one, once this turn is committed. What it has sent before
    /// goes its way.
    pub fn cancel_schedule(&mut self, name: impl Into<String>) -> Result<(), ScheduleError> {
        let name = name.into();
        check_name(&name)?;
        Ok(self.change_schedules(TurnSchedule::Cancel { name })?)
    }

    fn change_schedules(&mut self, change: TurnSchedule) -> Result<(), CallError> {
        self.check_writable().map_err(CallError::Agent)?;
        if self.failure.is_some() {
            return Err(self.has_failed());
        }
        self.count_bytes(change.bytes())?;
        self.schedules.push(change);
        if self.schedules.len() > TURN_SCHEDULE_CHANGES_MAX {
            let text = format!("a turn sets and cancels at most {TURN_SCHEDULE_CHANGES_MAX} schedules");
            return Err(CallError::Agent(self.fail(TurnFailure::TooLarge(text))));
        }
        Ok(())
    }

    /// The first of `count` ordinals in a row, given out before any of the calls starts; none once the
    /// turn has failed.
    fn number_messages(&mut self, count: usize) -> Option<u32> {
        if self.failure.is_some() {
            return None;
        }
        let first = self.messages;
        match u32::try_from(count).ok().and_then(|count| first.checked_add(count)) {
            Some(messages) if messages <= TURN_CALLS_MAX => {
                self.messages = messages;
                Some(first)
            }
            _ => {
                self.fail(TurnFailure::TooLarge(format!(
                    "a turn makes at most {TURN_CALLS_MAX} calls and sends; this one wanted {}",
                    count.saturating_add(first as usize)
                )));
                None
            }
        }
    }

    fn has_failed(&self) -> CallError {
        match &self.failure {
            Some(failure) => CallError::Grid(GridError::from(failure)),
            None => CallError::grid(Reason::Internal, "the turn has failed"),
        }
    }

    /// Notes why the turn can't commit, if nothing was noted before, and tells the handler.
    pub(crate) fn fail(&mut self, failure: TurnFailure) -> AgentError {
        let refusal = refusal_of(GridError::from(&failure));
        self.failure.get_or_insert(failure);
        refusal
    }

    pub(crate) fn check_writable(&mut self) -> Result<(), AgentError> {
        match self.read_only {
            true => Err(self.fail(TurnFailure::ReadOnly(self.method.clone()))),
            false => Ok(()),
        }
    }

    /// Ends the turn: what it leaves behind, or why it leaves nothing.
    pub fn finish(self, reply: Result<Bytes, AgentError>) -> Result<TurnOutput, TurnFailure> {
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        match reply {
            Ok(response) if response.len() > MESSAGE_BYTES_MAX => Err(TurnFailure::TooLarge(format!(
                "the response of {} has {} bytes; at most {MESSAGE_BYTES_MAX}",
                self.method,
                response.len()
            ))),
            Ok(response) => {
                let (writes, sends, schedules) = (self.store.into_writes(), self.sends, self.schedules);
                Ok(TurnOutput { reply: Ok(response), writes, sends, schedules })
            }
            Err(refusal) => {
                let (writes, sends, schedules) = (Vec::new(), Vec::new(), Vec::new());
                Ok(TurnOutput { reply: Err(cut(refusal)), writes, sends, schedules })
            }
        }
    }
}

/// Makes a refusal fit for the headers that it travels in.
fn cut(mut refusal: AgentError) -> AgentError {
    if refusal.message.len() > REFUSAL_MESSAGE_BYTES_MAX {
        let mut end = REFUSAL_MESSAGE_BYTES_MAX - "…".len();
        while !refusal.message.is_char_boundary(end) {
            end -= 1;
        }
        refusal.message.truncate(end);
        refusal.message.push('…');
    }
    let mut bytes = 0;
    refusal.metadata.retain(|key, value| {
        bytes += key.len() + value.len();
        bytes <= REFUSAL_METADATA_BYTES_MAX
    });
    refusal
}
