//! Raft between servers: one connection for all groups that two servers share.
//!
//! | file | owns |
//! | --- | --- |
//! | `link` | a connection to one peer: requests out, responses back, what waits goes in one frame |
//! | `network` | openraft's view of a link, for one group |
//! | `service` | the other end: hands requests to the groups' replicas |
//! | `snapshot` | the rows of a group in chunks, with their checksum |
//! | `frames` | putting what waits into frames |

mod frames;
mod link;
mod network;
mod service;
mod snapshot;

pub use link::Links;
pub(crate) use network::PeerNetworks;
pub use service::{GroupHandler, PeerEndpoint, PeerService};
pub use snapshot::SnapshotHeader;
