//! How much a leadership has in flight, of all agent types and of each, and what may still come in.
//!
//! Whoever is called by an agent that waits finds more room than whoever called that agent, by the length of
//! the chain: the deepest calls always get in, and with their end make room for the others.

use super::{
    admission::Admission,
    owner::overloaded,
    pace::{Hop, Pace, Places, Starter, WINDOW},
};
use afdg_catalog_client::Routes;
use afdg_types::{AgentRef, GridError, PER_SECOND, TypeLimit, TypeLimits, limits};
use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::time::Instant;

/// Request bytes that all regions of a node have admitted.
#[derive(Debug, Default)]
pub struct NodeLoad(AtomicUsize);

/// What waits for a place among the turns of its type.
pub enum WaitsForPlace {
    /// Its first message.
    Agent(AgentRef),
    Read(Box<Admission>),
}

/// One agent type's part.
#[derive(Default)]
struct TypeLoad {
    limits: TypeLimits,
    messages: usize,
    bytes: usize,
    /// That run.
    turns: usize,
    waiting: VecDeque<WaitsForPlace>,
    rate: Rate,
    pace: Pace,
}

impl TypeLoad {
    fn is_idle(&self) -> bool {
        let is_rated = self.rate.tokens.is_some();
        self.messages == 0 && self.turns == 0 && self.waiting.is_empty() && !is_rated && self.pace.is_idle()
    }
}

/// Of one leadership.
pub struct Load {
    pub messages: usize,
    pub bytes: usize,
    /// Messages that got no room, so far.
    pub refused: usize,
    types: HashMap<String, TypeLoad>,
    /// Of types that have others than the defaults.
    limits: HashMap<String, TypeLimits>,
    node: Arc<NodeLoad>,
    /// When the waits of all types were looked at.
    looked: Instant,
}

/// What is lost with the lead leaves the node's count.
impl Drop for Load {
    fn drop(&mut self) {
        self.node.0.fetch_sub(self.bytes, Relaxed);
    }
}

impl Load {
    pub fn new(node: Arc<NodeLoad>, routes: &Routes) -> Self {
        let (types, limits, looked) = (HashMap::new(), HashMap::new(), Instant::now());
        let mut load = Self { messages: 0, bytes: 0, refused: 0, types, limits, node, looked };
        load.set_limits(routes);
        load
    }

    /// Takes over the limits that hold from now on; what is in flight stays.
    pub fn set_limits(&mut self, routes: &Routes) {
        let other = routes.types.iter().filter(|(_, known)| known.limits != TypeLimits::default());
        self.limits = other.map(|(name, known)| (name.clone(), known.limits)).collect();
        for (name, load) in &mut self.types {
            load.limits = self.limits.get(name).copied().unwrap_or_default();
        }
    }

    pub fn limits_of(&self, agent_type: &str) -> TypeLimits {
        self.limits.get(agent_type).copied().unwrap_or_default()
    }

    /// There is always one.
    fn of(&mut self, agent_type: &str) -> Option<&mut TypeLoad> {
        // Most types are known, and a name is only copied for one that is not.
        if !self.types.contains_key(agent_type) {
            let load = TypeLoad { limits: self.limits_of(agent_type), ..TypeLoad::default() };
            self.types.insert(agent_type.to_owned(), load);
        }
        self.types.get_mut(agent_type)
    }

    /// Whether a message of so many bytes, for which `chain_agents` agents wait, may come in.
    pub fn check_room(&self, agent_type: &str, bytes: usize, chain_agents: usize) -> Result<(), GridError> {
        let share = 1 + chain_agents;
        if self.messages >= share * limits::REGION_IN_FLIGHT_MESSAGES_MAX
            || self.bytes + bytes > share * limits::REGION_IN_FLIGHT_BYTES_MAX
        {
            return Err(overloaded("the region has as many messages in flight as it takes"));
        }
        if self.node.0.load(Relaxed) + bytes > share * limits::NODE_IN_FLIGHT_BYTES_MAX {
            return Err(overloaded("the node has as many bytes of messages in flight as it takes"));
        }
        let Some(load) = self.types.get(agent_type) else { return Ok(()) };
        let passed = |limit, count: usize| count > share.saturating_mul(load.limits.size(limit));
        let limit = if passed(TypeLimit::InFlightMessages, load.messages + 1) {
            TypeLimit::InFlightMessages
        } else if passed(TypeLimit::InFlightBytes, load.bytes + bytes) {
            TypeLimit::InFlightBytes
        } else {
            return Ok(());
        };
        Err(past_limit(agent_type, limit, load.limits))
    }

