//! A whole grid in one process, over real sockets on loopback and real files: the same servers that run
//! as processes of their own in a deployment. For development, demonstrations and tests.
//!
//! It owns the servers' lives, their places on this machine and the question whether calls succeed. Which
//! agents it hosts is its user's affair.

mod error;
mod grid;
mod layout;
mod options;
mod ports;
mod readiness;

pub use error::{DevGridError, LayoutError};
pub use grid::DevGrid;
pub use layout::Layout;
pub use options::{DevGridOptions, Size};
pub use ports::{PortClaims, free_addresses};
pub use readiness::{Probe, Wanted, until_well};
