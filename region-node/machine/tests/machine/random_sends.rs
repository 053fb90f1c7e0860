//! Random logs of messages that nobody waits for, from fixed seeds: none is lost, none takes effect twice.

use crate::{
    random::Random,
    region::{Region, agent, id, number_of},
    script::{accepted, commit},
};
use afdg_region_machine::{
    Op, OpOutcome,
    op::{
        AcceptSend, CommitMessaging, FailAttempt, GivenUp, LetterVerdict, Next, SettleDeadLetter, SettleSends,
    },
    table::{
        dead_letters, inbox,
        outbox::{self, OutgoingSend},
        replies::{self, TurnReply},
    },
};
use afdg_types::Reason;
use std::collections::{BTreeMap, BTreeSet};

const AGENTS: [&str; 3] = ["alice", "bob", "carol"];

/// Whose a message of that number is.
fn receiver(number: u64) -> &'static str {
    AGENTS[number as usize % AGENTS.len()]
}

#[derive(Default)]
struct Model {
    /// Accepted, not dropped, and where they are.
    accepted: BTreeMap<u64, At>,
    /// Sent by turns and not settled, by the outbox's number.
    outbox: BTreeMap<u64, u64>,
    /// Ids of turns that sent something.
    turns: BTreeSet<u64>,
    next_number: u64,
    deaths: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Inbox,
    Answered,
    Dead,
}

fn failure() -> TurnReply {
    TurnReply::Failed { reason: Reason::HandlerPanicked, message: "it panicked".to_owned() }
}

fn op(random: &mut Random, region: &Region, model: &Model) -> Op {
    let number = random.below(30);
    let agent = agent(receiver(number));
    let stands = model.accepted.get(&number) == Some(&At::Inbox);
    match random.below(10) {
        0..4 => {
            let send = accepted(receiver(number), &number.to_string(), &["from:dave"]);
            Op::AcceptSend(AcceptSend { agent, send })
        }
        4 | 5 if stands => {
            let turn = commit(agent, number);
            Op::CommitMessaging(CommitMessaging { turn, accepted: true, sends: Vec::new() })
        }
        6 | 7 => {
            let next = match random.below(3) {
                0 => Next::GiveUp { expires_at_s: 100 },
                _ => Next::TryAgain { due_ms: random.below(9_000) },
            };
            Op::FailAttempt(FailAttempt {
                agent,
                message_id: id(number),
                failure: failure(),
                next,
                now_ms: 5,
            })
        }
        8 if !model.outbox.is_empty() && random.below(2) == 0 => {
            let numbers: Vec<u64> = model.outbox.keys().copied().collect();
            let number = numbers[random.below(numbers.len() as u64) as usize];
            let given_up = GivenUp { number, attempts: 1, failure: failure() };
            let dies = random.below(4) == 0;
            Op::SettleSends(SettleSends {
                sender: crate::region::agent("dave"),
                accepted: if dies { Vec::new() } else { vec![number] },
                given_up: dies.then_some(given_up),
                now_ms: 6,
            })
        }
        8 => {
            let turn = commit(crate::region::agent("dave"), 100 + random.below(30));
            let send = |ordinal| OutgoingSend {
                to: crate::region::agent("bob"),
                message_id: id(1_000 + number_of(turn.message_id) * 10 + ordinal),
                method: "Do".to_owned(),
                request: "x".into(),
                sent_ms: 1,
                due_ms: 0,
            };
            let sends = (1..=1 + random.below(3)).map(send).collect();
            Op::CommitMessaging(CommitMessaging { turn, accepted: false, sends })
        }
        _ => {
            let page = dead_letters::page(&region.rows, None, 100).unwrap();
            let Some((agent, number, _)) = page.letters.first().cloned() else {
                return Op::SettleSends(SettleSends {
                    sender: agent,
                    accepted: Vec::new(),
                    given_up: None,
                    now_ms: 1,
                });
            };
            let verdict = if random.below(4) == 0 { LetterVerdict::Drop } else { LetterVerdict::TryAgain };
            Op::SettleDeadLetter(SettleDeadLetter { agent, number, verdict, now_ms: 7 })
        }
    }
}

