//! Settings of the process and not of the server in it.

use crate::{Settings, SettingsError, environment, error::wrong};
use afdg_runtime::process;

/// openraft tells every vote at INFO.
const LOG_DEFAULT: &str = "info,openraft=warn";

/// As a server's file has them.
#[derive(Debug, Default)]
pub struct ProcessFile {
    pub log: Option<String>,
    pub log_format: Option<String>,
    pub health_listen: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessSettings {
    /// Filter of what is logged.
    pub log: String,
    pub json_logs: bool,
    /// `host:port` for health checks in plain text; none means none.
    pub health_listen: Option<String>,
}

impl ProcessSettings {
    pub fn resolve(file: ProcessFile, settings: &mut Settings<'_>) -> Result<Self, SettingsError> {
        let log = settings.value("log", file.log, Some(environment::LOG), Some(LOG_DEFAULT.to_owned()))?;
        let format = (Some(environment::LOG_FORMAT), Some("text".to_owned()));
        let json_logs = match settings.value("log_format", file.log_format, format.0, format.1)?.as_str() {
            "text" => false,
            "json" => true,
            _ => return settings.wrong("log_format", "has to be text or json"),
        };
        let variable = Some(environment::HEALTH_LISTEN);
        let health_listen = settings.optional("health_listen", file.health_listen, variable, None)?;
        Ok(Self { log, json_logs, health_listen })
    }

    /// Logs to standard error from here on.
    pub fn start_log(&self) -> Result<(), SettingsError> {
        process::init_tracing(&self.log, self.json_logs).or_else(wrong)
    }
}
