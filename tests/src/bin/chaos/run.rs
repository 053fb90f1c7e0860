//! One run from start to report.

use crate::{
    arguments::Arguments,
    caller::Caller,
    check::{Checked, check_book},
    enclosure::Place,
    nemesis::{Field, Ground, Schedule, forget_earlier_runs},
    probes::Probes,
    report::Report,
    workload::Workloads,
};
use afdg_tests::{cluster::Cluster, processes::Processes, stalls::Stalls};
use anyhow::{Context, ensure};
use std::{fs::File, path::Path, sync::Arc, time::Duration};
use tokio::{sync::watch, time::Instant};

/// How long clients may take to end their last calls: as long as one call is repeated, and a little.
const CLIENTS_END_LIMIT: Duration = Duration::from_secs(120);

pub async fn run(arguments: &Arguments, afdg: &Path, place: &Place) -> anyhow::Result<Report> {
    std::fs::create_dir_all(&arguments.report)?;
    let folder = arguments.report.canonicalize()?;
    // Two runs would take each other's files for those of a run that was killed.
    let lock = File::create(folder.join("lock"))?;
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive)
        .with_context(|| format!("another run reports to {}", folder.display()))?;
    forget_earlier_runs(&folder)?;
    let unenclosed = match place {
        Place::Unenclosed { why } => Some(why.as_str()),
        _ => None,
    };
    let mut field = Field::build(Ground { afdg, folder: &folder, run: arguments.time(), unenclosed }).await?;
    field.grid.start_all()?;
    field.grid.until_well().await?;
    let report = with_grid(arguments, &mut field).await?;
    if !report.is_clean() {
        keep_logs(&field.grid, &folder)?;
    }
    field.grid.end();
    Ok(report)
}

async fn with_grid(arguments: &Arguments, field: &mut Field) -> anyhow::Result<Report> {
    let mut kinds = field.possible();
    if !arguments.nemesis.is_empty() {
        for kind in &arguments.nemesis {
            let missing = field.missing.get(kind);
            ensure!(missing.is_none(), "{kind} can't be done here: {}", missing.map_or("", String::as_str));
        }
        kinds.retain(|kind| arguments.nemesis.contains(kind));
    }
    let (endpoints, began) = (field.grid.endpoints(), Instant::now());
    let stalls = Stalls::watch();
    let (stop, stopped) = watch::channel(false);
    let workloads = Arc::new(Workloads::new(Caller::new(&endpoints, began)?));
    let regions = Cluster::new(&field.grid.endpoint()?)?.regions().await?;
    let probes = Probes::start(&endpoints, &regions, began, &stopped)?;
    let mut clients = workloads.start(arguments.seed, &stopped);
    let mut schedule = Schedule::new(kinds, arguments.seed, began);
    let disturbed = schedule.run(field, arguments.time()).await;

    stop.send_replace(true);
    let mut wrong: Vec<String> = disturbed.err().map(|error| format!("{error:#}")).into_iter().collect();
    let all_end = async { while clients.join_next().await.is_some() {} };
    if tokio::time::timeout(CLIENTS_END_LIMIT, all_end).await.is_err() {
        wrong.push(format!("clients still wait {CLIENTS_END_LIMIT:?} after the last fault"));
    }
    let mut answers = Default::default();
    match tokio::time::timeout(CLIENTS_END_LIMIT, probes.finish()).await {
        Ok((answered, told)) => {
            answers = answered;
            wrong.extend(told);
        }
        Err(_) => wrong.push("a region does not answer after the last fault".to_owned()),
    }
    if wrong.is_empty() {
        field.grid.tell("last repeats and reads");
        workloads.finish().await;
    }
    wrong.extend(workloads.caller.wrong());
    wrong.extend(panics(&field.grid));
    wrong.extend(field.grid.check_all_run().err().map(|error| format!("{error:#}")));
    field.grid.tell("checking");
    let lasted = began.elapsed();
    let counts = workloads.caller.counts();
    let checked = tokio::task::spawn_blocking(move || check_all(&workloads)).await?;
    Ok(Report {
        seed: arguments.seed,
        lasted,
        left_out: field.missing.clone(),
        counts,
        checked,
        wrong,
        events: schedule.events,
        answers,
        longest_stall: stalls.longest(),
    })
}

fn check_all(workloads: &Workloads) -> Vec<Checked> {
    vec![
        check_book(&workloads.registers),
        check_book(&workloads.counters),
        check_book(&workloads.lists),
        check_book(&workloads.bank.book),
        check_book(&workloads.retries.book),
    ]
}

/// A panic is a defect, whatever the fault. Errors are told under faults, as they should be.
fn panics(grid: &Processes) -> Vec<String> {
    let panicked = |name: String| {
        let log = grid.log(&name);
        let line = log.lines().find(|line| line.contains("panicked at"))?;
        Some(format!("{name} panicked: {line}"))
    };
    grid.names().into_iter().filter_map(panicked).collect()
}

/// What the servers have printed, for whoever looks for the cause.
fn keep_logs(grid: &Processes, folder: &Path) -> anyhow::Result<()> {
    let logs = folder.join("logs");
    std::fs::create_dir_all(&logs)?;
    for name in grid.names() {
        std::fs::write(logs.join(format!("{name}.log")), grid.log(&name))?;
    }
    Ok(())
}
