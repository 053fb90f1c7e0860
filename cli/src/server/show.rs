//! `afdg config show`: every setting of a server, its value, and where that comes from.

use super::Role;
use crate::{
    arguments::{Format, OutputArgs},
    output::{Output, Table},
};
use afdg_runtime::process;
use clap::{Args, Subcommand};
use std::path::{Path, PathBuf};

#[derive(Args, Debug)]
pub struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Subcommand, Debug)]
enum ConfigCommand {
    /// Every setting of a server, its value, and where that comes from; secrets are hidden
    #[command(after_help = "Example:\n  afdg config show --role region-node --config region-node.toml")]
    Show {
        /// Which kind of server
        #[arg(long, value_enum)]
        role: Role,
        /// The role's settings, TOML
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        #[command(flatten)]
        output: OutputArgs,
    },
}

pub fn run(args: ConfigArgs, output: &mut Output) -> anyhow::Result<u8> {
    let ConfigCommand::Show { role, config, output: OutputArgs { output: format } } = args.command;
    print(role, &config, format, output)
}

pub fn print(role: Role, file: &Path, format: Format, output: &mut Output) -> anyhow::Result<u8> {
    let (_, _, shown) = super::load(role, file)?;
    match format {
        Format::Json => output.json(&shown)?,
        Format::Table => {
            let mut table = Table::new(&["SETTING", "VALUE", "FROM"]);
            for setting in shown {
                table.row([setting.name, setting.value, setting.from]);
            }
            output.table(&table)?;
        }
    }
    Ok(process::EXIT_OK)
}