    /// Takes a message's place in its type's rate; or says when there is one again.
    pub fn take_rate(&mut self, agent_type: &str, now: Instant) -> Result<(), GridError> {
        if self.limits.is_empty() {
            return Ok(());
        }
        let Some(load) = self.of(agent_type) else { return Ok(()) };
        let per_second = load.limits.get(TypeLimit::TurnsPerSecond);
        if per_second == 0 {
            return Ok(());
        }
        load.rate.take(per_second, now).map_err(|wait_ms| {
            let error = past_limit(agent_type, TypeLimit::TurnsPerSecond, load.limits);
            error.with(PER_SECOND, per_second).retry_after_ms(wait_ms)
        })
    }

    pub fn count_in(&mut self, agent_type: &str, bytes: usize) {
        self.messages += 1;
        self.bytes += bytes;
        self.node.0.fetch_add(bytes, Relaxed);
        let Some(load) = self.of(agent_type) else { return };
        load.messages += 1;
        load.bytes += bytes;
    }

    pub fn count_out(&mut self, agent_type: &str, bytes: usize) {
        let known = self.bytes.min(bytes);
        self.messages = self.messages.saturating_sub(1);
        self.bytes -= known;
        self.node.0.fetch_sub(known, Relaxed);
        let Some(load) = self.of(agent_type) else { return };
        load.messages = load.messages.saturating_sub(1);
        load.bytes = load.bytes.saturating_sub(bytes);
        load.pace.done();
    }

    /// Checks that what is taken on of the type does not wait for the region for too long.
    pub fn check_pace(&self, agent_type: &str) -> Result<(), GridError> {
        let Some(load) = self.types.get(agent_type) else { return Ok(()) };
        load.pace.check(load.messages).map_err(|places| past_pace(agent_type, places))
    }

    /// Looks how long messages have waited for the region, once in a while, and forgets types of which nothing is
    /// under way.
    pub fn look_at_pace(&mut self, now: Instant) {
        let lasted = now.saturating_duration_since(self.looked);
        if lasted < WINDOW {
            return;
        }
        self.looked = now;
        self.types.retain(|_, load| {
            let delay_max = Duration::from_millis(load.limits.get(TypeLimit::WaitMs));
            load.pace.end_window(load.messages, delay_max, lasted);
            !load.is_idle()
        });
    }

    pub fn waited(&mut self, agent_type: &str, hop: Hop, time: Duration) {
        if let Some(load) = self.types.get_mut(agent_type) {
            load.pace.waited(hop, time);
        }
    }

    /// Lets turns of the type say that their handlers run.
    pub fn starter(&mut self, agent_type: &str) -> Option<Starter> {
        self.of(agent_type).map(|load| load.pace.starter())
    }

    /// Whether another turn of the type may run for which `chain_agents` agents wait.
    pub fn has_place(&self, agent_type: &str, chain_agents: usize) -> bool {
        let Some(load) = self.types.get(agent_type) else { return true };
        load.turns < (1 + chain_agents).saturating_mul(load.limits.size(TypeLimit::TurnsConcurrent))
    }

    pub fn turn_starts(&mut self, agent_type: &str) {
        if let Some(load) = self.of(agent_type) {
            load.turns += 1;
        }
    }

    pub fn turn_ends(&mut self, agent_type: &str) {
        let Some(load) = self.of(agent_type) else { return };
        load.turns = load.turns.saturating_sub(1);
    }

