//! Turns an agent's .proto into Rust at build time: messages, the trait to implement, callers.
