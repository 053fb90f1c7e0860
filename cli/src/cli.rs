//! The command line: what there is, and how a command ends.

use crate::{
    admin, arguments::Format, bench, call, demo, dev, failure, failure::Usage, output::Output, server,
};
use afdg_runtime::process;
use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand};
use std::{ffi::OsString, process::ExitCode};

#[derive(Parser, Debug)]
#[command(
    name = "afdg",
    version,
    about = "AFDG, the agent-framework data grid: runs agents, each with its own data",
    after_help = "First steps:
  afdg dev                                                  a whole grid in one process
  afdg call bank.v1.Account/alice Deposit '{\"cents\":500}'   in another terminal
  afdg demo                                                 thousands of agents, checked

Exit status: 0 all went as asked; 1 it could not be done, or was done and its result is a failure;
2 the command line, a file or a config value is wrong and nothing was done: a malformed argument,
a type, method, node, region, dead letter or schedule that the grid does not have;
3 a server could not go on; 4 a second signal ended a server before it was done.
With -o json errors are JSON as well, on standard error."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Run a whole grid in this process, for development
    Dev(dev::DevArgs),
    /// Call an agent, in JSON
    Call(call::CallArgs),
    /// Send an agent a message that nobody waits for, in JSON
    Send(call::send::SendArgs),
    /// Wait for the result of a message that was sent before
    Attach(call::attach::AttachArgs),
    /// Show whether the grid is well
    Status(admin::status::StatusArgs),
    /// Show region nodes
    Node(admin::node::NodeArgs),
    /// Show regions, move their leaders
    Region(admin::region::RegionArgs),
    /// Show agent types and their methods
    Type(admin::agent_type::TypeArgs),
    /// Show agents and what they hold
    Agent(admin::agent::AgentArgs),
    /// Show messages that were given up, have them tried again or drop them
    DeadLetter(admin::dead_letter::DeadLetterArgs),
    /// Show what agents are sent at set times, cancel it
    Schedule(admin::schedule::ScheduleArgs),
    /// Show who changed what in the cluster, and why
    Audit(admin::audit::AuditArgs),
    /// Run a shop with thousands of customers on a grid, and check every one to the cent
    Demo(demo::DemoArgs),
    /// Measure a grid: calls per second, latency, CPU per call
    Bench(bench::BenchArgs),
    /// Run one server of a grid
    Server(server::ServerArgs),
    /// Show the settings of a server
    Config(server::ConfigArgs),
}

/// Reads the command line and runs what it says.
pub fn main() -> ExitCode {
    let (format, cli) = match read(std::env::args_os()) {
        Ok(read) => read,
        Err(error) if error.use_stderr() && asks_for_json(std::env::args_os()) => {
            let text = error.render().to_string();
            let text = text.trim().trim_start_matches("error: ");
            failure::tell_error(&Usage(text.to_owned()).into(), Format::Json);
            return process::exit(process::EXIT_USAGE);
        }
        Err(error) => error.exit(),
    };
    let runtime = match process::runtime() {
        Ok(runtime) => runtime,
        Err(error) => {
            failure::tell(format_args!("error: no threads to run on: {error}"));
            return process::exit(process::EXIT_SERVER_FAILED);
        }
    };
    let code = runtime.block_on(async {
        // Commands differ much in size; on the heap the largest costs the others nothing.
        Box::pin(run(cli.command, &mut Output::stdout())).await.unwrap_or_else(|error| {
            failure::tell_error(&error, format);
            failure::exit_code(&error)
        })
    });
    runtime.shutdown_background();
    process::exit(code)
}

fn read(line: impl Iterator<Item = OsString>) -> Result<(Format, Cli), clap::Error> {
    let matches = Cli::command().try_get_matches_from(line)?;
    Ok((format(&matches), Cli::from_arg_matches(&matches)?))
}

/// Whether a command line that can't be read as a whole asks for JSON.
fn asks_for_json(line: impl Iterator<Item = OsString>) -> bool {
    let line: Vec<_> = line.collect();
    let is_pair = |pair: &[OsString]| (pair[0] == "-o" || pair[0] == "--output") && pair[1] == "json";
    line.windows(2).any(is_pair)
        || line.iter().any(|text| ["--output=json", "-ojson", "-o=json"].iter().any(|form| text == form))
}

/// In which the command that is given prints.
fn format(matches: &ArgMatches) -> Format {
    match matches.subcommand() {
        Some((_, inner)) => format(inner),
        None => matches.try_get_one("output").ok().flatten().copied().unwrap_or(Format::Table),
    }
}

