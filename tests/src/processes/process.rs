//! One process of the binary.

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    ffi::OsString,
    fs::OpenOptions,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};
use tokio::time::Instant;

/// How often it is looked whether a process has ended.
const LOOK_EVERY: Duration = Duration::from_millis(10);

pub struct Process {
    /// The program and its arguments.
    command: Vec<OsString>,
    environment: Vec<(String, OsString)>,
    folder: PathBuf,
    log: PathBuf,
    /// None before the start and once its end is known.
    child: Option<Child>,
}

impl Process {
    /// Works in `folder` and prints to `NAME.log` there.
    pub fn new(folder: &Path, name: &str, command: Vec<OsString>) -> Self {
        let log = folder.join(format!("{name}.log"));
        Self { command, environment: Vec::new(), folder: folder.to_owned(), log, child: None }
    }

    /// For the next start.
    pub fn set_environment(&mut self, environment: Vec<(String, OsString)>) {
        self.environment = environment;
    }

    pub fn start(&mut self) -> anyhow::Result<()> {
        if self.is_running() {
            bail!("it runs already");
        }
        let log = OpenOptions::new().create(true).append(true).open(&self.log)?;
        let (program, arguments) = self.command.split_first().context("it has no program")?;
        let mut command = Command::new(program);
        // Variables of whoever runs the tests would stand over the file.
        command.env_clear().envs(self.environment.iter().cloned()).current_dir(&self.folder);
        command.args(arguments);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().with_context(|| format!("{} can't be started", program.display()))?;
        self.child = Some(child);
        Ok(())
    }

    /// Was started, and its end was not asked for since.
    pub fn is_running(&self) -> bool {
        self.child.is_some()
    }

    /// An error if it has ended by itself.
    pub fn check_runs(&mut self) -> anyhow::Result<()> {
        if let Some(child) = &mut self.child
            && let Some(status) = child.try_wait()?
        {
            self.child = None;
            bail!("it has ended by itself: {status}");
        }
        Ok(())
    }

    pub fn signal(&mut self, signal: Signal) -> anyhow::Result<()> {
        let child = self.child.as_ref().context("it does not run")?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("it has no id")?;
        // A child that has ended keeps its id until it is waited for, so no other process is met.
        kill_process(pid, signal).with_context(|| format!("signal {signal:?}"))
    }

    /// Waits for the end of a process that was killed.
    pub fn reap(&mut self) -> anyhow::Result<()> {
        if let Some(mut child) = self.child.take() {
            child.wait()?;
        }
        Ok(())
    }

    pub async fn ended(&mut self, limit: Duration) -> anyhow::Result<ExitStatus> {
        let give_up = Instant::now() + limit;
        let child = self.child.as_mut().context("it does not run")?;
        loop {
            if let Some(status) = child.try_wait()? {
                self.child = None;
                return Ok(status);
            }
            if Instant::now() > give_up {
                bail!("it has not ended within {limit:?}");
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// All that it has printed; what is no text is replaced.
    pub fn log(&self) -> String {
        std::fs::read(&self.log).map(|log| String::from_utf8_lossy(&log).into_owned()).unwrap_or_default()
    }
}
