use super::*;
use rand::{Rng, SeedableRng, rngs::StdRng};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(20);

type CounterHistory = History<Counter>;

fn add(delta: i64, called: u64, answered: Option<(u64, i64)>) -> Operation<CounterOp, i64> {
    Operation { client: 0, op: CounterOp::Add(delta), called, answered }
}

fn get(called: u64, answered: u64, value: i64) -> Operation<CounterOp, i64> {
    Operation { client: 1, op: CounterOp::Get, called, answered: Some((answered, value)) }
}

fn write(value: &str, called: u64, answered: Option<u64>) -> Operation<RegisterOp, RegisterAnswer> {
    let answered = answered.map(|at| (at, RegisterAnswer::Done));
    Operation { client: 0, op: RegisterOp::Write(value.to_owned()), called, answered }
}

fn read(called: u64, answered: u64, value: &str) -> Operation<RegisterOp, RegisterAnswer> {
    let answered = Some((answered, RegisterAnswer::Value(value.to_owned())));
    Operation { client: 1, op: RegisterOp::Read, called, answered }
}

fn set(
    expected: &str,
    value: &str,
    called: u64,
    answered: u64,
    written: bool,
) -> Operation<RegisterOp, RegisterAnswer> {
    let op = RegisterOp::CompareAndSet { expected: expected.to_owned(), value: value.to_owned() };
    Operation { client: 2, op, called, answered: Some((answered, RegisterAnswer::Written(written))) }
}

fn append(item: i64, called: u64, answered: Option<(u64, u64, i64)>) -> Operation<ListOp, ListAnswer> {
    let answered = answered.map(|(at, count, total)| (at, ListAnswer::Appended { count, total }));
    Operation { client: 0, op: ListOp::Append(item), called, answered }
}

fn items(called: u64, answered: u64, items: &[i64]) -> Operation<ListOp, ListAnswer> {
    let answered = Some((answered, ListAnswer::Items(items.to_vec())));
    Operation { client: 1, op: ListOp::Read, called, answered }
}

#[track_caller]
fn is_right<M: Model>(history: &[Operation<M::Op, M::Answer>]) {
    assert_eq!(check::<M>(history, LIMIT), Verdict::Linearizable, "{history:#?}");
}

#[track_caller]
fn is_wrong<M: Model>(history: &[Operation<M::Op, M::Answer>]) {
    assert_eq!(check::<M>(history, LIMIT), Verdict::Violation, "{history:#?}");
}

#[test]
fn nothing_at_all_is_right() {
    is_right::<Counter>(&[]);
    is_right::<Counter>(&[add(1, 0, None)]);
}

#[test]
fn operations_side_by_side_may_take_either_order() {
    is_right::<Counter>(&[add(1, 0, Some((10, 3))), add(2, 1, Some((9, 2))), get(11, 12, 3)]);
    is_right::<Register>(&[
        write("a", 0, Some(10)),
        write("b", 1, Some(9)),
        read(11, 12, "a"),
        read(13, 14, "a"),
    ]);
    is_right::<Register>(&[write("a", 0, Some(10)), read(1, 2, ""), read(3, 4, "a"), read(5, 6, "a")]);
}

#[test]
fn a_stale_read_is_found() {
    is_wrong::<Counter>(&[add(1, 0, Some((1, 1))), get(2, 3, 0)]);
    is_wrong::<Register>(&[write("a", 0, Some(1)), write("b", 2, Some(3)), read(4, 5, "a")]);
    is_wrong::<List>(&[append(7, 0, Some((1, 1, 7))), items(2, 3, &[])]);
}

#[test]
fn a_read_that_goes_back_is_found_though_both_values_are_of_open_writes() {
    is_wrong::<Register>(&[write("a", 0, Some(100)), read(1, 2, "a"), read(3, 4, "")]);
}

#[test]
fn a_lost_update_is_found() {
    is_wrong::<Counter>(&[add(1, 0, Some((1, 1))), add(1, 2, Some((3, 1)))]);
    is_wrong::<List>(&[append(7, 0, Some((1, 1, 7))), append(8, 2, Some((3, 1, 8)))]);
    is_wrong::<List>(&[append(7, 0, Some((1, 1, 7))), append(8, 2, Some((3, 2, 15))), items(4, 5, &[8])]);
}

