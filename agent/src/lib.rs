//! What authors of AFDG agents use.

pub mod host;
pub mod row;
