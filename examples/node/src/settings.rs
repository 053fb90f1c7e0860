//! The node's settings: the same file and the same environment variables as `afdg server region-node`.

use afdg_proto::peer_auth::PeerToken;
use afdg_region_node::{CACHE_BYTES_DEFAULT, RegionNodeConfig};
use afdg_replication::{CheckpointPolicy, Timing};
use anyhow::{Context, Result, bail};
use serde::Deserialize;
use std::{collections::BTreeMap, path::PathBuf};

const USAGE: &str = "usage: afdg-example-node --config FILE";

#[derive(Debug)]
pub struct Settings {
    pub node: RegionNodeConfig,
    /// Filter of what is logged.
    pub log: String,
    pub json_logs: bool,
}

/// Reads the command line, the file that it names and the environment.
pub fn read() -> Result<Settings> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [flag, file] = arguments.as_slice() else { bail!(USAGE) };
    if flag != "--config" {
        bail!(USAGE);
    }
    let text = std::fs::read_to_string(file).with_context(|| format!("can't read {file}"))?;
    let variables = std::env::vars().collect();
    toml::from_str::<File>(&text)
        .map_err(Into::into)
        .and_then(|file| file.resolve(&variables))
        .context(file.clone())
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    name: Option<String>,
    listen: Option<String>,
    health_listen: Option<String>,
    advertise: Option<String>,
    zone: Option<String>,
    data: Option<String>,
    catalog: Option<Vec<String>>,
    peer_token: Option<String>,
    cache_bytes: Option<u64>,
    timing: TimingFile,
    checkpoints: CheckpointsFile,
    log: Option<String>,
    log_format: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct TimingFile {
    heartbeat_ms: Option<u64>,
    election_min_ms: Option<u64>,
    election_max_ms: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct CheckpointsFile {
    region_dirty_bytes: Option<usize>,
    wal_bytes: Option<u64>,
}

impl File {
    /// A variable that is set and not empty stands over the file.
    fn resolve(self, variables: &BTreeMap<String, String>) -> Result<Settings> {
        let variable = |name: &str| variables.get(name).filter(|text| !text.is_empty()).cloned();
        let text = |name: &str, in_file: Option<String>| variable(name).or(in_file);
        let must = |name: &str, key: &str, in_file: Option<String>| {
            text(name, in_file)
                .with_context(|| format!("'{key}' is missing: give it in the file, or set {name}"))
        };
        let listen = text("AFDG_LISTEN", self.listen).unwrap_or_else(|| "0.0.0.0:7300".to_owned());
        let advertise = text("AFDG_ADVERTISE", self.advertise);
        if advertise.is_none() && listen.starts_with("0.0.0.0") {
            bail!(
                "'advertise' is missing, and nobody reaches {listen}: give the host:port that others reach"
            );
        }
        let addresses = |text: String| text.split(',').map(|address| address.trim().to_owned()).collect();
        let json_logs = match text("AFDG_LOG_FORMAT", self.log_format).as_deref() {
            None | Some("text") => false,
            Some("json") => true,
            Some(_) => bail!("'log_format' has to be text or json"),
        };
        let node = RegionNodeConfig {
            name: must("AFDG_NAME", "name", self.name)?,
            folder: PathBuf::from(must("AFDG_DATA", "data", self.data)?),
            listen,
            health_listen: text("AFDG_HEALTH_LISTEN", self.health_listen),
            advertise,
            zone: text("AFDG_ZONE", self.zone).unwrap_or_default(),
            catalog: variable("AFDG_CATALOG")
                .map(addresses)
                .or(self.catalog)
                .context("'catalog' is missing: give it in the file, or set AFDG_CATALOG")?,
            peer_token: PeerToken::new(&must("AFDG_PEER_TOKEN", "peer_token", self.peer_token)?)?,
            cache_bytes: self.cache_bytes.unwrap_or(CACHE_BYTES_DEFAULT),
            timing: self.timing.resolve()?,
            checkpoints: self.checkpoints.resolve(),
        };
        let log = text("AFDG_LOG", self.log).unwrap_or_else(|| "info,openraft=warn".to_owned());
        Ok(Settings { node, log, json_logs })
    }
}

impl TimingFile {
    fn resolve(self) -> Result<Timing> {
        let default = Timing::default();
        let timing = Timing {
            heartbeat_ms: self.heartbeat_ms.unwrap_or(default.heartbeat_ms),
            election_min_ms: self.election_min_ms.unwrap_or(default.election_min_ms),
            election_max_ms: self.election_max_ms.unwrap_or(default.election_max_ms),
        };
        let Timing { heartbeat_ms, election_min_ms, election_max_ms } = timing;
        if heartbeat_ms == 0 || heartbeat_ms >= election_min_ms || election_min_ms >= election_max_ms {
            bail!(
                "'timing': 0 < heartbeat_ms < election_min_ms < election_max_ms has to hold; got {timing:?}"
            );
        }
        Ok(timing)
    }
}

impl CheckpointsFile {
    fn resolve(self) -> CheckpointPolicy {
        let default = CheckpointPolicy::default();
        CheckpointPolicy {
            group_dirty_bytes: self.region_dirty_bytes.unwrap_or(default.group_dirty_bytes),
            wal_bytes: self.wal_bytes.unwrap_or(default.wal_bytes),
            ..default
        }
    }
}
