//! A development grid as a process of its own, so that its CPU time can be told from the client's.

use crate::dev::Ready;
use anyhow::{Context, bail};
use std::{path::PathBuf, process::Stdio, time::Duration};
use tempfile::TempDir;
use tokio::process::{Child, Command};

/// How long the grid may take until calls succeed.
const START_MS_MAX: u64 = 120_000;
/// How long it may take to end by itself.
const STOP_MS_MAX: u64 = 20_000;
/// How often it is looked for.
const LOOK_MS: u64 = 50;

pub struct ChildGrid {
    child: Child,
    pid: u32,
    endpoint: String,
    /// The ready file and the log; removed with it.
    _folder: TempDir,
}

impl ChildGrid {
    pub async fn start(regions: u16) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("afdg-bench-").tempdir()?;
        let ready_file = folder.path().join("ready.json");
        let log_file = folder.path().join("log");
        let mut child = Command::new(std::env::current_exe()?)
            .args(["dev", "--listen", "127.0.0.1:0", "--until-stdin-closes", "--ready-file"])
            .arg(&ready_file)
            .args(["--regions", &regions.to_string()])
            // The grid ends by itself when this is closed, however this process ends, and removes what it left.
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log_file)?)
            .spawn()
            .context("a development grid can't be started")?;
        let pid = child.id().context("the development grid ended at once")?;
        match tokio::time::timeout(Duration::from_millis(START_MS_MAX), ready(&mut child, &ready_file)).await
        {
            Ok(Ok(ready)) => Ok(Self { child, pid, endpoint: ready.endpoint, _folder: folder }),
            Ok(Err(error)) => Err(error.context(last_lines(&log_file))),
            Err(_) => bail!("the development grid was not ready in time; {}", last_lines(&log_file)),
        }
    }

    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Lets it end by itself and removes what it left; past its time it is killed.
    pub async fn stop(mut self) {
        drop(self.child.stdin.take());
        let ended = tokio::time::timeout(Duration::from_millis(STOP_MS_MAX), self.child.wait()).await;
        if ended.is_err() {
            crate::failure::tell("the development grid did not end by itself and is killed");
            // It may have ended just now, which is as good.
            let _ = self.child.kill().await;
        }
    }
}

async fn ready(child: &mut Child, file: &PathBuf) -> anyhow::Result<Ready> {
    loop {
        if let Some(status) = child.try_wait()? {
            bail!("the development grid ended before it was ready: {status}");
        }
        match std::fs::read(file) {
            Ok(text) => return serde_json::from_slice(&text).context("the ready file can't be read"),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).context("the ready file can't be read"),
        }
        tokio::time::sleep(Duration::from_millis(LOOK_MS)).await;
    }
}

fn last_lines(log_file: &PathBuf) -> String {
    const LINES: usize = 20;
    let log = std::fs::read_to_string(log_file).unwrap_or_default();
    let lines: Vec<_> = log.lines().collect();
    format!("the end of its log:\n{}", lines[lines.len().saturating_sub(LINES)..].join("\n"))
}
