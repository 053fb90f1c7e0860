//! What a catalog server is told.

use afdg_catalog_machine::limits::{REGIONS_MAX, REPLICAS_MAX};
use afdg_proto::peer_auth::PeerToken;
use afdg_replication::{Substitutes, Timing};
use std::{collections::BTreeMap, path::PathBuf};

/// Longest lease: a node that is gone should be known to be gone within minutes.
const LEASE_MS_MAX: u64 = 600_000;
/// Shortest lease: below it, ordinary pauses of a process would count as its end.
const LEASE_MS_MIN: u64 = 100;

/// One catalog server.
#[derive(Clone, Debug)]
pub struct CatalogConfig {
    /// This server's place in `servers`.
    pub id: u64,
    /// Its data; nobody else's.
    pub folder: PathBuf,
    /// `host:port` to listen on; port 0 picks one.
    pub listen: String,
    /// All catalog servers, this one included, by id: the `host:port` that others reach. 1, 3 or 5.
    pub servers: BTreeMap<u64, String>,
    pub peer_token: PeerToken,
    pub bootstrap: Bootstrap,
    /// A node that sends no heartbeat for this long is suspect.
    pub lease_ms: u64,
    /// A node that sends no heartbeat for this long is dead.
    pub dead_after_ms: u64,
    pub timing: Timing,
    /// How long a drain may take.
    pub drain_ms_max: u64,
    pub substitutes: Substitutes,
}

/// The size of a new cluster. Without effect once the cluster is formed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bootstrap {
    pub regions: u16,
    /// Of each region; 1, 3 or 5.
    pub replicas: u8,
    /// Regions are placed once this many nodes are live.
    pub nodes: u32,
}

impl CatalogConfig {
    pub const LEASE_MS_DEFAULT: u64 = 2_000;
    pub const DEAD_AFTER_MS_DEFAULT: u64 = 60_000;
    pub const DRAIN_MS_MAX_DEFAULT: u64 = 10_000;

    /// An error names the first value that can't be.
    pub fn check(&self) -> Result<(), ConfigError> {
        let wrong = |field, problem: String| Err(ConfigError { field, problem });
        if !matches!(self.servers.len(), 1 | 3 | 5) {
            return wrong("peers", format!("must be 1, 3 or 5 servers; got {}", self.servers.len()));
        }
        if !self.servers.contains_key(&self.id) {
            let ids: Vec<String> = self.servers.keys().map(u64::to_string).collect();
            return wrong("id", format!("is {}, which is none of the peers {}", self.id, ids.join(", ")));
        }
        let Bootstrap { regions, replicas, nodes } = self.bootstrap;
        if !(1..=REGIONS_MAX).contains(&regions) {
            return wrong("bootstrap.regions", format!("must be 1 to {REGIONS_MAX}; got {regions}"));
        }
        if replicas > REPLICAS_MAX || replicas.is_multiple_of(2) {
            return wrong("bootstrap.replicas", format!("must be 1, 3 or {REPLICAS_MAX}; got {replicas}"));
        }
        // Regions are placed once: one that begins with fewer replicas would keep them.
        if nodes < u32::from(replicas) {
            let problem = format!("must be at least bootstrap.replicas, {replicas}; got {nodes}");
            return wrong("bootstrap.nodes", problem);
        }
        if !(LEASE_MS_MIN..=LEASE_MS_MAX).contains(&self.lease_ms) {
            let problem = format!("must be {LEASE_MS_MIN} to {LEASE_MS_MAX}; got {}", self.lease_ms);
            return wrong("lease_ms", problem);
        }
        if self.dead_after_ms < self.lease_ms {
            let problem = format!("is {}, less than lease_ms, {}", self.dead_after_ms, self.lease_ms);
            return wrong("dead_after_ms", problem);
        }
        Ok(())
    }
}

/// A value that can't be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the catalog's configuration is wrong: {field} {problem}")]
pub struct ConfigError {
    pub field: &'static str,
    pub problem: String,
}
