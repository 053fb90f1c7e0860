//! A client that goes away before it is answered: its message's region is told, so that the calls are cut short
//! that only it waited for.

use crate::{OutgoingMessage, Router};
use afdg_types::{AgentRef, Cancel, MessageId, Purpose};
use bytes::Bytes;
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;

/// Callers that say at the same time that they go. One that finds no place goes without a word: what it has
/// asked for is cut short when its deadline passes.
pub(crate) const LEAVING_MAX: usize = 256;
/// How long the region is looked for that is to be told.
const TELL_TIME_MAX: Duration = Duration::from_secs(2);

/// Tells the message's region, when dropped, that its caller has gone.
pub(crate) struct Leaving<'a> {
    router: &'a Router,
    /// None where nobody is told: of a turn's call, which a turn that is run again makes again, and of all that
    /// is no call.
    message: Option<(AgentRef, MessageId, u64)>,
}

impl<'a> Leaving<'a> {
    pub(crate) fn of(router: &'a Router, message: &OutgoingMessage) -> Self {
        let is_clients = message.purpose == Purpose::Call && message.deadline.is_some();
        // 0 stands for none.
        let caller = || router.random_u64().max(1);
        Self { router, message: is_clients.then(|| (message.agent.clone(), message.id, caller())) }
    }

    /// The number under which the caller asks.
    pub(crate) fn caller(&self) -> u64 {
        self.message.as_ref().map_or(0, |(.., caller)| *caller)
    }

    /// It was answered.
    pub(crate) fn stays(mut self) {
        self.message = None;
    }
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        let Some((agent, id, caller)) = self.message.take() else { return };
        let place = Arc::clone(self.router.leaving()).try_acquire_owned();
        let (Ok(place), Ok(runtime)) = (place, tokio::runtime::Handle::try_current()) else { return };
        let router = self.router.clone();
        runtime.spawn(async move {
            let message = OutgoingMessage {
                agent,
                method: String::new(),
                request: Bytes::new(),
                id,
                deadline: Some(Instant::now() + TELL_TIME_MAX),
                chain: Vec::new(),
                reentries: Vec::new(),
                purpose: Purpose::Cancel(Cancel::Caller(caller)),
            };
            // If it does not get there, the deadline does the same later.
            let _ = Box::pin(router.call(message)).await;
            drop(place);
        });
    }
}
