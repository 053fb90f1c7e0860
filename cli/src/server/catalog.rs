//! Settings of a catalog server.

use afdg_catalog::{Bootstrap, CatalogConfig};
use afdg_process::{
    ProcessFile, ProcessSettings, Settings, SettingsError, TimingFile, environment, peer_token,
};
use afdg_replication::Timing;
use serde::Deserialize;
use std::{collections::BTreeMap, path::PathBuf};

/// The file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct File {
    id: Option<u64>,
    listen: Option<String>,
    health_listen: Option<String>,
    data: Option<PathBuf>,
    peers: Option<BTreeMap<String, String>>,
    peer_token: Option<String>,
    lease_ms: Option<u64>,
    dead_after_ms: Option<u64>,
    drain_ms_max: Option<u64>,
    bootstrap: BootstrapFile,
    timing: TimingFile,
    log: Option<String>,
    log_format: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct BootstrapFile {
    regions: Option<u16>,
    replicas: Option<u8>,
    nodes: Option<u32>,
}

const BOOTSTRAP_DEFAULT: Bootstrap = Bootstrap { regions: 16, replicas: 3, nodes: 3 };

pub fn resolve(
    file: File,
    settings: &mut Settings<'_>,
) -> Result<(CatalogConfig, ProcessSettings), SettingsError> {
    let process = ProcessSettings::resolve(
        ProcessFile { log: file.log, log_format: file.log_format, health_listen: file.health_listen },
        settings,
    )?;
    let id = id(file.id, settings)?;
    let listen =
        settings.value("listen", file.listen, Some(environment::LISTEN), Some("0.0.0.0:7100".to_owned()))?;
    let folder = settings.value("data", file.data, Some(environment::DATA), None)?;
    let servers = servers(file.peers, settings)?;
    let peer_token = peer_token(file.peer_token, settings)?;
    let replicas = settings.value(
        "bootstrap.replicas",
        file.bootstrap.replicas,
        None,
        Some(BOOTSTRAP_DEFAULT.replicas),
    )?;
    let bootstrap = Bootstrap {
        regions: settings.value(
            "bootstrap.regions",
            file.bootstrap.regions,
            None,
            Some(BOOTSTRAP_DEFAULT.regions),
        )?,
        replicas,
        nodes: settings.value(
            "bootstrap.nodes",
            file.bootstrap.nodes,
            None,
            Some(BOOTSTRAP_DEFAULT.nodes.max(replicas.into())),
        )?,
    };
    let mut number = |name, in_file, default| settings.value(name, in_file, None, Some(default));
    let lease_ms = number("lease_ms", file.lease_ms, CatalogConfig::LEASE_MS_DEFAULT)?;
    let dead_after_ms = number("dead_after_ms", file.dead_after_ms, CatalogConfig::DEAD_AFTER_MS_DEFAULT)?;
    let drain_ms_max = number("drain_ms_max", file.drain_ms_max, CatalogConfig::DRAIN_MS_MAX_DEFAULT)?;
    let timing: Timing = file.timing.resolve(settings)?;
    let config = CatalogConfig {
        id,
        folder,
        listen,
        servers,
        peer_token,
        bootstrap,
        lease_ms,
        dead_after_ms,
        timing,
        drain_ms_max,
        substitutes: Default::default(),
    };
    settings.check_address("listen", &config.listen)?;
    settings.check_folder("data", &config.folder)?;
    if let Err(error) = config.check() {
        return settings.wrong(error.field, error.problem);
    }
    Ok((config, process))
}

/// In a StatefulSet all pods read one file, and their numbers tell them apart.
fn id(in_file: Option<u64>, settings: &mut Settings<'_>) -> Result<u64, SettingsError> {
    let pod = settings.variable(environment::POD_INDEX);
    if let (None, Some(pod)) = (settings.variable(environment::CATALOG_ID), pod) {
        let Some(id) = pod.parse::<u64>().ok().and_then(|index| index.checked_add(1)) else {
            let pod = pod.escape_debug();
            return Err(SettingsError(format!("{}='{pod}' is no number", environment::POD_INDEX)));
        };
        settings.note("id", id.to_string(), format!("environment {} + 1", environment::POD_INDEX));
        return Ok(id);
    }
    settings.value("id", in_file, Some(environment::CATALOG_ID), None)
}

fn servers(
    in_file: Option<BTreeMap<String, String>>,
    settings: &mut Settings<'_>,
) -> Result<BTreeMap<u64, String>, SettingsError> {
    let mut servers = BTreeMap::new();
    for (id, address) in in_file.iter().flatten() {
        match id.parse::<u64>() {
            Ok(number) => servers.insert(number, address.clone()),
            Err(_) => return settings.wrong("peers", format!("has the id '{id}', which is no number")),
        };
    }
    settings.value("peers", in_file.map(|_| servers), None, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    const FILE: &str = "listen = \"0.0.0.0:7100\"\ndata = \"d\"\n[peers]\n1 = \"a:1\"\n2 = \"b:1\"\n3 = \"c:1\"\n\
                        [bootstrap]\nregions = 6\n[timing]\nheartbeat_ms = 100\n";

    fn resolved(text: &str, variables: &[(&str, &str)]) -> Result<CatalogConfig, SettingsError> {
        let environment = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        let mut settings = Settings::new(Path::new("catalog.toml"), &environment);
        resolve(toml::from_str(text).unwrap(), &mut settings).map(|(config, _)| config)
    }

    #[test]
    fn a_pods_number_makes_its_id() {
        let config = resolved(FILE, &[("AFDG_POD_INDEX", "1"), ("AFDG_PEER_TOKEN", "t")]).unwrap();
        assert_eq!((config.id, config.servers[&3].as_str()), (2, "c:1"));
        assert_eq!((config.bootstrap.regions, config.bootstrap.replicas), (6, 3));
        assert_eq!(config.timing, Timing { heartbeat_ms: 100, ..Timing::default() });
        let variables = [("AFDG_POD_INDEX", "1"), ("AFDG_CATALOG_ID", "3"), ("AFDG_PEER_TOKEN", "t")];
        assert_eq!(resolved(FILE, &variables).unwrap().id, 3);
    }

    #[test]
    fn what_is_missing_or_wrong_is_refused() {
        let error = |text: &str, variables| resolved(text, variables).unwrap_err().to_string();
        assert!(error(FILE, &[("AFDG_PEER_TOKEN", "t")]).contains("AFDG_CATALOG_ID"));
        assert!(error(FILE, &[("AFDG_POD_INDEX", "x")]).contains("AFDG_POD_INDEX='x'"));
        let pod = [("AFDG_POD_INDEX", "0")];
        assert!(error(FILE, &pod).contains("AFDG_PEER_TOKEN"));
        assert!(error("data = \"d\"", &pod).contains("'peers' is missing"));
        assert!(error("data = \"d\"\n[peers]\nx = \"a:1\"", &pod).contains("the id 'x'"));
        assert!(
            error(FILE, &[("AFDG_POD_INDEX", "0"), ("AFDG_PEER_TOKEN", "a b")]).contains("visible ASCII")
        );
    }
}
