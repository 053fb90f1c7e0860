//! Where the grid's servers listen. Chosen once and kept with the data, since servers know each other by
//! their addresses.

use crate::DevGridOptions;
use afdg_runtime::World;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, io};

const FILE: &str = "grid.json";
/// Below the ports that the system gives to outgoing connections: a server that is started again finds
/// its port free.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Places {
    pub peer_token: String,
    pub catalogs: BTreeMap<u64, String>,
    pub nodes: BTreeMap<String, String>,
}

impl Places {
    /// Reads where the grid in the options' folder listens, or chooses free ports of loopback.
    pub async fn open(world: &World, options: &DevGridOptions) -> io::Result<Self> {
        world.disk.create_folder(&options.folder).await?;
        let file = options.folder.join(FILE);
        match world.disk.read(&file).await {
            Ok(bytes) => {
                let wrong = |why: String| {
                    io::Error::new(io::ErrorKind::InvalidData, format!("{}: {why}", file.display()))
                };
                let places: Places =
                    serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))?;
                let (catalogs, nodes) = (places.catalogs.len(), places.nodes.len());
                if (catalogs, nodes) != (usize::from(options.catalogs), usize::from(options.nodes)) {
                    return Err(wrong(format!(
                        "the grid has {catalogs} catalog servers and {nodes} region nodes; start it with the same numbers, or give another folder"
                    )));
                }
                Ok(places)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let places = Self::choose(world, options).await?;
                let bytes = serde_json::to_vec_pretty(&places).map_err(io::Error::other)?;
                world.disk.write(&file, Bytes::from(bytes)).await?;
                Ok(places)
            }
            Err(error) => Err(error),
        }
    }

    async fn choose(world: &World, options: &DevGridOptions) -> io::Result<Self> {
        // Bound until all are chosen, so that no port is chosen twice.
        let mut listeners = Vec::new();
        while listeners.len() < usize::from(options.catalogs + options.nodes) {
            let port = PORTS.start + (world.entropy.random_u64() % PORTS.len() as u64) as u16;
            match world.net.bind(&format!("127.0.0.1:{port}")).await {
                Ok(listener) => listeners.push(listener),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                Err(error) => return Err(error),
            }
        }
        let mut addresses = Vec::new();
        for listener in &listeners {
            addresses.push(listener.local_address()?.to_string());
        }
        let nodes = addresses.split_off(usize::from(options.catalogs));
        Ok(Self {
            peer_token: world.entropy.random_name(),
            catalogs: (1..).zip(addresses).collect(),
            nodes: (1..)
                .zip(nodes)
                .map(|(number, address): (u32, String)| (format!("node-{number}"), address))
                .collect(),
        })
    }
}
