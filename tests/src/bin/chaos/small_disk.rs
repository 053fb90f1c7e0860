//! A small file system for one server's data, which can be filled up.

use crate::rights::{find, run};
use anyhow::Context;
use std::{
    fs::File,
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
    process::Command,
};

/// The server's log has segments of 64 MiB and may keep some; the rest is for rows.
const SIZE: &str = "size=640m";
const CHUNK_BYTES: usize = 64 * 1024;

pub struct SmallDisk {
    folder: PathBuf,
}

impl SmallDisk {
    /// Mounted in the run's own namespace, with which it goes.
    pub fn mount(folder: PathBuf) -> anyhow::Result<Self> {
        std::fs::create_dir_all(&folder)?;
        let mount = find("mount").context("there is no program 'mount'")?;
        run(Command::new(mount).args(["-t", "tmpfs", "-o", SIZE, "none"]).arg(&folder))?;
        Ok(Self { folder })
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Takes all the space that is left.
    pub fn fill(&self) -> anyhow::Result<()> {
        let mut balloon = File::create(self.balloon())?;
        // The last bytes too: smaller and smaller pieces.
        let mut size = CHUNK_BYTES;
        let chunk = vec![0; size];
        while size > 0 {
            match balloon.write_all(&chunk[..size]) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => size /= 2,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    pub fn free(&self) -> anyhow::Result<()> {
        Ok(std::fs::remove_file(self.balloon())?)
    }

    fn balloon(&self) -> PathBuf {
        self.folder.join("balloon")
    }
}
