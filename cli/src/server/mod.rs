//! `afdg server`: one server of a grid as a process; and `afdg config show`.

pub mod agents;
mod catalog;
mod extension;
mod health;
mod run;
mod show;

pub use show::{ConfigArgs, run as config};

use crate::output::Output;
use afdg_process::{ProcessSettings, Settings, SettingsError, Shown, read_file};
use afdg_region_node::process as region_node;
use afdg_runtime::process::EXIT_OK;
use clap::{Args, Subcommand, ValueEnum};
use std::path::{Path, PathBuf};

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
    run::serve(configuration, process).await?;
    Ok(EXIT_OK)
}

/// Everything that a server of `role` is told, and where each value comes from.
fn load(role: Role, file: &Path) -> Result<(Configuration, ProcessSettings, Vec<Shown>), SettingsError> {
    let environment = |name: &str| std::env::var(name).ok();
    let mut settings = Settings::new(file, &environment);
    let (configuration, process) = match role {
        Role::Catalog => {
            let (config, process) = catalog::resolve(read_file(file)?, &mut settings)?;
            (Configuration::Catalog(config), process)
        }
        Role::RegionNode => {
            let (config, process) = region_node::resolve(read_file(file)?, &mut settings)?;
            (Configuration::RegionNode(config), process)
        }
        Role::Extension => {
            let (config, process) = extension::resolve(read_file(file)?, &mut settings)?;
            (Configuration::Extension(config), process)
        }
    };
    Ok((configuration, process, settings.into_shown()))
}
