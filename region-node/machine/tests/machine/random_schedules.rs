//! Random logs of schedules, from fixed seeds: each due time sends once at most, whatever is proposed twice,
//! late or for a schedule that was replaced.

use crate::{
    random::Random,
    region::{Region, agent},
    script::commit,
};
use afdg_region_machine::{
    Op, OpOutcome,
    op::{
        CancelSchedule, CommitMessaging, CommitScheduling, FireSchedule, NewSchedule, Placed, ScheduleChange,
    },
    table::{inbox, outbox, schedules},
};
use afdg_types::{AgentRef, Missed, Timing, When};
use std::collections::{BTreeMap, BTreeSet};

const AGENTS: [&str; 2] = ["alice", "bob"];
const NAMES: [&str; 3] = ["a", "b", "ab"];

#[derive(Clone, Debug, PartialEq)]
struct Known {
    generation: u64,
    period_ms: u64,
    request: u8,
    due_ms: u64,
    fired: u64,
}

#[derive(Default)]
struct Model {
    schedules: BTreeMap<(AgentRef, String), Known>,
    /// What was sent: by whom, by which schedule, for when.
    sent: BTreeSet<(AgentRef, u64, u64)>,
    turns: u64,
    numbers: u64,
}

impl Model {
    fn take(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers - 1
    }

    fn apply(&mut self, op: &Op) -> OpOutcome {
        match op {
            Op::CommitScheduling(op) => {
                for change in &op.changes {
                    self.change(&op.messaging.turn.agent, change);
                }
                OpOutcome::Committed
            }
            Op::FireSchedule(op) => self.fire(op),
            Op::CancelSchedule(op) => {
                let key = (op.agent.clone(), op.name.clone());
                let was_there = self.schedules.get(&key).is_some_and(|it| it.generation == op.generation);
                if was_there {
                    self.schedules.remove(&key);
                }
                OpOutcome::Cancelled { was_there }
            }
            other => panic!("not of this model: {other:?}"),
        }
    }

    fn change(&mut self, agent: &AgentRef, change: &ScheduleChange) {
        match change {
            ScheduleChange::Cancel { name } => {
                self.schedules.remove(&(agent.clone(), name.clone()));
            }
            ScheduleChange::Set(new) => {
                let Timing::Every { period_ms } = new.when.timing else { panic!("{new:?}") };
                let key = (agent.clone(), new.name.clone());
                let earlier = self.schedules.get(&key).filter(|it| it.period_ms == period_ms).cloned();
                if earlier.as_ref().is_some_and(|it| [it.request] == *new.request) {
                    return;
                }
                let (due_ms, fired) = earlier.map_or((new.first_due_ms, 0), |it| (it.due_ms, it.fired));
                let generation = self.take();
                let known = Known { generation, period_ms, request: new.request[0], due_ms, fired };
                self.schedules.insert(key, known);
            }
        }
    }

    fn fire(&mut self, op: &FireSchedule) -> OpOutcome {
        let key = (op.agent.clone(), op.name.clone());
        let stands = self
            .schedules
            .get(&key)
            .is_some_and(|it| (it.generation, it.due_ms) == (op.generation, op.due_ms));
        if !stands {
            return OpOutcome::NotFired;
        }
        let mut placed = Vec::new();
        for due_ms in &op.firings {
            let new = self.sent.insert((op.agent.clone(), op.generation, *due_ms));
            assert!(new, "the model sends nothing twice: {op:?}");
            placed.push(Placed { number: self.take(), due_ms: *due_ms });
        }
        match (op.next_due_ms, self.schedules.get_mut(&key)) {
            (Some(due_ms), Some(known)) => {
                known.due_ms = due_ms;
                known.fired += placed.len() as u64;
            }
            _ => {
                self.schedules.remove(&key);
            }
        }
        OpOutcome::Fired { placed }
    }
}

