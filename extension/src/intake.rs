//! The body of a request while it is received: bounded in bytes over all connections, and in time.
//!
//! HTTP/2 windows bound what one connection may send unread, but a gRPC message is gathered whole before
//! anyone sees it. Without this, many connections with half a message each would fill the memory.

use crate::{budget::Share, config::RECEIVE_TIME_MAX};
use afdg_proto::status::of_grid_error;
use afdg_types::{GridError, Reason};
use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tonic::Status;

const FULL_RETRY_AFTER_MS: u64 = 200;

pub(crate) struct Intake<B> {
    body: B,
    framing: Framing,
    /// Bytes of the message that is not whole yet.
    share: Share,
    limit: Limit,
}

enum Limit {
    /// A stream may stay open for long.
    None,
    /// Starts when the body is first waited for, so that a message that is there at once costs no timer.
    FromFirstWait,
    At(Pin<Box<tokio::time::Sleep>>),
}

impl<B> Intake<B> {
    /// The body of one request message, bounded in time too.
    pub(crate) fn of_message(body: B, share: Share) -> Self {
        Self { body, framing: Framing::default(), share, limit: Limit::FromFirstWait }
    }

    /// The body of a stream of messages.
    pub(crate) fn of_stream(body: B, share: Share) -> Self {
        Self { body, framing: Framing::default(), share, limit: Limit::None }
    }
}

/// Where gRPC's messages begin and end: five bytes of header, the last four of them the length.
#[derive(Default)]
struct Framing {
    header: [u8; 5],
    header_bytes: usize,
    /// Bytes of the current message still to come, header aside.
    body_left: usize,
    /// Bytes of the current message that have come.
    partial: usize,
}

impl Framing {
    /// Bytes of the message that is not whole after this chunk.
    fn take(&mut self, mut chunk: &[u8]) -> usize {
        while !chunk.is_empty() {
            if self.header_bytes < self.header.len() {
                let (byte, rest) = (chunk[0], &chunk[1..]);
                self.header[self.header_bytes] = byte;
                self.header_bytes += 1;
                self.partial += 1;
                chunk = rest;
                if self.header_bytes == self.header.len() {
                    let [_, a, b, c, d] = self.header;
                    self.body_left = u32::from_be_bytes([a, b, c, d]) as usize;
                }
            } else {
                let taken = chunk.len().min(self.body_left);
                self.body_left -= taken;
                self.partial += taken;
                chunk = &chunk[taken..];
            }
            if self.header_bytes == self.header.len() && self.body_left == 0 {
                *self = Self::default();
            }
        }
        self.partial
    }
}

impl<B> Body for Intake<B>
where
    B: Body + Unpin,
    B::Data: Buf,
    B::Error: Into<tonic::codegen::StdError>,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) else {
            if matches!(this.limit, Limit::FromFirstWait) {
                this.limit = Limit::At(Box::pin(tokio::time::sleep(RECEIVE_TIME_MAX)));
            }
            let Limit::At(sleep) = &mut this.limit else { return Poll::Pending };
            ready!(sleep.as_mut().poll(cx));
            return Poll::Ready(Some(Err(of_grid_error(&too_slow()))));
        };
        Poll::Ready(frame.map(|frame| {
            let frame = frame.map_err(|error| Status::from_error(error.into()))?;
            let frame = frame.map_data(|mut data| data.copy_to_bytes(data.remaining()));
            let Some(chunk) = frame.data_ref() else { return Ok(frame) };
            // A whole message is its reader's from here on.
            let partial = this.framing.take(chunk);
            this.share.clear();
            if this.share.grow(partial) { Ok(frame) } else { Err(of_grid_error(&full())) }
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn full() -> GridError {
    GridError::new(
        Reason::Overloaded,
        "as many requests are being received as this server takes; try again later",
    )
    .retry_after_ms(FULL_RETRY_AFTER_MS)
}

fn too_slow() -> GridError {
    let seconds = RECEIVE_TIME_MAX.as_secs();
    GridError::new(
        Reason::DeadlineExceeded,
        format!("the request was not received within {seconds} s; it has had no effect"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_message_that_is_not_whole_counts() {
        let mut framing = Framing::default();
        assert_eq!(framing.take(&[0, 0, 0]), 3);
        assert_eq!(framing.take(&[0, 4, b'a']), 6);
        assert_eq!(framing.take(b"bcd"), 0);
        assert_eq!(framing.take(&[0, 0, 0, 0, 0]), 0);
        assert_eq!(framing.take(&[0, 0, 0, 0, 1, b'a', 0, 0, 0, 1, 0, b'b']), 6);
        assert_eq!(framing.take(&[7; 255]), 0);
    }
}
