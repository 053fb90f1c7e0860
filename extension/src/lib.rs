//! The extension: the gateway through which clients call agents.
//!
//! One port serves, over HTTP/2:
//! - every known agent type as the gRPC service that its `.proto` declares: bytes in, bytes out;
//! - `afdg.v1.Grid`, for callers without stubs;
//! - `afdg.admin.v1`, for operators: questions about the cluster go to the catalog, those about agents
//!   to the nodes;
//! - server reflection and health.
//!
//! What it owns is the edge: whatever a client sends is bounded, checked once, turned into types, and
//! answered with a status that says what was wrong. It never panics over it. It decides nothing about
//! where a message goes or whether it is tried again; that is `afdg-router`'s.

mod agent_calls;
mod agent_codec;
mod agents_admin;
mod blocked_agents;
mod budget;
mod caller;
mod cluster_admin;
mod config;
mod connections;
mod dead_letters_admin;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod decoders;
mod descriptors;
mod gateway;
mod grid;
mod headers;
mod health;
mod intake;
mod key_field;
mod pipe;
mod reflection;
mod region_questions;
mod scatter;
mod schedules_admin;
mod server;
mod wire;

pub use config::{ExtensionConfig, SCATTER_PARALLEL_MAX};
pub use server::{ExtensionServer, Running, StartError};
