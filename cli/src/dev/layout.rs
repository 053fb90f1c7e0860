//! Which servers a development grid has, and on which ports: chosen once, kept with its data, since the
//! servers' addresses are part of what they have replicated.

use crate::{failure::usage, random::SplitMix};
use afdg_runtime::{Entropy, Listener, Net};
use anyhow::Context;
use serde::{Deserialize, Serialize};
use std::{io, path::Path};

const FILE: &str = "dev.json";
const FORMAT: u32 = 1;
/// Below the ports that the system gives to outgoing connections (from 32768 on): one of those could take
/// a server's port while it is stopped.
const PORTS: std::ops::Range<u64> = 20_000..32_000;
/// Ports that are tried before giving up.
const TRIES_MAX: usize = 200;

/// How many servers; none means as the data folder has it, or the default.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted {
    pub catalogs: Option<u16>,
    pub nodes: Option<u16>,
    pub regions: Option<u16>,
}

impl Wanted {
    pub const CATALOGS: u16 = 3;
    pub const NODES: u16 = 3;
    pub const REGIONS: u16 = 6;
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    format: u32,
    /// `host:port` of catalog server 1, 2, ...
    pub catalogs: Vec<String>,
    /// `host:port` of region node 1, 2, ...
    pub nodes: Vec<String>,
    pub regions: u16,
}

impl Layout {
    /// The layout that `folder` has, or a new one, noted there.
    pub async fn open(
        folder: &Path,
        wanted: Wanted,
        net: &dyn Net,
        entropy: &dyn Entropy,
    ) -> anyhow::Result<Self> {
        let file = folder.join(FILE);
        match std::fs::read(&file) {
            Ok(text) => Self::read(&text, folder)?.fits(wanted, folder),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let layout = Self::choose(wanted, net, entropy).await?;
                std::fs::create_dir_all(folder)?;
                std::fs::write(&file, serde_json::to_vec_pretty(&layout)?)?;
                Ok(layout)
            }
            Err(error) => Err(error).with_context(|| format!("{} can't be read", file.display())),
        }
    }

    fn read(text: &[u8], folder: &Path) -> anyhow::Result<Self> {
        match serde_json::from_slice::<Self>(text) {
            Ok(layout) if layout.format == FORMAT => Ok(layout),
            Ok(layout) => usage(format!(
                "{}/{FILE} has format {}, this program knows {FORMAT}: use another folder",
                folder.display(),
                layout.format
            )),
            Err(error) => usage(format!("{}/{FILE} can't be understood: {error}", folder.display())),
        }
    }

    /// A grid's size does not change by starting it.
    fn fits(self, wanted: Wanted, folder: &Path) -> anyhow::Result<Self> {
        let counts = [
            ("catalogs", wanted.catalogs, self.catalogs.len()),
            ("nodes", wanted.nodes, self.nodes.len()),
            ("regions", wanted.regions, usize::from(self.regions)),
        ];
        for (name, wanted, found) in counts {
            if wanted.is_some_and(|wanted| usize::from(wanted) != found) {
                return usage(format!(
                    "the grid in {} has {found} {name}: leave --{name} out, or use another folder",
                    folder.display()
                ));
            }
        }
        Ok(self)
    }

    async fn choose(wanted: Wanted, net: &dyn Net, entropy: &dyn Entropy) -> anyhow::Result<Self> {
        let catalogs = wanted.catalogs.unwrap_or(Wanted::CATALOGS);
        let nodes = wanted.nodes.unwrap_or(Wanted::NODES);
        let mut random = SplitMix::new(entropy.random_u64());
        // Held until all are chosen, so that no two are the same.
        let mut held: Vec<Box<dyn Listener>> = Vec::new();
        let mut addresses = Vec::new();
        for _ in 0..TRIES_MAX {
            if addresses.len() == usize::from(catalogs + nodes) {
                break;
            }
            let port = PORTS.start + random.below(PORTS.end - PORTS.start);
            let address = format!("127.0.0.1:{port}");
            if let Ok(listener) = net.bind(&address).await {
                held.push(listener);
                addresses.push(address);
            }
        }
        if addresses.len() < usize::from(catalogs + nodes) {
            anyhow::bail!("no free ports were found from {} to {}", PORTS.start, PORTS.end);
        }
        let nodes = addresses.split_off(usize::from(catalogs));
        let regions = wanted.regions.unwrap_or(Wanted::REGIONS);
        Ok(Self { format: FORMAT, catalogs: addresses, nodes, regions })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use afdg_runtime::World;

    #[tokio::test]
    async fn a_folder_keeps_its_layout() {
        let folder = tempfile::tempdir().unwrap();
        let world = World::real();
        let open = |wanted| Layout::open(folder.path(), wanted, &*world.net, &*world.entropy);
        let wanted = Wanted { catalogs: Some(1), nodes: Some(2), regions: None };
        let first = open(wanted).await.unwrap();
        assert_eq!((first.catalogs.len(), first.nodes.len(), first.regions), (1, 2, 6));
        assert_eq!(open(Wanted::default()).await.unwrap(), first);
        let error = open(Wanted { nodes: Some(3), ..wanted }).await.unwrap_err().to_string();
        assert!(error.contains("has 2 nodes: leave --nodes out"), "{error}");
        std::fs::write(folder.path().join(FILE), "{}").unwrap();
        assert!(open(wanted).await.unwrap_err().to_string().contains("can't be understood"));
    }
}
