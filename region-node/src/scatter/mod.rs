//! A scatter's part in one region: its agents of a type are found among the leader's rows and get the message
//! one after the other, each as an ordinary message of its own region's owner.
//!
//! | file | |
//! | --- | --- |
//! | `walk` | which agents there are |
//! | `pages` | calls them, a bounded number at a time, and gathers what becomes of it |
//!
//! Nothing goes on by itself: agents are called when a page of outcomes is asked for, and in place of those in
//! the page when it leaves. So for a client that does not read no more are called than may be in flight, and one
//! that is gone ends it.
//!
//! What is certain: an agent that had data when this replica made sure that it leads gets the message, since
//! the walk is on rows as of then or later. A replica that has lost its lead gets no message admitted; it ends
//! the stream, and whoever asked goes on at the next leader behind the last agent up to which all are done.
//! Some may be called twice that way, under the same id.

mod pages;
mod walk;

use crate::region::{RegionHandle, Surroundings};
use afdg_proto::pb::internal::{ScatterResponse, ScatterStart};
use afdg_types::{AgentRef, GridError, Purpose, Reason, Sending, limits};
use futures::Stream;
use pages::{Calls, Pages};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use walk::Wanted;

/// Scatters of one node at the same time; past it they are asked to come later.
const SCATTERS_MAX: usize = 256;
const FULL_RETRY_AFTER_MS: u64 = 200;
/// The highest number that a field of a protobuf message may have.
const KEY_FIELD_MAX: u32 = (1 << 29) - 1;

/// The scatters of one node. Cheap to clone.
#[derive(Clone)]
pub struct Scatters {
    places: Arc<Semaphore>,
}

impl Default for Scatters {
    fn default() -> Self {
        Self { places: Arc::new(Semaphore::new(SCATTERS_MAX)) }
    }
}

impl Scatters {
    pub fn enter(&self) -> Result<OwnedSemaphorePermit, GridError> {
        Arc::clone(&self.places).try_acquire_owned().map_err(|_| {
            let text = format!("{SCATTERS_MAX} scatters run on this node, which is all it takes");
            GridError::new(Reason::Overloaded, text).retry_after_ms(FULL_RETRY_AFTER_MS)
        })
    }
}

/// Pages of outcomes, one for each item of `asked`, and signs of life while one is waited for.
pub fn pages(
    handle: RegionHandle,
    here: Surroundings,
    start: ScatterStart,
    asked: impl Stream<Item = ()> + Send + Unpin,
    place: OwnedSemaphorePermit,
) -> Result<impl Stream<Item = Result<ScatterResponse, GridError>> + Send, GridError> {
    let after = match start.after.as_str() {
        "" => None,
        after => Some(agent(&start.r#type, after, "after")?),
    };
    // Of no agent: it shows that the type may be one.
    agent(&start.r#type, "any", "type")?;
    if start.key_prefix.len() > limits::AGENT_KEY_BYTES_MAX {
        return Err(malformed("key_prefix", "the prefix is longer than a key may be"));
    }
    if start.key_field > KEY_FIELD_MAX {
        return Err(malformed("key_field", "no message has a field of that number"));
    }
    let methods = here.methods.get(&start.r#type).ok_or_else(|| {
        let text = format!("this node hosts no agent type {}", start.r#type);
        GridError::new(Reason::UnknownType, text)
            .with("resource_type", "agent type")
            .with("resource_name", &start.r#type)
    })?;
    if !methods.contains_key(&start.method) {
        let text = format!("{} has no method {} on this node", start.r#type, start.method);
        return Err(GridError::new(Reason::UnknownMethod, text)
            .with("resource_type", "method")
            .with("resource_name", format!("{}/{}", start.r#type, start.method)));
    }
    let timeout = Duration::from_millis(start.timeout_ms.min(limits::CALL_TIMEOUT_MS_MAX));
    let calls = Calls {
        method: start.method,
        request: start.request,
        key_field: start.key_field,
        idempotency_key: start.idempotency_key,
        deadline: Instant::now() + timeout,
        purpose: if start.send { Purpose::Send(Sending::default()) } else { Purpose::Call },
    };
    let wanted = Wanted { agent_type: start.r#type, key_prefix: start.key_prefix };
    let parallel = (start.parallel_max as usize).clamp(1, limits::SCATTER_REGION_PARALLEL_MAX);
    let pages = Pages::new(handle, here, calls, wanted, after, parallel);
    Ok(pages.stream(asked, place))
}

fn agent(agent_type: &str, key: &str, field: &str) -> Result<AgentRef, GridError> {
    AgentRef::new(agent_type, key).map_err(|error| malformed(field, &error.to_string()))
}

fn malformed(field: &str, why: &str) -> GridError {
    GridError::new(Reason::RequestMalformed, why).with("field", field)
}
