//! What agents have set to be sent at set times. Key: `0x25`, the agent, the schedule's name. Value:
//! [`Schedule`].
//!
//! Beside each stands how far it is. Key: `0x26`, the agent, the name. Value: [`Progress`]. A firing rewrites
//! this one only, however large the request, and a new leader reads no other.

use super::{
    SCHEDULE_PROGRESS, SCHEDULES, decode_value, encode_value, inbox::AcceptedSend, put_agent, replies,
    take_agent,
};
use afdg_types::{AgentRef, MessageId, Missed, Rows, RowsError, RowsMut, When};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    /// The number that the region gave it: another one of the same name is another schedule.
    pub generation: u64,
    pub when: When,
    pub missed: Missed,
    /// Whom it sends to: its own agent, or another.
    pub to: AgentRef,
    pub method: String,
    pub request: Bytes,
    /// When it was set, milliseconds since the Unix epoch.
    pub set_ms: u64,
}

impl Schedule {
    /// What it sends for a due time.
    pub fn firing(&self, agent: &AgentRef, name: &str, due_ms: u64, now_ms: u64) -> AcceptedSend {
        AcceptedSend {
            message_id: MessageId::of_firing(agent, name, self.generation, due_ms),
            method: self.method.clone(),
            request: self.request.clone(),
            digest: replies::digest(&self.to, &self.method, &self.request),
            sender: Some(agent.clone()),
            accepted_ms: now_ms,
            due_ms,
            attempts: 0,
            refusals: 0,
            last_failure: None,
        }
    }
}

/// How far a schedule is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The schedule's.
    pub generation: u64,
    /// The next due time, milliseconds since the Unix epoch.
    pub due_ms: u64,
    /// Messages that it has sent.
    pub fired: u64,
}

fn key(table: u8, agent: &AgentRef, name: &str) -> Bytes {
    let mut key = Vec::new();
    put_agent(table, agent, &mut key);
    key.extend_from_slice(name.as_bytes());
    key.into()
}

fn parse(key: &[u8]) -> Result<(AgentRef, String), RowsError> {
    let parsed = take_agent(key)
        .and_then(|(agent, end)| Some((agent, std::str::from_utf8(key.get(end..)?).ok()?.to_owned())));
    parsed.ok_or_else(|| RowsError(format!("a schedule's key can't be read: {key:?}")))
}

pub fn get(rows: &dyn Rows, agent: &AgentRef, name: &str) -> Result<Option<Schedule>, RowsError> {
    let value = rows.get(&key(SCHEDULES, agent, name))?;
    value.map(|value| decode_value("schedule", &value)).transpose()
}

pub fn progress(rows: &dyn Rows, agent: &AgentRef, name: &str) -> Result<Option<Progress>, RowsError> {
    let value = rows.get(&key(SCHEDULE_PROGRESS, agent, name))?;
    value.map(|value| decode_value("schedule's progress", &value)).transpose()
}

pub(crate) fn put(
    rows: &mut dyn RowsMut,
    agent: &AgentRef,
    name: &str,
    schedule: &Schedule,
) -> Result<(), RowsError> {
    rows.put(key(SCHEDULES, agent, name), encode_value(schedule)?);
    Ok(())
}

pub(crate) fn put_progress(
    rows: &mut dyn RowsMut,
    agent: &AgentRef,
    name: &str,
    progress: Progress,
) -> Result<(), RowsError> {
    rows.put(key(SCHEDULE_PROGRESS, agent, name), encode_value(&progress)?);
    Ok(())
}

pub(crate) fn delete(rows: &mut dyn RowsMut, agent: &AgentRef, name: &str) {
    rows.delete(key(SCHEDULES, agent, name));
    rows.delete(key(SCHEDULE_PROGRESS, agent, name));
}

/// How far all schedules are, for a new leader.
pub fn all(rows: &dyn Rows) -> Result<Vec<(AgentRef, String, Progress)>, RowsError> {
    rows.scan(&[SCHEDULE_PROGRESS], Some(&[SCHEDULE_PROGRESS + 1]), usize::MAX)?
        .into_iter()
        .map(|(key, value)| {
            let (agent, name) = parse(&key)?;
            Ok((agent, name, decode_value("schedule's progress", &value)?))
        })
        .collect()
}

/// How many schedules the agent has, up to `limit`.
pub fn count_of_agent(rows: &dyn Rows, agent: &AgentRef, limit: usize) -> Result<usize, RowsError> {
    let from = key(SCHEDULE_PROGRESS, agent, "");
    let to = afdg_types::prefix_end(&from);
    Ok(rows.scan(&from, to.as_deref(), limit)?.len())
}

/// A schedule with its name and how far it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Standing {
    pub agent: AgentRef,
    pub name: String,
    pub schedule: Schedule,
    pub progress: Progress,
}

/// One page of the region's schedules, in the order of their keys.
pub struct Page {
    pub schedules: Vec<Standing>,
    /// Where the next page begins; none at the end.
    pub next: Option<Vec<u8>>,
}

/// At most `limit` schedules from the key `from`, which a page before gave, or from the first. Those whose
/// progress is not there were cancelled between two reads.
pub fn page(rows: &dyn Rows, from: Option<&[u8]>, limit: usize) -> Result<Page, RowsError> {
    let from = from.filter(|from| from.first() == Some(&SCHEDULES)).unwrap_or(&[SCHEDULES]);
    let mut found = rows.scan(from, Some(&[SCHEDULES + 1]), limit.saturating_add(1))?;
    let next = (found.len() > limit).then(|| found.pop()).flatten().map(|(key, _)| key.to_vec());
    let mut schedules = Vec::with_capacity(found.len());
    for (key, value) in found {
        let (agent, name) = parse(&key)?;
        let schedule = decode_value("schedule", &value)?;
        if let Some(progress) = progress(rows, &agent, &name)? {
            schedules.push(Standing { agent, name, schedule, progress });
        }
    }
    Ok(Page { schedules, next })
}

/// Every schedule has its progress and the other way round; what does not fit, as a text.
pub(crate) fn unmatched(rows: &dyn Rows) -> Result<Option<String>, RowsError> {
    let schedules = rows.scan(&[SCHEDULES], Some(&[SCHEDULES + 1]), usize::MAX)?;
    let progresses = all(rows)?;
    if schedules.len() != progresses.len() {
        return Ok(Some(format!("{} schedules beside {} progresses", schedules.len(), progresses.len())));
    }
    for (agent, name, progress) in progresses {
        let schedule = get(rows, &agent, &name)?;
        if schedule.as_ref().map(|schedule| schedule.generation) != Some(progress.generation) {
            return Ok(Some(format!("'{name}' of {agent} is {schedule:?} beside {progress:?}")));
        }
    }
    Ok(None)
}
