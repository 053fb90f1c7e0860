//! What operators ask, in the messages of `afdg.admin.v1` themselves: an extension passes them on.

use crate::{
    CatalogClient,
    client::{PeerChannel, Repeat},
};
use afdg_proto::pb::admin::{self, cluster_client::ClusterClient};
use afdg_types::{GridError, limits::FRAME_BYTES_MAX};
use std::time::Duration;

const READ_LIMIT: Duration = Duration::from_secs(2);
/// Longer than the catalog itself gives the region nodes.
const TRANSFER_LIMIT: Duration = Duration::from_secs(15);

macro_rules! reads {
    ($($(#[$doc:meta])* $name:ident = $method:ident($request:ident) -> $response:ident;)*) => {
        impl CatalogClient {
            $($(#[$doc])*
            pub async fn $name(
                &self,
                request: admin::$request,
                within: Duration,
            ) -> Result<admin::$response, GridError> {
                self.ask_leader(within, READ_LIMIT, Repeat::Always, |channel| {
                    let request = request.clone();
                    async move { stub(channel).$method(request).await }
                })
                .await
            })*
        }
    };
}

reads! {
    status = get_status(GetStatusRequest) -> GetStatusResponse;
    nodes = list_nodes(ListNodesRequest) -> ListNodesResponse;
    regions = list_regions(ListRegionsRequest) -> ListRegionsResponse;
    types = list_types(ListTypesRequest) -> ListTypesResponse;
    audit = list_audit(ListAuditRequest) -> ListAuditResponse;
}

/// The catalog writes one entry.
const WRITE_LIMIT: Duration = Duration::from_secs(5);

impl CatalogClient {
    /// Moves the lead of a region. Each request that the catalog takes is recorded, so one with an
    /// unknown outcome is not repeated here: the caller can look who leads.
    pub async fn transfer_leader(
        &self,
        request: admin::TransferLeaderRequest,
        within: Duration,
    ) -> Result<admin::TransferLeaderResponse, GridError> {
        self.ask_leader(within, TRANSFER_LIMIT, Repeat::Unapplied, |channel| {
            let request = request.clone();
            async move { stub(channel).transfer_leader(request).await }
        })
        .await
    }

    /// Sets limits of an agent type. Recorded like every action, so one with an unknown outcome is not
    /// repeated here: setting the same again by hand is safe.
    pub async fn set_type_limits(
        &self,
        request: admin::SetTypeLimitsRequest,
        within: Duration,
    ) -> Result<admin::SetTypeLimitsResponse, GridError> {
        self.ask_leader(within, WRITE_LIMIT, Repeat::Unapplied, |channel| {
            let request = request.clone();
            async move { stub(channel).set_type_limits(request).await }
        })
        .await
    }
}

fn stub(channel: PeerChannel) -> ClusterClient<PeerChannel> {
    ClusterClient::new(channel)
        .max_decoding_message_size(FRAME_BYTES_MAX)
        .max_encoding_message_size(FRAME_BYTES_MAX)
}
