//! Runs seeds, each in a process of its own, and adds up what they say.

use crate::{Arguments, events::Events, simulation::Simulation};
use afdg_types::planted::{self, Bug};
use std::{
    collections::BTreeMap,
    io::Write,
    process::{Command, ExitCode, Output, Stdio},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// Seeds within which every planted bug has to be found.
const BUG_SEEDS_MAX: u64 = 200;

pub fn run(arguments: &Arguments) -> ExitCode {
    let bug = match arguments.bug.as_deref().map(bug_named).transpose() {
        Ok(bug) => bug,
        Err(name) => {
            eprintln!("there is no bug '{name}'; there are:");
            for bug in Bug::ALL {
                eprintln!("  {:<26} {}", bug.name(), bug.words().trim());
            }
            return ExitCode::from(2);
        }
    };
    if let Some(seed) = arguments.child {
        return child(seed, bug);
    }
    if let Some(seed) = arguments.seed {
        return replay(seed, bug);
    }
    if arguments.bugs {
        return find_bugs(arguments);
    }
    let total = simulate(arguments, bug, arguments.seeds, false);
    total.print();
    if total.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn bug_named(name: &str) -> Result<Bug, String> {
    Bug::ALL.iter().find(|bug| bug.name() == name).copied().ok_or_else(|| name.to_owned())
}

/// Simulates one seed and tells the process that started this one.
fn child(seed: u64, bug: Option<Bug>) -> ExitCode {
    let events = one(seed, bug, false);
    let mut said = format!("digest {:032x}\n", events.digest());
    for (what, count) in events.counts() {
        said.push_str(&format!("count {count} {what}\n"));
    }
    for violation in events.violations() {
        said.push_str(&format!("violation {}\n", violation.replace('\n', " ")));
    }
    say(&said);
    // Destructors of what is left have nothing to add.
    std::process::exit(0);
}

fn replay(seed: u64, bug: Option<Bug>) -> ExitCode {
    let events = one(seed, bug, true);
    let mut said = String::new();
    for line in events.take_lines() {
        said.push_str(&line);
        said.push('\n');
    }
    for (what, count) in events.counts() {
        said.push_str(&format!("{count:>10} {what}\n"));
    }
    let violations = events.violations();
    for violation in &violations {
        said.push_str(&format!("VIOLATION {violation}\n"));
    }
    said.push_str(&format!(
        "seed {seed}: digest {:032x}, {} violations\n",
        events.digest(),
        violations.len()
    ));
    say(&said);
    std::process::exit(i32::from(!violations.is_empty()));
}

/// A closed pipe is the reader's choice.
fn say(text: &str) {
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
    let _ = std::io::stdout().flush();
}

fn one(seed: u64, bug: Option<Bug>, keep: bool) -> Events {
    if let Some(bug) = bug {
        planted::plant(bug);
    }
    if let Ok(filter) = std::env::var("AFDG_SIM_LOG") {
        let filter = tracing_subscriber::EnvFilter::new(filter);
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).without_time().init();
    }
    crate::determinism::begin(seed);
    let events = Events::new(keep);
    let told = events.clone();
    // On a thread of its own: what a thread keeps of chance (the keys of its hash maps, its generator) is
    // drawn when it is first asked for, and this one's may have been.
    let simulation = std::thread::Builder::new().stack_size(64 << 20);
    let ended = simulation.spawn(move || Simulation::new(seed, events).run());
    if ended.map(|thread| thread.join().is_err()).unwrap_or(true) {
        told.violation("the simulator", format_args!("it panicked"));
    }
    told
}

/// What seeds said together.
#[derive(Default)]
struct Total {
    seeds: u64,
    counts: BTreeMap<String, u64>,
    /// Seed, and what was wrong.
    failed: Vec<(u64, String)>,
    took: Duration,
}

impl Total {
    fn print(&self) {
        let mut said = String::new();
        for (what, count) in &self.counts {
            said.push_str(&format!("{count:>12} {what}\n"));
        }
        let minutes = self.took.as_secs_f64() / 60.0;
        said.push_str(&format!(
            "{} seeds in {:.1} s: {:.0} seeds a minute\n",
            self.seeds,
            self.took.as_secs_f64(),
            self.seeds as f64 / minutes.max(f64::EPSILON),
        ));
        for (seed, what) in &self.failed {
            said.push_str(&format!("seed {seed}: {what}\n"));
        }
        said.push_str(&format!("{} violations\n", self.failed.len()));
        say(&said);
    }
}

/// `first_failure` ends at the first seed that fails.
fn simulate(arguments: &Arguments, bug: Option<Bug>, seeds: u64, first_failure: bool) -> Total {
    let jobs = arguments.jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let began = Instant::now();
    let (next, total, stop) = (AtomicU64::new(0), Mutex::new(Total::default()), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= seeds || stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let seed = arguments.first + number;
                    let once = start(seed, bug).map(|output| told(&output));
                    let again = arguments.twice.then(|| start(seed, bug).map(|output| told(&output)));
                    let mut total = total.lock().unwrap_or_else(PoisonError::into_inner);
                    total.seeds += 1;
                    let mut failures = Vec::new();
                    match once {
                        Err(error) => failures.push(format!("could not be started: {error}")),
                        Ok(told) => {
                            if let Some(again) = again
                                && again.as_ref().ok().map(|again| &again.digest) != Some(&told.digest)
                            {
                                failures.push("two runs differ".to_owned());
                            }
                            failures.extend(told.failures);
                            for (what, count) in told.counts {
                                *total.counts.entry(what).or_default() += count;
                            }
                        }
                    }
                    if let Some(failure) = failures.into_iter().next() {
                        total.failed.push((seed, failure));
                        if first_failure {
                            stop.store(true, Ordering::Relaxed);
                        }
                    }
                }
            });
        }
    });
    let mut total = total.into_inner().unwrap_or_else(PoisonError::into_inner);
    total.failed.sort();
    total.took = began.elapsed();
    total
}

