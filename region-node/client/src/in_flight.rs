//! One message on its way.

use crate::{ForwardError, ForwardResult, link::Link, traffic::without_answer};
use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};
use tokio::sync::oneshot;

/// Resolves with what became of the message. Dropping it forgets the message: if the transport has not
/// taken it yet, it is not sent.
pub struct InFlight {
    link: Arc<Link>,
    request_id: u64,
    reply: oneshot::Receiver<ForwardResult>,
    done: bool,
}

impl InFlight {
    pub(crate) fn new(link: Arc<Link>, request_id: u64, reply: oneshot::Receiver<ForwardResult>) -> Self {
        Self { link, request_id, reply, done: false }
    }

    /// Whether the transport has taken the message, so that it may take effect.
    pub fn is_sent(&self) -> bool {
        self.link.traffic().is_sent(self.request_id)
    }

    /// Waits no longer: the answer if it is there, else what is known without it.
    pub fn give_up(mut self, why: &str) -> ForwardResult {
        self.done = true;
        match self.link.traffic().forget(self.request_id) {
            Some(sent) => Err(without_answer(sent, why)),
            // It is settled, or its waiter is just being told.
            None => self.reply.try_recv().unwrap_or_else(|_| Err(ForwardError::Lost(why.to_owned()))),
        }
    }
}

impl Future for InFlight {
    type Output = ForwardResult;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<ForwardResult> {
        let result = ready!(Pin::new(&mut self.reply).poll(cx));
        self.done = true;
        // The link always tells its waiters; a dropped sender means that it was itself dropped.
        Poll::Ready(result.unwrap_or_else(|_| Err(ForwardError::Lost("the client was stopped".to_owned()))))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if !self.done {
            self.link.traffic().forget(self.request_id);
        }
    }
}
