//! The life of a server process: start, run until a signal or a failure, drain.

use super::{Configuration, Process, agents, health::Health};
use crate::failure::{ServerFailed, usage};
use afdg_catalog::{CatalogServer, HostError};
use afdg_extension::ExtensionServer;
use afdg_region_node::RegionNodeServer;
use afdg_runtime::{World, process};

pub(super) async fn serve(configuration: Configuration, process: Process) -> anyhow::Result<u8> {
    if let Err(why) = process::init_tracing(&process.log, process.json_logs) {
        return usage(why);
    }
    let world = World::real();
    match configuration {
        Configuration::Catalog(config) => {
            let server = CatalogServer::start(config, world.clone()).await.map_err(|error| match error {
                HostError::Config(error) => anyhow::Error::from(crate::failure::Usage(error.to_string())),
                other => failed(other),
            })?;
            let _health = match &process.health_listen {
                Some(address) => Some(Health::serve(address, &world).await?),
                None => None,
            };
            let end = until_end(server.failed()).await;
            drained(server.drain().await);
            end
        }
        Configuration::RegionNode(config) => {
            let server = RegionNodeServer::start(config, world, agents::examples()).await.map_err(failed)?;
            let end = until_end(server.failed()).await;
            server.drain().await;
            end
        }
        Configuration::Extension(config) => {
            let server = ExtensionServer::start(config, world).await.map_err(failed)?;
            let end = until_end(server.failed()).await;
            drained(server.drain().await);
            end
        }
    }
}

fn failed(error: impl std::fmt::Display) -> anyhow::Error {
    ServerFailed(error.to_string()).into()
}

/// Waits for a signal, or for the server's own end, which is a failure.
async fn until_end(failure: impl Future<Output = String>) -> anyhow::Result<u8> {
    tokio::select! {
        signal = process::termination() => {
            signal?;
            tracing::info!("stopping");
            Ok(process::EXIT_OK)
        }
        why = failure => Err(ServerFailed(why).into()),
    }
}

fn drained(in_time: bool) {
    if !in_time {
        tracing::warn!("not everything ended in time");
    }
}
