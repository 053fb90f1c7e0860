//! Which servers a grid has, and on which ports: chosen once, kept with its data, since the servers'
//! addresses are part of what they have replicated.

use crate::{LayoutError, PortClaims, Size, free_addresses};
use afdg_runtime::{Entropy, Net};
use serde::{Deserialize, Serialize};
use std::{
    io,
    path::{Path, PathBuf},
};

const FILE: &str = "dev.json";
const FORMAT: u32 = 1;

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
    /// The layout that `folder` has, or a new one, noted there; and its ports, so that no other grid takes
    /// them.
    pub async fn open(
        folder: &Path,
        size: Size,
        net: &dyn Net,
        entropy: &dyn Entropy,
    ) -> Result<(Self, PortClaims), LayoutError> {
        let file = folder.join(FILE);
        let failed = |error| LayoutError::Io { file: file.clone(), error };
        match std::fs::read(&file) {
            Ok(text) => {
                let layout = Self::read(&text, &file)?.fits(size, folder)?;
                let claims = PortClaims::of(layout.catalogs.iter().chain(&layout.nodes));
                Ok((layout, claims))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let (layout, claims) = Self::choose(size, net, entropy).await?;
                let text = serde_json::to_vec_pretty(&layout).map_err(|error| failed(error.into()))?;
                std::fs::create_dir_all(folder).map_err(failed)?;
                std::fs::write(&file, text).map_err(failed)?;
                Ok((layout, claims))
            }
            Err(error) => Err(failed(error)),
        }
    }

    fn read(text: &[u8], file: &Path) -> Result<Self, LayoutError> {
        let file = PathBuf::from(file);
        match serde_json::from_slice::<Self>(text) {
            Ok(layout) if layout.format == FORMAT => Ok(layout),
            Ok(layout) => Err(LayoutError::OtherFormat { file, found: layout.format, known: FORMAT }),
            Err(error) => Err(LayoutError::Malformed { file, why: error.to_string() }),
        }
    }

    fn fits(self, size: Size, folder: &Path) -> Result<Self, LayoutError> {
        let counts = [
            ("catalogs", size.catalogs, self.catalogs.len()),
            ("nodes", size.nodes, self.nodes.len()),
            ("regions", size.regions, usize::from(self.regions)),
        ];
        for (what, wanted, found) in counts {
            if let Some(wanted) = wanted.map(usize::from).filter(|wanted| *wanted != found) {
                return Err(LayoutError::OtherSize { folder: folder.to_owned(), what, found, wanted });
            }
        }
        Ok(self)
    }

    async fn choose(
        size: Size,
        net: &dyn Net,
        entropy: &dyn Entropy,
    ) -> Result<(Self, PortClaims), LayoutError> {
        let catalogs = usize::from(size.catalogs.unwrap_or(Size::CATALOGS));
        let nodes = usize::from(size.nodes.unwrap_or(Size::NODES));
        let (mut addresses, claims) = free_addresses(catalogs + nodes, net, entropy).await?;
        let nodes = addresses.split_off(catalogs);
        let regions = size.regions.unwrap_or(Size::REGIONS);
        Ok((Self { format: FORMAT, catalogs: addresses, nodes, regions }, claims))
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
        let open = |size| Layout::open(folder.path(), size, &*world.net, &*world.entropy);
        let size = Size { catalogs: Some(1), nodes: Some(2), regions: None };
        let (first, _) = open(size).await.unwrap();
        assert_eq!((first.catalogs.len(), first.nodes.len(), first.regions), (1, 2, 3));
        assert_eq!(open(Size::default()).await.unwrap().0, first);
        let error = open(Size { nodes: Some(3), ..size }).await.unwrap_err();
        assert!(
            matches!(error, LayoutError::OtherSize { what: "nodes", found: 2, wanted: 3, .. }),
            "{error}"
        );
        std::fs::write(folder.path().join(FILE), "{}").unwrap();
        assert!(matches!(open(size).await, Err(LayoutError::Malformed { .. })));
        let other = Layout { format: FORMAT + 1, ..first };
        std::fs::write(folder.path().join(FILE), serde_json::to_vec(&other).unwrap()).unwrap();
        assert!(matches!(open(size).await, Err(LayoutError::OtherFormat { found: 2, known: 1, .. })));
    }
}
