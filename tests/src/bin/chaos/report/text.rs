//! The report as text.

use super::{Report, seconds};
use crate::{
    check::{Checked, Finding},
    nemesis::Event,
    probes::{longest_wait, longest_wait_within},
};
use std::{collections::BTreeMap, fmt, time::Duration};

/// Columns of a timeline.
const WIDTH: usize = 60;
/// Operations of a finding that are shown as text; a page shows all.
const SHOWN_MAX: usize = 60;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}, {:.0} s", self.seed, self.lasted.as_secs_f64())?;
        self.calls(f)?;
        self.faults(f)?;
        self.service(f)?;
        for checked in &self.checked {
            let Checked { name, agents, operations, unknown, findings } = checked;
            let wrong = match findings.len() {
                0 => "all linearizable".to_owned(),
                count => format!("{count} NOT LINEARIZABLE"),
            };
            writeln!(f, "{name}: {agents} agents, {operations} operations, {unknown} unknown: {wrong}")?;
        }
        for finding in self.checked.iter().flat_map(|checked| &checked.findings) {
            show(f, finding, &self.events)?;
        }
        for wrong in &self.wrong {
            writeln!(f, "WRONG: {wrong}")?;
        }
        writeln!(f, "{}", if self.is_clean() { "no violation" } else { "VIOLATION" })
    }
}

impl Report {
    fn calls(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = &self.counts;
        writeln!(
            f,
            "calls: {} operations: {} answered, {} without effect, {} unknown; {} attempts, {} of them repeats",
            counts.operations,
            counts.answered,
            counts.no_effect,
            counts.unknown,
            counts.attempts,
            counts.repeats,
        )?;
        let reasons: Vec<String> =
            counts.reasons.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
        let probes: usize = self.answers.values().map(Vec::len).sum();
        writeln!(f, "attempts without answer: {}", or_none(&reasons.join(", ")))?;
        writeln!(f, "probes of regions: {probes} answered")
    }

    fn faults(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
        for event in &self.events {
            *kinds.entry(event.kind.to_string()).or_default() += 1;
        }
        let kinds: Vec<String> = kinds.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
        writeln!(f, "faults: {}: {}", self.events.len(), or_none(&kinds.join(", ")))?;
        for Event { kind, what, began, ended, .. } in &self.events {
            writeln!(f, "  {:8.2} s to {:8.2} s  {kind}: {what}", seconds(*began), seconds(*ended))?;
        }
        for (kind, why) in &self.left_out {
            writeln!(f, "left out: {kind}: {why}")?;
        }
        Ok(())
    }

    fn service(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let longest = self
            .answers
            .iter()
            .map(|(region, answers)| format!("region {region} {:.2} s", longest_wait(answers).as_secs_f64()));
        let longest = longest.collect::<Vec<_>>().join(", ");
        writeln!(f, "longest without service, under any fault: {}", or_none(&longest))?;
        let mut by_fault: BTreeMap<String, Duration> = BTreeMap::new();
        for event in &self.events {
            let waits = self.answers.values();
            let waits = waits.map(|answers| longest_wait_within(answers, event.began, event.ended));
            let longest = by_fault.entry(event.kind.to_string()).or_default();
            *longest = waits.max().unwrap_or_default().max(*longest);
        }
        let by_fault =
            by_fault.iter().map(|(kind, longest)| format!("{kind} {:.2} s", longest.as_secs_f64()));
        let by_fault = by_fault.collect::<Vec<_>>().join(", ");
        writeln!(f, "longest of any region, by the fault then: {}", or_none(&by_fault))?;
        let times = self.unavailable();
        if let (Some(worst), Some(median)) = (times.last(), times.get(times.len() / 2)) {
            let all: Vec<String> = times.iter().map(|time| format!("{:.2}", time.as_secs_f64())).collect();
            writeln!(
                f,
                "without service after a leader's death, {} regions: median {:.2} s, worst {:.2} s ({})",
                times.len(),
                median.as_secs_f64(),
                worst.as_secs_f64(),
                all.join(" "),
            )?;
        } else {
            writeln!(f, "without service after a leader's death: none died with nothing else wrong")?;
        }
        writeln!(f, "longest stall of this machine: {:.0} ms", self.longest_stall.as_secs_f64() * 1e3)
    }
}

fn show(f: &mut fmt::Formatter<'_>, finding: &Finding, events: &[Event]) -> fmt::Result {
    let Finding { agent, is_violation, state, left_out, operations } = finding;
    let what = if *is_violation { "no order fits these answers" } else { "no order was found in time" };
    writeln!(f, "==> {agent}: {what}")?;
    writeln!(f, "    it held {state} after {left_out} operations that are left out; times in seconds")?;
    let first = operations.iter().map(|operation| operation.called).min().unwrap_or_default();
    let ends = operations.iter().map(|op| op.answered.as_ref().map_or(op.called, |(at, _)| *at));
    let last = ends.max().unwrap_or(first).max(first + 1);
    for operation in operations.iter().take(SHOWN_MAX) {
        let column = |at: u64| ((at - first) as usize * (WIDTH - 1)) / (last - first) as usize;
        let begin = column(operation.called);
        let (end, close, answer) = match &operation.answered {
            Some((at, answer)) => (column(*at), ']', format!("{answer} at {:.4}", seconds(*at))),
            None => (WIDTH - 1, '>', "outcome unknown, or of no matter".to_owned()),
        };
        let mut line = vec![' '; WIDTH];
        line[begin..=end].fill('-');
        line[end] = close;
        line[begin] = '[';
        let line: String = line.into_iter().collect();
        let called = seconds(operation.called);
        writeln!(f, "    {line} client {} {called:.4} {} -> {answer}", operation.client, operation.op)?;
    }
    if operations.len() > SHOWN_MAX {
        writeln!(f, "    and {} more", operations.len() - SHOWN_MAX)?;
    }
    for event in events.iter().filter(|event| event.began <= last && event.ended >= first) {
        writeln!(
            f,
            "    meanwhile {:.2} to {:.2}: {}",
            seconds(event.began),
            seconds(event.ended),
            event.what
        )?;
    }
    Ok(())
}

fn or_none(text: &str) -> &str {
    if text.is_empty() { "none" } else { text }
}
