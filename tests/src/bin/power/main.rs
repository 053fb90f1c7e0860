//! Losses of power and failing disks: a grid of real processes whose writes are recorded below the log and
//! sled. Power is lost everywhere at once, at any point of what was recorded; the processes start again on
//! what a disk may hold then ([`disk`]), and everything that had been acknowledged by that point has to be
//! there.
//!
//! ```text
//! cargo run --release -p afdg-tests --bin power -- --rounds 50 --seed 1
//! ```
//!
//! Needs the C compiler `cc`. Exits with 0 if nothing was wrong, 1 if something was, 2 if the run could not
//! take place.

mod clients;
mod disk;

use afdg_runtime::process::EXIT_SERVER_FAILED;
use afdg_tests::{
    afdg, preload,
    processes::{Options, Processes},
};
use anyhow::{Context, ensure};
use clap::Parser;
use clients::Clients;
use disk::{Disk, Losses};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use rustix::io::Errno;
use std::{
    ffi::OsString,
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

const EXIT_VIOLATION: u8 = 1;
const EXIT_NO_RUN: u8 = 2;
const CLIENTS: usize = 6;
/// The shortest and the longest time that clients call before power is lost, milliseconds.
const CALLS_MS: std::ops::Range<u64> = 500..4_000;
/// Small, so that checkpoints are made all the time.
const REGION_DIRTY_BYTES: u64 = 32 << 10;
/// How long a server may take to end once its disk has failed.
const END_LIMIT: Duration = Duration::from_secs(60);
/// The most writes that a disk does before it fails: a catalog server writes little.
const NODE_WRITES_MAX: u32 = 2_000;
const CATALOG_WRITES_MAX: u32 = 12;

/// Takes the power from a grid of real processes again and again, and has disks fail, and checks that
/// nothing acknowledged is lost. Exits with 0 only if nothing was wrong.
#[derive(Debug, Parser)]
#[command(name = "power")]
struct Arguments {
    /// How often power is lost.
    #[arg(long, default_value_t = 20)]
    rounds: u32,
    /// Everything is drawn from it; how calls and writes fall together is up to the machine.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Region nodes. Three hold three replicas of each region, fewer hold one.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=3))]
    nodes: u8,
    /// Takes the end of a sync for nothing, to see that a server which did not sync would be found out.
    #[arg(long)]
    forget_syncs: bool,
    /// The program `afdg`; otherwise the one beside this, built if it is not there.
    #[arg(long)]
    afdg: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let say = |line: &str| drop(writeln!(std::io::stdout(), "{line}"));
    let mut run = match Run::prepare(&arguments).await {
        Ok(run) => run,
        Err(error) => {
            say(&format!("error: {error:#}"));
            return ExitCode::from(EXIT_NO_RUN);
        }
    };
    for round in 1..=arguments.rounds {
        match run.round(round).await {
            Ok(told) => say(&format!("round {round}: {told}")),
            Err(error) => {
                say(&format!("VIOLATION in round {round} of seed {}: {error:#}", arguments.seed));
                return ExitCode::from(EXIT_VIOLATION);
            }
        }
    }
    let Totals { acknowledged, losses, failed, set_aside } = run.totals;
    say(&format!(
        "{} losses of power, {failed} of them after a disk had failed: {acknowledged} additions acknowledged, \
         {} writes lost, {} torn, {} names lost; {set_aside} times rows were set aside and fetched from a peer; \
         nothing acknowledged was lost, and nothing was done twice",
        arguments.rounds, losses.writes_lost, losses.writes_torn, losses.names_lost
    ));
    run.grid.end();
    ExitCode::SUCCESS
}

struct Run {
    grid: Processes,
    clients: Clients,
    log: PathBuf,
    environment: Vec<(String, OsString)>,
    chance: StdRng,
    forget_syncs: bool,
    totals: Totals,
}

#[derive(Default)]
struct Totals {
    acknowledged: u64,
    losses: Losses,
    failed: u32,
    set_aside: u32,
}

impl Run {
    async fn prepare(arguments: &Arguments) -> anyhow::Result<Run> {
        let binary = afdg::find(arguments.afdg.as_deref())?;
        let options = Options {
            catalogs: if arguments.nodes == 3 { 3 } else { 1 },
            nodes: arguments.nodes.into(),
            extensions: 1,
            regions: 3,
            region_dirty_bytes: Some(REGION_DIRTY_BYTES),
        };
        let mut grid = Processes::prepare(binary, options).await?;
        let root = grid.folder().canonicalize()?;
        let library = preload::compile(include_str!("recorder.c"), "recorder", &root, Path::new("cc"))?;
        let log = root.join("recorded");
        let environment: Vec<(String, OsString)> = vec![
            ("LD_PRELOAD".to_owned(), library.into()),
            ("POWER_LOG".to_owned(), log.clone().into()),
            ("POWER_ROOT".to_owned(), root.into()),
        ];
        for name in grid.names().iter().filter(|name| is_data(name)) {
            grid.set_environment(name, environment.clone())?;
        }
        let clients = Clients::new(CLIENTS, &grid.endpoints(), &log)?;
        let chance = StdRng::seed_from_u64(arguments.seed);
        let forget_syncs = arguments.forget_syncs;
        Ok(Run { grid, clients, log, environment, chance, forget_syncs, totals: Totals::default() })
    }

    /// Starts the grid on what the last loss of power has left, and takes the power from it.
    async fn round(&mut self, round: u32) -> anyhow::Result<String> {
        let folder = self.grid.folder().to_owned();
        fs::write(&self.log, b"")?;
        let before = Disk::of(&folder, is_data)?;
        let failing = if round.is_multiple_of(3) { Some(self.let_a_disk_fail()?) } else { None };

        self.grid.start_all()?;
        if failing.is_none() {
            self.grid.until_well().await?;
            self.count_damaged()?;
            self.clients.check().await?;
        }
        let recorded_well = usize::try_from(fs::metadata(&self.log)?.len())?;
        self.clients.start();
        tokio::time::sleep(Duration::from_millis(self.chance.random_range(CALLS_MS))).await;
        let mut told = String::new();
        if let Some((name, what)) = &failing {
            // However late it comes to that number of writes.
            let status = self.grid.ended(name, END_LIMIT).await.with_context(|| format!("{name}, {what}"))?;
            ensure!(
                status.code() == Some(EXIT_SERVER_FAILED.into()),
                "{name} ended with {status} after {what}"
            );
            told = format!("{name} had {what} and ended; ");
            self.grid.set_environment(name, self.environment.clone())?;
            self.totals.failed += 1;
        }
        let running = self.grid.names_that_run();
        self.grid.kill_together(&running)?;
        self.clients.stop().await?;

        let recorded = fs::read(&self.log)?;
        let mut whole = before.clone();
        whole.replay(&recorded)?;
        whole.check_whole(&folder).context("the recording is wrong")?;
        let upto = self.some_end(&disk::record_ends(&recorded), recorded_well);
        let mut disk = before;
        disk.forgets_syncs = self.forget_syncs;
        disk.replay(&recorded[..upto])?;
        self.clients.forget_after(upto as u64);
        let acknowledged = self.clients.acknowledged();

        let after = folder.join("after");
        let losses = disk.after_power_loss(&after, &mut self.chance)?;
        for name in self.grid.names() {
            let (old, new) = (folder.join(&name), after.join(&name));
            if old.exists() {
                fs::remove_dir_all(&old)?;
            }
            if new.exists() {
                fs::rename(&new, &old)?;
            }
        }
        fs::remove_dir_all(&after)?;
        self.totals.acknowledged = acknowledged;
        self.totals.losses.add(losses);
        Ok(format!(
            "{told}power lost at byte {upto} of {} recorded: {} writes lost, {} torn, {} names lost; \
             {acknowledged} additions acknowledged before it",
            recorded.len(),
            losses.writes_lost,
            losses.writes_torn,
            losses.names_lost
        ))
    }

    /// Rows that sled could not read any more and that were fetched from a peer.
    fn count_damaged(&mut self) -> anyhow::Result<()> {
        for name in self.grid.names().iter().filter(|name| is_data(name)) {
            let folder = self.grid.folder().join(name);
            for entry in fs::read_dir(&folder)? {
                let file = entry?.file_name();
                if file.to_string_lossy().contains("damaged") {
                    self.grid.tell(format_args!("{name} has set its rows aside: {}", self.why(name)));
                    fs::remove_dir_all(folder.join(file))?;
                    self.totals.set_aside += 1;
                }
            }
        }
        Ok(())
    }

    fn why(&self, name: &str) -> String {
        let log = self.grid.log(name);
        log.lines().rfind(|line| line.contains("aside")).unwrap_or_default().to_owned()
    }

    /// After which record power is lost: most often while clients call, and sometimes while servers start.
    fn some_end(&mut self, ends: &[usize], recorded_well: usize) -> usize {
        let while_calling = &ends[ends.partition_point(|&end| end < recorded_well)..];
        let ends =
            if while_calling.is_empty() || self.chance.random_ratio(1, 4) { ends } else { while_calling };
        ends.choose(&mut self.chance).copied().unwrap_or_default()
    }

    /// From some number of writes on, the disk of one server fails when it is started again.
    fn let_a_disk_fail(&mut self) -> anyhow::Result<(String, String)> {
        let servers = [self.grid.names_of("node"), self.grid.names_of("catalog")].concat();
        let name = servers.choose(&mut self.chance).context("there are no servers")?.clone();
        let most = if name.starts_with("node") { NODE_WRITES_MAX } else { CATALOG_WRITES_MAX };
        let after = self.chance.random_range(0..most);
        let (errno, what) =
            *[(Errno::IO, "EIO"), (Errno::NOSPC, "ENOSPC")].choose(&mut self.chance).context("no error")?;
        let mut environment = self.environment.clone();
        environment.push(("POWER_FAIL_AFTER".to_owned(), after.to_string().into()));
        environment.push(("POWER_FAIL_ERRNO".to_owned(), errno.raw_os_error().to_string().into()));
        self.grid.set_environment(&name, environment)?;
        Ok((name, format!("{what} after {after} writes")))
    }
}

/// The folders of the servers' data, next to which their logs and settings lie.
fn is_data(name: &str) -> bool {
    !name.contains('.') && ["catalog-", "node-"].iter().any(|kind| name.starts_with(kind))
}
