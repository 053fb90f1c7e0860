//! Bytes of schedules, as servers have written them: these literals are added to, never edited.

use crate::frozen_bytes::{alice, is_row, op_is, response, turn, unhex};
use crate::region::{Region, Table};
use afdg_region_machine::{
    Op,
    op::{CancelSchedule, CommitMessaging, CommitScheduling, FireSchedule, NewSchedule, ScheduleChange},
    table::schedules::{self, Progress, Schedule, Standing},
};
use afdg_types::{AgentRef, Missed, Timing, When};
use bytes::Bytes;

const COMMIT_SCHEDULING: &str = "0103ac02010a1562616e6b2e76312e4163636f756e742f616c696365018bcfe5680070018203040506070809909eb8e8c0e1828589909cb0d080c181820284e9cfaa060000047265737001010001000472656e74010f302039202a202a204d4f4e2d4652490d4575726f70652f4265726c696e0180d095ffbc3100011362616e6b2e76312e4163636f756e742f626f62074465706f73697403726571e0a499ffbc3180d095ffbc31";
const COMMIT_OTHERS: &str = "0103ac02010a1562616e6b2e76312e4163636f756e742f616c696365018bcfe5680070018203040506070809909eb8e8c0e1828589909cb0d080c181820284e9cfaa06000004726573700101000300046865617400e0d403000180a0f1c2b134001362616e6b2e76312e4163636f756e742f626f62074465706f73697403726571e0a499ffbc3180d095ffbc3100046865617400e0d403000180a0f1c2b134021362616e6b2e76312e4163636f756e742f626f62074465706f73697403726571e0a499ffbc3180d095ffbc31010472656e74";
const FIRE_SCHEDULE: &str = "0103ac02010b1562616e6b2e76312e4163636f756e742f616c6963650472656e7400e0a499ffbc3101e0a499ffbc3101c0f99cffbc31e7a499ffbc31";
const FIRE_LAST: &str =
    "0103ac02010b1562616e6b2e76312e4163636f756e742f616c6963650472656e7400e0a499ffbc310000e7a499ffbc31";
const CANCEL_SCHEDULE: &str = "0103ac02010c1562616e6b2e76312e4163636f756e742f616c6963650472656e74ac02";
const SCHEDULE_KEY: &str = "253cf40f62616e6b2e76312e4163636f756e740005616c69636572656e74";
const SCHEDULE_VALUE: &str = "0100010f302039202a202a204d4f4e2d4652490d4575726f70652f4265726c696e0180d095ffbc3100011362616e6b2e76312e4163636f756e742f626f62074465706f7369740372657180d095ffbc31";
const PROGRESS_KEY: &str = "263cf40f62616e6b2e76312e4163636f756e740005616c69636572656e74";
const PROGRESS_VALUE: &str = "0100c0f99cffbc3101";

fn bob() -> AgentRef {
    "bank.v1.Account/bob".parse().unwrap()
}

fn cron() -> When {
    let timing = Timing::Cron { text: "0 9 * * MON-FRI".to_owned(), zone: "Europe/Berlin".to_owned() };
    When { timing, start_ms: Some(1_700_000_000_000), until_ms: None }
}

fn every() -> When {
    When { timing: Timing::Every { period_ms: 60_000 }, start_ms: None, until_ms: Some(1_800_000_000_000) }
}

fn new(name: &str, when: When, missed: Missed) -> ScheduleChange {
    ScheduleChange::Set(NewSchedule {
        name: name.to_owned(),
        when,
        missed,
        to: bob(),
        method: "Deposit".to_owned(),
        request: Bytes::from_static(b"req"),
        first_due_ms: 1_700_000_060_000,
        set_ms: 1_700_000_000_000,
    })
}

fn scheduling(changes: Vec<ScheduleChange>) -> Op {
    let turn = turn(response(), vec![]);
    let messaging = CommitMessaging { turn, accepted: true, sends: vec![] };
    Op::CommitScheduling(CommitScheduling { messaging, changes })
}

fn fire(firings: Vec<u64>, next_due_ms: Option<u64>) -> Op {
    Op::FireSchedule(FireSchedule {
        agent: alice(),
        name: "rent".to_owned(),
        generation: 0,
        due_ms: 1_700_000_060_000,
        firings,
        next_due_ms,
        now_ms: 1_700_000_060_007,
    })
}

#[test]
fn commands() {
    op_is(scheduling(vec![new("rent", cron(), Missed::Once)]), COMMIT_SCHEDULING);
    let others = vec![
        new("heat", every(), Missed::Skip),
        new("heat", every(), Missed::All),
        ScheduleChange::Cancel { name: "rent".to_owned() },
    ];
    op_is(scheduling(others), COMMIT_OTHERS);
    op_is(fire(vec![1_700_000_060_000], Some(1_700_000_120_000)), FIRE_SCHEDULE);
    op_is(fire(vec![], None), FIRE_LAST);
    let cancel = CancelSchedule { agent: alice(), name: "rent".to_owned(), generation: 300 };
    op_is(Op::CancelSchedule(cancel), CANCEL_SCHEDULE);
}

#[test]
fn rows() {
    let mut region = Region::default();
    region.apply_ops(3, 1, vec![scheduling(vec![new("rent", cron(), Missed::Once)])]);
    region.apply_ops(3, 2, vec![fire(vec![1_700_000_060_000], Some(1_700_000_120_000))]);
    is_row(&region.rows, 0x25, SCHEDULE_KEY, SCHEDULE_VALUE);
    is_row(&region.rows, 0x26, PROGRESS_KEY, PROGRESS_VALUE);
}

#[test]
fn what_was_stored_is_read() {
    let mut rows = Table::new();
    for (key, value) in [(SCHEDULE_KEY, SCHEDULE_VALUE), (PROGRESS_KEY, PROGRESS_VALUE)] {
        rows.insert(unhex(key).into(), unhex(value).into());
    }
    let progress = Progress { generation: 0, due_ms: 1_700_000_120_000, fired: 1 };
    assert_eq!(schedules::all(&rows), Ok(vec![(alice(), "rent".to_owned(), progress)]));
    let schedule = Schedule {
        generation: 0,
        when: cron(),
        missed: Missed::Once,
        to: bob(),
        method: "Deposit".to_owned(),
        request: Bytes::from_static(b"req"),
        set_ms: 1_700_000_000_000,
    };
    let standing = Standing { agent: alice(), name: "rent".to_owned(), schedule, progress };
    assert_eq!(schedules::page(&rows, None, 10).unwrap().schedules, [standing]);
    assert_eq!(schedules::count_of_agent(&rows, &alice(), 10), Ok(1));
    assert_eq!(schedules::count_of_agent(&rows, &bob(), 10), Ok(0));
}
