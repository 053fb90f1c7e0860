//! The ready file: says to other programs that calls succeed, and where.

use crate::failure::usage;
use afdg_dev_grid::DevGrid;
use serde::{Deserialize, Serialize};
use std::{io, path::Path};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// Where clients call: `http://127.0.0.1:7400`.
    pub endpoint: String,
    /// The process, for signals and measurements.
    pub pid: u32,
    pub catalogs: Vec<Server>,
    pub nodes: Vec<Server>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    pub name: String,
    /// `host:port`.
    pub address: String,
}

impl Ready {
    pub fn of(grid: &DevGrid) -> Self {
        let named = |name: &str, addresses: &[String]| {
            let servers = (1..).zip(addresses).map(|(number, address): (u32, _)| Server {
                name: format!("{name}-{number}"),
                address: address.clone(),
            });
            servers.collect()
        };
        let layout = grid.layout();
        Self {
            endpoint: grid.endpoint(),
            pid: std::process::id(),
            catalogs: named("catalog", &layout.catalogs),
            nodes: named("node", &layout.nodes),
        }
    }

    /// Removes what an earlier grid has left. An error if the file can't be written later either.
    pub fn remove(file: &Path) -> anyhow::Result<()> {
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
        if folder.is_some_and(|folder| !folder.is_dir()) {
            return usage(format!("--ready-file {}: there is no such folder", file.display()));
        }
        match std::fs::remove_file(file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                usage(format!("--ready-file {} can't be replaced: {error}", file.display()))
            }
            _ => Ok(()),
        }
    }

    /// Who sees the file sees all of it.
    pub fn write(&self, file: &Path) -> io::Result<()> {
        let mut name = file.file_name().unwrap_or_default().to_owned();
        name.push(".new");
        let new = file.with_file_name(name);
        std::fs::write(&new, serde_json::to_vec_pretty(self)?)?;
        std::fs::rename(new, file)
    }
}
