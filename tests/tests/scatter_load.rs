//! A scatter to many agents: everyone is reached, in a bounded time and with bounded memory. In a process of its
//! own, whose memory is the grid's.

use afdg_proto::pb::v1::ScatterRequest;
use afdg_tests::counters::{COUNTER, Counters, keys, next};
use anyhow::{Context, Result};
use std::time::{Duration, Instant};

/// Peak memory of this process, which is the whole grid.
fn peak_kib() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).context("no peak of memory")?;
    Ok(line.split_whitespace().nth(1).context("no number")?.parse()?)
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_agents_are_reached_in_bounded_time_and_memory() -> Result<()> {
    const AGENTS: usize = 10_000;
    const TIME_MAX: Duration = Duration::from_secs(60);
    /// Far less than all answers and their turns would take at once.
    const GROWTH_KIB_MAX: u64 = 128 * 1024;
    let counters = Counters::open(6, Duration::ZERO).await?;
    counters.make(COUNTER, "Add", &keys(0..AGENTS, "c")).await?;
    for (method, request) in [("Get", Default::default()), ("Add", counters.add("", "").request)] {
        let (began, before) = (Instant::now(), peak_kib()?);
        let request = ScatterRequest { method: method.to_owned(), request, ..counters.add("", "k") };
        let mut pages = counters.scatter(request).await?;
        let (mut results, mut page_count, mut first) = (0, 0, None);
        while let Some(page) = next(&mut pages).await? {
            results += page.results.len();
            page_count += 1;
            first.get_or_insert(began.elapsed());
        }
        let (took, grew) = (began.elapsed(), peak_kib()? - before);
        eprintln!(
            "{method}: {results} in {took:?}, {page_count} pages, the first after {first:?}, {grew} KiB more"
        );
        assert_eq!(results, AGENTS);
        assert!(took < TIME_MAX, "{method} took {took:?}");
        assert!(grew < GROWTH_KIB_MAX, "{method} took {grew} KiB");
        assert!(page_count >= AGENTS / 256, "{page_count} pages");
    }
    counters.grid.stop().await;
    Ok(())
}
