//! Which entries are let in, and work that is bounded.

use crate::{
    region::{Region, agent},
    script::{check, commit},
};
use afdg_region_machine::{
    Command, CommandError, Op, OpOutcome, Outcome, RegionMachine,
    op::{CollectGarbage, FORGET_IDS_PER_OP, ForgetIds, GARBAGE_ROWS_PER_OP, RowChange},
    table::{fence, garbage, replies},
};
use afdg_types::MessageId;
use bytes::Bytes;

#[test]
fn an_entry_of_another_term_is_fenced_off() {
    check(
        "
        1.1 turn alice 1 a=1
        > committed
        1.2 in 2: turn alice 2 a=2
        > fenced: 1.2 where 2.1 is let in
        1.1 in 2: turn alice 2 a=2
        > fenced: 1.1 where 2.1 is let in
        3.1 in 2: turn alice 2 a=2
        > fenced: 3.1 where 2.1 is let in
        1.2 turn alice 2 a=2
        > committed
        show
        > fence 1.2
        > alice a=2
        > id 1 until 100: answered 1
        > id 2 until 100: answered 2
        ",
    );
}

#[test]
fn an_entry_behind_a_gap_is_fenced_off_and_so_is_a_repeated_one() {
    check(
        "
        1.2 turn alice 1 a=1
        > fenced: 1.2 where 1.1 is let in
        1.0 turn alice 1 a=1
        > fenced: 1.0 where 1.1 is let in
        1.1 turn alice 1 a=1
        > committed
        1.3 turn alice 3 a=3
        > fenced: 1.3 where 1.2 is let in
        1.1 turn alice 4 a=4
        > fenced: 1.1 where 1.2 is let in
        restart
        1.3 turn alice 3 a=3
        > fenced: 1.3 where 1.2 is let in
        1.2 turn alice 2 a=2
        > committed
        1.3 turn alice 3 a=3
        > committed
        show
        > fence 1.3
        > alice a=3
        > id 1 until 100: answered 1
        > id 2 until 100: answered 2
        > id 3 until 100: answered 3
        ",
    );
}

#[test]
fn a_new_term_counts_from_one() {
    check(
        "
        1.1 turn alice 1
        > committed
        1.2 turn alice 2
        > committed
        5.3 turn alice 3
        > fenced: 5.3 where 5.1 is let in
        5.2 turn alice 3
        > fenced: 5.2 where 5.1 is let in
        5.1 turn alice 3
        > committed
        6.2 turn alice 4
        > fenced: 6.2 where 6.1 is let in
        5.2 turn alice 4
        > committed
        show
        > fence 5.2
        > id 1 until 100: answered 1
        > id 2 until 100: answered 2
        > id 3 until 100: answered 3
        > id 4 until 100: answered 4
        ",
    );
}

#[test]
fn a_leadership_begins_anew_in_its_term_and_what_is_left_of_the_earlier_one_comes_too_late() {
    check(
        "
        2.1/0 begin
        > let in
        2.1/1 turn alice 1 a=1
        > committed
        2.2/0 begin
        > let in
        2.1/2 turn alice 9 a=9
        > fenced: 2.1/2 where 2.2/1 is let in
        2.1/0 begin
        > fenced: 2.1/0 where 2.2/1 is let in
        2.2/0 begin
        > fenced: 2.2/0 where 2.2/1 is let in
        2.2/2 turn alice 9 a=9
        > fenced: 2.2/2 where 2.2/1 is let in
        2.1 turn alice 9 a=9
        > fenced: 2.1 where 2.2/1 is let in
        2.2/1 turn alice 2 a=2
        > committed
        2.5/1 turn alice 9 a=9
        > fenced: 2.5/1 where 2.2/2 is let in
        2.5/0 begin
        > let in
        restart
        2.2/2 turn alice 9 a=9
        > fenced: 2.2/2 where 2.5/1 is let in
        2.5/1 turn alice 3 a=3
        > committed
        2.6/0 in 3: begin
        > fenced: 2.6/0 where 3.1 is let in
        3.1/0 turn alice 4 a=4
        > committed
        2.5/2 in 3: turn alice 9 a=9
        > fenced: 2.5/2 where 3.1/1 is let in
        show
        > fence 3.1/0
        > alice a=4
        > id 1 until 100: answered 1
        > id 2 until 100: answered 2
        > id 3 until 100: answered 3
        > id 4 until 100: answered 4
        ",
    );
}

