//! What grid to start.

use crate::readiness::Probe;
use afdg_agent::host::AgentHost;
use afdg_replication::{CheckpointPolicy, Timing};
use std::{path::PathBuf, sync::Arc};

#[derive(Clone)]
pub struct DevGridOptions {
    /// Where clients call; port 0 picks one.
    pub listen: String,
    pub size: Size,
    /// A grid that was here before comes up again on its data. None: a folder that is removed at the end.
    pub data: Option<PathBuf>,
    pub timing: Timing,
    pub checkpoints: CheckpointPolicy,
    /// What the region nodes host.
    pub agents: Arc<dyn AgentHost>,
    /// Asked of each region before the grid counts as started.
    pub probe: Probe,
}

impl DevGridOptions {
    pub fn new(agents: Arc<dyn AgentHost>, probe: Probe) -> Self {
        Self {
            listen: "127.0.0.1:0".to_owned(),
            size: Size::default(),
            data: None,
            timing: Timing::default(),
            checkpoints: CheckpointPolicy::default(),
            agents,
            probe,
        }
    }
}

/// How many servers; none means as the data folder has it, or the default.
#[derive(Clone, Copy, Debug, Default)]
pub struct Size {
    /// 1, 3 or 5.
    pub catalogs: Option<u16>,
    pub nodes: Option<u16>,
    pub regions: Option<u16>,
}

impl Size {
    pub const CATALOGS: u16 = 3;
    pub const NODES: u16 = 3;
    pub const REGIONS: u16 = 3;
}
