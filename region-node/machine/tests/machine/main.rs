//! The region's machine as its users see it: scripts of entries, frozen bytes, random logs.

#![allow(clippy::unwrap_used)]

mod frozen_bytes;
mod random;
mod region;
mod script;
mod scripts;
mod scripts_fence;
