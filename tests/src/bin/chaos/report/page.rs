//! A page with the timeline of a history that is wrong.

use super::seconds;
use crate::{check::Finding, nemesis::Event};
use std::{
    collections::BTreeSet,
    fmt::{self, Write},
};

const WIDTH: f64 = 1_100.0;
/// Left of it stand the clients' names.
const LEFT: f64 = 90.0;
const ROW: f64 = 34.0;

const STYLE: &str = "body{font:14px sans-serif;margin:2em}svg{border:1px solid #ccc}\
.op{fill:#4a90d9}.open{fill:#c8c8c8}.fault{fill:#d94a4a;opacity:.15}text{font-size:11px}\
table{border-collapse:collapse}td,th{border:1px solid #ccc;padding:2px 8px;text-align:left}";

pub fn of(finding: &Finding, events: &[Event], seed: u64) -> String {
    let mut page = String::new();
    // Writing to a string does not fail.
    let _ = write(&mut page, finding, events, seed);
    page
}

fn write(page: &mut String, finding: &Finding, events: &[Event], seed: u64) -> fmt::Result {
    let agent = escaped(&finding.agent);
    let what =
        if finding.is_violation { "no order fits these answers" } else { "no order was found in time" };
    write!(page, "<!doctype html><meta charset=utf-8><title>{agent}</title><style>{STYLE}</style>")?;
    write!(page, "<h1>{agent}: {what}</h1><p>Seed {seed}. The agent held {} ", escaped(&finding.state))?;
    write!(
        page,
        "after {} operations that are left out. Grey: the outcome is unknown, or of no matter. ",
        finding.left_out
    )?;
    write!(page, "Red: a fault. Times are seconds since the run began.</p>")?;
    timeline(page, finding, events)?;
    write!(page, "<table><tr><th>client<th>called<th>operation<th>answered<th>answer</tr>")?;
    for operation in &finding.operations {
        let (at, answer) = match &operation.answered {
            Some((at, answer)) => (format!("{:.6}", seconds(*at)), escaped(answer)),
            None => (String::new(), String::new()),
        };
        let called = seconds(operation.called);
        let op = escaped(&operation.op);
        write!(page, "<tr><td>{}<td>{called:.6}<td>{op}<td>{at}<td>{answer}</tr>", operation.client)?;
    }
    page.write_str("</table>\n")
}

fn timeline(page: &mut String, finding: &Finding, events: &[Event]) -> fmt::Result {
    let operations = &finding.operations;
    let first = operations.iter().map(|operation| operation.called).min().unwrap_or_default();
    let ends = operations.iter().map(|op| op.answered.as_ref().map_or(op.called, |(at, _)| *at));
    let last = ends.max().unwrap_or(first).max(first + 1);
    let x = |at: u64| {
        let at = at.clamp(first, last);
        LEFT + (at - first) as f64 / (last - first) as f64 * (WIDTH - LEFT - 10.0)
    };
    let clients: BTreeSet<u32> = operations.iter().map(|operation| operation.client).collect();
    let clients: Vec<u32> = clients.into_iter().collect();
    let height = ROW * (clients.len() + 1) as f64;
    write!(page, "<svg width={WIDTH} height={height}>")?;
    for event in events.iter().filter(|event| event.began <= last && event.ended >= first) {
        let (from, to) = (x(event.began), x(event.ended));
        let width = (to - from).max(1.0);
        write!(page, "<rect class=fault x={from:.1} y=0 width={width:.1} height={height}>")?;
        write!(page, "<title>{}</title></rect>", escaped(&event.what))?;
    }
    for (row, client) in clients.iter().enumerate() {
        let y = ROW * row as f64 + 20.0;
        write!(page, "<text x=4 y={:.1}>client {client}</text>", y + 11.0)?;
        for operation in operations.iter().filter(|operation| operation.client == *client) {
            let (class, end, answer) = match &operation.answered {
                Some((at, answer)) => ("op", *at, answer.as_str()),
                None => ("open", last, "unknown"),
            };
            let from = x(operation.called);
            let width = (x(end) - from).max(2.0);
            let text = escaped(&format!("{} -> {answer}", operation.op));
            write!(page, "<rect class={class} x={from:.1} y={y:.1} width={width:.1} height=14>")?;
            write!(page, "<title>{text}</title></rect><text x={from:.1} y={:.1}>{text}</text>", y - 2.0)?;
        }
    }
    let y = height - 4.0;
    write!(page, "<text x={LEFT} y={y}>{:.4}</text>", seconds(first))?;
    write!(page, "<text x={} y={y} text-anchor=end>{:.4}</text></svg>", WIDTH - 4.0, seconds(last))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
