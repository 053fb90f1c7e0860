//! When a group of replicas looks for a new leader.

use crate::{Settings, SettingsError};
use afdg_replication::Timing;
use serde::Deserialize;

/// As a server's file has it.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TimingFile {
    heartbeat_ms: Option<u64>,
    election_min_ms: Option<u64>,
    election_max_ms: Option<u64>,
}

impl TimingFile {
    pub fn resolve(self, settings: &mut Settings<'_>) -> Result<Timing, SettingsError> {
        let default = Timing::default();
        let mut number = |name, in_file, default| settings.value(name, in_file, None, Some(default));
        let timing = Timing {
            heartbeat_ms: number("timing.heartbeat_ms", self.heartbeat_ms, default.heartbeat_ms)?,
            election_min_ms: number("timing.election_min_ms", self.election_min_ms, default.election_min_ms)?,
            election_max_ms: number("timing.election_max_ms", self.election_max_ms, default.election_max_ms)?,
        };
        let Timing { heartbeat_ms, election_min_ms, election_max_ms } = timing;
        if heartbeat_ms == 0 || heartbeat_ms >= election_min_ms || election_min_ms >= election_max_ms {
            return settings.wrong(
                "timing.heartbeat_ms",
                format!(
                    "does not fit: 0 < heartbeat_ms ({heartbeat_ms}) < election_min_ms ({election_min_ms}) \
                     < election_max_ms ({election_max_ms}) has to hold"
                ),
            );
        }
        Ok(timing)
    }
}
