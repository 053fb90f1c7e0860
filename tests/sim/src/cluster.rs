//! The hosts of a grid and what runs on each.

use crate::{
    events::Events,
    host::{Ended, Host, Main, Process, Program},
    net::Network,
    referee::Referee,
    witness::HostWitness,
};
use afdg_agent::NativeHost;
use afdg_catalog::{Bootstrap, CatalogConfig, CatalogServer};
use afdg_extension::{ExtensionConfig, ExtensionServer};
use afdg_proto::peer_auth::PeerToken;
use afdg_region_node::{RegionNodeConfig, RegionNodeServer};
use afdg_replication::{CheckpointPolicy, Timing};
use std::{collections::BTreeMap, sync::Arc};
use tokio::time::Instant;

pub const CATALOGS: usize = 3;
pub const NODES: usize = 3;
pub const EXTENSIONS: usize = 2;
const PORT: u16 = 7000;

/// What differs between seeds.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub regions: u16,
    /// A group's rows in memory that start a checkpoint.
    pub checkpoint_bytes: usize,
}

/// Makes the hosts; catalog servers first, then region nodes, then extensions.
pub fn hosts(
    network: &Network,
    events: &Events,
    referee: &Referee,
    origin: Instant,
    seed: u64,
    shape: Shape,
) -> Vec<Host> {
    // Hosts get their addresses in the order in which they are made.
    let address = |number: usize| format!("10.0.0.{}:{PORT}", number + 1);
    let catalogs: BTreeMap<u64, String> =
        (0..CATALOGS).map(|number| (number as u64 + 1, address(number))).collect();
    let mut hosts = Vec::new();
    let mut add = |name: String, program: Program| {
        let witness = Arc::new(HostWitness { host: name.clone(), referee: referee.clone() });
        let own_seed = seed.wrapping_add((hosts.len() as u64 + 1) << 32);
        hosts.push(Host::new(&name, network, events, origin, own_seed, witness, program));
    };
    for id in 1..=CATALOGS as u64 {
        add(format!("catalog-{id}"), catalog(id, catalogs.clone(), shape));
    }
    for number in 0..NODES {
        let listen = address(CATALOGS + number);
        let name = format!("node-{}", number + 1);
        add(name.clone(), region_node(name, listen, catalogs.values().cloned().collect(), shape));
    }
    for number in 0..EXTENSIONS {
        let listen = address(CATALOGS + NODES + number);
        let name = format!("extension-{}", number + 1);
        add(name.clone(), extension(name, listen, catalogs.values().cloned().collect()));
    }
    hosts
}

/// Where clients call.
pub fn endpoints() -> Vec<String> {
    (0..EXTENSIONS).map(|number| format!("10.0.0.{}:{PORT}", CATALOGS + NODES + number + 1)).collect()
}

fn token() -> PeerToken {
    PeerToken::new("simulated").expect("the token is well formed")
}

fn catalog(id: u64, servers: BTreeMap<u64, String>, shape: Shape) -> Program {
    Box::new(move |Process { world, substitutes, phase, stop }| -> Main {
        let config = CatalogConfig {
            id,
            folder: format!("/catalog-{id}").into(),
            listen: servers[&id].clone(),
            servers: servers.clone(),
            peer_token: token(),
            bootstrap: Bootstrap { regions: shape.regions, replicas: 3, nodes: NODES as u32 },
            lease_ms: CatalogConfig::LEASE_MS_DEFAULT,
            dead_after_ms: CatalogConfig::DEAD_AFTER_MS_DEFAULT,
            timing: Timing::default(),
            drain_ms_max: CatalogConfig::DRAIN_MS_MAX_DEFAULT,
            substitutes,
        };
        Box::pin(async move {
            match CatalogServer::start(config, world).await {
                Ok(running) => {
                    if let Some(ended) = Process::until_ended(&phase, &stop, running.failed()).await {
                        return ended;
                    }
                    running.drain().await;
                    Ended::Drained
                }
                Err(error) => Ended::NotStarted(error.to_string()),
            }
        })
    })
}

fn region_node(name: String, listen: String, catalog: Vec<String>, shape: Shape) -> Program {
    let agents = NativeHost::new()
        .with(afdg_example_counter::counter())
        .with(afdg_example_bank::account())
        .with(afdg_example_shop::customer())
        .with(afdg_tests::mail::mail_box())
        .with(afdg_tests::alarm::alarm());
    let agents = Arc::new(agents);
    Box::new(move |Process { world, substitutes, phase, stop }| -> Main {
        let config = RegionNodeConfig {
            folder: format!("/{name}").into(),
            name: name.clone(),
            listen: listen.clone(),
            health_listen: None,
            advertise: None,
            zone: name.clone(),
            catalog: catalog.clone(),
            peer_token: token(),
            cache_bytes: 1 << 20,
            timing: Timing::default(),
            checkpoints: CheckpointPolicy {
                group_dirty_bytes: shape.checkpoint_bytes,
                look_every_ms: 200,
                ..CheckpointPolicy::default()
            },
            substitutes,
            fail_points: Default::default(),
        };
        let agents = agents.clone();
        Box::pin(async move {
            match RegionNodeServer::start(config, world, agents).await {
                Ok(running) => {
                    if let Some(ended) = Process::until_ended(&phase, &stop, running.failed()).await {
                        return ended;
                    }
                    running.drain().await;
                    Ended::Drained
                }
                Err(error) => Ended::NotStarted(error.to_string()),
            }
        })
    })
}

fn extension(name: String, listen: String, catalog_addresses: Vec<String>) -> Program {
    Box::new(move |Process { world, phase, stop, .. }| -> Main {
        let config = ExtensionConfig {
            name: name.clone(),
            listen: listen.clone(),
            health_listen: None,
            catalog_addresses: catalog_addresses.clone(),
            peer_token: token(),
        };
        Box::pin(async move {
            match ExtensionServer::start(config, world).await {
                Ok(running) => {
                    if let Some(ended) = Process::until_ended(&phase, &stop, running.failed()).await {
                        return ended;
                    }
                    running.drain().await;
                    Ended::Drained
                }
                Err(error) => Ended::NotStarted(error.to_string()),
            }
        })
    })
}
