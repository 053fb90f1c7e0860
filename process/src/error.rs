//! How a server process ends other than well, and with which exit code.

use afdg_runtime::process::{EXIT_SERVER_FAILED, EXIT_USAGE};

/// A file, an environment variable or the command line is wrong; nothing was done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SettingsError(pub String);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProcessError {
    #[error("{0}")]
    Settings(SettingsError),
    /// The server could not start or go on.
    #[error("{0}")]
    Server(String),
}

impl ProcessError {
    /// Of a server's own error.
    pub fn server(error: impl std::fmt::Display) -> Self {
        Self::Server(error.to_string())
    }

    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Settings(_) => EXIT_USAGE,
            Self::Server(_) => EXIT_SERVER_FAILED,
        }
    }
}

impl From<SettingsError> for ProcessError {
    fn from(error: SettingsError) -> Self {
        Self::Settings(error)
    }
}

/// Shorthand for an `Err` of [`SettingsError`].
pub(crate) fn wrong<T>(what: impl Into<String>) -> Result<T, SettingsError> {
    Err(SettingsError(what.into()))
}
