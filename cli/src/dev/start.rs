//! A development grid of the example agents, and how its failures end a command.

use crate::{failure::Usage, server::agents};
use afdg_dev_grid::{DevGrid, DevGridError, DevGridOptions, LayoutError, Probe};
use afdg_process::ProcessError;

/// A counter that does not exist yet reads as 0.
const PROBE: Probe = Probe { agent_type: "counter.v1.Counter", method: "Get" };

/// A grid of the default size, on a port that is free, whose data is removed at the end.
pub fn options() -> DevGridOptions {
    DevGridOptions::new(agents::examples(), PROBE)
}

/// Returns once calls succeed in every region.
pub async fn start(options: DevGridOptions) -> anyhow::Result<DevGrid> {
    DevGrid::start(options).await.map_err(failure)
}

/// With the exit code and in the words of the command line.
pub fn failure(error: DevGridError) -> anyhow::Error {
    match error {
        DevGridError::Layout(LayoutError::OtherSize { folder, what, found, .. }) => {
            let folder = folder.display();
            let advice = format!("leave --{what} out, or use another folder");
            Usage(format!("the grid in {folder} has {found} {what}: {advice}")).into()
        }
        DevGridError::Layout(error @ (LayoutError::OtherFormat { .. } | LayoutError::Malformed { .. })) => {
            Usage(error.to_string()).into()
        }
        error @ (DevGridError::InUse(_) | DevGridError::Folder(_)) => Usage(error.to_string()).into(),
        error @ DevGridError::Server { .. } => ProcessError::server(error).into(),
        error => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::exit_code;
    use afdg_runtime::process::{EXIT_FAILED, EXIT_SERVER_FAILED, EXIT_USAGE};

    #[test]
    fn a_folder_of_another_grid_is_a_wrong_command_line() {
        let other = LayoutError::OtherSize { folder: "grid".into(), what: "nodes", found: 2, wanted: 3 };
        let error = failure(other.into());
        assert_eq!(
            (exit_code(&error), error.to_string().as_str()),
            (EXIT_USAGE, "the grid in grid has 2 nodes: leave --nodes out, or use another folder")
        );
        let malformed = LayoutError::Malformed { file: "dev.json".into(), why: "no number".to_owned() };
        assert_eq!(exit_code(&failure(malformed.into())), EXIT_USAGE);
        let server = DevGridError::Server { server: "extension 1".to_owned(), why: "no port".to_owned() };
        assert_eq!(exit_code(&failure(server)), EXIT_SERVER_FAILED);
        let unknown = DevGridError::Unknown("node".to_owned());
        assert_eq!(exit_code(&failure(unknown)), EXIT_FAILED);
    }
}
