//! The grid under load: a process of its own, and the neighbour whose calls go on beside the load.

use afdg_example_bank::v1::{Balance, DepositRequest};
use afdg_proto::pb::admin::{SetTypeLimitsRequest, cluster_client::ClusterClient};
use afdg_tests::{PATIENCE, client::Client};
use anyhow::{Context, ensure};
use std::{
    collections::HashMap,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tempfile::TempDir;

pub struct Grid {
    process: Option<Child>,
    pub endpoint: String,
    _folder: TempDir,
}

impl Drop for Grid {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

impl Grid {
    pub async fn start(afdg: &Path) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let ready = folder.path().join("ready.json");
        let mut command = Command::new(afdg);
        command.args(["dev", "--listen", "127.0.0.1:0", "--ready-file"]).arg(&ready);
        command.current_dir(folder.path()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = Some(command.spawn().context("the grid can't be started")?);
        let mut grid = Self { process, endpoint: String::new(), _folder: folder };
        let end = Instant::now() + PATIENCE;
        while !ready.is_file() {
            ensure!(Instant::now() < end, "the grid did not get ready");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let told: serde_json::Value = serde_json::from_slice(&std::fs::read(&ready)?)?;
        let endpoint = told["endpoint"].as_str().context("the ready file names no endpoint")?;
        endpoint.clone_into(&mut grid.endpoint);
        Ok(grid)
    }

    /// Sets limits of the type that is sent.
    pub async fn limit(&self, limits: impl Iterator<Item = (&str, u64)>) -> anyhow::Result<()> {
        let set = limits.map(|(name, value)| (name.to_owned(), value)).collect::<HashMap<_, _>>();
        if set.is_empty() {
            return Ok(());
        }
        let request = SetTypeLimitsRequest {
            r#type: super::sender::TYPE.to_owned(),
            set,
            reset: Vec::new(),
            actor: "overload".to_owned(),
            reason: "to know what the grid can take".to_owned(),
        };
        let mut cluster = ClusterClient::connect(self.endpoint.clone()).await?;
        cluster.set_type_limits(request).await?;
        // Nodes hear of it a moment later.
        tokio::time::sleep(Duration::from_secs(2)).await;
        Ok(())
    }

    pub async fn neighbour(&self) -> anyhow::Result<Neighbour> {
        Ok(Neighbour(Client::connect(&self.endpoint).await?))
    }

    /// Processor time that the grid and this program have taken since they began.
    pub fn cpu(&self) -> Cpu {
        let pid = self.process.as_ref().map_or(0, Child::id);
        Cpu { grid: cpu_time(pid), here: cpu_time(std::process::id()) }
    }

    pub fn watch_memory(&self) -> Memory {
        let highest = Arc::<AtomicU64>::default();
        let watched = Arc::downgrade(&highest);
        let pid = self.process.as_ref().map_or(0, Child::id);
        std::thread::spawn(move || {
            while let Some(highest) = watched.upgrade() {
                highest.fetch_max(resident_bytes(pid), Relaxed);
                drop(highest);
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        Memory(highest)
    }

    pub async fn stop(mut self) -> anyhow::Result<()> {
        let mut process = self.process.take().context("the grid has ended")?;
        let pid = rustix::process::Pid::from_child(&process);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        let status = tokio::task::spawn_blocking(move || process.wait()).await??;
        ensure!(status.success(), "the grid ended with {status}");
        Ok(())
    }
}

#[derive(Clone, Copy)]
pub struct Cpu {
    pub grid: Duration,
    pub here: Duration,
}

/// By `/proc/PID/stat`, in which a second has 100 ticks on all machines that this runs on.
fn cpu_time(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name, in brackets, may have spaces.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let ticks = fields.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok());
    Duration::from_millis(10 * ticks.sum::<u64>())
}

/// The most that a process had resident.
pub struct Memory(Arc<AtomicU64>);

impl Memory {
    pub fn highest(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

fn resident_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// Somebody who calls agents of another type.
pub struct Neighbour(Client);

impl Neighbour {
    pub async fn call(&self) -> anyhow::Result<()> {
        let deposit = DepositRequest { account: "neighbour".to_owned(), cents: 1 };
        self.0.call::<_, Balance>("/bank.v1.Account/Deposit", deposit).await?;
        Ok(())
    }
}
