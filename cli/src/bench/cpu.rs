//! CPU time of processes, from `/proc`.

use super::recorder::Window;
use anyhow::{Context, anyhow};
use std::time::Duration;

/// The kernel tells times to programs in units of 1/100 s (`USER_HZ`) on every architecture that AFDG
/// runs on.
const TICKS_PER_S: u64 = 100;

/// CPU time spent within a window; none where it was not asked for.
#[derive(Clone, Copy, Debug)]
pub struct Used {
    pub client: Option<Duration>,
    pub server: Option<Duration>,
}

/// Measures this process and the servers from the window's start to its end.
pub async fn over(window: Window, servers: Vec<u32>) -> anyhow::Result<Used> {
    tokio::time::sleep_until(window.start.into()).await;
    let (client, server) = (of("self")?, of_all(&servers)?);
    tokio::time::sleep_until(window.end.into()).await;
    let between = |before: Duration, after: Duration| Some(after.saturating_sub(before));
    Ok(Used {
        client: between(client, of("self")?),
        server: if servers.is_empty() { None } else { between(server, of_all(&servers)?) },
    })
}

fn of_all(pids: &[u32]) -> anyhow::Result<Duration> {
    let mut sum = Duration::ZERO;
    for pid in pids {
        sum += of(&pid.to_string())?;
    }
    Ok(sum)
}

/// User and system time of all threads of a process since its start.
fn of(process: &str) -> anyhow::Result<Duration> {
    let file = format!("/proc/{process}/stat");
    let text = std::fs::read_to_string(&file)
        .with_context(|| format!("the CPU time of process {process} can't be read; does it still run?"))?;
    let ticks = ticks(&text).ok_or_else(|| anyhow!("{file} reads otherwise than expected: {text}"))?;
    Ok(Duration::from_millis(ticks * 1_000 / TICKS_PER_S))
}

/// Fields 14 and 15 of `/proc/PID/stat`, see proc(5). The second field may hold spaces and parentheses.
fn ticks(stat: &str) -> Option<u64> {
    let mut fields = stat[stat.rfind(')')? + 1..].split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_whatever_the_name_of_the_process() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194560 100 0 0 0 250 50 7 8 20 0 5 0 100 1000 10";
        assert_eq!(ticks(stat), Some(300));
        assert_eq!(ticks(""), None);
        assert_eq!(ticks("1 (a) S 1"), None);
        assert!(of("self").is_ok());
        assert!(of("0").is_err());
    }
}
