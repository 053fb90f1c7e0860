//! The region's machine as its users see it: scripts of entries, frozen bytes, random logs.

#![allow(clippy::unwrap_used)]

mod frozen_bytes;
mod frozen_bytes_sends;
mod random;
mod random_sends;
mod region;
mod script;
mod scripts;
mod scripts_fence;
mod scripts_sends;
