//! Who this node is, kept beside its data: its incarnation, made with the folder, and the id that the
//! catalog gave it.

use afdg_catalog_client::Registered;
use afdg_runtime::{Disk, Entropy, seal, unseal};
use afdg_types::{ClusterId, NodeId};
use serde::{Deserialize, Serialize};
use std::{
    io,
    path::{Path, PathBuf},
};

const FILE: &str = "node.json";

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    incarnation: String,
    cluster: Option<ClusterId>,
    node: Option<NodeId>,
}

#[derive(Debug)]
pub struct NodeFile {
    path: PathBuf,
    content: Content,
}

impl NodeFile {
    /// Reads the file in `folder`, or makes it.
    pub async fn open(disk: &dyn Disk, entropy: &dyn Entropy, folder: &Path) -> io::Result<Self> {
        let path = folder.join(FILE);
        match disk.read(&path).await {
            Ok(bytes) => {
                let malformed = |error: &dyn std::fmt::Display| {
                    let why = format!("{} can't be understood: {error}", path.display());
                    io::Error::new(io::ErrorKind::InvalidData, why)
                };
                // One that was written before there were checksums has none.
                let (text, _) = unseal(&bytes).map_err(|error| malformed(&error))?;
                let content = serde_json::from_str(text).map_err(|error| malformed(&error))?;
                Ok(Self { path, content })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let content = Content { incarnation: entropy.random_name(), cluster: None, node: None };
                let file = Self { path, content };
                file.write(disk).await?;
                Ok(file)
            }
            Err(error) => Err(error),
        }
    }

    pub fn incarnation(&self) -> &str {
        &self.content.incarnation
    }

    pub fn known_as(&self) -> Option<Registered> {
        let (cluster, node) = self.content.cluster.clone().zip(self.content.node)?;
        Some(Registered { cluster, node })
    }

    pub async fn registered(&mut self, disk: &dyn Disk, registered: &Registered) -> io::Result<()> {
        if self.known_as().as_ref() == Some(registered) {
            return Ok(());
        }
        self.content.cluster = Some(registered.cluster.clone());
        self.content.node = Some(registered.node);
        self.write(disk).await
    }

    async fn write(&self, disk: &dyn Disk) -> io::Result<()> {
        let text = serde_json::to_string_pretty(&self.content).map_err(io::Error::other)?;
        disk.write(&self.path, seal(&text)).await
    }
}
