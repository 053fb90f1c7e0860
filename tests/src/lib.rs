//! What tests of whole grids share: a grid in one process, a grid of real processes, plain gRPC clients,
//! and a checker of the histories that these record.

pub mod afdg;
pub mod alarm;
pub mod client;
pub mod cluster;
pub mod counters;
pub mod decoders;
pub mod linearizability;
pub mod load;
pub mod mail;
pub mod persistent;
pub mod preload;
pub mod processes;
pub mod register;
pub mod relay;
pub mod stalls;
pub mod visit;

use afdg_agent::NativeHost;
use afdg_dev_grid::{DevGrid, DevGridOptions, Probe};
use std::{sync::Arc, time::Duration};
use tempfile::TempDir;

/// Bound of everything that a test waits for.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A number that the environment may set, so that a test has a long form: see docs/reliability.md.
///
/// # Panics
///
/// If it is set to what is no number above 0.
pub fn number_of(name: &str, otherwise: u64) -> u64 {
    let Ok(text) = std::env::var(name) else { return otherwise };
    text.parse()
        .ok()
        .filter(|number| *number > 0)
        .unwrap_or_else(|| panic!("{name}={text} is no number above 0"))
}

/// A counter that does not exist yet reads as 0.
pub const PROBE: Probe = Probe { agent_type: "counter.v1.Counter", method: "Get" };

/// The agents of the examples, one that sends and receives letters, and one that rings at set times.
pub fn example_agents() -> Arc<NativeHost> {
    Arc::new(
        NativeHost::new()
            .with(afdg_example_counter::counter())
            .with(afdg_example_counter::fanout())
            .with(afdg_example_bank::account())
            .with(afdg_example_shop::customer())
            .with(mail::mail_box())
            .with(alarm::alarm()),
    )
}

/// A grid whose calls succeed, and the folder that holds it.
pub async fn grid(change: impl FnOnce(&mut DevGridOptions)) -> anyhow::Result<(DevGrid, TempDir)> {
    let _ = tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn".into()),
        )
        .with_test_writer()
        .try_init();
    let folder = tempfile::tempdir()?;
    let mut options = DevGridOptions::new(example_agents(), PROBE);
    options.data = Some(folder.path().to_owned());
    change(&mut options);
    Ok((DevGrid::start(options).await?, folder))
}
