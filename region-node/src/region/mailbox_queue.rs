//! The messages that wait for one agent's turn, with their bytes counted.

use super::leading::Message;
use std::{collections::VecDeque, ops::Deref};

/// Reads as the queue itself; changes go through here, so that the bytes are right.
#[derive(Default)]
pub struct MailboxQueue {
    messages: VecDeque<Message>,
    bytes: usize,
}

impl MailboxQueue {
    /// Of the requests.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn push_back(&mut self, message: Message) {
        self.bytes += message.request.len();
        self.messages.push_back(message);
    }

    pub fn push_front(&mut self, message: Message) {
        self.bytes += message.request.len();
        self.messages.push_front(message);
    }

    /// Has calls of the agents that `ring` names come before all else.
    pub fn put_calls_of_ring_first(&mut self, ring: &str) {
        let is_of_ring =
            |message: &Message| message.chain.last().is_some_and(|caller| ring.contains(caller.as_str()));
        self.messages.make_contiguous().sort_by_key(|message| !is_of_ring(message));
    }

    pub fn pop_front(&mut self) -> Option<Message> {
        self.remove(0)
    }

    pub fn remove(&mut self, place: usize) -> Option<Message> {
        let message = self.messages.remove(place)?;
        self.bytes -= message.request.len();
        Some(message)
    }
}

impl Deref for MailboxQueue {
    type Target = VecDeque<Message>;

    fn deref(&self) -> &VecDeque<Message> {
        &self.messages
    }
}
