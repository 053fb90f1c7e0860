//! Scripts of entries with what they did beside them.
//!
//! A line is an entry or a request to the test; what it did stands below it on lines that start with `>`.
//! The whole text is rendered anew and must come out as it was written.
//!
//! ```text
//! 2.1 op; op          entry 1 of the leader of term 2, committed in term 2
//! 2.1 in 3: op        the same, committed in term 3
//! 2.4/1 op            entry 1 of the leader's fourth leadership of term 2
//! 2.4/0 begin         an entry without operations, here the one that begins that leadership
//! restart             restores the machine from its rows
//! show                lists all rows in their order: by table, then by the agent's slot
//! ```
//!
//! | op | means |
//! | --- | --- |
//! | `turn AGENT ID EFFECT...` | CommitTurn; effects: `a=1`, `-a`, `drop:a`, `refused`, `failed`, `recorded`, `until:9` |
//! | `record AGENT ID [seed:N]` | RecordTurn |
//! | `keep ID SECOND` | KeepId |
//! | `forget SECOND` | ForgetIds |
//! | `collect` | CollectGarbage |
//! | `accept AGENT ID [from:SENDER] [due:N]` | AcceptSend |
//! | `turn ... accepted send:AGENT:ID` | CommitMessaging, with any of the two |
//! | `fail AGENT ID [refused] again:MS` or `up:SECOND` | FailAttempt: tried again, or given up |
//! | `settle SENDER N... [dead:N]` | SettleSends |
//! | `letter AGENT N retry` or `drop` | SettleDeadLetter |
//!
//! [`script_schedules`] has those of schedules.
//!
//! `ID` is a number for an id that lasts, and `rN` for one that a router made at millisecond N.

use crate::{
    region::{Region, agent, id, number_of},
    script_schedules,
};
use afdg_region_machine::{
    Command, Op, OpOutcome, Outcome,
    op::{
        AcceptSend, CollectGarbage, CommitMessaging, CommitScheduling, CommitTurn, FailAttempt, ForgetIds,
        GivenUp, KeepId, LetterVerdict, Next, RecordTurn, RowChange, SettleDeadLetter, SettleSends,
    },
    table::{
        dead_letters, entities,
        fence::{self, Fence},
        inbox::{self, AcceptedSend},
        mailbox,
        mailbox::RecordedTurn,
        outbox::{self, OutgoingSend},
        replies::{self, TurnReply},
    },
};
use afdg_types::{AgentError, AgentRef, MessageId, MessageIdKind, Reason};
use bytes::Bytes;

pub fn check(script: &str) {
    let mut region = Region::default();
    let mut rendered = Vec::new();
    let mut written = Vec::new();
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        written.push(line.to_owned());
        if !line.starts_with('>') {
            rendered.push(line.to_owned());
            rendered.extend(run(&mut region, line).into_iter().map(|line| format!("> {line}")));
        }
    }
    assert_eq!(rendered.join("\n"), written.join("\n"), "what was done is not what the script says");
}

fn run(region: &mut Region, line: &str) -> Vec<String> {
    match line {
        "restart" => {
            region.restart();
            Vec::new()
        }
        "show" => show(region),
        _ => {
            let (command, committed_in) = parse_entry(line);
            let before = region.rows.clone();
            let outcome = region.apply(committed_in, &command);
            if !matches!(outcome, Outcome::Applied(_)) {
                assert_eq!(region.rows, before, "a refused entry changes nothing");
            }
            render(&outcome)
        }
    }
}

fn parse_entry(line: &str) -> (Command, u64) {
    let (position, ops) = line.split_once(' ').unwrap();
    let (term, sequence) = position.split_once('.').unwrap();
    let (term, sequence) = (term.parse().unwrap(), parse_sequence(sequence));
    let (committed_in, ops) = match ops.strip_prefix("in ") {
        Some(rest) => {
            let (committed_in, ops) = rest.split_once(": ").unwrap();
            (committed_in.parse().unwrap(), ops)
        }
        None => (term, ops),
    };
    let ops = if ops == "begin" { Vec::new() } else { ops.split(';').map(parse_op).collect() };
    (Command { term, sequence, ops }, committed_in)
}

fn parse_sequence(text: &str) -> u64 {
    match text.split_once('/') {
        Some((leadership, entry)) => {
            Fence::first_of(leadership.parse().unwrap()) + entry.parse::<u64>().unwrap()
        }
        None => text.parse().unwrap(),
    }
}

