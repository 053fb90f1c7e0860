//! `afdg dev`: a whole grid in one process, for development, demo and bench.
//!
//! Catalog servers, region nodes and an extension, each as it would run by itself, over loopback.

mod command;
mod grid;
mod layout;
mod probe;
mod ready;

pub use command::{DevArgs, run};
pub use grid::{DevGrid, DevOptions};
pub use layout::Wanted;
pub use ready::Ready;
