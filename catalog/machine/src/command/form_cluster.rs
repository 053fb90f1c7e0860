//! The first command of every catalog: gives the cluster its id and its size.

use crate::{
    CatalogState, Cluster, Refusal, Reply,
    limits::{REGIONS_MAX, REPLICAS_MAX},
};
use afdg_types::ClusterId;
use serde::{Deserialize, Serialize};

const FORMAT_VERSION: u32 = 1;
const CLUSTER_ID_BYTES: usize = 32;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FormCluster {
    /// Drawn at random by the proposer, 32 hexadecimal digits.
    pub cluster: ClusterId,
    pub regions: u16,
    /// Of each region; odd, so that none is there for nothing.
    pub replicas: u8,
    pub at_ms: u64,
}

impl FormCluster {
    pub(crate) fn apply(self, state: &mut CatalogState) -> Result<Reply, Refusal> {
        if let Some(cluster) = &state.cluster {
            return Err(Refusal::AlreadyFormed { cluster: cluster.id.clone() });
        }
        let is_id = self.cluster.0.len() == CLUSTER_ID_BYTES
            && self.cluster.0.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_id {
            return Err(invalid("cluster", format!("must be {CLUSTER_ID_BYTES} hexadecimal digits")));
        }
        if !(1..=REGIONS_MAX).contains(&self.regions) {
            return Err(invalid("regions", format!("must be 1 to {REGIONS_MAX}; got {}", self.regions)));
        }
        if self.replicas > REPLICAS_MAX || self.replicas.is_multiple_of(2) {
            return Err(invalid(
                "replicas",
                format!("must be 1, 3 or {REPLICAS_MAX}; got {}", self.replicas),
            ));
        }
        state.cluster = Some(Cluster {
            id: self.cluster.clone(),
            format_version: FORMAT_VERSION,
            regions_wanted: self.regions,
            replicas_wanted: self.replicas,
            formed_ms: self.at_ms,
        });
        Ok(Reply::Formed { cluster: self.cluster })
    }
}

fn invalid(field: &'static str, problem: String) -> Refusal {
    Refusal::Invalid { field, problem }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Command, command::assert_frozen};

    #[test]
    fn stored_bytes_never_change() {
        assert_frozen(
            Command::FormCluster(FormCluster {
                cluster: ClusterId("0123456789abcdef0123456789abcdef".to_owned()),
                regions: 64,
                replicas: 3,
                at_ms: 1_700_000_000_000,
            }),
            "0100203031323334353637383961626364656630313233343536373839616263646566400380d095ffbc31",
        );
    }
}
