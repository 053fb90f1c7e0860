//! `afdg server`: one server of a grid as a process; and `afdg config show`.

pub mod agents;
mod catalog;
mod extension;
mod health;
mod region_node;
mod run;
mod settings;
mod show;

pub use show::{ConfigArgs, run as config};

use crate::{environment, output::Output};
use afdg_proto::peer_auth::PeerToken;
use afdg_replication::Timing;
use clap::{Args, Subcommand, ValueEnum};
use serde::Deserialize;
use settings::{Settings, Shown};
use std::path::{Path, PathBuf};

/// openraft tells every vote at INFO.
const LOG_DEFAULT: &str = "info,openraft=warn";

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  afdg server catalog --config catalog.toml
  afdg server region-node --config region-node.toml --print-config
  afdg config show --role extension --config extension.toml

SIGTERM and ctrl-c end a server in good order: it hands over what it leads and finishes what is
under way. A second signal ends it at once.")]
pub struct ServerArgs {
    #[command(subcommand)]
    role: RoleCommand,
}

#[derive(Subcommand, Debug)]
enum RoleCommand {
    /// Knows every slot, region, node and agent type; 1, 3 or 5 of them
    Catalog(ServeArgs),
    /// Holds replicas of regions and runs agents: the examples' counter, bank and shop
    RegionNode(ServeArgs),
    /// The gateway through which clients call agents
    Extension(ServeArgs),
}

#[derive(Args, Debug)]
struct ServeArgs {
    /// The role's settings, TOML
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Print every setting with its value and where it comes from, and start nothing
    #[arg(long)]
    print_config: bool,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Catalog,
    RegionNode,
    Extension,
}

/// A server's whole configuration, ready to start it.
#[derive(Debug)]
enum Configuration {
    Catalog(afdg_catalog::CatalogConfig),
    RegionNode(afdg_region_node::RegionNodeConfig),
    Extension(afdg_extension::ExtensionConfig),
}

/// What concerns the process and not the server in it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Process {
    log: String,
    json_logs: bool,
    health_listen: Option<String>,
}

pub async fn run(args: ServerArgs, output: &mut Output) -> anyhow::Result<u8> {
    let (role, args) = match args.role {
        RoleCommand::Catalog(args) => (Role::Catalog, args),
        RoleCommand::RegionNode(args) => (Role::RegionNode, args),
        RoleCommand::Extension(args) => (Role::Extension, args),
    };
    if args.print_config {
        return show::print(role, &args.config, crate::arguments::Format::Table, output);
    }
    let (configuration, process, _) = load(role, &args.config)?;
    run::serve(configuration, process).await
}

/// Everything that a server of `role` is told, and where each value comes from.
fn load(role: Role, file: &Path) -> anyhow::Result<(Configuration, Process, Vec<Shown>)> {
    let environment = |name: &str| std::env::var(name).ok();
    let mut settings = Settings::new(file, &environment);
    let (configuration, process) = match role {
        Role::Catalog => {
            let (config, process) = catalog::resolve(settings::read_file(file)?, &mut settings)?;
            (Configuration::Catalog(config), process)
        }
        Role::RegionNode => {
            let (config, process) = region_node::resolve(settings::read_file(file)?, &mut settings)?;
            (Configuration::RegionNode(config), process)
        }
        Role::Extension => {
            let (config, process) = extension::resolve(settings::read_file(file)?, &mut settings)?;
            (Configuration::Extension(config), process)
        }
    };
    Ok((configuration, process, settings.into_shown()))
}

impl Process {
    fn resolve(
        log: Option<String>,
        log_format: Option<String>,
        health_listen: Option<String>,
        settings: &mut Settings<'_>,
    ) -> anyhow::Result<Self> {
        let log = settings.value("log", log, Some(environment::LOG), Some(LOG_DEFAULT.to_owned()))?;
        let format = (Some(environment::LOG_FORMAT), Some("text".to_owned()));
        let json_logs = match settings.value("log_format", log_format, format.0, format.1)?.as_str() {
            "text" => false,
            "json" => true,
            _ => return settings.wrong("log_format", "has to be text or json"),
        };
        let variable = Some(environment::HEALTH_LISTEN);
        let health_listen = settings.optional("health_listen", health_listen, variable, None)?;
        Ok(Self { log, json_logs, health_listen })
    }
}

/// When a group of replicas looks for a new leader, as the file has it.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct TimingFile {
    heartbeat_ms: Option<u64>,
    election_min_ms: Option<u64>,
    election_max_ms: Option<u64>,
}

impl TimingFile {
    fn resolve(self, settings: &mut Settings<'_>) -> anyhow::Result<Timing> {
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

fn peer_token(in_file: Option<String>, settings: &mut Settings<'_>) -> anyhow::Result<PeerToken> {
    let text = settings.secret("peer_token", in_file, environment::PEER_TOKEN)?;
    match PeerToken::new(&text) {
        Ok(token) => Ok(token),
        Err(error) => settings.wrong("peer_token", format!("is not usable: {error}")),
    }
}
