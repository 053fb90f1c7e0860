//! `afdg.admin.v1.Cluster`: passed on to the catalog. Agent types are known here too.

use crate::{config::ADMIN_TIME_DEFAULT, headers};
use afdg_catalog_client::{CatalogClient, TypeInfo};
use afdg_proto::{
    limits::type_limits,
    pb::admin::{
        AgentType, GetStatusRequest, GetStatusResponse, ListAuditRequest, ListAuditResponse,
        ListNodesRequest, ListNodesResponse, ListRegionsRequest, ListRegionsResponse, ListTypesRequest,
        ListTypesResponse, Method, SetTypeLimitsRequest, SetTypeLimitsResponse, TransferLeaderRequest,
        TransferLeaderResponse, cluster_server::Cluster,
    },
    status::of_grid_error,
};
use afdg_router::Router;
use afdg_types::{GridError, limits::CALL_TIMEOUT_MS_MAX};
use std::time::Duration;
use tonic::{Request, Response, Status, metadata::MetadataMap};

pub(crate) struct ClusterAdmin {
    pub(crate) catalog: CatalogClient,
    pub(crate) router: Router,
}

/// How long the catalog is asked for types that stand in the routes as well.
const TYPES_WITHIN: Duration = Duration::from_secs(1);

/// How long an admin question may take.
pub(crate) fn time_for(metadata: &MetadataMap) -> Result<Duration, Status> {
    let timeout = headers::timeout(metadata.as_ref()).map_err(|error| of_grid_error(&error))?;
    Ok(timeout.unwrap_or(ADMIN_TIME_DEFAULT).min(Duration::from_millis(CALL_TIMEOUT_MS_MAX)))
}

fn reply<T>(result: Result<T, GridError>) -> Result<Response<T>, Status> {
    result.map(Response::new).map_err(|error| of_grid_error(&error))
}

impl ClusterAdmin {
    /// As the catalog has them, or else as they were when this extension last heard it: whoever wants to
    /// call an agent has to know its type, and calls go on without the catalog.
    async fn types(
        &self,
        request: ListTypesRequest,
        within: Duration,
    ) -> Result<ListTypesResponse, GridError> {
        let error = match self.catalog.types(request, within.min(TYPES_WITHIN)).await {
            Ok(types) => return Ok(types),
            Err(error) => error,
        };
        let routes = self.router.routes();
        if !routes.ready {
            return Err(error);
        }
        Ok(ListTypesResponse { types: routes.types.values().map(|known| describe(known)).collect() })
    }
}

/// The version is the catalog's to tell.
fn describe(known: &TypeInfo) -> AgentType {
    let methods = known.methods.iter().map(|(name, method)| Method {
        name: name.clone(),
        read_only: method.read_only,
        request: method.request.clone(),
        response: method.response.clone(),
    });
    AgentType {
        name: known.name.clone(),
        methods: methods.collect(),
        version: String::new(),
        descriptors: known.descriptors.clone(),
        limits: type_limits(&known.limits),
    }
}

macro_rules! pass_on {
    ($($method:ident($request:ident) -> $response:ident = $($ask:ident).+;)*) => {
        #[tonic::async_trait]
        impl Cluster for ClusterAdmin {
            $(async fn $method(&self, request: Request<$request>) -> Result<Response<$response>, Status> {
                let within = time_for(request.metadata())?;
                reply(self.$($ask).+(request.into_inner(), within).await)
            })*
        }
    };
}

pass_on! {
    get_status(GetStatusRequest) -> GetStatusResponse = catalog.status;
    list_nodes(ListNodesRequest) -> ListNodesResponse = catalog.nodes;
    list_regions(ListRegionsRequest) -> ListRegionsResponse = catalog.regions;
    list_types(ListTypesRequest) -> ListTypesResponse = types;
    list_audit(ListAuditRequest) -> ListAuditResponse = catalog.audit;
    transfer_leader(TransferLeaderRequest) -> TransferLeaderResponse = catalog.transfer_leader;
    set_type_limits(SetTypeLimitsRequest) -> SetTypeLimitsResponse = catalog.set_type_limits;
}
