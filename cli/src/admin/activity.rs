//! What agents are doing and whom they wait for.

use super::{grouped, ids};
use crate::{
    arguments::Format,
    failure::tell,
    output::{Output, Table},
};
use afdg_proto::pb::admin::{
    BlockedAgent, InspectAgentResponse, ListBlockedAgentsResponse, QueuedMessage, RunningTurn, WaitedCall,
};
use serde_json::{Value, json};
use std::time::Duration;

/// The turn that runs, and how many messages wait behind it.
pub fn facts(found: &InspectAgentResponse, facts: &mut Table) {
    if let Some(turn) = &found.turn {
        let is_recorded = if turn.recorded { ", finished whoever dies" } else { "" };
        facts.fact("turn", format!("{} for {}{is_recorded}", turn.method, span(turn.running_ms)));
        facts.fact("message id", &turn.message_id);
        facts.fact("from", sender(&turn.sender));
    }
    let held = match found.held {
        0 => String::new(),
        held => format!(", {} of them behind one that has failed", grouped(held.into())),
    };
    facts.fact("waiting messages", format!("{}{held}", grouped(found.waiting.into())));
}

/// The calls that the turn waits for, and the messages that wait for their turn.
pub fn print_waits(found: &InspectAgentResponse, output: &mut Output) -> anyhow::Result<()> {
    if let Some(turn) = found.turn.as_ref().filter(|turn| turn.calls_count > 0) {
        let mut table = Table::new(&["WAITS FOR", "METHOD", "#FOR", "MESSAGE ID"]);
        for call in &turn.calls {
            table.row([
                call.callee.clone(),
                call.method.clone(),
                span(call.waiting_ms),
                call.message_id.clone(),
            ]);
        }
        output.line("")?;
        output.table(&table)?;
        say_more(turn.calls_count as usize, turn.calls.len(), output)?;
    }
    if !found.next.is_empty() {
        let mut table = Table::new(&["NEXT", "FROM", "AS", "MESSAGE ID"]);
        for message in &found.next {
            let kind = if message.sent { "send" } else { "call" };
            let from = sender(&message.sender).to_owned();
            table.row([message.method.clone(), from, kind.to_owned(), message.message_id.clone()]);
        }
        output.line("")?;
        output.table(&table)?;
        say_more(found.waiting.saturating_sub(found.held) as usize, found.next.len(), output)?;
    }
    Ok(())
}

fn say_more(all: usize, shown: usize, output: &mut Output) -> anyhow::Result<()> {
    if all > shown {
        output.line(format_args!("and {} more", grouped((all - shown) as u64)))?;
    }
    Ok(())
}

/// Agents that wait for others.
pub fn print_blocked(
    found: &ListBlockedAgentsResponse,
    min: Duration,
    format: Format,
    output: &mut Output,
) -> anyhow::Result<()> {
    match format {
        Format::Json => output.json(&json!({
            "agents": found.agents.iter().map(blocked_as_json).collect::<Vec<_>>(),
            "more": found.more, "silent_regions": found.silent_regions,
        }))?,
        Format::Table if found.agents.is_empty() => output
            .line(format_args!("no agent has waited for another for {}", span(min.as_millis() as u64)))?,
        Format::Table => {
            let mut table =
                Table::new(&["AGENT", "TURN", "WAITS FOR", "METHOD", "#FOR", "#BEHIND", "WHICH WAITS FOR"]);
            for agent in &found.agents {
                let turn = agent.turn.clone().unwrap_or_default();
                let call = turn.calls.first().cloned().unwrap_or_default();
                let others = turn.calls_count.saturating_sub(1);
                let others = if others > 0 { format!(" (and {others} more)") } else { String::new() };
                table.row([
                    agent.agent.clone(),
                    turn.method,
                    call.callee + &others,
                    call.method,
                    span(call.waiting_ms),
                    grouped(agent.behind.into()),
                    agent.chain.get(2..).unwrap_or_default().join(" -> "),
                ]);
            }
            output.table(&table)?;
        }
    }
    if found.more {
        tell(format_args!("more have waited for so long than are shown; see --limit and --min"));
    }
    if !found.silent_regions.is_empty() {
        let regions = ids(&found.silent_regions);
        tell(format_args!("regions that did not answer, whose agents are missing: {regions}"));
    }
    Ok(())
}

fn sender(agent: &str) -> &str {
    if agent.is_empty() { "a client" } else { agent }
}

/// `1234` ms as `1.2 s`.
fn span(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..60_000 => format!("{}.{} s", ms / 1_000, ms % 1_000 / 100),
        60_000..3_600_000 => format!("{} min {} s", ms / 60_000, ms % 60_000 / 1_000),
        _ => format!("{} h {} min", ms / 3_600_000, ms % 3_600_000 / 60_000),
    }
}