fn render_sequence(sequence: u64) -> String {
    let one = Fence::first_of(1);
    if sequence < one { sequence.to_string() } else { format!("{}/{}", sequence / one, sequence % one) }
}

fn parse_op(text: &str) -> Op {
    let words: Vec<&str> = text.split_whitespace().collect();
    match words.as_slice() {
        ["turn", agent_key, number, effects @ ..] => turn(agent(agent_key), number, effects),
        ["record", agent_key, number, rest @ ..] => {
            let seed = rest.first().map_or(7, |seed| seed.strip_prefix("seed:").unwrap().parse().unwrap());
            let (agent, message_id) = (agent(agent_key), parse_id(number));
            let digest = replies::digest(&agent, "Do", number.as_bytes());
            let turn = RecordedTurn {
                message_id,
                method: "Do".to_owned(),
                request: Bytes::copy_from_slice(number.as_bytes()),
                digest,
                chain: Vec::new(),
                now_ms: 1_000,
                seed,
                reentries: Vec::new(),
            };
            Op::RecordTurn(RecordTurn { agent, turn })
        }
        ["keep", number, second] => {
            Op::KeepId(KeepId { message_id: parse_id(number), expires_at_s: second.parse().unwrap() })
        }
        ["forget", second] => Op::ForgetIds(ForgetIds { now_s: second.parse().unwrap() }),
        ["collect"] => Op::CollectGarbage(CollectGarbage {}),
        ["accept", agent_key, number, rest @ ..] => {
            Op::AcceptSend(AcceptSend { agent: agent(agent_key), send: accepted(agent_key, number, rest) })
        }
        ["fail", agent_key, number, rest @ ..] => fail(agent(agent_key), parse_id(number), rest),
        ["settle", sender, numbers @ ..] => {
            let (dead, accepted): (Vec<&str>, Vec<&str>) =
                numbers.iter().partition(|number| number.starts_with("dead:"));
            let given_up = dead.first().map(|number| GivenUp {
                number: number.strip_prefix("dead:").unwrap().parse().unwrap(),
                attempts: 3,
                failure: panicked(),
            });
            let accepted = accepted.iter().map(|number| number.parse().unwrap()).collect();
            Op::SettleSends(SettleSends { sender: agent(sender), accepted, given_up, now_ms: 9_000 })
        }
        ["letter", agent_key, number, verdict] => Op::SettleDeadLetter(SettleDeadLetter {
            agent: agent(agent_key),
            number: number.parse().unwrap(),
            verdict: if *verdict == "retry" { LetterVerdict::TryAgain } else { LetterVerdict::Drop },
            now_ms: 9_500,
        }),
        ["fire", rest @ ..] => script_schedules::fire(rest),
        ["cancel", agent_key, name, generation] => script_schedules::cancel(agent_key, name, generation),
        _ => panic!("no operation: {text}"),
    }
}

pub fn accepted(agent_key: &str, number: &str, rest: &[&str]) -> AcceptedSend {
    let mut send = AcceptedSend {
        message_id: parse_id(number),
        method: "Do".to_owned(),
        request: Bytes::copy_from_slice(number.as_bytes()),
        digest: replies::digest(&agent(agent_key), "Do", number.as_bytes()),
        sender: None,
        accepted_ms: 1_000,
        due_ms: 0,
        attempts: 0,
        refusals: 0,
        last_failure: None,
    };
    for part in rest {
        match part.split_once(':').unwrap() {
            ("from", sender) => send.sender = Some(agent(sender)),
            ("due", ms) => send.due_ms = ms.parse().unwrap(),
            _ => panic!("no part of a send: {part}"),
        }
    }
    send
}

fn panicked() -> TurnReply {
    TurnReply::Failed { reason: Reason::HandlerPanicked, message: "it panicked".to_owned() }
}

fn refused() -> TurnReply {
    TurnReply::Refused(AgentError::refused("NO", "no"))
}

fn fail(agent: AgentRef, message_id: MessageId, rest: &[&str]) -> Op {
    let (failure, next) = match rest {
        ["refused", next] => (refused(), next),
        [next] => (panicked(), next),
        _ => panic!("no failure: {rest:?}"),
    };
    let next = match next.split_once(':').unwrap() {
        ("again", due_ms) => Next::TryAgain { due_ms: due_ms.parse().unwrap() },
        ("up", second) => Next::GiveUp { expires_at_s: second.parse().unwrap() },
        _ => panic!("no next: {next}"),
    };
    Op::FailAttempt(FailAttempt { agent, message_id, failure, next, now_ms: 8_000 })
}

