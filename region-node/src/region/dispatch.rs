//! Dispatch: an entry is committed and applied. Its replies leave, its turns may touch others.

use super::{
    admit::result_of,
    leading::{Pending, PendingTurn},
    owner::Owner,
    pace::Hop,
    steps,
};
use crate::fail_points::Moment;
use afdg_region_machine::{
    OpOutcome, Outcome,
    op::ForgetIds,
    table::{garbage, replies},
};
use afdg_replication::WriteError;

impl Owner {
    pub(super) fn entry_ended(&mut self, result: Result<Outcome, WriteError>, ops: Vec<Pending>) {
        if let Some(leading) = self.leading.as_mut() {
            leading.window.committed(ops.len());
        }
        let outcomes = match result {
            Ok(Outcome::Applied(outcomes)) => outcomes,
            Ok(refused @ (Outcome::Fenced { .. } | Outcome::Unreadable(_))) => {
                tracing::warn!(region = %self.region, ?refused, "an entry was fenced off");
                return self.start_over("an entry of this leadership was not let in");
            }
            Err(error) => {
                tracing::debug!(region = %self.region, %error, "an entry's outcome is not known");
                return self.start_over("the outcome of an entry is not known");
            }
        };
        if outcomes.len() != ops.len() {
            tracing::error!(
                outcomes = outcomes.len(),
                ops = ops.len(),
                "an entry has another number of outcomes than operations"
            );
            return self.start_over("an entry's outcome can't be read");
        }
        for (op, outcome) in ops.into_iter().zip(outcomes) {
            if let Err(refusal) = self.dispatch(op, outcome) {
                tracing::warn!(region = %self.region, ?refusal, "a turn was refused when it was applied");
                return self.start_over("a turn was refused when it was applied");
            }
        }
    }

    /// Carries out what one operation's outcome asks for; a refusal means that what later turns were run
    /// on can't be relied on.
    fn dispatch(&mut self, op: Pending, outcome: OpOutcome) -> Result<(), OpOutcome> {
        if self.here.fail_points.any() && steps::is_done(&outcome) {
            steps::reach(self.here.fail_points, Moment::After, &op);
        }
        match (op, outcome) {
            (Pending::Turn(turn), OpOutcome::Committed) => {
                self.turn_committed(turn, None);
                Ok(())
            }
            (Pending::Turn(turn), OpOutcome::CommittedSends { first }) => {
                self.turn_committed(turn, Some(first));
                Ok(())
            }
            (Pending::Accept { send, .. }, OpOutcome::Accepted) => {
                self.send_accepted(&send);
                Ok(())
            }
            (Pending::Fail { op, message_bytes }, OpOutcome::Done { .. }) => {
                self.attempt_failed(op, message_bytes);
                Ok(())
            }
            (Pending::Settle { op, lane }, OpOutcome::Done { .. }) => {
                if let (Some(leading), Some(_)) = (self.leading.as_mut(), op.given_up) {
                    leading.dead_letters += 1;
                }
                self.lane_settled(lane);
                Ok(())
            }
            (Pending::SettleLetter { op, settled, is_first }, outcome) => {
                self.letter_settled(op, is_first, outcome);
                let _ = settled.send(is_first);
                Ok(())
            }
            (Pending::Fire { op, schedule }, OpOutcome::Fired { placed }) => {
                self.fired(op, &schedule, placed);
                Ok(())
            }
            (Pending::Fire { op, .. }, OpOutcome::NotFired) => {
                self.not_fired(&op);
                Ok(())
            }
            (Pending::CancelSchedule { op, cancelled }, OpOutcome::Cancelled { was_there }) => {
                self.see_schedule(&op.agent, &op.name);
                let _ = cancelled.send(was_there);
                Ok(())
            }
            (Pending::Record { recorded, .. }, OpOutcome::Recorded) => {
                // The turn may have been dropped meanwhile.
                let _ = recorded.send(());
                Ok(())
            }
            (Pending::KeepId(_), OpOutcome::Done { .. }) => Ok(()),
            (Pending::ForgetIds(op), OpOutcome::Done { more }) => {
                self.forgotten(&op, more);
                Ok(())
            }
            (Pending::CollectGarbage, OpOutcome::Done { more }) => {
                if let Some(leading) = self.leading.as_mut() {
                    leading.collecting = more;
                    if more {
                        leading.wait_for_entry(Pending::CollectGarbage);
                    }
                }
                Ok(())
            }
            (_, refusal) => Err(refusal),
        }
    }

    /// `first_send` is the number of the turn's first send, if it has any.
    fn turn_committed(&mut self, turn: PendingTurn, first_send: Option<u64>) {
        let PendingTurn { number, effects, sends, schedules, message_bytes, ended, .. } = turn;
        let Some(leading) = self.leading.as_mut() else { return };
        leading.load.waited(effects.agent.agent_type(), Hop::Commit, ended.elapsed());
        leading.leave_inbox(&effects.agent, effects.message_id, message_bytes);
        leading.answer(effects.message_id, &result_of(effects.reply));
        leading.load.count_out(effects.agent.agent_type(), message_bytes);
        if let Some(state) = leading.agents.get_mut(&effects.agent) {
            state.overlay.committed(number);
            if let Some(reentry) = state.running.as_ref().and_then(|running| running.reentry.as_ref()) {
                reentry.settle(number);
            }
        }
        leading.committed(&effects.agent);
        if let Some(first) = first_send {
            self.sends_committed(&effects.agent, sends, first);
        }
        if !schedules.is_empty() {
            self.schedules_committed(&effects.agent, &schedules);
        }
    }

    fn forgotten(&mut self, op: &ForgetIds, more: bool) {
        if let Some(leading) = self.leading.as_mut() {
            leading.forgetting = more;
            if more {
                leading.wait_for_entry(Pending::ForgetIds(op.clone()));
            }
        }
    }

    /// Once in a while: ids past their time are forgotten, dead rows deleted.
    pub(super) fn keep_house(&mut self) {
        let now_s = self.here.world.clock.now_ms() / 1_000;
        self.storage_behind = self.replica.storage_is_behind();
        self.give_up_stuck_turns();
        self.give_up_stuck_reads();
        if let Some(leading) = self.leading.as_mut() {
            let now = tokio::time::Instant::now();
            leading.waiters.values_mut().for_each(|waiters| {
                waiters.let_go_of_the_late(now);
            });
        }
        let rows = self.replica.rows();
        let Some(leading) = self.leading.as_mut().filter(|leading| leading.ready) else { return };
        let checked = (|| {
            if !leading.forgetting && replies::any_expired(rows.as_ref(), now_s)? {
                leading.forgetting = true;
                leading.wait_for_entry(Pending::ForgetIds(ForgetIds { now_s }));
            }
            if !leading.collecting && garbage::any(rows.as_ref())? {
                leading.collecting = true;
                leading.wait_for_entry(Pending::CollectGarbage);
            }
            Ok::<(), afdg_types::RowsError>(())
        })();
        if let Err(error) = checked {
            self.storage_failed(&error.to_string());
        }
    }
}