    pub fn wait_for_place(&mut self, agent_type: &str, waits: WaitsForPlace) {
        if let Some(load) = self.of(agent_type) {
            load.waiting.push_back(waits);
        }
    }

    /// Who has waited longest, if there is a place.
    pub fn next_for_place(&mut self, agent_type: &str) -> Option<WaitsForPlace> {
        if !self.has_place(agent_type, 0) {
            return None;
        }
        self.types.get_mut(agent_type)?.waiting.pop_front()
    }

    /// The types of which something waits for a place.
    pub fn with_waiting(&self) -> Vec<String> {
        let waiting = self.types.iter().filter(|(_, load)| !load.waiting.is_empty());
        waiting.map(|(name, _)| name.clone()).collect()
    }

    /// Whether the type has half of what it may have in flight; the other half is left to what arrives.
    pub fn is_half_full(&self, agent_type: &str) -> bool {
        let Some(load) = self.types.get(agent_type) else { return false };
        let delay_max = Duration::from_millis(load.limits.get(TypeLimit::WaitMs));
        load.pace.is_half_full(load.messages, delay_max)
            || load.messages >= load.limits.size(TypeLimit::InFlightMessages).div_ceil(2)
            || load.bytes >= load.limits.size(TypeLimit::InFlightBytes).div_ceil(2)
    }

    /// The reads that wait for a place, which are lost with the lead.
    pub fn take_reads(&mut self) -> Vec<Admission> {
        let waiting = self.types.values_mut().flat_map(|load| std::mem::take(&mut load.waiting));
        let reads = waiting.filter_map(|waits| match waits {
            WaitsForPlace::Agent(_) => None,
            WaitsForPlace::Read(read) => Some(*read),
        });
        reads.collect()
    }
}

fn past_limit(agent_type: &str, limit: TypeLimit, limits: TypeLimits) -> GridError {
    let value = limits.get(limit);
    overloaded(&format!("{agent_type} is at its limit {limit} = {value} in this region"))
        .with("limit", limit)
        .with("type", agent_type)
}

fn past_pace(agent_type: &str, places: Places) -> GridError {
    let (count, delay, max) = (places.count, places.delay.as_millis(), places.delay_max.as_millis());
    let limit = TypeLimit::WaitMs;
    let text = format!(
        "{agent_type} is at its limit {limit} = {max} in this region: its messages wait {delay} ms for it, and it \
         takes on {count} of them at once until they don't"
    );
    // About as long as it takes until places are free.
    let pause_ms = (max as u64).clamp(10, 1_000);
    let error = overloaded(&text).with("limit", limit).with("type", agent_type);
    error.with(PER_SECOND, places.per_second).retry_after_ms(pause_ms)
}

/// A token bucket that holds a second's worth.
#[derive(Default)]
struct Rate {
    /// In units of which a message takes [`Rate::MESSAGE`]; full at the beginning.
    tokens: Option<(u64, Instant)>,
}

impl Rate {
    /// A second has so many nanoseconds: a nanosecond brings as many units as messages are let in a second.
    const MESSAGE: u64 = 1_000_000_000;