#[test]
fn a_new_leadership_of_the_same_term_forgets_refusals() {
    check(
        "
        2.1/0 begin
        > let in
        2.1/1 turn alice 1 a=1; turn alice 1 a=2; record bob 2; record bob 3
        > committed
        > duplicate, answered 1
        > recorded
        > refused: another turn stands there
        2.1/2 turn alice 4 a=3
        > refused: its base was
        restart
        2.2/0 begin
        > let in
        show
        > fence 2.2/0
        > alice a=1
        > bob recorded 2 seed 7
        > id 1 until 100: answered 1
        2.1/3 turn alice 5 a=4
        > fenced: 2.1/3 where 2.2/1 is let in
        2.2/1 turn alice 4 a=3; turn bob 2 recorded b=1
        > committed
        > committed
        ",
    );
}

#[test]
fn stragglers_of_an_earlier_term_never_take_effect_whatever_they_hold() {
    check(
        "
        1.1 turn alice 1 a=1; record bob 2
        > committed
        > recorded
        2.1 turn alice 3 a=2
        > committed
        1.2 in 2: turn alice 4 a=9 drop:a; record alice 5; keep 1 999; forget 999; collect
        > fenced: 1.2 where 2.2 is let in
        1.2 in 2: turn bob 2 recorded b=9
        > fenced: 1.2 where 2.2 is let in
        2.2 turn bob 2 recorded b=1
        > committed
        show
        > fence 2.2
        > alice a=2
        > bob b=1
        > id 1 until 100: answered 1
        > id 2 until 100: answered 2
        > id 3 until 100: answered 3
        ",
    );
}

#[test]
fn a_fenced_entry_of_a_new_term_does_not_forget_refusals() {
    check(
        "
        1.1 turn alice 1
        > committed
        2.1 turn alice 1
        > duplicate, answered 1
        3.2 turn alice 2
        > fenced: 3.2 where 3.1 is let in
        2.2 turn alice 2
        > refused: its base was
        3.1 turn alice 2
        > committed
        ",
    );
}

#[test]
fn bytes_that_are_no_command_are_refused_and_the_next_entry_is_let_in() {
    let mut region = Region::default();
    let known = Command { term: 1, sequence: 1, ops: vec![Op::CommitTurn(commit(agent("alice"), 1))] };
    let encoded = known.encode().unwrap();
    let mut newer = encoded.to_vec();
    newer[0] = 2;
    let mut longer = encoded.to_vec();
    longer.push(0);
    let mut unknown_op = Command { term: 1, sequence: 1, ops: vec![] }.encode().unwrap().to_vec();
    *unknown_op.last_mut().unwrap() = 1;
    unknown_op.push(99);
    for (bytes, newer) in [
        (Bytes::from(newer), true),
        (Bytes::from(longer), false),
        (Bytes::from(unknown_op), false),
        (Bytes::new(), false),
        (encoded.slice(..encoded.len() - 1), false),
    ] {
        let outcome = region.apply_bytes(1, &bytes);
        let Outcome::Unreadable(error) = outcome else { panic!("{bytes:?} was taken: {outcome:?}") };
        assert_eq!(error == CommandError::Version { version: 2 }, newer, "{bytes:?}: {error}");
        assert!(region.rows.is_empty(), "{bytes:?} changed rows");
    }
    assert_eq!(region.apply(1, &known), Outcome::Applied(vec![OpOutcome::Committed]));
}

#[test]
fn ids_are_forgotten_a_bounded_number_at_once() {
    let count = 2 * FORGET_IDS_PER_OP + 10;
    for (table, router) in [(0x30, true), (0x31, false)] {
        let mut region = Region::default();
        let turns = (0..count as u64).map(|number| {
            let mut turn = commit(agent("alice"), number);
            if router {
                turn.message_id = MessageId::from_router(number, 0);
            }
            Op::CommitTurn(turn)
        });
        region.apply_ops(1, 1, turns.collect());
        assert_eq!(region.rows_of_table(table), count);
        let now_s = 2_000;
        let mut left = Vec::new();
        for sequence in 2..5 {
            assert!(replies::any_expired(&region.rows, now_s).unwrap());
            let outcome = region.apply_ops(1, sequence, vec![Op::ForgetIds(ForgetIds { now_s })]);
            left.push((region.rows_of_table(table), outcome == [OpOutcome::Done { more: true }]));
        }
        assert_eq!(left, [(FORGET_IDS_PER_OP + 10, true), (10, true), (0, false)]);
        assert!(!replies::any_expired(&region.rows, now_s).unwrap());
    }
}

