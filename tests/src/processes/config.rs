//! The config files of a grid's servers.

use std::{collections::BTreeMap, fmt::Write, path::Path};

/// What the servers share, and what keeps others out.
const PEER_TOKEN: &str = "of-a-test";
/// openraft tells every vote at INFO.
const LOG: &str = "info,openraft=warn";

/// How many servers, and how they are set.
#[derive(Clone, Debug)]
pub struct Options {
    /// 1, 3 or 5.
    pub catalogs: usize,
    pub nodes: usize,
    pub extensions: usize,
    pub regions: u16,
    /// When a region's rows are written to its tree, if not as by default.
    pub region_dirty_bytes: Option<u64>,
}

impl Default for Options {
    fn default() -> Self {
        Self { catalogs: 3, nodes: 3, extensions: 2, regions: 6, region_dirty_bytes: None }
    }
}

impl Options {
    /// One server of each kind.
    pub fn smallest() -> Self {
        Self { catalogs: 1, nodes: 1, extensions: 1, regions: 1, region_dirty_bytes: None }
    }
}

/// One of the servers of a grid.
#[derive(Clone, Debug)]
pub struct Server {
    pub role: &'static str,
    /// From 1, within its role.
    pub number: u32,
    pub name: String,
}

impl Options {
    /// Catalog servers first, then region nodes, then extensions.
    pub fn servers(&self) -> Vec<Server> {
        let kinds = [
            ("catalog", "catalog", self.catalogs),
            ("region-node", "node", self.nodes),
            ("extension", "extension", self.extensions),
        ];
        let of_kind = |(role, kind, count): (&'static str, &str, usize)| -> Vec<Server> {
            let server = |number| Server { role, number, name: format!("{kind}-{number}") };
            (1..).take(count).map(server).collect()
        };
        kinds.into_iter().flat_map(of_kind).collect()
    }

    /// Writes the file of a server that is reached at `listen`.
    pub fn write(
        &self,
        folder: &Path,
        server: &Server,
        listen: &str,
        catalogs: &[String],
    ) -> anyhow::Result<()> {
        let Server { role, number, name } = server;
        let mut text = config_text(role, *number, listen, catalogs);
        match *role {
            "catalog" => {
                let Options { regions, nodes, .. } = self;
                let replicas = if *nodes >= 3 { 3 } else { 1 };
                writeln!(text, "[bootstrap]\nregions = {regions}\nreplicas = {replicas}\nnodes = {nodes}")?;
            }
            "region-node" => {
                if let Some(bytes) = self.region_dirty_bytes {
                    writeln!(text, "[checkpoints]\nregion_dirty_bytes = {bytes}")?;
                }
            }
            _ => {}
        }
        Ok(std::fs::write(folder.join(format!("{name}.toml")), text)?)
    }
}

/// The least that a server of `role` has to be told, as TOML whose last line is no table: more keys may
/// follow. Its data is `NAME/` beside the file.
pub fn config_text(role: &str, number: u32, listen: &str, catalogs: &[String]) -> String {
    let mut settings = BTreeMap::new();
    settings.insert("listen", quoted(listen));
    settings.insert("peer_token", quoted(PEER_TOKEN));
    settings.insert("log", quoted(LOG));
    match role {
        "catalog" => {
            let peers: Vec<_> = (1..)
                .zip(catalogs)
                .map(|(id, address): (u32, _)| format!("{id} = {}", quoted(address)))
                .collect();
            settings.insert("id", number.to_string());
            settings.insert("data", quoted(&format!("catalog-{number}")));
            settings.insert("peers", format!("{{ {} }}", peers.join(", ")));
        }
        "region-node" => {
            settings.insert("name", quoted(&format!("node-{number}")));
            settings.insert("data", quoted(&format!("node-{number}")));
            settings.insert("zone", quoted(&format!("zone-{number}")));
            settings.insert("catalog", list(catalogs));
        }
        _ => {
            settings.insert("name", quoted(&format!("extension-{number}")));
            settings.insert("catalog", list(catalogs));
        }
    }
    settings.iter().map(|(name, value)| format!("{name} = {value}\n")).collect()
}

fn quoted(text: &str) -> String {
    format!("\"{text}\"")
}

fn list(texts: &[String]) -> String {
    let quoted: Vec<_> = texts.iter().map(|text| quoted(text)).collect();
    format!("[{}]", quoted.join(", "))
}
