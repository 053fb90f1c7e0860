//! `afdg.admin.v1.Cluster`, for extensions, which pass on what operators ask.
//!
//! Answered by the leader only, which has heard the nodes.

use super::Core;
use crate::soft::{Report, View};
use afdg_catalog_machine::{AgentType, CatalogState, Command, NodeState, SetTypeLimits};
use afdg_proto::{
    limits::type_limits,
    pb::admin::{
        self, GetStatusRequest, GetStatusResponse, ListAuditRequest, ListAuditResponse, ListNodesRequest,
        ListNodesResponse, ListRegionsRequest, ListRegionsResponse, ListTypesRequest, ListTypesResponse,
        SetTypeLimitsRequest, SetTypeLimitsResponse, TransferLeaderRequest, TransferLeaderResponse,
        cluster_server::Cluster,
    },
    status::of_grid_error,
};
use afdg_types::{GridError, NodeId, Reason, RegionId, TypeLimit, TypeLimits};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::time::Instant;
use tonic::{Request, Response, Status};

const AUDIT_RECORDS_DEFAULT: u32 = 100;

pub(crate) struct ClusterService {
    core: Arc<Core>,
}

/// What the leader knows at one moment.
struct Known {
    state: Arc<CatalogState>,
    view: View,
    now: Instant,
    lease: Duration,
}

impl Known {
    /// The replica that leads `region`, if it said so within the lease.
    fn leader_of(&self, region: RegionId) -> Option<(NodeId, Report)> {
        let (id, report, at) = self.view.leader_of(region)?;
        (self.now.saturating_duration_since(at) <= self.lease).then_some((id, report))
    }
}

