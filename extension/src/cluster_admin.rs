//! `afdg.admin.v1.Cluster`: passed on to the catalog.

use crate::{config::ADMIN_TIME_DEFAULT, headers};
use afdg_catalog_client::CatalogClient;
use afdg_proto::{
    pb::admin::{
        GetStatusRequest, GetStatusResponse, ListAuditRequest, ListAuditResponse, ListNodesRequest,
        ListNodesResponse, ListRegionsRequest, ListRegionsResponse, ListTypesRequest, ListTypesResponse,
        TransferLeaderRequest, TransferLeaderResponse, cluster_server::Cluster,
    },
    status::of_grid_error,
};
use afdg_types::{GridError, limits::CALL_TIMEOUT_MS_MAX};
use std::time::Duration;
use tonic::{Request, Response, Status, metadata::MetadataMap};

pub(crate) struct ClusterAdmin {
    pub(crate) catalog: CatalogClient,
}

/// How long an admin question may take.
pub(crate) fn time_for(metadata: &MetadataMap) -> Result<Duration, Status> {
    let timeout = headers::timeout(metadata.as_ref()).map_err(|error| of_grid_error(&error))?;
    Ok(timeout.unwrap_or(ADMIN_TIME_DEFAULT).min(Duration::from_millis(CALL_TIMEOUT_MS_MAX)))
}

fn reply<T>(result: Result<T, GridError>) -> Result<Response<T>, Status> {
    result.map(Response::new).map_err(|error| of_grid_error(&error))
}

macro_rules! pass_on {
    ($($method:ident($request:ident) -> $response:ident = $ask:ident;)*) => {
        #[tonic::async_trait]
        impl Cluster for ClusterAdmin {
            $(async fn $method(&self, request: Request<$request>) -> Result<Response<$response>, Status> {
                let within = time_for(request.metadata())?;
                reply(self.catalog.$ask(request.into_inner(), within).await)
            })*
        }
    };
}

pass_on! {
    get_status(GetStatusRequest) -> GetStatusResponse = status;
    list_nodes(ListNodesRequest) -> ListNodesResponse = nodes;
    list_regions(ListRegionsRequest) -> ListRegionsResponse = regions;
    list_types(ListTypesRequest) -> ListTypesResponse = types;
    list_audit(ListAuditRequest) -> ListAuditResponse = audit;
    transfer_leader(TransferLeaderRequest) -> TransferLeaderResponse = transfer_leader;
}
