//! The life of a server process: start, run until a signal or a failure, drain.

use super::{Configuration, agents, health::Health};
use afdg_catalog::{CatalogConfig, CatalogServer, HostError};
use afdg_extension::{ExtensionConfig, ExtensionServer};
use afdg_process::{ProcessError, ProcessSettings, SettingsError, until_end};
use afdg_runtime::World;

pub(super) async fn serve(
    configuration: Configuration,
    process: ProcessSettings,
) -> Result<(), ProcessError> {
    process.start_log()?;
    match configuration {
        Configuration::Catalog(config) => catalog(config, process.health_listen.as_deref()).await,
        Configuration::RegionNode(config) => {
            afdg_region_node::process::serve(config, agents::examples()).await
        }
        Configuration::Extension(config) => extension(config).await,
    }
}

async fn catalog(config: CatalogConfig, health_listen: Option<&str>) -> Result<(), ProcessError> {
    let world = World::real();
    let server = CatalogServer::start(config, world.clone()).await.map_err(|error| match error {
        HostError::Config(error) => SettingsError(error.to_string()).into(),
        other => ProcessError::server(other),
    })?;
    let _health = match health_listen {
        Some(address) => Some(Health::serve(address, &world).await?),
        None => None,
    };
    let end = until_end(server.failed()).await;
    drained(server.drain().await);
    end
}

async fn extension(config: ExtensionConfig) -> Result<(), ProcessError> {
    let server = ExtensionServer::start(config, World::real()).await.map_err(ProcessError::server)?;
    let end = until_end(server.failed()).await;
    drained(server.drain().await);
    end
}

fn drained(in_time: bool) {
    if !in_time {
        tracing::warn!("not everything ended in time");
    }
}
