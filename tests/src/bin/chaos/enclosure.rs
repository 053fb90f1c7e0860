//! The run takes place in namespaces of its own (network, mounts, processes), so that the kernel cleans up
//! after it however it ends: when the first process in there is gone, so are all others, and with them
//! every interface, rule and mount.
//!
//! This process stays outside and waits. The one inside is told to end by the end of its standard input,
//! which comes too if the one outside is killed.

use crate::rights;
use anyhow::Context;
use std::{
    io::Read,
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};
use tokio::signal::unix::{SignalKind, signal};

const INSIDE: &str = "AFDG_CHAOS_INSIDE";
/// How long the one inside may take to end when it is told to.
const END_LIMIT: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(50);

pub enum Place {
    /// In namespaces of its own.
    Inside,
    /// In the machine's, for want of rights.
    Unenclosed { why: String },
    /// The run took place inside, and this is how it ended.
    Ended(ExitStatus),
}

/// Runs this program inside, or says that this is inside, or that it can't be done.
pub async fn enter() -> anyhow::Result<Place> {
    if std::env::var_os(INSIDE).is_some() {
        return Ok(Place::Inside);
    }
    let (unshare, namespaces) = match rights::own_namespaces() {
        Ok(found) => found,
        Err(error) => return Ok(Place::Unenclosed { why: format!("{error:#}") }),
    };
    let mut interrupted = signal(SignalKind::interrupt())?;
    let mut terminated = signal(SignalKind::terminate())?;
    let mut command = Command::new(unshare);
    command.args(namespaces).arg(std::env::current_exe()?).args(std::env::args_os().skip(1));
    command.env(INSIDE, "1").stdin(Stdio::piped());
    let mut inside = command.spawn().context("the run can't be started")?;
    tokio::select! {
        ended = ended(&mut inside) => return Ok(Place::Ended(ended?)),
        _ = interrupted.recv() => {}
        _ = terminated.recv() => {}
    }
    drop(inside.stdin.take());
    match tokio::time::timeout(END_LIMIT, ended(&mut inside)).await {
        Ok(ended) => Ok(Place::Ended(ended?)),
        Err(_) => {
            inside.kill()?;
            Ok(Place::Ended(inside.wait()?))
        }
    }
}

async fn ended(child: &mut Child) -> anyhow::Result<ExitStatus> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Returns when somebody wants the run to end.
pub async fn told_to_end(place: &Place) -> anyhow::Result<()> {
    let mut interrupted = signal(SignalKind::interrupt())?;
    let mut terminated = signal(SignalKind::terminate())?;
    let (gone, mut outside) = tokio::sync::mpsc::channel::<()>(1);
    if matches!(place, Place::Inside) {
        std::thread::spawn(move || {
            let _ = std::io::stdin().read_to_end(&mut Vec::new());
            drop(gone);
        });
    } else {
        // As long as nobody is outside, nobody goes.
        std::mem::forget(gone);
    }
    tokio::select! {
        _ = interrupted.recv() => {}
        _ = terminated.recv() => {}
        _ = outside.recv() => {}
    }
    Ok(())
}