fn parse_id(text: &str) -> MessageId {
    match text.strip_prefix('r') {
        Some(ms) => MessageId::from_router(ms.parse().unwrap(), 0),
        None => id(text.parse().unwrap()),
    }
}

fn render_id(id: MessageId) -> String {
    match id.kind() {
        MessageIdKind::Router => format!("r{}", number_of(id)),
        MessageIdKind::Keyed => number_of(id).to_string(),
        MessageIdKind::Derived => "a firing".to_owned(),
    }
}

fn turn(agent: AgentRef, id: &str, effects: &[&str]) -> Op {
    let mut turn = commit(agent, 0);
    turn.message_id = parse_id(id);
    turn.reply = TurnReply::Response(Bytes::copy_from_slice(id.as_bytes()));
    let key = |key: &str| Bytes::copy_from_slice(key.as_bytes());
    let (mut accepted, mut sends, mut schedules) = (false, Vec::new(), Vec::new());
    for effect in effects {
        if let Some(change) = script_schedules::change(effect, &turn.agent) {
            schedules.push(change);
        } else if let Some(send) = effect.strip_prefix("send:") {
            let (to, number) = send.split_once(':').unwrap();
            sends.push(OutgoingSend {
                to: agent_named(to),
                message_id: parse_id(number),
                method: "Do".to_owned(),
                request: Bytes::copy_from_slice(number.as_bytes()),
                sent_ms: 7_000,
                due_ms: 0,
            });
        } else if *effect == "accepted" {
            accepted = true;
        } else if let Some(second) = effect.strip_prefix("until:") {
            turn.expires_at_s = second.parse().unwrap();
        } else if let Some(prefix) = effect.strip_prefix("drop:") {
            turn.changes.push(RowChange::DropPrefix { prefix: key(prefix) });
        } else if let Some(deleted) = effect.strip_prefix('-') {
            turn.changes.push(RowChange::Delete { key: key(deleted) });
        } else if let Some((put, value)) = effect.split_once('=') {
            turn.changes.push(RowChange::Put { key: key(put), value: key(value) });
        } else {
            match *effect {
                "recorded" => turn.recorded = true,
                "refused" => turn.reply = refused(),
                "failed" => turn.reply = panicked(),
                _ => panic!("no effect: {effect}"),
            }
        }
    }
    if !schedules.is_empty() {
        let messaging = CommitMessaging { turn, accepted, sends };
        Op::CommitScheduling(CommitScheduling { messaging, changes: schedules })
    } else if accepted || !sends.is_empty() {
        Op::CommitMessaging(CommitMessaging { turn, accepted, sends })
    } else {
        Op::CommitTurn(turn)
    }
}

/// `turn` has an argument of the function's own name.
fn agent_named(key: &str) -> AgentRef {
    agent(key)
}

/// A turn of message `number` that answers with that number and changes nothing.
pub fn commit(agent: AgentRef, number: u64) -> CommitTurn {
    let request = number.to_string();
    CommitTurn {
        digest: replies::digest(&agent, "Do", request.as_bytes()),
        agent,
        message_id: id(number),
        expires_at_s: 100,
        changes: Vec::new(),
        reply: TurnReply::Response(request.into()),
        recorded: false,
    }
}

fn render(outcome: &Outcome) -> Vec<String> {
    match outcome {
        Outcome::Applied(outcomes) if outcomes.is_empty() => vec!["let in".to_owned()],
        Outcome::Applied(outcomes) => outcomes.iter().map(render_op).collect(),
        Outcome::Fenced { term, sequence, committed_in, expected_sequence } => {
            let [sequence, expected] = [*sequence, *expected_sequence].map(render_sequence);
            vec![format!("fenced: {term}.{sequence} where {committed_in}.{expected} is let in")]
        }
        Outcome::Unreadable(error) => vec![format!("unreadable: {error}")],
    }
}

