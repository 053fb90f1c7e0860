//! The region node: replicas of regions, and the executor that runs agents' turns.
//!
//! The way of a message through this crate: [`service`] decodes it, [`region`] admits it, has it run by
//! the [`executor`], proposes its effects, and once they are committed dispatches its reply.

mod cache;
mod config;
mod dead_letters;
mod executor;
pub mod fail_points;
mod inspect;
mod metrics;
mod node_file;
pub mod process;
mod region;
mod regions;
mod replica;
mod scatter;
mod schedules;
mod server;
mod service;

pub use config::{CACHE_BYTES_DEFAULT, RegionNodeConfig};
pub use server::{RegionNodeError, RegionNodeServer, RunningRegionNode};
