//! Small numbers with names.

use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// A server with replicas of regions. Given out by the catalog from 1; 0 stands for unknown on the wire.
    NodeId
}
number! {
    /// A Raft group that owns slots. Given out by the catalog from 1; group 0 is the catalog's own.
    RegionId
}
number! {
    /// Version of the routing table; grows with every change.
    Epoch
}
number! {
    /// A Raft term.
    Term
}

/// Names one cluster for ever: made when the catalog first forms, 32 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ClusterId(pub String);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
