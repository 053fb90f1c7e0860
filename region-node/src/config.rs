//! What a region node is told.

use crate::fail_points::FailPoints;
use afdg_proto::peer_auth::PeerToken;
use afdg_replication::{CheckpointPolicy, Substitutes, Timing};
use std::path::PathBuf;

/// Decoded rows kept in memory, if nothing else is said.
pub const CACHE_BYTES_DEFAULT: u64 = 256 * 1024 * 1024;

#[derive(Clone, Debug)]
pub struct RegionNodeConfig {
    /// Unique in the cluster; stays with the data folder.
    pub name: String,
    pub folder: PathBuf,
    /// `host:port` to listen on; port 0 picks one.
    pub listen: String,
    /// `host:port` for health checks in plain text; none means none.
    pub health_listen: Option<String>,
    /// `host:port` that peers and extensions reach; none means where it listens.
    pub advertise: Option<String>,
    /// Where the node stands, for spreading replicas; may be empty.
    pub zone: String,
    /// `host:port` of the catalog's servers.
    pub catalog: Vec<String>,
    pub peer_token: PeerToken,
    pub cache_bytes: u64,
    pub timing: Timing,
    pub checkpoints: CheckpointPolicy,
    pub substitutes: Substitutes,
    /// Where the process ends at once. None but in tests.
    pub fail_points: FailPoints,
}