fn start(seed: u64, bug: Option<Bug>) -> std::io::Result<Output> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("--child").arg(seed.to_string()).stdin(Stdio::null());
    if let Some(bug) = bug {
        command.arg("--bug").arg(bug.name());
    }
    command.output()
}

struct Told {
    digest: String,
    counts: BTreeMap<String, u64>,
    failures: Vec<String>,
}

fn told(output: &Output) -> Told {
    let mut told = Told { digest: String::new(), counts: BTreeMap::new(), failures: Vec::new() };
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        match line.split_once(' ') {
            Some(("digest", digest)) => told.digest = digest.to_owned(),
            Some(("count", rest)) => {
                if let Some((count, what)) = rest.split_once(' ') {
                    told.counts.insert(what.to_owned(), count.parse().unwrap_or(0));
                }
            }
            Some(("violation", what)) => told.failures.push(what.to_owned()),
            _ => {}
        }
    }
    if !output.status.success() || told.digest.is_empty() {
        let errors = String::from_utf8_lossy(&output.stderr);
        let last = errors.lines().find(|line| line.contains("panicked")).unwrap_or_default();
        told.failures.push(format!("the process ended with {}: {last}", output.status));
    }
    told
}

fn find_bugs(arguments: &Arguments) -> ExitCode {
    let mut missed = 0;
    for bug in Bug::ALL {
        let total = simulate(arguments, Some(*bug), BUG_SEEDS_MAX, true);
        match total.failed.first() {
            Some((seed, what)) => {
                let short: String = what.chars().take(110).collect();
                say(&format!(
                    "{:<26} found after {:>3} seeds, by seed {seed}: {short}\n",
                    bug.name(),
                    total.seeds
                ));
            }
            None => {
                missed += 1;
                say(&format!("{:<26} NOT FOUND in {} seeds\n", bug.name(), total.seeds));
            }
        }
    }
    if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