pub fn turn_as_json(turn: &RunningTurn) -> Value {
    json!({
        "method": turn.method, "message_id": turn.message_id, "running_ms": turn.running_ms,
        "recorded": turn.recorded, "sender": (!turn.sender.is_empty()).then_some(&turn.sender),
        "calls": turn.calls.iter().map(call_as_json).collect::<Vec<_>>(), "calls_count": turn.calls_count,
    })
}

fn call_as_json(call: &WaitedCall) -> Value {
    json!({
        "callee": call.callee, "method": call.method, "message_id": call.message_id,
        "waiting_ms": call.waiting_ms,
    })
}

pub fn queued_as_json(message: &QueuedMessage) -> Value {
    json!({
        "method": message.method, "message_id": message.message_id,
        "sender": (!message.sender.is_empty()).then_some(&message.sender), "sent": message.sent,
    })
}

fn blocked_as_json(agent: &BlockedAgent) -> Value {
    json!({
        "agent": agent.agent, "region": agent.region, "turn": agent.turn.as_ref().map(turn_as_json),
        "behind": agent.behind, "chain": agent.chain,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::testing::printed;

    fn call(callee: &str, waiting_ms: u64) -> WaitedCall {
        WaitedCall {
            callee: callee.to_owned(),
            method: "Deposit".to_owned(),
            message_id: "id-2".to_owned(),
            waiting_ms,
        }
    }

    fn transfer(calls: Vec<WaitedCall>) -> RunningTurn {
        RunningTurn {
            method: "Transfer".to_owned(),
            message_id: "id-1".to_owned(),
            running_ms: 61_500,
            recorded: true,
            sender: "shop.v1.Cart/c".to_owned(),
            calls_count: calls.len() as u32 + 1,
            calls,
        }
    }

    #[test]
    fn spans_read_easily() {
        let spans = [0, 999, 1_000, 1_999, 61_500, 3_661_000].map(span);
        assert_eq!(spans, ["0 ms", "999 ms", "1.0 s", "1.9 s", "1 min 1 s", "1 h 1 min"]);
    }

    #[test]
    fn what_an_agent_waits_for_is_said() {
        let found = InspectAgentResponse {
            turn: Some(transfer(vec![call("bank.v1.Account/b", 1_500)])),
            waiting: 14,
            held: 3,
            next: vec![QueuedMessage {
                method: "Deposit".to_owned(),
                message_id: "id-3".to_owned(),
                sender: String::new(),
                sent: true,
            }],
            ..Default::default()
        };
        let text = printed(|output| {
            let mut table = Table::facts();
            facts(&found, &mut table);
            output.table(&table)?;
            print_waits(&found, output)
        });
        let expected = "\
turn              Transfer for 1 min 1 s, finished whoever dies
message id        id-1
from              shop.v1.Cart/c
waiting messages  14, 3 of them behind one that has failed

WAITS FOR          METHOD     FOR  MESSAGE ID
bank.v1.Account/b  Deposit  1.5 s  id-2
and 1 more

NEXT     FROM      AS    MESSAGE ID
Deposit  a client  send  id-3
and 10 more
";
        assert_eq!(text, expected);
    }

    #[test]
    fn who_waits_is_listed_with_the_way_that_the_wait_goes_on() {
        let agent = BlockedAgent {
            agent: "bank.v1.Account/a".to_owned(),
            region: 2,
            turn: Some(transfer(vec![call("bank.v1.Account/b", 2_000)])),
            behind: 1_000,
            chain: ["a", "b", "c", "d"].map(|key| format!("bank.v1.Account/{key}")).to_vec(),
        };
        let found = ListBlockedAgentsResponse { agents: vec![agent], ..Default::default() };
        let min = Duration::from_secs(1);
        let text = printed(|output| print_blocked(&found, min, Format::Table, output));
        let expected = "\
AGENT              TURN      WAITS FOR                       METHOD     FOR  BEHIND  WHICH WAITS FOR
bank.v1.Account/a  Transfer  bank.v1.Account/b (and 1 more)  Deposit  2.0 s   1,000  bank.v1.Account/c -> bank.v1.Account/d
";
        assert_eq!(text, expected);
        let json = printed(|output| print_blocked(&found, min, Format::Json, output));
        let json: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["agents"][0]["chain"][3], "bank.v1.Account/d");
        assert_eq!(json["agents"][0]["turn"]["calls"][0]["waiting_ms"], 2_000);
        let nobody = printed(|output| print_blocked(&Default::default(), min, Format::Table, output));
        assert_eq!(nobody, "no agent has waited for another for 1.0 s\n");
    }
}
