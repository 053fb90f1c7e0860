//! The first start of a catalog.
//!
//! The server with the lowest id forms the Raft group, with all servers as members; the others wait to
//! hear from it. It asks them first: one that knows a cluster shows that the group was formed long ago
//! and that it is this server that has lost its data. Then it waits as well, and is brought up to date.

use crate::{config::CatalogConfig, relay::table_of, shared_machine::SharedMachine};
use afdg_replication::Replica;
use afdg_runtime::{Tasks, World};

pub(crate) async fn initialize(
    replica: Replica<SharedMachine>,
    config: CatalogConfig,
    world: World,
    tasks: Tasks,
) {
    let is_lowest = config.servers.keys().next() == Some(&config.id);
    if !is_lowest || replica.is_initialized().await {
        return;
    }
    let watcher = format!("catalog {}", config.id);
    for (_, address) in config.servers.iter().filter(|(id, _)| **id != config.id) {
        let table = table_of(&world.net, &config.peer_token, address, &watcher).await;
        if let Some(table) = table.filter(|table| !table.cluster_id.is_empty()) {
            let cluster = table.cluster_id;
            tracing::warn!(cluster, address, "this server's data is gone; the others have the cluster's");
            return;
        }
    }
    match replica.initialize(config.servers.clone()).await {
        Ok(()) => tracing::info!(servers = config.servers.len(), "the catalog's group is formed"),
        Err(error) => tasks.fail(format!("the catalog's group can't be formed: {error}")),
    }
}