#[test]
fn an_update_that_took_effect_twice_is_found() {
    is_wrong::<Counter>(&[add(1, 0, Some((1, 1))), add(1, 2, Some((3, 3)))]);
    is_wrong::<List>(&[append(7, 0, Some((1, 1, 7))), items(2, 3, &[7, 7])]);
    // Of unknown outcome, it may have taken effect once or not, but not twice.
    is_wrong::<Counter>(&[add(5, 0, None), get(1, 2, 10)]);
    // A write that comes back after it was overwritten.
    is_wrong::<Register>(&[write("a", 0, Some(1)), write("b", 2, Some(3)), read(4, 5, "b"), read(6, 7, "a")]);
}

#[test]
fn a_value_that_is_seen_before_it_is_written_is_found() {
    is_wrong::<Register>(&[read(0, 1, "a"), write("a", 2, Some(3))]);
    is_wrong::<Register>(&[read(0, 1, "a"), write("a", 2, None)]);
    is_wrong::<Counter>(&[get(1, 2, 5), add(5, 4, None)]);
}

#[test]
fn a_value_that_nobody_wrote_is_found() {
    is_wrong::<Register>(&[write("a", 0, Some(1)), read(2, 3, "c")]);
    is_wrong::<List>(&[append(1, 0, Some((9, 1, 1))), append(2, 0, Some((9, 2, 3))), items(10, 11, &[2, 1])]);
}

#[test]
fn only_one_of_two_compares_of_the_same_value_sets() {
    is_right::<Register>(&[set("", "a", 0, 5, true), set("", "b", 0, 5, false), read(6, 7, "a")]);
    is_wrong::<Register>(&[set("", "a", 0, 5, true), set("", "b", 0, 5, true)]);
}

#[test]
fn an_unknown_outcome_may_show_late_or_never_but_not_before_its_call_nor_be_undone() {
    let unknown = add(5, 4, None);
    is_right::<Counter>(&[unknown.clone(), get(5, 6, 0), get(7, 8, 5)]);
    is_right::<Counter>(&[unknown.clone(), get(5, 6, 0), get(7, 8, 0)]);
    is_wrong::<Counter>(&[unknown, get(5, 6, 5), get(7, 8, 0)]);
    is_right::<Register>(&[write("a", 0, None), write("b", 1, Some(2)), read(3, 4, "b"), read(5, 6, "a")]);
}

#[test]
fn many_unknown_outcomes_of_one_kind_are_decided_quickly() {
    let mut history: CounterHistory = (0..40).map(|number| add(1, number, None)).collect();
    history.push(get(100, 101, 20));
    history.push(get(102, 103, 40));
    is_right::<Counter>(&history);
    history.push(get(104, 105, 41));
    is_wrong::<Counter>(&history);
}

/// Clients side by side whose additions take effect at a moment between call and answer.
fn recorded(operations: u64) -> CounterHistory {
    let mut value = 0;
    (0..operations)
        .map(|number| {
            // Calls overlap with those of three others; now and then all is quiet.
            let (at, client) = (number * 10 + number / 20 * 100, (number % 4) as u32);
            let delta = 1 + (number % 7) as i64;
            let is_read = number % 3 == 2;
            let op = if is_read { CounterOp::Get } else { CounterOp::Add(delta) };
            if !is_read {
                value += delta;
            }
            Operation { client, op, called: at.saturating_sub(17), answered: Some((at + 18, value)) }
        })
        .collect()
}

#[test]
fn a_long_history_is_checked_quickly_and_one_wrong_answer_in_it_is_found_and_shown() {
    let history = recorded(2_000);
    is_right::<Counter>(&history);
    let mut corrupted = history;
    // As if the addition 1,200 had been lost: what follows it is seen without it.
    for operation in &mut corrupted[1_203..] {
        if let Some((_, value)) = &mut operation.answered {
            *value -= 1 + (1_200 % 7);
        }
    }
    is_wrong::<Counter>(&corrupted);
    let shrunk = shrink::<Counter>(&corrupted);
    let told = shrunk.history.iter().filter(|operation| operation.answered.is_some()).count();
    assert!(told <= 4 && shrunk.history.len() <= 20, "{:?}", shrunk.history);
    assert!(shrunk.left_out > 1_100, "{}", shrunk.left_out);
    assert_eq!(check_from::<Counter>(&shrunk.state, &shrunk.history, LIMIT), Verdict::Violation);
}

