//! A grid of real processes of the `afdg` binary on loopback: catalog servers, region nodes, extensions,
//! each with a config file and a folder of its own, each to be killed, frozen and started again by name.
//!
//! Names are `catalog-1`, `node-1`, `extension-1` and so on. What the processes print is kept in files;
//! the ends of those are shown if a test ends before [`Processes::finish`], or fails in it. All processes
//! die with the grid.

mod config;
mod process;

pub use config::{Options, Server, config_text};

use crate::PROBE;
use afdg_dev_grid::{PortClaims, Wanted, free_addresses, until_well};
use afdg_runtime::World;
use anyhow::{Context, bail};
use process::Process;
use rustix::process::Signal;
use std::{
    collections::BTreeMap,
    ffi::OsString,
    path::{Path, PathBuf},
    process::ExitStatus,
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tokio::sync::{Mutex, MutexGuard};

/// How long a grid or a server may take until calls succeed.
pub const WELL_LIMIT: Duration = Duration::from_secs(60);
/// How long a server may take to end after SIGTERM: the longest drain, of an extension, is 30 s.
const STOP_LIMIT: Duration = Duration::from_secs(40);

/// Held by a grid as long as it lives: two at a time would disturb each other's times.
static ALONE: Mutex<()> = Mutex::const_new(());

/// Where a server is, and how it is started there.
#[derive(Clone, Debug)]
pub struct Place {
    /// `host:port`
    pub listen: String,
    /// The program and its arguments; `--config FILE` follows.
    pub command: Vec<OsString>,
    pub environment: Vec<(String, OsString)>,
}

pub struct Processes {
    binary: PathBuf,
    options: Options,
    processes: BTreeMap<String, Process>,
    endpoints: BTreeMap<String, String>,
    folder: TempDir,
    began: Instant,
    ended_well: bool,
    _ports: PortClaims,
    _alone: Option<MutexGuard<'static, ()>>,
}

impl Processes {
    /// Starts all servers and waits until calls succeed. Waits for its turn if another grid runs.
    pub async fn start(binary: impl Into<PathBuf>, options: Options) -> anyhow::Result<Self> {
        let alone = ALONE.lock().await;
        let mut grid = Self::start_beside_others(binary, options).await?;
        grid._alone = Some(alone);
        Ok(grid)
    }

    /// The same, next to one that runs.
    pub async fn start_beside_others(binary: impl Into<PathBuf>, options: Options) -> anyhow::Result<Self> {
        let mut grid = Self::prepare(binary, options).await?;
        grid.start_all()?;
        grid.until_well().await?;
        Ok(grid)
    }

    /// A grid on free ports of loopback whose servers are not started yet.
    pub async fn prepare(binary: impl Into<PathBuf>, options: Options) -> anyhow::Result<Self> {
        let binary = binary.into();
        let folder = tempfile::Builder::new().prefix("afdg-processes-").tempdir()?;
        let world = World::real();
        let servers = options.servers();
        let (addresses, ports) = free_addresses(servers.len(), &*world.net, &*world.entropy).await?;
        let place = |(server, listen): (&Server, String)| {
            let command = [binary.clone().into(), "server".into(), server.role.into()];
            (server.name.clone(), Place { listen, command: command.into(), environment: Vec::new() })
        };
        let places = servers.iter().zip(addresses).map(place).collect();
        let mut grid = Self::new(binary, options, folder, &places)?;
        grid._ports = ports;
        Ok(grid)
    }

    /// A grid whose servers are not started yet, each with its place.
    pub fn new(
        binary: PathBuf,
        options: Options,
        folder: TempDir,
        places: &BTreeMap<String, Place>,
    ) -> anyhow::Result<Self> {
        let servers = options.servers();
        let place = |server: &Server| {
            places.get(&server.name).with_context(|| format!("{} has no place", server.name))
        };
        let (mut catalogs, mut processes, mut endpoints) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
        for server in servers.iter().filter(|server| server.role == "catalog") {
            catalogs.push(place(server)?.listen.clone());
        }
        for server in &servers {
            let Place { listen, command, environment } = place(server)?;
            options.write(folder.path(), server, listen, &catalogs)?;
            if server.role == "extension" {
                endpoints.insert(server.name.clone(), format!("http://{listen}"));
            }
            let mut command = command.clone();
            command.extend(["--config".into(), format!("{}.toml", server.name).into()]);
            let mut process = Process::new(folder.path(), &server.name, command);
            process.set_environment(environment.clone());
            processes.insert(server.name.clone(), process);
        }
        let began = Instant::now();
        Ok(Self {
            binary,
            options,
            processes,
            endpoints,
            folder,
            began,
            ended_well: false,
            _ports: PortClaims::default(),
            _alone: None,
        })
    }

    /// Of all servers, in order: catalog servers, extensions, region nodes.
    pub fn names(&self) -> Vec<String> {
        self.processes.keys().cloned().collect()
    }

    /// Of all servers of a kind: `catalog`, `node` or `extension`.
    pub fn names_of(&self, kind: &str) -> Vec<String> {
        let is_of_kind = |name: &String| name.rsplit_once('-').is_some_and(|(of, _)| of == kind);
        self.processes.keys().filter(|name| is_of_kind(name)).cloned().collect()
    }

    /// Of all that were started and whose end was not asked for since.
    pub fn names_that_run(&self) -> Vec<String> {
        self.processes
            .iter()
            .filter(|(_, process)| process.is_running())
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// What a process is started with from now on.
    pub fn set_environment(
        &mut self,
        name: &str,
        environment: Vec<(String, OsString)>,
    ) -> anyhow::Result<()> {
        self.process(name)?.set_environment(environment);
        Ok(())
    }

    /// Where clients call: `http://host:port` of every extension.
    pub fn endpoints(&self) -> Vec<String> {
        self.endpoints.values().cloned().collect()
    }

    /// Of an extension that runs.
    pub fn endpoint(&self) -> anyhow::Result<String> {
        let running = self.endpoints.iter().find(|(name, _)| self.processes[*name].is_running());
        Ok(running.context("no extension runs")?.1.clone())
    }

    pub fn binary(&self) -> &Path {
        &self.binary
    }

    /// Holds `NAME.toml`, `NAME.log` and the data, `NAME/`, of every server.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What a server has printed since the grid began.
    pub fn log(&self, name: &str) -> String {
        self.processes.get(name).map(Process::log).unwrap_or_default()
    }

    /// SIGKILL; returns when the process is gone.
    pub fn kill(&mut self, name: &str) -> anyhow::Result<()> {
        self.kill_together(&[name.to_owned()])
    }

    /// SIGKILL of all these before the end of the first is waited for.
    pub fn kill_together(&mut self, names: &[String]) -> anyhow::Result<()> {
        for name in names {
            self.signal(name, Signal::KILL)?;
        }
        for name in names {
            self.process(name)?.reap()?;
        }
        Ok(())
    }

    /// SIGSTOP: the process keeps its sockets and does nothing.
    pub fn freeze(&mut self, name: &str) -> anyhow::Result<()> {
        self.signal(name, Signal::STOP)
    }

    /// SIGCONT.
    pub fn thaw(&mut self, name: &str) -> anyhow::Result<()> {
        self.signal(name, Signal::CONT)
    }

    /// SIGTERM; returns before the process has ended.
    pub fn terminate(&mut self, name: &str) -> anyhow::Result<()> {
        self.signal(name, Signal::TERM)
    }

    /// Waits until a process has ended by itself, `limit` at most.
    pub async fn ended(&mut self, name: &str, limit: Duration) -> anyhow::Result<ExitStatus> {
        let status = self.process(name)?.ended(limit).await?;
        self.tell(format_args!("{name} has ended: {status}"));
        Ok(status)
    }

    /// Starts a server again on its data.
    pub fn restart(&mut self, name: &str) -> anyhow::Result<()> {
        self.tell(format_args!("start {name}"));
        self.process(name)?.start()
    }

    /// Starts the binary with other arguments, as a process of the grid that is called `name`.
    pub fn run(&mut self, name: &str, arguments: &[&str]) -> anyhow::Result<()> {
        let command = [self.binary.clone().into()].into_iter().chain(arguments.iter().map(OsString::from));
        let process = Process::new(self.folder.path(), name, command.collect());
        self.processes.insert(name.to_owned(), process);
        self.restart(name)
    }

    /// The same, but waits for its end, `limit` at most; returns that and what it has printed.
    pub async fn run_to_end(
        &mut self,
        arguments: &[&str],
        limit: Duration,
    ) -> anyhow::Result<(ExitStatus, String)> {
        const NAME: &str = "once";
        self.run(NAME, arguments)?;
        let status = self.ended(NAME, limit).await?;
        let printed = self.log(NAME);
        self.processes.remove(NAME);
        std::fs::remove_file(self.folder.path().join(format!("{NAME}.log")))?;
        Ok((status, printed))
    }

    /// Starts all that do not run.
    pub fn start_all(&mut self) -> anyhow::Result<()> {
        for name in self.names() {
            if !self.processes[&name].is_running() {
                self.restart(&name)?;
            }
        }
        Ok(())
    }

    /// Waits until an agent in every region answers and the grid says of itself that all is well. An error
    /// if a process that should run has ended.
    pub async fn until_well(&mut self) -> anyhow::Result<()> {
        let wanted = Wanted { nodes: self.options.nodes, regions: usize::from(self.options.regions) };
        let endpoint = self.endpoint()?;
        until_well(&endpoint, wanted, PROBE, WELL_LIMIT).await?;
        self.tell("all is well");
        self.check_all_run()
    }

    /// Waits until a server that runs has printed `text` since the grid began.
    pub async fn until_printed(&mut self, name: &str, text: &str) -> anyhow::Result<()> {
        let give_up = Instant::now() + WELL_LIMIT;
        while !self.log(name).contains(text) {
            self.check_runs(name)?;
            if Instant::now() > give_up {
                bail!("{name} has not printed '{text}' within {WELL_LIMIT:?}");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// An error if a process has ended by itself.
    pub fn check_runs(&mut self, name: &str) -> anyhow::Result<()> {
        self.process(name)?.check_runs().with_context(|| format!("{name} is not as it should be"))
    }

    /// The same of all.
    pub fn check_all_run(&mut self) -> anyhow::Result<()> {
        self.names().iter().try_for_each(|name| self.check_runs(name))
    }

    /// SIGTERM to all that run, each of which has to exit with 0 in time; and the end of the test.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.check_all_run()?;
        let running = self.names_that_run();
        for name in &running {
            self.terminate(name)?;
        }
        for name in &running {
            let status = self.ended(name, STOP_LIMIT).await.with_context(|| format!("stopping {name}"))?;
            if status.code() != Some(0) {
                bail!("{name} did not end well after SIGTERM: {status}");
            }
        }
        self.finish()
    }

    /// The end of a test that went well: all that should run do, and nobody has logged an error. All that
    /// run are killed.
    pub fn finish(mut self) -> anyhow::Result<()> {
        self.check_all_run()?;
        for name in self.names() {
            let log = self.log(&name);
            if let Some(line) = log.lines().find(|line| is_error(line)) {
                bail!("{name} logged an error: {line}");
            }
        }
        self.ended_well = true;
        Ok(())
    }

    /// The end of a grid whose logs don't matter. All that run are killed.
    pub fn end(mut self) {
        self.ended_well = true;
    }

    /// Shown if the test fails.
    pub fn tell(&self, what: impl std::fmt::Display) {
        eprintln!("[{:7.3} s] {what}", self.began.elapsed().as_secs_f64());
    }

    fn signal(&mut self, name: &str, signal: Signal) -> anyhow::Result<()> {
        self.tell(format_args!("{signal:?} to {name}"));
        self.process(name)?.signal(signal)
    }

    fn process(&mut self, name: &str) -> anyhow::Result<&mut Process> {
        self.processes.get_mut(name).with_context(|| format!("there is no process '{name}'"))
    }
}

/// openraft calls it an error that a replica which is stopped stops.
fn is_error(line: &str) -> bool {
    let is_told = line.contains(" ERROR ") && !line.contains(" ERROR openraft::");
    is_told || line.contains("panicked at")
}

impl Drop for Processes {
    fn drop(&mut self) {
        for process in self.processes.values_mut() {
            // What does not run can't be killed; everything else is gone afterwards.
            let _ = process.signal(Signal::KILL);
            let _ = process.reap();
        }
        if self.ended_well {
            return;
        }
        const LINES: usize = 40;
        for name in self.names() {
            let log = self.log(&name);
            let lines: Vec<&str> = log.lines().collect();
            let end = lines[lines.len().saturating_sub(LINES)..].join("\n");
            eprintln!("==> the end of what {name} printed:\n{end}");
        }
    }
}
