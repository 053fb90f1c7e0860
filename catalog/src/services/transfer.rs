//! Moving the lead of a region, as an operator asks: recorded by the catalog, done by the region.

use super::Core;
use afdg_catalog_machine::{AdminAction, Command, RecordAction, Reply};
use afdg_proto::{
    pb::{admin, internal, internal::region_node_client::RegionNodeClient},
    peer_auth::ShowToken,
    status::to_call_error,
};
use afdg_runtime::channel_to;
use afdg_types::{CallError, GridError, NodeId, Reason, RegionId, Retry, limits::FRAME_BYTES_MAX};
use std::time::Duration;
use tokio::time::timeout;
use tonic::service::interceptor::InterceptedService;

/// Metadata of an action that was recorded and then failed.
const AUDIT_INDEX: &str = "audit_index";
const CONNECT_LIMIT: Duration = Duration::from_secs(1);
/// One node's answer. At most five are asked, and those that do not lead say so at once.
const NODE_LIMIT: Duration = Duration::from_secs(3);

impl Core {
    /// Records the action, then asks the region's replicas in turn, the one believed to lead first,
    /// until one that leads has taken it up.
    pub(super) async fn transfer_leader(
        &self,
        request: admin::TransferLeaderRequest,
    ) -> Result<(), GridError> {
        self.confirm_lead().await?;
        let (region, to) = (RegionId(request.region), NodeId(request.to_node));
        let command = Command::RecordAction(RecordAction {
            actor: request.actor,
            reason: request.reason,
            action: AdminAction::TransferLeader { region, to },
            at_ms: self.world.clock.now_ms(),
        });
        let recorded = self.propose(&command).await?;
        self.ask_replicas(region, to).await.map_err(|error| match recorded {
            // Tells the client that asking again would be another action.
            Reply::Recorded { index } => error.with(AUDIT_INDEX, index),
            _ => error,
        })
    }

    async fn ask_replicas(&self, region: RegionId, to: NodeId) -> Result<(), GridError> {
        let mut last =
            GridError::new(Reason::NoLeader, format!("region {region} has no leader at the moment"));
        for (node, address) in self.replicas_to_ask(region) {
            match self.ask_node(&address, region, to).await {
                Ok(()) => return Ok(()),
                Err(error) => match error.retry() {
                    Retry::Elsewhere | Retry::Same => {
                        tracing::debug!(%node, %region, %error, "a replica can't hand on the lead");
                        last = error;
                    }
                    // An unknown outcome is told to the operator, who can look who leads.
                    Retry::Never | Retry::Unknown => return Err(error),
                },
            }
        }
        Err(last)
    }

    fn replicas_to_ask(&self, region: RegionId) -> Vec<(NodeId, String)> {
        let state = self.state();
        let hint = self.hints.get().get(&region).map(|hint| hint.leader);
        let mut replicas = state.regions.get(&region).map(|r| r.replicas.clone()).unwrap_or_default();
        // Stable: the others keep their order, the preferred leader first.
        replicas.sort_by_key(|node| Some(*node) != hint);
        let address = |node: NodeId| Some((node, state.nodes.get(&node)?.address.clone()));
        replicas.into_iter().filter_map(address).collect()
    }

    async fn ask_node(&self, address: &str, region: RegionId, to: NodeId) -> Result<(), GridError> {
        let channel = channel_to(&self.world.net, address, CONNECT_LIMIT)
            .map_err(|error| GridError::new(Reason::Unreachable, error.to_string()))?;
        let channel = InterceptedService::new(channel, ShowToken(self.peer_token.clone()));
        let mut client = RegionNodeClient::new(channel).max_decoding_message_size(FRAME_BYTES_MAX);
        let request = internal::TransferLeaderRequest { region: region.0, to_node: to.0 };
        match timeout(NODE_LIMIT, client.transfer_leader(request)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(status)) if status.code() == tonic::Code::Unavailable && !has_details(&status) => {
                // The connection failed. A node that is down leads nothing, and one that is not has at
                // worst been asked twice for the same.
                Err(GridError::new(Reason::Unreachable, format!("{address}: {}", status.message())))
            }
            Ok(Err(status)) => Err(match to_call_error(&status) {
                CallError::Grid(error) => error,
                CallError::Agent(error) => GridError::new(Reason::Internal, error.message),
            }),
            Err(_) => Err(GridError::new(
                Reason::OutcomeUnknown,
                format!("{address} has not answered; `list regions` shows who leads"),
            )),
        }
    }
}

fn has_details(status: &tonic::Status) -> bool {
    !status.details().is_empty()
}