fn op(random: &mut Random, model: &mut Model) -> Op {
    let agent = agent(AGENTS[random.below(2) as usize]);
    let name = NAMES[random.below(3) as usize].to_owned();
    let key = (agent.clone(), name.clone());
    let known = model.schedules.get(&key).cloned();
    // Sometimes of a schedule that was there before, or was not yet.
    let generation = match known.as_ref() {
        Some(known) if random.below(5) > 0 => known.generation,
        _ => random.below(model.numbers + 2),
    };
    match random.below(10) {
        0..3 => {
            model.turns += 1;
            let turn = commit(agent.clone(), model.turns);
            let messaging = CommitMessaging { turn, accepted: false, sends: Vec::new() };
            let changes = (0..1 + random.below(3)).map(|_| change(random, &agent)).collect();
            Op::CommitScheduling(CommitScheduling { messaging, changes })
        }
        3 => Op::CancelSchedule(CancelSchedule { agent, name, generation }),
        _ => {
            let at = known.as_ref().map_or(1, |known| known.due_ms);
            let due_ms = if random.below(5) == 0 { at.saturating_sub(random.below(3)) } else { at };
            let count = random.below(3);
            let firings = (0..count).map(|past| due_ms + past).collect();
            let next_due_ms = (random.below(8) > 0).then_some(due_ms + count.max(1));
            Op::FireSchedule(FireSchedule {
                agent,
                name,
                generation,
                due_ms,
                firings,
                next_due_ms,
                now_ms: 1_000_000,
            })
        }
    }
}

fn change(random: &mut Random, agent: &AgentRef) -> ScheduleChange {
    let name = NAMES[random.below(3) as usize].to_owned();
    if random.below(4) == 0 {
        return ScheduleChange::Cancel { name };
    }
    let timing = Timing::Every { period_ms: 1_000 + random.below(2) };
    ScheduleChange::Set(NewSchedule {
        // What alice sets under one name goes to another agent.
        to: if name == "ab" { crate::region::agent("carol") } else { agent.clone() },
        name,
        when: When { timing, start_ms: None, until_ms: None },
        missed: Missed::All,
        method: "Do".to_owned(),
        request: vec![random.below(3) as u8].into(),
        first_due_ms: 1 + random.below(5),
        set_ms: 1,
    })
}

#[test]
fn every_due_time_of_a_schedule_sends_once_at_most() {
    let (mut fired, mut refused) = (0, 0);
    for seed in 0..60 {
        let mut random = Random::new(seed);
        let (mut region, mut model) = (Region::default(), Model::default());
        for sequence in 1..150 {
            let op = op(&mut random, &mut model);
            let expected = model.apply(&op);
            match &expected {
                OpOutcome::Fired { placed } => fired += placed.len(),
                OpOutcome::NotFired => refused += 1,
                _ => {}
            }
            assert_eq!(region.apply_ops(1, sequence, vec![op.clone()]), [expected], "seed {seed}: {op:?}");
            if random.below(10) == 0 {
                region.restart();
            }
        }
        let page = schedules::page(&region.rows, None, usize::MAX).unwrap();
        let found: Vec<_> = page
            .schedules
            .iter()
            .map(|it| {
                let Timing::Every { period_ms } = it.schedule.when.timing else { panic!("{it:?}") };
                let known = Known {
                    generation: it.schedule.generation,
                    period_ms,
                    request: it.schedule.request[0],
                    due_ms: it.progress.due_ms,
                    fired: it.progress.fired,
                };
                ((it.agent.clone(), it.name.clone()), known)
            })
            .collect();
        let mut expected: Vec<_> = model.schedules.into_iter().collect();
        expected.sort_by_key(|((agent, name), _)| (afdg_types::Slot::of(agent), agent.clone(), name.clone()));
        assert_eq!(found, expected, "seed {seed}");
        let sent = inbox::all(&region.rows).unwrap().len() + outbox::all(&region.rows).unwrap().len();
        assert_eq!(sent, model.sent.len(), "seed {seed}");
    }
    assert!(fired > 500 && refused > 500, "{fired} fired, {refused} refused");
}
