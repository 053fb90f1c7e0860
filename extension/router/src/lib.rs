//! Resolves, forwards, retries and replies: the way of a message into a region.