/// What the model says that the operation does.
fn expect(model: &mut Model, region: &Region, op: &Op) -> OpOutcome {
    let take = |model: &mut Model, count: u64| {
        model.next_number += count;
        model.next_number - count
    };
    match op {
        Op::AcceptSend(op) => {
            let number = number_of(op.send.message_id);
            if let std::collections::btree_map::Entry::Vacant(place) = model.accepted.entry(number) {
                place.insert(At::Inbox);
                take(model, 1);
            }
            OpOutcome::Accepted
        }
        Op::CommitMessaging(op) if op.accepted => {
            model.accepted.insert(number_of(op.turn.message_id), At::Answered);
            OpOutcome::Committed
        }
        Op::CommitMessaging(op) => {
            if !model.turns.insert(number_of(op.turn.message_id)) {
                let (digest, reply) = (op.turn.digest, op.turn.reply.clone());
                return OpOutcome::Duplicate { digest, reply };
            }
            let first = take(model, op.sends.len() as u64);
            let sends = op.sends.iter().map(|send| number_of(send.message_id));
            model.outbox.extend((first..).zip(sends));
            OpOutcome::CommittedSends { first }
        }
        Op::FailAttempt(op) => match model.accepted.get_mut(&number_of(op.message_id)) {
            Some(at @ At::Inbox) => {
                if let Next::GiveUp { .. } = op.next {
                    *at = At::Dead;
                    model.deaths += 1;
                    model.next_number += 1;
                }
                OpOutcome::Done { more: false }
            }
            _ => OpOutcome::RefusedGone,
        },
        Op::SettleSends(op) => {
            for number in &op.accepted {
                model.outbox.remove(number);
            }
            if let Some(given_up) = &op.given_up {
                model.outbox.remove(&given_up.number);
                take(model, 1);
            }
            OpOutcome::Done { more: false }
        }
        Op::SettleDeadLetter(op) => {
            let letter = dead_letters::get(&region.rows, &op.agent, op.number).unwrap().unwrap();
            let number = number_of(letter.send.message_id);
            let is_receivers = letter.side == dead_letters::Side::Receiver;
            match op.verdict {
                LetterVerdict::Drop => {
                    // Its id stays answered with the failure.
                    if is_receivers {
                        model.accepted.insert(number, At::Answered);
                    }
                    OpOutcome::Done { more: false }
                }
                LetterVerdict::TryAgain if is_receivers => {
                    take(model, 1);
                    model.accepted.insert(number, At::Inbox);
                    let mut send = letter.send;
                    (send.due_ms, send.attempts) = (op.now_ms, 0);
                    OpOutcome::AcceptedAgain { send: Box::new(send) }
                }
                LetterVerdict::TryAgain => {
                    let place = take(model, 1);
                    model.outbox.insert(place, number);
                    OpOutcome::SentAgain { to: letter.to, number: place, bytes: letter.send.request.len() }
                }
            }
        }
        other => panic!("not of this model: {other:?}"),
    }
}

#[test]
fn a_send_is_in_one_place_until_it_has_taken_effect_once() {
    let (mut deaths, mut answers) = (0, 0);
    for seed in 0..40 {
        let mut random = Random::new(seed);
        let (mut region, mut model) = (Region::default(), Model::default());
        for sequence in 1..200 {
            let op = op(&mut random, &region, &model);
            // A duplicate refuses all later turns of its agent in the term: each entry has a term of its own.
            let expected = expect(&mut model, &region, &op);
            assert_eq!(region.apply_ops(sequence, 1, vec![op.clone()]), [expected], "seed {seed}: {op:?}");
            for (number, at) in &model.accepted {
                let stands = inbox::place(&region.rows, id(*number)).unwrap().is_some();
                let answered = replies::get(&region.rows, id(*number)).unwrap().is_some();
                let found = (stands, answered);
                assert_eq!(found, (*at == At::Inbox, *at != At::Inbox), "seed {seed}: {number} is {at:?}");
            }
            let outgoing: Vec<u64> =
                outbox::all(&region.rows).unwrap().iter().map(|lying| lying.number).collect();
            assert_eq!(outgoing, model.outbox.keys().copied().collect::<Vec<_>>(), "seed {seed}");
            if random.below(10) == 0 {
                region.restart();
            }
        }
        deaths += model.deaths;
        answers += model.accepted.values().filter(|at| **at == At::Answered).count();
    }
    assert!(deaths > 40 && answers > 40, "{deaths} dead letters, {answers} answers");
}