    /// Errors with the milliseconds until there is a place.
    fn take(&mut self, per_second: u64, now: Instant) -> Result<(), u64> {
        let full = per_second * Self::MESSAGE;
        let tokens = match self.tokens {
            None => full,
            Some((tokens, at)) => {
                let passed =
                    now.saturating_duration_since(at).as_nanos().min(u128::from(Self::MESSAGE)) as u64;
                tokens.saturating_add(passed * per_second).min(full)
            }
        };
        let taken = tokens.checked_sub(Self::MESSAGE);
        self.tokens = Some((taken.unwrap_or(tokens), now));
        match taken {
            Some(_) => Ok(()),
            None => Err((Self::MESSAGE - tokens).div_ceil(per_second).div_ceil(1_000_000).max(1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load_with(limits: &[(TypeLimit, u64)]) -> (Load, Arc<NodeLoad>) {
        let node = Arc::<NodeLoad>::default();
        let mut load = Load::new(Arc::clone(&node), &Routes::default());
        load.limits.insert("t.T".to_owned(), TypeLimits::of(&limits.iter().copied().collect()));
        (load, node)
    }

    #[test]
    fn a_types_messages_and_bytes_have_their_own_bounds_and_leave_room_to_others() {
        let bytes = limits::MESSAGE_BYTES_MAX;
        let (mut load, node) =
            load_with(&[(TypeLimit::InFlightMessages, 2), (TypeLimit::InFlightBytes, 2 * bytes as u64)]);
        load.count_in("t.T", bytes);
        assert_eq!(
            load.check_room("t.T", bytes + 1, 0).unwrap_err().metadata["limit"],
            "in_flight_bytes_max"
        );
        load.count_in("t.T", 0);
        let full = load.check_room("t.T", 0, 0).unwrap_err();
        assert_eq!(full.metadata["limit"], "in_flight_messages_max");
        assert!(full.message.contains("t.T is at its limit in_flight_messages_max = 2"), "{}", full.message);
        assert!(full.retry_after_ms.is_some());
        assert_eq!(load.check_room("t.T", 0, 1), Ok(()), "a call of an agent that waits gets in");
        assert_eq!(load.check_room("t.U", bytes, 0), Ok(()));
        load.count_out("t.T", bytes);
        assert_eq!(load.check_room("t.T", bytes, 0), Ok(()));
        assert_eq!(node.0.load(Relaxed), 0);
        load.count_in("t.U", 7);
        assert_eq!(node.0.load(Relaxed), 7);
        drop(load);
        assert_eq!(node.0.load(Relaxed), 0, "what is lost with the lead is not in flight any more");
    }

    #[test]
    fn all_regions_of_a_node_share_its_bound() {
        let (mut load, node) = load_with(&[]);
        let other = Load::new(Arc::clone(&node), &Routes::default());
        let mut left = limits::NODE_IN_FLIGHT_BYTES_MAX;
        while left >= limits::MESSAGE_BYTES_MAX {
            load.count_in("t.T", limits::MESSAGE_BYTES_MAX);
            left -= limits::MESSAGE_BYTES_MAX;
        }
        assert!(other.check_room("t.U", left + 1, 0).unwrap_err().message.contains("the node has"));
        assert_eq!(other.check_room("t.U", left, 0), Ok(()));
    }

    #[test]
    fn turns_past_the_bound_wait_and_go_on_in_order() {
        let (mut load, _) = load_with(&[(TypeLimit::TurnsConcurrent, 1)]);
        assert!(load.has_place("t.T", 0));
        load.turn_starts("t.T");
        assert!(!load.has_place("t.T", 0) && load.has_place("t.T", 1) && load.has_place("t.U", 0));
        for key in ["a", "b"] {
            load.wait_for_place("t.T", WaitsForPlace::Agent(AgentRef::new("t.T", key).unwrap()));
        }
        assert!(load.next_for_place("t.T").is_none());
        load.turn_ends("t.T");
        assert!(
            matches!(load.next_for_place("t.T"), Some(WaitsForPlace::Agent(agent)) if agent.key() == "a")
        );
        load.turn_starts("t.T");
        assert!(load.next_for_place("t.T").is_none());
    }

    #[test]
    fn a_rate_lets_in_a_burst_and_then_so_many_a_second() {
        let mut rate = Rate::default();
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut let_in =
            |from_ms: u64, to_ms: u64| (from_ms..to_ms).filter(|ms| rate.take(100, at(*ms)).is_ok()).count();
        assert_eq!(let_in(0, 100), 100, "a second's worth at once");
        assert_eq!(let_in(100, 1_100), 109, "then as many as come in, and what was saved up before");
        assert_eq!(let_in(1_100, 2_100), 100);
        assert_eq!(let_in(10_000, 10_200), 119, "no more is saved up than a second's worth");
        assert_eq!(rate.take(100, at(10_200)), Ok(()));
        assert_eq!(rate.take(100, at(10_200)), Err(10), "and the refusal says when there is a place");
    }
}
