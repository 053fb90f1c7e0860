//! The region's machine as its users see it: scripts of entries, frozen bytes, random logs.

#![allow(clippy::unwrap_used)]

mod frozen_bytes;
mod frozen_bytes_schedules;
mod frozen_bytes_sends;
mod random;
mod random_schedules;
mod random_sends;
mod region;
mod script;
mod script_schedules;
mod scripts;
mod scripts_fence;
mod scripts_schedules;
mod scripts_sends;
