//! Settings of a region node.

use crate::{
    CACHE_BYTES_DEFAULT, RegionNodeConfig,
    fail_points::{self, FailPoints},
};
use afdg_process::{
    ProcessFile, ProcessSettings, Settings, SettingsError, TimingFile, environment, peer_token,
};
use afdg_replication::CheckpointPolicy;
use afdg_types::limits::NODE_NAME_BYTES_MAX;
use serde::Deserialize;
use std::path::PathBuf;

/// The file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct File {
    name: Option<String>,
    listen: Option<String>,
    health_listen: Option<String>,
    advertise: Option<String>,
    zone: Option<String>,
    data: Option<PathBuf>,
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
struct CheckpointsFile {
    region_dirty_bytes: Option<u64>,
    wal_bytes: Option<u64>,
}

pub fn resolve(
    file: File,
    settings: &mut Settings<'_>,
) -> Result<(RegionNodeConfig, ProcessSettings), SettingsError> {
    let process = ProcessSettings::resolve(
        ProcessFile { log: file.log, log_format: file.log_format, health_listen: file.health_listen },
        settings,
    )?;
    let listen = Some("0.0.0.0:7300".to_owned());
    let config = RegionNodeConfig {
        name: settings.value("name", file.name, Some(environment::NAME), None)?,
        listen: settings.value("listen", file.listen, Some(environment::LISTEN), listen)?,
        health_listen: process.health_listen.clone(),
        advertise: settings.optional("advertise", file.advertise, Some(environment::ADVERTISE), None)?,
        zone: settings.value("zone", file.zone, Some(environment::ZONE), Some(String::new()))?,
        folder: settings.value("data", file.data, Some(environment::DATA), None)?,
        catalog: settings.value("catalog", file.catalog, Some(environment::CATALOG), None)?,
        peer_token: peer_token(file.peer_token, settings)?,
        cache_bytes: settings.value("cache_bytes", file.cache_bytes, None, Some(CACHE_BYTES_DEFAULT))?,
        timing: file.timing.resolve(settings)?,
        checkpoints: checkpoints(file.checkpoints, settings)?,
        substitutes: Default::default(),
        fail_points: fail_points(settings)?,
    };
    let name = &config.name;
    if !(1..=NODE_NAME_BYTES_MAX).contains(&name.len()) || name.chars().any(char::is_control) {
        let problem =
            format!("must have 1 to {NODE_NAME_BYTES_MAX} bytes and no control characters; got {name:?}");
        return settings.wrong("name", problem);
    }
    settings.check_address("listen", &config.listen)?;
    settings.check_addresses("catalog", &config.catalog)?;
    settings.check_folder("data", &config.folder)?;
    if config.advertise.is_none() && config.listen.starts_with("0.0.0.0") {
        return settings.wrong(
            "advertise",
            format!("is missing, and nobody reaches {}: give the host:port that others reach", config.listen),
        );
    }
    Ok((config, process))
}

fn checkpoints(
    file: CheckpointsFile,
    settings: &mut Settings<'_>,
) -> Result<CheckpointPolicy, SettingsError> {
    let default = CheckpointPolicy::default();
    let dirty = settings.value(
        "checkpoints.region_dirty_bytes",
        file.region_dirty_bytes,
        None,
        Some(default.group_dirty_bytes as u64),
    )?;
    let wal_bytes = settings.value("checkpoints.wal_bytes", file.wal_bytes, None, Some(default.wal_bytes))?;
    match usize::try_from(dirty) {
        Ok(group_dirty_bytes) => Ok(CheckpointPolicy { group_dirty_bytes, wal_bytes, ..default }),
        Err(_) => settings.wrong("checkpoints.region_dirty_bytes", "is more than this machine can address"),
    }
}

/// They stand in no file: nobody should start on them without having meant to.
fn fail_points(settings: &mut Settings<'_>) -> Result<FailPoints, SettingsError> {
    let variable = environment::FAIL_POINTS;
    let Some(text) = settings.variable(variable) else { return Ok(FailPoints::default()) };
    if !fail_points::BUILT_IN {
        let text =
            format!("{variable} is set, and this build has no fail points: take it out of the environment");
        return Err(SettingsError(text));
    }
    let points = text.parse().map_err(|error| SettingsError(format!("{variable}: {error}")))?;
    settings.note("fail_points", text, format!("environment {variable}"));
    Ok(points)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn resolved(text: &str, variables: &[(&str, &str)]) -> Result<RegionNodeConfig, SettingsError> {
        let environment = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        let mut settings = Settings::new(Path::new("node.toml"), &environment);
        resolve(toml::from_str(text).unwrap(), &mut settings).map(|(config, _)| config)
    }

    #[test]
    fn a_pods_environment_completes_the_file() {
        let file = "data = \"d\"\ncatalog = [\"c:1\"]\n";
        let pod =
            [("AFDG_NAME", "n0"), ("AFDG_ADVERTISE", "n0:7300"), ("AFDG_PEER_TOKEN", "t"), ("AFDG_ZONE", "")];
        let config = resolved(file, &pod).unwrap();
        assert_eq!((config.name.as_str(), config.zone.as_str()), ("n0", ""));
        assert_eq!(config.advertise.as_deref(), Some("n0:7300"));
        let error = resolved(file, &[("AFDG_NAME", "n0"), ("AFDG_PEER_TOKEN", "t")]).unwrap_err();
        assert!(error.to_string().contains("'advertise'"), "{error}");
    }

    #[test]
    fn fail_points_are_refused_by_a_build_without_them_and_where_they_are_unknown() {
        let file = "name = \"n\"\ndata = \"d\"\nlisten = \"h:1\"\ncatalog = [\"c:1\"]\npeer_token = \"t\"\n";
        let with = |points: &str| resolved(file, &[("AFDG_FAIL_POINTS", points)]);
        assert!(!with("").unwrap().fail_points.any());
        if !fail_points::BUILT_IN {
            let error = with("before-turn").unwrap_err().to_string();
            return assert!(error.contains("this build has no fail points"), "{error}");
        }
        assert!(with("before-turn").unwrap().fail_points.any());
        let error = with("before-tea").unwrap_err().to_string();
        assert!(error.starts_with("AFDG_FAIL_POINTS: 'before-tea' is no fail point; there are: "), "{error}");
    }

    #[test]
    fn an_impossible_timing_is_refused() {
        let file = "name = \"n\"\ndata = \"d\"\nlisten = \"h:1\"\ncatalog = [\"c:1\"]\npeer_token = \"t\"\n\
                    [timing]\nheartbeat_ms = 700\n";
        let error = resolved(file, &[]).unwrap_err().to_string();
        assert!(error.contains("heartbeat_ms (700) < election_min_ms (500)"), "{error}");
    }
}