fn render_op(outcome: &OpOutcome) -> String {
    match outcome {
        OpOutcome::Committed => "committed".to_owned(),
        OpOutcome::Duplicate { digest: _, reply } => format!("duplicate, {}", render_reply(reply)),
        OpOutcome::RefusedBase => "refused: its base was".to_owned(),
        OpOutcome::Recorded => "recorded".to_owned(),
        OpOutcome::RefusedOccupied => "refused: another turn stands there".to_owned(),
        OpOutcome::RefusedGone => "refused: its send does not stand there".to_owned(),
        OpOutcome::CommittedSends { first } => format!("committed, sends from {first}"),
        OpOutcome::Accepted => "accepted".to_owned(),
        OpOutcome::AcceptedAgain { send } => format!("accepted again: {}", render_id(send.message_id)),
        OpOutcome::SentAgain { to, number, bytes: _ } => format!("sent again to {}: {number}", to.key()),
        OpOutcome::LetterIsOver { message_id } => format!("{} is over", render_id(*message_id)),
        OpOutcome::Fired { placed } => script_schedules::render_placed(placed),
        OpOutcome::NotFired => "it does not stand there".to_owned(),
        OpOutcome::Cancelled { was_there } => if *was_there { "cancelled" } else { "not there" }.to_owned(),
        OpOutcome::Done { more } => if *more { "more" } else { "done" }.to_owned(),
    }
}

fn render_reply(reply: &TurnReply) -> String {
    match reply {
        TurnReply::Response(response) => format!("answered {}", text(response)),
        TurnReply::Refused(error) => format!("refused {error}"),
        TurnReply::Failed { reason, message } => format!("failed {reason}: {message}"),
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn show(region: &Region) -> Vec<String> {
    let Region { rows, .. } = region;
    let fence = fence::get(rows).unwrap();
    let mut recorded = mailbox::all(rows).unwrap().into_iter();
    let mut lines = vec![format!("fence {}.{}", fence.term, render_sequence(fence.sequence))];
    for (key, value) in rows {
        lines.push(match key[0] {
            0x01 => continue,
            0x02 => format!("next number {}", number(value)),
            0x10 => {
                let (agent, own) = entities::parse(key).unwrap();
                format!("{} {}={}", agent.key(), text(own), text(value))
            }
            0x20 => {
                let (agent, turn) = recorded.next().unwrap();
                format!("{} recorded {} seed {}", agent.key(), render_id(turn.message_id), turn.seed)
            }
            0x21 => {
                let (agent, _) = entities::parse(key).unwrap();
                let place = inbox::Place { number: number(&key[key.len() - 8..]), agent };
                format!(
                    "{} inbox {}: {}",
                    place.agent.key(),
                    place.number,
                    render_send(&inbox::get(rows, &place).unwrap())
                )
            }
            // Checked against the inbox by `validate`.
            0x22 => continue,
            0x23 => {
                let (agent, number) = (agent_of(key), number(&key[key.len() - 8..]));
                let send = outbox::get(rows, &agent, number).unwrap().unwrap();
                format!(
                    "{} outbox {number}: {} to {}",
                    agent.key(),
                    render_id(send.message_id),
                    send.to.key()
                )
            }
            0x24 => {
                let (agent, number) = (agent_of(key), number(&key[key.len() - 8..]));
                let letter = dead_letters::get(rows, &agent, number).unwrap().unwrap();
                let (to, send) = (letter.to.key().to_owned(), render_send(&letter.send));
                format!("{} dead letter {number} to {to}, {:?}: {send}", agent.key(), letter.side)
            }
            0x25 | 0x26 => script_schedules::render_row(rows, key),
            0x30 | 0x31 => {
                let message_id = MessageId::from_bytes(&key[1..]).unwrap();
                let reply = replies::get(rows, message_id).unwrap().unwrap();
                let until = match reply.expires_at_s {
                    0 => String::new(),
                    second => format!(" until {second}"),
                };
                format!("id {}{until}: {}", render_id(message_id), render_reply(&reply.reply))
            }
            // Checked against the replies by `validate`.
            0x32 => continue,
            0x40 => {
                let (agent, own) = entities::parse(&key[1..]).unwrap();
                format!("garbage {} {}", agent.key(), text(own))
            }
            0x50 => format!("a turn of {} was refused in {}", agent_of(key).key(), number(value)),
            table => panic!("an unknown table {table:#x}"),
        });
    }
    lines
}

fn render_send(send: &AcceptedSend) -> String {
    let mut text = render_id(send.message_id);
    if let Some(sender) = &send.sender {
        text += &format!(" from {}", sender.key());
    }
    if send.due_ms > 0 {
        text += &format!(" due {}", send.due_ms);
    }
    if send.attempts + send.refusals > 0 {
        text += &format!(", {} attempts, {} refusals", send.attempts, send.refusals);
    }
    text
}

/// The agent part is laid out alike in all tables.
fn agent_of(key: &[u8]) -> AgentRef {
    entities::parse(key).unwrap().0
}

fn number(bytes: &[u8]) -> u64 {
    u64::from_be_bytes(bytes.try_into().unwrap())
}
