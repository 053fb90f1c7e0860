//! The request stream of one connection.
//!
//! The transport polls it when it can take more bytes, and gets everything that waits. So there is no
//! task and no buffer between the queue and the socket, and a slow node fills the link's own bounded queue.

use crate::link::Link;
use afdg_proto::pb::internal::ForwardFrame;
use futures::Stream;
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

pub(crate) struct Frames {
    pub(crate) link: Arc<Link>,
    pub(crate) generation: u64,
}

impl Stream for Frames {
    type Item = ForwardFrame;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<ForwardFrame>> {
        let mut traffic = self.link.traffic();
        if traffic.generation != self.generation {
            return Poll::Ready(None);
        }
        let messages = traffic.next_frame();
        if !messages.is_empty() {
            return Poll::Ready(Some(ForwardFrame { messages }));
        }
        if traffic.closed {
            return Poll::Ready(None);
        }
        if !traffic.writer.as_ref().is_some_and(|writer| writer.will_wake(cx.waker())) {
            traffic.writer = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}
