//! One message to all agents of a type, through the whole grid.

mod all;
mod failures;
