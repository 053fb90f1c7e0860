//! How a command ends other than well, and with which exit code.

use crate::{arguments::Format, client::CallFailure};
use afdg_process::{ProcessError, SettingsError};
use afdg_runtime::process;
use serde_json::json;
use std::{fmt, io::Write};

/// The command line, a file or a config value is wrong; nothing was done. Exit code 2.
#[derive(Debug)]
pub struct Usage(pub String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// Shorthand for an `Err` of [`Usage`].
pub fn usage<T>(what: impl Into<String>) -> anyhow::Result<T> {
    Err(Usage(what.into()).into())
}

/// The exit code that belongs to `error`.
pub fn exit_code(error: &anyhow::Error) -> u8 {
    if error.chain().any(|cause| cause.is::<Usage>() || cause.is::<SettingsError>()) {
        return process::EXIT_USAGE;
    }
    if error.chain().any(|cause| cause.downcast_ref().is_some_and(CallFailure::is_malformed)) {
        return process::EXIT_USAGE;
    }
    let mut of_processes = error.chain().filter_map(|cause| cause.downcast_ref::<ProcessError>());
    of_processes.next().map_or(process::EXIT_FAILED, ProcessError::exit_code)
}

/// Writes the error of a command to standard error, as a command prints in this format.
pub fn tell_error(error: &anyhow::Error, format: Format) {
    match format {
        Format::Table => tell(format_args!("error: {error:#}")),
        Format::Json => {
            let failure = error.chain().find_map(|cause| cause.downcast_ref::<CallFailure>());
            tell(failure.map_or_else(|| json!({ "message": format!("{error:#}") }), CallFailure::to_json));
        }
    }
}

/// Writes to standard error. That it is closed harms nobody, so a failed write is let go.
pub fn tell(text: impl fmt::Display) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use afdg_types::{AgentError, GridError, Reason};
    use anyhow::Context;

    #[test]
    fn the_exit_code_follows_the_cause_below_any_context() {
        let wrong = usage::<()>("bad flag").context("while reading x").unwrap_err();
        assert_eq!(exit_code(&wrong), process::EXIT_USAGE);
        let settings = SettingsError("no file".into());
        for wrong in [settings.clone().into(), anyhow::Error::from(ProcessError::from(settings))] {
            assert_eq!(exit_code(&wrong.context("while starting")), process::EXIT_USAGE);
        }
        let server: anyhow::Error = ProcessError::server("no disk").into();
        assert_eq!(exit_code(&server), process::EXIT_SERVER_FAILED);
        assert_eq!(exit_code(&anyhow::anyhow!("refused")), process::EXIT_FAILED);
        let by_grid = |reason| CallFailure::of_call_error(GridError::new(reason, "no").into());
        let wrong = anyhow::Error::from(by_grid(Reason::InvalidRequest)).context("the dead letter");
        assert_eq!(exit_code(&wrong), process::EXIT_USAGE);
        assert_eq!(exit_code(&by_grid(Reason::Overloaded).into()), process::EXIT_FAILED);
        let by_agent = AgentError::invalid("REQUEST_MALFORMED", "the agent's own word");
        let refused = CallFailure::of_call_error(by_agent.into());
        assert_eq!(exit_code(&refused.into()), process::EXIT_FAILED);
    }
}
