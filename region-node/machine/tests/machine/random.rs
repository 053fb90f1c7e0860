//! Random logs and random bytes, from fixed seeds.

use crate::{
    region::{Region, agent, id, number_of},
    script::commit,
};
use afdg_region_machine::{
    Command, Op, OpOutcome, Outcome, RegionMachine,
    op::{CollectGarbage, ForgetIds, KeepId, RecordChainedTurn, RecordTurn, RowChange},
    table::{
        fence::Fence,
        mailbox::RecordedTurn,
        replies::{self, TurnReply},
    },
};
use afdg_types::AgentRef;
use bytes::Bytes;
use std::collections::BTreeMap;

/// Xorshift: the same numbers for the same seed, on every machine.
pub struct Random(pub u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    pub fn bytes(&mut self, length: u64) -> Vec<u8> {
        (0..length).map(|_| self.below(256) as u8).collect()
    }

    fn text(&mut self) -> Bytes {
        let length = self.below(3);
        (0..length).map(|_| b"abc"[self.below(3) as usize]).collect::<Vec<u8>>().into()
    }

    fn ops(&mut self, recorded: &BTreeMap<AgentRef, u64>) -> Vec<Op> {
        let mut ops: Vec<Op> = Vec::new();
        for _ in 0..self.below(4) {
            let op = self.op(recorded);
            // An owner does not commit a turn as unrecorded beside its record.
            let beside = |other: &Op| match (record_of(other), &op) {
                (Some(record), Op::CommitTurn(turn)) => record.agent == turn.agent,
                _ => false,
            };
            if !ops.iter().any(beside) {
                ops.push(op);
            }
        }
        ops
    }

    fn op(&mut self, recorded: &BTreeMap<AgentRef, u64>) -> Op {
        let place = self.below(3);
        let agent = agent(["alice", "bob", "carol"][place as usize]);
        // An id is of one agent.
        let number = self.below(10) * 3 + place;
        match self.below(12) {
            0..7 => {
                let mut turn = commit(agent.clone(), number);
                turn.expires_at_s = self.below(50);
                turn.reply = match self.below(4) {
                    0 => TurnReply::Refused(afdg_types::AgentError::refused("NO", number.to_string())),
                    _ => turn.reply,
                };
                for _ in 0..self.below(4) {
                    let (key, value) = (self.text(), self.text());
                    turn.changes.push(match self.below(6) {
                        0 => RowChange::DropPrefix { prefix: key },
                        1 => RowChange::Delete { key },
                        _ => RowChange::Put { key, value },
                    });
                }
                // As the owner does it: a turn that stands in the mailbox is committed as such.
                // One that has entered while it waits is not.
                let enters = self.below(4) == 0;
                if let Some(standing) =
                    recorded.get(&agent).filter(|standing| !enters || **standing == number)
                {
                    turn.message_id = id(*standing);
                    turn.reply = TurnReply::Response(standing.to_string().into());
                    turn.recorded = true;
                }
                Op::CommitTurn(turn)
            }
            7 => Op::RecordTurn(RecordTurn { turn: recorded_turn(number, self.below(99)), agent }),
            8 => {
                let record = RecordTurn { turn: recorded_turn(number, self.below(99)), agent };
                Op::RecordChainedTurn(RecordChainedTurn { record, reentries: vec![id(number), id(99)] })
            }
            9 => Op::KeepId(KeepId { message_id: id(number), expires_at_s: self.below(60) }),
            10 => Op::ForgetIds(ForgetIds { now_s: self.below(20) }),
            _ => Op::CollectGarbage(CollectGarbage {}),
        }
    }
}

fn record_of(op: &Op) -> Option<&RecordTurn> {
    match op {
        Op::RecordTurn(record) => Some(record),
        Op::RecordChainedTurn(chained) => Some(&chained.record),
        _ => None,
    }
}

fn recorded_turn(number: u64, seed: u64) -> RecordedTurn {
    RecordedTurn {
        message_id: id(number),
        method: "Do".to_owned(),
        request: number.to_string().into(),
        digest: u128::from(number),
        chain: vec![agent("root"), agent("parent")],
        now_ms: 1_000 + number,
        seed,
        reentries: Vec::new(),
    }
}

/// One log with stragglers, gaps and elections in it. [`Region::apply`] compares each step with a machine
/// that was restored right before it, which stands for a restart or a snapshot at every place.
fn run_log(seed: u64) -> (Vec<(u64, Bytes)>, Region) {
    let mut random = Random::new(seed);
    let (mut region, mut log) = (Region::default(), Vec::new());
    let (mut term, mut leadership, mut sequence) = (1, 0, 0);
    let mut committed: BTreeMap<u64, TurnReply> = BTreeMap::new();
    let mut recorded: BTreeMap<AgentRef, u64> = BTreeMap::new();
    for _ in 0..150 {
        // A new leader in a new term, or one that starts over in its own.
        let begins = match random.below(16) {
            0 | 1 => {
                (term, leadership, sequence) = (term + 1 + random.below(2), random.below(2), 0);
                leadership > 0
            }
            2 => {
                leadership += 1;
                true
            }
            _ => false,
        };
        let next = if begins { Fence::first_of(leadership) } else { sequence + 1 };
        let ops = random.ops(&recorded);
        let forgets = ops.iter().any(|op| matches!(op, Op::ForgetIds(_)));
        let mut command = Command { term, sequence: next, ops };
        match random.below(12) {
            0 => command.term -= 1,
            1 => command.sequence += random.below(3),
            _ => {}
        }
        let let_in = command.term == term && command.sequence == next;
        let encoded = command.encode().unwrap();
        log.push((term, encoded.clone()));
        match region.apply_bytes(term, &encoded) {
            Outcome::Applied(outcomes) => {
                assert!(let_in, "entry {}.{} was let in", command.term, command.sequence);
                sequence = next;
                assert_eq!(outcomes.len(), command.ops.len());
                for (op, outcome) in command.ops.iter().zip(&outcomes) {
                    check_outcome(op, outcome, forgets, &mut committed, &mut recorded);
                }
                if forgets {
                    // The model does not know which: it starts over with what is still known.
                    committed.retain(|number, _| replies::get(&region.rows, id(*number)).unwrap().is_some());
                }
            }
            Outcome::Fenced { .. } => {
                assert!(!let_in, "entry {}.{} was fenced off", command.term, command.sequence);
            }
            Outcome::Unreadable(error) => panic!("{error}"),
        }
    }
    (log, region)
}

