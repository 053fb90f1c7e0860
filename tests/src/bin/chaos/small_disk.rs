//! A small file system for one server's data, which can be filled up.

use crate::rights::{self, find};
use anyhow::Context;
use std::{
    fs::File,
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// The server's log has segments of 64 MiB and may keep some; the rest is for rows.
const SIZE_MIB: u64 = 640;
/// Rows come to be in every minute of a run, and stay: ids are kept for a day.
const GROWTH_MIB_A_MINUTE: u64 = 25;
const CHUNK_BYTES: usize = 64 * 1024;

pub struct SmallDisk {
    folder: PathBuf,
}

impl SmallDisk {
    /// Mounted in the run's own namespace, with which it goes.
    pub fn mount(folder: PathBuf, run: Duration) -> anyhow::Result<Self> {
        std::fs::create_dir_all(&folder)?;
        let mount = find("mount").context("there is no program 'mount'")?;
        let size = format!("size={}m", SIZE_MIB + GROWTH_MIB_A_MINUTE * (run.as_secs() / 60));
        rights::run(Command::new(mount).args(["-t", "tmpfs", "-o", &size, "none"]).arg(&folder))?;
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
