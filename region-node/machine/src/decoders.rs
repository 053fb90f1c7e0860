//! What must hold of a region's entries, whatever their bytes: for property tests and fuzzers
//! (`tests/tests/decoders.rs`, `tests/fuzz`). Only with the feature `fuzzing`.

use crate::{
    Command, Op, RegionMachine,
    op::{
        CollectGarbage, CommitMessaging, CommitScheduling, CommitTurn, FireSchedule, ForgetIds, NewSchedule,
        RecordChainedTurn, RecordTurn, RowChange, ScheduleChange,
    },
    table::{entities, mailbox::RecordedTurn, replies::TurnReply},
    validate,
};
use afdg_types::{AgentRef, MessageId, Missed, Timing, When};
use bytes::Bytes;
use std::collections::BTreeMap;

/// A machine takes any bytes, does the same with them wherever it is restored, and its rows stay valid.
pub fn command(data: &[u8]) {
    if let Ok(command) = Command::decode(data) {
        let encoded = command.encode();
        let again = encoded.as_ref().ok().and_then(|bytes| Command::decode(bytes).ok());
        assert_eq!(again, Some(command));
    }
    let mut rows = BTreeMap::new();
    let mut machine = RegionMachine::default();
    let first = machine.apply(1, data, &mut rows);
    let mut restored = RegionMachine::default();
    assert_eq!(restored.restore(&rows), Ok(()));
    let mut other_rows = rows.clone();
    let (second, other) = (machine.apply(1, data, &mut rows), restored.apply(1, data, &mut other_rows));
    assert_eq!((second, &rows), (other, &other_rows));
    if first.is_ok() {
        assert_eq!(validate(&rows), Ok(()));
    }
}

pub fn commands() -> Vec<Vec<u8>> {
    let Ok(agent) = "bank.v1.Account/alice".parse::<AgentRef>() else { return Vec::new() };
    let turn = CommitTurn {
        message_id: MessageId::from_idempotency_key(&agent, "key"),
        agent,
        digest: 7,
        expires_at_s: 9,
        changes: vec![
            RowChange::Put { key: Bytes::from("key"), value: Bytes::from("value") },
            RowChange::Delete { key: Bytes::from("other") },
            RowChange::DropPrefix { prefix: Bytes::from("pre") },
        ],
        reply: TurnReply::Response(Bytes::from("reply")),
        recorded: false,
    };
    let schedule = NewSchedule {
        name: "rent".to_owned(),
        when: When { timing: Timing::Every { period_ms: 1_000 }, start_ms: None, until_ms: None },
        missed: Missed::All,
        to: turn.agent.clone(),
        method: "Do".to_owned(),
        request: Bytes::from("request"),
        first_due_ms: 5,
        set_ms: 4,
    };
    let fire = FireSchedule {
        agent: turn.agent.clone(),
        name: "rent".to_owned(),
        generation: 0,
        due_ms: 5,
        firings: vec![5, 6],
        next_due_ms: Some(7),
        now_ms: 6,
    };
    let other =
        CommitTurn { message_id: MessageId::from_idempotency_key(&turn.agent, "other"), ..turn.clone() };
    let messaging = CommitMessaging { turn: other, accepted: false, sends: Vec::new() };
    let changes = vec![ScheduleChange::Set(schedule), ScheduleChange::Cancel { name: "x".to_owned() }];
    let recorded = RecordedTurn {
        message_id: MessageId::from_idempotency_key(&turn.agent, "recorded"),
        method: "Do".to_owned(),
        request: Bytes::from("request"),
        digest: 7,
        chain: vec![turn.agent.clone()],
        now_ms: 6,
        seed: 8,
        reentries: Vec::new(),
    };
    let record = RecordTurn { agent: turn.agent.clone(), turn: recorded };
    let chained = RecordChainedTurn { record, reentries: vec![turn.message_id] };
    let ops = vec![
        Op::RecordChainedTurn(chained),
        Op::CommitTurn(turn),
        Op::CommitScheduling(CommitScheduling { messaging, changes }),
        Op::FireSchedule(fire),
        Op::ForgetIds(ForgetIds { now_s: 100 }),
        Op::CollectGarbage(CollectGarbage {}),
    ];
    let command = Command { term: 1, sequence: 1, ops };
    command.encode().into_iter().map(|bytes| bytes.to_vec()).collect()
}

pub fn entity_key(data: &[u8]) {
    if let Some((agent, own)) = entities::parse(data) {
        assert_eq!(entities::key(&agent, own), data);
    }
}