impl ClusterService {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self { core }
    }

    async fn known(&self) -> Result<Known, Status> {
        let term = self.core.confirm_lead().await.map_err(|error| of_grid_error(&error))?;
        let now = Instant::now();
        self.core.soft.begin(term, now);
        let view = self.core.soft.view().unwrap_or(View { since: now, nodes: BTreeMap::new() });
        Ok(Known { state: self.core.state(), view, now, lease: self.core.lease })
    }

    fn status(&self, known: &Known) -> GetStatusResponse {
        let state = &known.state;
        let regions = &state.regions;
        let wanted = usize::from(state.replicas_wanted());
        let is_live = |id: &&NodeId| state.nodes.get(*id).is_some_and(|node| node.state == NodeState::Live);
        let lacking = regions.values().filter(|r| r.replicas.iter().filter(is_live).count() < wanted);
        let led = regions.keys().filter(|id| known.leader_of(**id).is_some());
        let catalog = self.core.servers.iter().map(|(id, address)| {
            let leader = *id == self.core.id;
            // Of the other servers the leader knows what it sent, not what they have applied.
            let applied_index = if leader { self.core.log.applied_index() } else { 0 };
            admin::CatalogServer { id: *id, address: address.clone(), leader, applied_index }
        });
        GetStatusResponse {
            cluster_id: state.cluster.as_ref().map(|cluster| cluster.id.0.clone()).unwrap_or_default(),
            routing_epoch: state.epoch.0,
            catalog: catalog.collect(),
            nodes_live: count(state.nodes_live().count()),
            nodes_known: count(state.nodes.len()),
            regions: count(regions.len()),
            regions_with_leader: count(led.count()),
            regions_under_replicated: count(lacking.count()),
            types: count(state.types.len()),
            replicas_wanted: state.replicas_wanted().into(),
        }
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn nodes(known: &Known) -> Vec<admin::Node> {
    let state = &known.state;
    let leaders: Vec<NodeId> =
        state.regions.keys().filter_map(|region| Some(known.leader_of(*region)?.0)).collect();
    let nodes = state.nodes.iter().map(|(id, node)| {
        let seen = known.view.nodes.get(id);
        let ago = seen.map(|seen| known.now.saturating_duration_since(seen.at).as_millis());
        admin::Node {
            id: id.0,
            name: node.name.clone(),
            address: node.address.clone(),
            zone: node.zone.clone(),
            state: node.state.to_string(),
            replicas: count(state.regions.values().filter(|region| region.replicas.contains(id)).count()),
            leaders: count(leaders.iter().filter(|leader| *leader == id).count()),
            last_seen_ms: ago.map(|ago| u64::try_from(ago).unwrap_or(u64::MAX)),
            wal_bytes: seen.map_or(0, |seen| seen.wal_bytes),
            types: node.types.iter().cloned().collect(),
        }
    });
    nodes.collect()
}

fn regions(known: &Known) -> Vec<admin::Region> {
    let regions = known.state.regions.iter().map(|(id, region)| {
        let leader = known.leader_of(*id);
        admin::Region {
            id: id.0,
            slots: region
                .slots
                .iter()
                .map(|range| admin::SlotRange { first: range.first.0.into(), last: range.last.0.into() })
                .collect(),
            replicas: region.replicas.iter().map(|node| node.0).collect(),
            leader: leader.map_or(0, |(node, _)| node.0),
            term: leader.map_or(0, |(_, report)| report.term.0),
            applied_index: leader.map_or(0, |(_, report)| report.applied_index),
            agents_active: leader.map_or(0, |(_, report)| report.agents_active),
            state: region.phase.to_string(),
        }
    });
    regions.collect()
}

fn describe(agent_type: &AgentType, state: &CatalogState) -> admin::AgentType {
    let methods = agent_type.methods.iter().map(|method| admin::Method {
        name: method.name.clone(),
        read_only: method.read_only,
        request: method.request.clone(),
        response: method.response.clone(),
    });
    admin::AgentType {
        name: agent_type.name.clone(),
        methods: methods.collect(),
        version: agent_type.version.clone(),
        descriptors: agent_type.descriptors.clone(),
        limits: type_limits(&limits_of(&agent_type.name, state)),
    }
}

fn limits_of(name: &str, state: &CatalogState) -> TypeLimits {
    state.limits.get(name).map(TypeLimits::of).unwrap_or_default()
}

impl Core {
    async fn set_type_limits(
        &self,
        request: SetTypeLimitsRequest,
    ) -> Result<SetTypeLimitsResponse, GridError> {
        let SetTypeLimitsRequest { r#type: agent_type, set, reset, actor, reason } = request;
        let limit = |name: &str| {
            name.parse::<TypeLimit>().map_err(|error| {
                GridError::new(Reason::InvalidRequest, error.to_string()).with("field", "set")
            })
        };
        let mut limits = BTreeMap::new();
        for (name, value) in set {
            limits.insert(limit(&name)?, Some(value));
        }
        for name in reset {
            if limits.insert(limit(&name)?, None).is_some() {
                let text = format!("the limit {name} is to be set and to be reset, or reset twice");
                return Err(GridError::new(Reason::InvalidRequest, text).with("field", "reset"));
            }
        }
        self.confirm_lead().await?;
        let at_ms = self.world.clock.now_ms();
        let name = agent_type.clone();
        let command = Command::SetTypeLimits(SetTypeLimits { actor, reason, agent_type, limits, at_ms });
        self.propose(&command).await?;
        Ok(SetTypeLimitsResponse { limits: type_limits(&limits_of(&name, &self.state())) })
    }
}

#[tonic::async_trait]
impl Cluster for ClusterService {
    async fn get_status(
        &self,
        _request: Request<GetStatusRequest>,
    ) -> Result<Response<GetStatusResponse>, Status> {
        let known = self.known().await?;
        Ok(Response::new(self.status(&known)))
    }

    async fn list_nodes(
        &self,
        _request: Request<ListNodesRequest>,
    ) -> Result<Response<ListNodesResponse>, Status> {
        let known = self.known().await?;
        Ok(Response::new(ListNodesResponse { nodes: nodes(&known) }))
    }

    async fn list_regions(
        &self,
        _request: Request<ListRegionsRequest>,
    ) -> Result<Response<ListRegionsResponse>, Status> {
        let known = self.known().await?;
        Ok(Response::new(ListRegionsResponse { regions: regions(&known) }))
    }

    async fn list_types(
        &self,
        _request: Request<ListTypesRequest>,
    ) -> Result<Response<ListTypesResponse>, Status> {
        let known = self.known().await?;
        let types = known.state.types.values().map(|agent_type| describe(agent_type, &known.state));
        Ok(Response::new(ListTypesResponse { types: types.collect() }))
    }

    async fn list_audit(
        &self,
        request: Request<ListAuditRequest>,
    ) -> Result<Response<ListAuditResponse>, Status> {
        let known = self.known().await?;
        let limit = match request.into_inner().limit {
            0 => AUDIT_RECORDS_DEFAULT,
            limit => limit,
        };
        let records = known.state.audit.iter().rev().map(|record| admin::AuditRecord {
            index: record.index,
            at_ms: record.at_ms,
            actor: record.actor.clone(),
            reason: record.reason.clone(),
            action: record.action.clone(),
        });
        let records = records.take(usize::try_from(limit).unwrap_or(usize::MAX)).collect();
        Ok(Response::new(ListAuditResponse { records }))
    }

    async fn transfer_leader(
        &self,
        request: Request<TransferLeaderRequest>,
    ) -> Result<Response<TransferLeaderResponse>, Status> {
        let result: Result<(), GridError> = self.core.transfer_leader(request.into_inner()).await;
        result.map(|()| Response::new(TransferLeaderResponse {})).map_err(|error| of_grid_error(&error))
    }

    async fn set_type_limits(
        &self,
        request: Request<SetTypeLimitsRequest>,
    ) -> Result<Response<SetTypeLimitsResponse>, Status> {
        let result = self.core.set_type_limits(request.into_inner()).await;
        result.map(Response::new).map_err(|error| of_grid_error(&error))
    }
}
