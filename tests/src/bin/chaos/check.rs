//! Checks all histories and shows those that are wrong.

use crate::history::Book;
use afdg_tests::linearizability::{Model, Operation, Verdict, check, shrink};
use std::time::Duration;

/// How long the search for one agent's order may take. One that takes longer is not decided, which counts as
/// wrong: somebody has to look.
const CHECK_LIMIT: Duration = Duration::from_secs(30);

/// What was checked of one workload.
#[derive(Clone, Debug, Default)]
pub struct Checked {
    pub name: &'static str,
    pub agents: usize,
    pub operations: usize,
    /// Operations whose outcome was not known.
    pub unknown: usize,
    pub findings: Vec<Finding>,
}

/// An agent whose history is wrong, or was not decided.
#[derive(Clone, Debug)]
pub struct Finding {
    pub agent: String,
    pub is_violation: bool,
    /// The state before the first of the operations.
    pub state: String,
    /// Operations before that, which explain the state.
    pub left_out: usize,
    pub operations: Vec<Shown>,
}

/// An operation as it is shown. Times are nanoseconds since the run began.
#[derive(Clone, Debug)]
pub struct Shown {
    pub client: u32,
    pub called: u64,
    pub op: String,
    /// None if it has no answer that matters.
    pub answered: Option<(u64, String)>,
}

pub fn check_book<M: Model>(book: &Book<M>) -> Checked {
    let mut checked = Checked { name: book.name(), ..Checked::default() };
    for (agent, history) in book.histories() {
        checked.agents += 1;
        checked.operations += history.len();
        checked.unknown += history.iter().filter(|operation| operation.answered.is_none()).count();
        match check::<M>(&history, CHECK_LIMIT) {
            Verdict::Linearizable => {}
            Verdict::Violation => {
                let shrunk = shrink::<M>(&history);
                checked.findings.push(Finding {
                    agent,
                    is_violation: true,
                    state: format!("{:?}", shrunk.state),
                    left_out: shrunk.left_out,
                    operations: shrunk.history.iter().map(show::<M>).collect(),
                });
            }
            Verdict::Undecided => checked.findings.push(Finding {
                agent,
                is_violation: false,
                state: format!("{:?}", M::State::default()),
                left_out: 0,
                operations: history.iter().map(show::<M>).collect(),
            }),
        }
    }
    checked
}

fn show<M: Model>(operation: &Operation<M::Op, M::Answer>) -> Shown {
    let answered = operation.answered.as_ref().map(|(at, answer)| (*at, format!("{answer:?}")));
    Shown { client: operation.client, called: operation.called, op: format!("{:?}", operation.op), answered }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        caller::{Called, Outcome},
        history::Limits,
    };
    use afdg_tests::linearizability::{Counter, CounterOp};

    fn book(answers: &[i64]) -> Book<Counter> {
        let book = Book::new(Limits { name: "n", agents: 1, operations_max: 99, unknown_max: 9 });
        for (number, answer) in (0..).zip(answers) {
            let called =
                Called { called: number * 10, ended: number * 10 + 5, outcome: Outcome::Answered(*answer) };
            book.note("n-0-0", 1, CounterOp::Add(1), &called, |value| *value);
        }
        book
    }

    #[test]
    fn a_recorded_history_is_right_and_the_same_with_one_answer_changed_is_shown_to_be_wrong() {
        let right = check_book(&book(&[1, 2, 3, 4, 5]));
        assert_eq!((right.agents, right.operations, right.findings.len()), (1, 5, 0));
        // The third addition is lost: nobody after it sees it.
        let wrong = check_book(&book(&[1, 2, 3, 3, 4]));
        let [finding] = &wrong.findings[..] else { panic!("{:?}", wrong.findings) };
        assert_eq!((finding.is_violation, &*finding.state, finding.left_out), (true, "3", 3));
        assert_eq!(finding.operations.len(), 1);
        assert_eq!(finding.operations[0].answered, Some((35, "3".to_owned())));
    }
}
