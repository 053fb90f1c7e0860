//! `afdg dev`: a whole grid in one process, for development, demo and bench. The grid itself is
//! `afdg-dev-grid`; here stands what a person at a terminal and a script see of it.

mod command;
mod ready;
mod start;

pub use command::{DevArgs, run};
pub use ready::Ready;
pub use start::{failure, options, start};
