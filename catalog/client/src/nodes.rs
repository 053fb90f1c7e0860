//! What region nodes tell the catalog.

use crate::{
    CatalogClient, TypeInfo,
    client::{PeerChannel, Repeat},
};
use afdg_proto::pb::internal::{self, catalog_client::CatalogClient as Stub};
use afdg_types::{ClusterId, GridError, NodeId, Reason, RegionId, Term, limits::FRAME_BYTES_MAX};
use std::time::Duration;

const REGISTER_LIMIT: Duration = Duration::from_secs(5);
const HEARTBEAT_LIMIT: Duration = Duration::from_secs(1);

/// How a node makes itself known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// Chosen by the operator, unique in the cluster.
    pub name: String,
    /// Made by the node together with its data folder.
    pub incarnation: String,
    /// `host:port` that peers and extensions reach.
    pub address: String,
    pub zone: String,
    pub types: Vec<TypeInfo>,
    /// What the data folder says of an earlier registration; none on a new one.
    pub known_as: Option<Registered>,
}

/// Who a node is, to be kept with its data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    pub cluster: ClusterId,
    pub node: NodeId,
}

/// A heartbeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeReport {
    pub node: NodeId,
    pub replicas: Vec<ReplicaReport>,
    /// In the write-ahead log and waiting for a checkpoint.
    pub wal_bytes: u64,
}

/// What a node says of one of its replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaReport {
    pub region: RegionId,
    pub term: Term,
    pub leads: bool,
    pub applied_index: u64,
    pub agents_active: u64,
}

impl CatalogClient {
    /// Makes a node known, once at each of its starts. Safe to repeat.
    ///
    /// # Errors
    /// `WRONG_CLUSTER` if the data is of another cluster or of another node: the node must not start.
    /// `INVALID_REQUEST` if what it says of itself can't be. Others after trying for `within`.
    pub async fn register(
        &self,
        registration: Registration,
        within: Duration,
    ) -> Result<Registered, GridError> {
        let (cluster_id, node_id) =
            registration.known_as.map_or_else(Default::default, |known| (known.cluster.0, known.node.0));
        let request = internal::RegisterNodeRequest {
            name: registration.name,
            incarnation: registration.incarnation,
            address: registration.address,
            zone: registration.zone,
            types: registration.types.into_iter().map(Into::into).collect(),
            cluster_id,
            node_id,
        };
        let response = self
            .ask_leader(within, REGISTER_LIMIT, Repeat::Always, |channel| {
                let request = request.clone();
                async move { stub(channel).register_node(request).await }
            })
            .await?;
        if response.node_id == 0 || response.cluster_id.is_empty() {
            let message = "the catalog has answered a registration without a node or a cluster";
            return Err(GridError::new(Reason::Internal, message));
        }
        Ok(Registered { cluster: ClusterId(response.cluster_id), node: NodeId(response.node_id) })
    }

    /// Renews the node's lease; returns how long it lasts from the time of the request.
    ///
    /// # Errors
    /// `WRONG_CLUSTER` if the catalog does not know the node, or another has taken its name.
    pub async fn heartbeat(&self, report: NodeReport, within: Duration) -> Result<Duration, GridError> {
        let replicas = report.replicas.into_iter().map(|replica| internal::ReplicaReport {
            region: replica.region.0,
            term: replica.term.0,
            leads: replica.leads,
            applied_index: replica.applied_index,
            agents_active: replica.agents_active,
        });
        let request = internal::HeartbeatRequest {
            node_id: report.node.0,
            replicas: replicas.collect(),
            wal_bytes: report.wal_bytes,
        };
        let response = self
            .ask_leader(within, HEARTBEAT_LIMIT, Repeat::Always, |channel| {
                let request = request.clone();
                async move { stub(channel).heartbeat(request).await }
            })
            .await?;
        Ok(Duration::from_millis(response.lease_ms))
    }
}

pub(crate) fn stub(channel: PeerChannel) -> Stub<PeerChannel> {
    Stub::new(channel).max_decoding_message_size(FRAME_BYTES_MAX).max_encoding_message_size(FRAME_BYTES_MAX)
}
