//! The catalog server: which nodes, regions, slots and agent types there are.
//!
//! Its servers replicate one state machine (`afdg-catalog-machine`). Around it stand:
//!
//! - services (`services`): registration and heartbeats of nodes, the watched routing table, and what
//!   operators ask;
//! - soft state of the leader (`soft`): leases, and what nodes report of their replicas. Not replicated: a
//!   new leader hears it again within one heartbeat;
//! - hints (`hints`): who leads which region. Every server has them; nobody relies on them;
//! - the reconciler (`reconcile`): on the leader only, compares the replicated state with the soft one and
//!   proposes the next change.

mod config;
mod hints;
mod initialize;
mod log;
mod reconcile;
mod refusal;
mod relay;
mod server;
mod services;
mod shared_machine;
mod soft;
mod table;

pub use config::{Bootstrap, CatalogConfig, ConfigError};
pub use server::{CatalogServer, HostError, Running};
