//! Schedules in scripts.
//!
//! | text | means |
//! | --- | --- |
//! | `turn ... set:NAME:due=MS[,every=MS][,to=AGENT][,all]` | CommitScheduling that sets a schedule |
//! | `turn ... unset:NAME` | CommitScheduling that cancels one |
//! | `fire AGENT NAME GENERATION at:MS [send:MS]... [next:MS]` | FireSchedule |
//! | `cancel AGENT NAME GENERATION` | CancelSchedule |

use crate::region::{Table, agent};
use afdg_region_machine::{
    Op,
    op::{CancelSchedule, FireSchedule, NewSchedule, Placed, ScheduleChange},
    table::schedules,
};
use afdg_types::{AgentRef, Missed, Timing, When};

pub fn change(effect: &str, of: &AgentRef) -> Option<ScheduleChange> {
    if let Some(name) = effect.strip_prefix("unset:") {
        return Some(ScheduleChange::Cancel { name: name.to_owned() });
    }
    let (name, parts) = effect.strip_prefix("set:")?.split_once(':')?;
    let mut new = NewSchedule {
        name: name.to_owned(),
        when: When { timing: Timing::Every { period_ms: 1_000 }, start_ms: None, until_ms: None },
        missed: Missed::Once,
        to: of.clone(),
        method: "Do".to_owned(),
        request: "tick".into(),
        first_due_ms: 0,
        set_ms: 7_000,
    };
    for part in parts.split(',') {
        match part.split_once('=') {
            Some(("due", ms)) => new.first_due_ms = ms.parse().unwrap(),
            Some(("every", ms)) => new.when.timing = Timing::Every { period_ms: ms.parse().unwrap() },
            Some(("to", key)) => new.to = agent(key),
            None if part == "all" => new.missed = Missed::All,
            _ => panic!("no part of a schedule: {part}"),
        }
    }
    Some(ScheduleChange::Set(new))
}

pub fn fire(words: &[&str]) -> Op {
    let [agent_key, name, generation, parts @ ..] = words else { panic!("no firing: {words:?}") };
    let mut op = FireSchedule {
        agent: agent(agent_key),
        name: (*name).to_owned(),
        generation: generation.parse().unwrap(),
        due_ms: 0,
        firings: Vec::new(),
        next_due_ms: None,
        now_ms: 9_900,
    };
    for part in parts {
        let (what, ms) = part.split_once(':').unwrap();
        let ms = ms.parse().unwrap();
        match what {
            "at" => op.due_ms = ms,
            "send" => op.firings.push(ms),
            "next" => op.next_due_ms = Some(ms),
            _ => panic!("no part of a firing: {part}"),
        }
    }
    Op::FireSchedule(op)
}

pub fn cancel(agent_key: &str, name: &str, generation: &str) -> Op {
    let (agent, name) = (agent(agent_key), name.to_owned());
    Op::CancelSchedule(CancelSchedule { agent, name, generation: generation.parse().unwrap() })
}

pub fn render_placed(placed: &[Placed]) -> String {
    let placed: Vec<String> =
        placed.iter().map(|Placed { number, due_ms }| format!("{due_ms} as {number}")).collect();
    format!("fired {}", if placed.is_empty() { "nothing".to_owned() } else { placed.join(", ") })
}

pub fn render_row(rows: &Table, key: &[u8]) -> String {
    let first = [&[0x25], &key[1..]].concat();
    let page = schedules::page(rows, Some(&first), 1).unwrap();
    let schedules::Standing { agent, name, schedule, progress } = &page.schedules[0];
    if key[0] == 0x26 {
        return format!("{} {name} is due {}, has sent {}", agent.key(), progress.due_ms, progress.fired);
    }
    let (Timing::Every { period_ms }, generation) = (&schedule.when.timing, schedule.generation) else {
        panic!("scripts have periods only: {schedule:?}")
    };
    format!(
        "{} schedule {name} {generation}: every {period_ms} to {}, {:?}",
        agent.key(),
        schedule.to.key(),
        schedule.missed
    )
}
