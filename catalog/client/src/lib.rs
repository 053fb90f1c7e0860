//! Clients of the catalog: registration, heartbeats, the watched routing table, admin.
//!
//! [`CatalogClient`] finds the catalog's leader and asks it; [`CatalogClient::watch_routes`] keeps
//! [`Routes`] fresh from any catalog server, for as long as its tasks run. When no catalog server can be
//! reached, the last routes stay in use.

mod admin;
mod client;
mod nodes;
mod record;
mod routes;
mod types;
mod watch;

pub use client::{CatalogClient, InvalidAddresses};
pub use nodes::{NodeReport, Registered, Registration, ReplicaReport};
pub use routes::{RouteNode, RouteRegion, Routes, TableRefused};
pub use types::{MethodInfo, TypeInfo};
