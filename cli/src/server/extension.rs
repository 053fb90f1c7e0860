//! Settings of an extension.

use afdg_extension::ExtensionConfig;
use afdg_process::{ProcessFile, ProcessSettings, Settings, SettingsError, environment, peer_token};
use serde::Deserialize;

/// The file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct File {
    name: Option<String>,
    listen: Option<String>,
    health_listen: Option<String>,
    catalog: Option<Vec<String>>,
    peer_token: Option<String>,
    log: Option<String>,
    log_format: Option<String>,
}

pub fn resolve(
    file: File,
    settings: &mut Settings<'_>,
) -> Result<(ExtensionConfig, ProcessSettings), SettingsError> {
    let process = ProcessSettings::resolve(
        ProcessFile { log: file.log, log_format: file.log_format, health_listen: file.health_listen },
        settings,
    )?;
    let config = ExtensionConfig {
        name: settings.value("name", file.name, Some(environment::NAME), Some("extension".to_owned()))?,
        listen: settings.value(
            "listen",
            file.listen,
            Some(environment::LISTEN),
            Some("0.0.0.0:7400".to_owned()),
        )?,
        health_listen: process.health_listen.clone(),
        catalog_addresses: settings.value("catalog", file.catalog, Some(environment::CATALOG), None)?,
        peer_token: peer_token(file.peer_token, settings)?,
    };
    settings.check_address("listen", &config.listen)?;
    settings.check_addresses("catalog", &config.catalog_addresses)?;
    Ok((config, process))
}