async fn run(command: Command, output: &mut Output) -> anyhow::Result<u8> {
    match command {
        Command::Dev(args) => dev::run(args, output).await,
        Command::Server(args) => server::run(args, output).await,
        Command::Config(args) => server::config(args, output),
        Command::Call(args) => call::run(args, output).await,
        Command::Send(args) => call::send::run(args, output).await,
        Command::Attach(args) => call::attach::run(args, output).await,
        Command::DeadLetter(args) => admin::dead_letter::run(args, output).await,
        Command::Schedule(args) => admin::schedule::run(args, output).await,
        Command::Status(args) => admin::status::run(args, output).await,
        Command::Node(args) => admin::node::run(args, output).await,
        Command::Region(args) => admin::region::run(args, output).await,
        Command::Type(args) => admin::agent_type::run(args, output).await,
        Command::Agent(args) => admin::agent::run(args, output).await,
        Command::Audit(args) => admin::audit::run(args, output).await,
        Command::Demo(args) => demo::run(args, output).await,
        Command::Bench(args) => bench::run(args, output).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_line_that_cant_be_read_may_ask_for_json() {
        let asks = |line: &str| asks_for_json(line.split(' ').map(OsString::from));
        for line in ["afdg status -o json", "afdg x --output json", "afdg --output=json", "afdg x -o=json"] {
            assert!(asks(line), "{line}");
        }
        for line in ["afdg status", "afdg status -o table", "afdg call a.B/c json -o", "afdg"] {
            assert!(!asks(line), "{line}");
        }
    }

    #[test]
    fn commands_read_as_written() {
        for line in [
            "afdg call bank.v1.Account/alice Deposit {\"cents\":500} --endpoint http://a:1 --timeout 5s",
            "afdg call bank.v1.Account/alice GetBalance -o json",
            "afdg call bank.v1.Account/* GetBalance --parallel 8 -o json",
            "afdg send bank.v1.Account/de-* Deposit {} --exact",
            "afdg send bank.v1.Account/alice Deposit {\"cents\":500} --delay 5s --idempotency-key k",
            "afdg attach bank.v1.Account/alice Deposit 01980a0e-6c1c-7b60-8b1e-0f4d7c1f2a33",
            "afdg attach bank.v1.Account/alice Deposit --idempotency-key k --timeout 5s",
            "afdg attach 01980a0e-6c1c-7b60-8b1e-0f4d7c1f2a33",
            "afdg attach 01980a0e-6c1c-7b60-8b1e-0f4d7c1f2a33 --as bank.v1.Account/Deposit -o json",
            "afdg dead-letter list --type bank.v1.Account --reason X --limit 0 -o json",
            "afdg dead-letter show 17@bank.v1.Account/alice",
            "afdg dead-letter retry 17@bank.v1.Account/alice 18@bank.v1.Account/bob --because mended",
            "afdg dead-letter drop --agent bank.v1.Account/alice --dry-run",
            "afdg dead-letter drop --all --because tests --actor me",
            "afdg schedule list --type bank.v1.Account --name-prefix rent --limit 0 -o json",
            "afdg schedule cancel bank.v1.Account/alice rent --reason moved --actor me",
            "afdg schedule cancel --agent bank.v1.Account/alice --dry-run",
            "afdg schedule cancel --all --reason x",
            "afdg status -o json",
            "afdg node list",
            "afdg node describe node-1",
            "afdg region list -o json",
            "afdg region transfer-leader 3 node-2 --reason disks --actor me",
            "afdg type describe bank.v1.Account",
            "afdg agent list --type bank.v1.Account --limit 0",
            "afdg agent describe bank.v1.Account/alice",
            "afdg agent inspect bank.v1.Account/alice --items 5",
            "afdg agent blocked --type bank.v1.Account --min 500ms --limit 5 -o json",
            "afdg audit list --limit 5",
            "afdg demo --customers 10 --purchases 30 --seed 7 --in-flight 8 -o json",
            "afdg demo --file purchases.csv --endpoint http://a:1 --key-prefix x",
            "afdg dev --listen 127.0.0.1:0 --nodes 1 --catalogs 1 --regions 2 --data d --ready-file r",
            "afdg server catalog --config c.toml",
            "afdg server region-node --config c.toml --print-config",
            "afdg config show --role extension --config c.toml -o json",
            "afdg bench --workload update --transport pipe --in-flight 64 --seconds 5 -o json",
        ] {
            Cli::try_parse_from(line.split(' ')).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
        for line in [
            "afdg",
            "afdg call bank.v1.Account/alice",
            "afdg call a.B/c M {} --timeout 5",
            "afdg call a.B/* M {} --parallel 0",
            "afdg region transfer-leader 3 node-2",
            "afdg agent inspect a.B/c --items 0",
            "afdg agent blocked --limit 0",
            "afdg agent blocked --min 5",
            "afdg bench --in-flight 0",
            "afdg bench --seconds 0",
            "afdg demo --file x.csv --seed 7",
            "afdg status -o xml",
            "afdg dev --catalogs 2",
            "afdg dev --listen nope",
            "afdg server catalog",
            "afdg attach bank.v1.Account/alice Deposit",
            "afdg attach bank.v1.Account/alice Deposit id --idempotency-key k",
            "afdg attach bank.v1.Account/alice --idempotency-key k",
            "afdg attach bank.v1.Account/alice Deposit id --as bank.v1.Account/Deposit",
            "afdg dead-letter drop --all --method M --because x",
            "afdg dead-letter drop --all",
            "afdg schedule cancel bank.v1.Account/alice --reason x",
            "afdg schedule cancel bank.v1.Account/alice rent",
            "afdg schedule cancel bank.v1.Account/alice rent --all --reason x",
            "afdg schedule cancel --all --type T --reason x",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_err(), "{line} was taken");
        }
    }
}