#[test]
fn what_is_shrunk_keeps_the_writes_that_reads_have_seen() {
    let history = [
        write("a", 0, Some(1)),
        read(2, 3, "a"),
        write("b", 4, Some(5)),
        read(6, 7, "b"),
        read(8, 9, "a"),
        write("c", 10, Some(11)),
        read(12, 13, "c"),
    ];
    let shrunk = shrink::<Register>(&history);
    // The beginning and the end are of no matter; that "a" is read from what holds "b" is.
    assert_eq!((&*shrunk.state, shrunk.left_out), ("b", 4));
    assert_eq!(shrunk.history, [read(8, 9, "a")]);
}

#[test]
fn a_beginning_whose_end_is_not_certain_is_kept() {
    // After the first read, the unknown "x" may have been written or not.
    let history = [write("x", 0, None), write("a", 1, Some(2)), read(3, 4, "b")];
    let shrunk = shrink::<Register>(&history);
    assert_eq!(check_from::<Register>(&shrunk.state, &shrunk.history, LIMIT), Verdict::Violation);
    assert_eq!(shrunk.left_out, 0);
}

#[test]
fn a_search_that_takes_too_long_is_not_taken_for_an_answer() {
    // 25 unknown additions of different powers of two, and a sum that they can't make.
    let mut history: CounterHistory = (0..25).map(|bit| add(2 << bit, 0, None)).collect();
    history.push(get(1, 2, 1));
    assert_eq!(check::<Counter>(&history, Duration::from_millis(20)), Verdict::Undecided);
}

/// Every order of some operations, each of unknown outcome left out or not: what the search has to agree
/// with.
fn is_linearizable_in_some_order(history: &[Operation<RegisterOp, RegisterAnswer>]) -> bool {
    fn goes_on(history: &[Operation<RegisterOp, RegisterAnswer>], state: &String, placed: u32) -> bool {
        let left = |index: &usize| placed >> index & 1 == 0;
        let answer_of = |index: usize| history[index].answered.as_ref();
        if !(0..history.len()).filter(left).any(|index| answer_of(index).is_some()) {
            return true;
        }
        (0..history.len()).filter(left).any(|next| {
            let is_late = |other: usize| answer_of(other).is_some_and(|(at, _)| *at < history[next].called);
            let (after, answer) = Register::step(state, &history[next].op);
            !(0..history.len()).filter(left).any(is_late)
                && answer_of(next).is_none_or(|(_, given)| *given == answer)
                && goes_on(history, &after, placed | 1 << next)
        })
    }
    goes_on(history, &String::new(), 0)
}

#[test]
fn random_histories_are_judged_as_by_trying_every_order() {
    let mut random = StdRng::seed_from_u64(11);
    let (mut right, mut wrong) = (0, 0);
    for _ in 0..20_000 {
        let count = random.random_range(1..7);
        let text = |random: &mut StdRng| ["", "a", "b"][random.random_range(0..3)].to_owned();
        let history: Vec<_> = (0..count)
            .map(|client| {
                let called = random.random_range(0..12);
                let op = match random.random_range(0..5) {
                    0..2 => RegisterOp::Write(text(&mut random)),
                    2..4 => RegisterOp::Read,
                    _ => RegisterOp::CompareAndSet { expected: text(&mut random), value: text(&mut random) },
                };
                let answer = match &op {
                    RegisterOp::Write(_) => RegisterAnswer::Done,
                    RegisterOp::Read => RegisterAnswer::Value(text(&mut random)),
                    RegisterOp::CompareAndSet { .. } => RegisterAnswer::Written(random.random_bool(0.5)),
                };
                let is_answered = op == RegisterOp::Read || random.random_bool(0.7);
                let answered = is_answered.then(|| (called + random.random_range(0..6), answer));
                Operation { client, op, called, answered }
            })
            .collect();
        let expected = is_linearizable_in_some_order(&history);
        let verdict = if expected { Verdict::Linearizable } else { Verdict::Violation };
        assert_eq!(check::<Register>(&history, LIMIT), verdict, "{history:#?}");
        if expected {
            right += 1;
            continue;
        }
        wrong += 1;
        // Shrinking keeps it wrong.
        let shrunk = shrink::<Register>(&history);
        assert_eq!(check_from::<Register>(&shrunk.state, &shrunk.history, LIMIT), Verdict::Violation);
    }
    assert!(right > 2_000 && wrong > 2_000, "{right} right, {wrong} wrong");
}
