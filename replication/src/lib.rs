//! Replicated state machines on openraft: write-ahead log, checkpoints over sled, transport between peers.

mod machine;

pub use machine::{Machine, Observer, Position};