/// An id takes effect once, and is answered as it was then.
fn check_outcome(
    op: &Op,
    outcome: &OpOutcome,
    forgets: bool,
    committed: &mut BTreeMap<u64, TurnReply>,
    recorded: &mut BTreeMap<AgentRef, u64>,
) {
    match (op, outcome) {
        (Op::CommitTurn(turn), OpOutcome::Committed) => {
            let before = committed.insert(number_of(turn.message_id), turn.reply.clone());
            assert!(before.is_none() || forgets, "{turn:?} took effect twice");
            if turn.recorded {
                recorded.remove(&turn.agent);
            }
        }
        (Op::CommitTurn(turn), OpOutcome::Duplicate { reply, .. }) => {
            let known = committed.get(&number_of(turn.message_id));
            assert_eq!(known, Some(reply), "{turn:?}");
        }
        (Op::CommitTurn(_), OpOutcome::RefusedBase) => {}
        (Op::KeepId(_) | Op::ForgetIds(_) | Op::CollectGarbage(_), OpOutcome::Done { .. }) => {}
        (op, outcome) => match record_of(op) {
            Some(op) => check_record(op, outcome, committed, recorded),
            None => panic!("{op:?} gave {outcome:?}"),
        },
    }
}

fn check_record(
    op: &RecordTurn,
    outcome: &OpOutcome,
    committed: &BTreeMap<u64, TurnReply>,
    recorded: &mut BTreeMap<AgentRef, u64>,
) {
    match outcome {
        OpOutcome::Duplicate { reply, .. } => {
            assert_eq!(committed.get(&number_of(op.turn.message_id)), Some(reply), "{op:?}");
        }
        OpOutcome::Recorded => {
            recorded.insert(op.agent.clone(), number_of(op.turn.message_id));
        }
        OpOutcome::RefusedOccupied => {
            assert!(recorded.contains_key(&op.agent), "nothing of {} stands in the mailbox", op.agent);
        }
        OpOutcome::RefusedBase => {}
        outcome => panic!("{op:?} gave {outcome:?}"),
    }
}

#[test]
fn an_id_takes_effect_once_in_any_log_and_a_restart_changes_nothing() {
    let mut rows = 0;
    for seed in 0..60 {
        rows += run_log(seed).1.rows.len();
    }
    assert!(rows > 60 * 10, "the logs did something: {rows} rows");
}

#[test]
fn the_same_log_gives_the_same_rows_wherever_the_machine_was_restored() {
    let (log, whole) = run_log(7);
    for restart_every in [1, 2, 7, 40] {
        let (mut machine, mut rows) = (RegionMachine::default(), BTreeMap::new());
        for (place, (term, command)) in log.iter().enumerate() {
            if place % restart_every == 0 {
                machine = RegionMachine::default();
                machine.restore(&rows).unwrap();
            }
            machine.apply(*term, command, &mut rows).unwrap();
        }
        assert_eq!(rows, whole.rows, "restored every {restart_every} entries");
    }
}

#[test]
fn any_bytes_are_a_command_or_a_refusal() {
    let mut random = Random::new(11);
    let (log, _) = run_log(3);
    let (mut decoded, mut refused) = (0, 0);
    let mut check = |bytes: &[u8]| match Command::decode(bytes) {
        Ok(command) => {
            decoded += 1;
            assert_eq!(Command::decode(&command.encode().unwrap()), Ok(command), "{bytes:?}");
        }
        Err(_) => refused += 1,
    };
    for _ in 0..20_000 {
        let length = random.below(64);
        let mut bytes = random.bytes(length);
        check(&bytes);
        bytes.insert(0, 1);
        check(&bytes);
    }
    // Real ones with a few bytes changed, cut off or doubled.
    for round in 0..20_000 {
        let mut bytes = log[random.below(log.len() as u64) as usize].1.to_vec();
        for _ in 0..=round % 3 {
            let place = random.below(bytes.len() as u64) as usize;
            match random.below(4) {
                0 => bytes.truncate(place.max(1)),
                1 => bytes.insert(place, 0xff),
                _ => bytes[place] = random.below(256) as u8,
            }
        }
        check(&bytes);
    }
    assert!(decoded > 100 && refused > 100, "{decoded} commands, {refused} refusals");
}

#[test]
fn lengths_far_past_the_end_take_no_memory_and_are_refused() {
    let huge: Vec<u8> = [0xff; 9].into_iter().chain([0x01]).collect();
    // term, sequence, a count of operations of u64::MAX.
    let ops = [&[1, 1, 1][..], &huge].concat();
    // One CommitTurn whose agent's name would have u64::MAX bytes.
    let agent = [&[1, 1, 1, 1, 0][..], &huge].concat();
    for bytes in [ops, agent] {
        assert!(Command::decode(&bytes).is_err());
    }
}
