//! What a turn needs around it.

use super::{
    calls::{Caller, Calls},
    overlay::Overlay,
    view::{AgentRows, View},
};
use crate::{cache::RowCache, fail_points::FailPoints};
use afdg_catalog_client::Routes;
use afdg_proto::peer_auth::PeerToken;
use afdg_region_client::RegionClients;
use afdg_replication::{
    RowStore,
    row_store::{CheckpointStore, MemoryStore},
};
use afdg_router::Router;
use afdg_runtime::{Tasks, World};
use afdg_types::{AgentRef, MessageId, RegionId};
use std::sync::Arc;

/// A router that knows no route.
pub fn router() -> Arc<Router> {
    let world = World::real();
    let clients = RegionClients::new(Arc::clone(&world.net), PeerToken::new("secret").unwrap(), Tasks::new());
    let (_, routes) = tokio::sync::watch::channel(Arc::new(Routes::default()));
    Arc::new(Router::new(routes, clients, &world))
}

pub fn agent(key: &str) -> AgentRef {
    AgentRef::new("t.T", key).unwrap()
}

/// Rows of alice's region, of which there are none yet.
pub fn rows_of_alice() -> AgentRows {
    let rows = Arc::new(RowStore::open(MemoryStore::default().tree(1).unwrap()).unwrap());
    AgentRows { region: RegionId(1), agent: agent("alice"), rows, cache: Arc::new(RowCache::new(1 << 20)) }
}

pub fn calls_of(agent: &AgentRef) -> Calls {
    let id = MessageId::from_router(1, 1);
    let caller = Caller {
        agent: agent.clone(),
        message_id: id,
        parent: id,
        chain: Vec::new(),
        reentries: Vec::new(),
        runs_again: false,
        is_inner: false,
        fail_points: FailPoints::default(),
    };
    Calls::new(caller, router(), Arc::default(), None)
}

pub fn view() -> Arc<View> {
    let rows = rows_of_alice();
    let calls = calls_of(&rows.agent);
    Arc::new(View::of_turn(rows, Overlay::default(), calls))
}