#[test]
fn a_time_far_ahead_forgets_all_ids_and_stops_no_replica() {
    for now_s in [u64::MAX, u64::MAX / 1_000 + 1, 1 << 40] {
        let mut region = Region::default();
        let mut router = commit(agent("alice"), 1);
        router.message_id = MessageId::from_router(1_700_000_000_000, 0);
        let turns = vec![Op::CommitTurn(router), Op::CommitTurn(commit(agent("alice"), 2))];
        region.apply_ops(1, 1, turns);
        let outcome = region.apply_ops(1, 2, vec![Op::ForgetIds(ForgetIds { now_s })]);
        assert_eq!(outcome, [OpOutcome::Done { more: false }]);
        assert_eq!((region.rows_of_table(0x30), region.rows_of_table(0x31)), (0, 0), "at second {now_s}");
    }
}

#[test]
fn garbage_is_collected_a_bounded_number_of_rows_at_once_and_all_of_it_in_the_end() {
    let mut region = Region::default();
    let mut filled = commit(agent("alice"), 1);
    // Two prefixes: one that takes more than one operation, and one that is as large as an operation.
    for (prefix, count) in [("a", GARBAGE_ROWS_PER_OP + 100), ("b", GARBAGE_ROWS_PER_OP), ("c", 1)] {
        let put =
            |n| RowChange::Put { key: format!("{prefix}{n:05}").into(), value: Bytes::from_static(b"v") };
        filled.changes.extend((0..count).map(put));
    }
    let mut dropped = commit(agent("alice"), 2);
    dropped.changes = ["a", "b"].map(|prefix| RowChange::DropPrefix { prefix: prefix.into() }).into();
    region.apply_ops(1, 1, vec![Op::CommitTurn(filled), Op::CommitTurn(dropped)]);
    assert!(garbage::any(&region.rows).unwrap());

    let mut sequence = 1;
    loop {
        let before = region.rows_of_table(0x10);
        sequence += 1;
        let outcome = region.apply_ops(1, sequence, vec![Op::CollectGarbage(CollectGarbage {})]);
        let deleted = before - region.rows_of_table(0x10);
        assert!(deleted <= GARBAGE_ROWS_PER_OP, "{deleted} rows went at once");
        let more = garbage::any(&region.rows).unwrap();
        assert_eq!(outcome, [OpOutcome::Done { more }]);
        if !more {
            break;
        }
        assert!(sequence < 9, "collecting does not end");
    }
    assert_eq!(region.rows_of_table(0x10), 1, "what was not dropped stays");
    assert!(region.row(&agent("alice"), "c00000").is_some());
}

#[test]
fn rows_that_can_not_be_read_stop_the_replica_and_are_no_outcome() {
    let mut region = Region::default();
    region.apply_ops(1, 1, vec![Op::CommitTurn(commit(agent("alice"), 1))]);
    for damaged in [&[][..], &[9, 1, 1], &[1], &[1, 1, 1, 1]] {
        let mut rows = region.rows.clone();
        rows.insert(Bytes::from_static(&[0x01]), Bytes::copy_from_slice(damaged));
        assert!(fence::get(&rows).is_err(), "a fence of {damaged:?} was read");
        assert!(RegionMachine::default().restore(&rows).is_err(), "restored from {damaged:?}");
    }
    let reply = region.rows.keys().find(|key| key[0] == 0x31).unwrap().clone();
    let mut rows = region.rows.clone();
    rows.insert(reply, Bytes::from_static(&[2]));
    let mut machine = RegionMachine::default();
    machine.restore(&rows).unwrap();
    let again = Command { term: 1, sequence: 2, ops: vec![Op::CommitTurn(commit(agent("alice"), 1))] };
    assert!(machine.apply(1, &again.encode().unwrap(), &mut rows).is_err());
}
