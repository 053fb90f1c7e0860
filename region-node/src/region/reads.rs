//! Read-only turns: beside the others, on committed state, once it is certain that this replica still
//! leads. All that waits is checked at once.

use super::{
    admission::Admission,
    owner::{Event, Owner},
    run::refusal_of,
};
use crate::executor::{
    self,
    calls::{Caller, Calls},
    overlay::Overlay,
    view::View,
};
use afdg_agent::host::Turn;
use afdg_replication::WriteError;
use afdg_types::{
    AgentRef, CallError, GridError, MessageId, Purpose, Reason,
    planted::{Bug, planted},
};
use bytes::Bytes;
use futures::future::Either;
use std::sync::Arc;
use tokio::time::Instant;

/// A read whose answers did not fit together, because turns of the agent were committed meanwhile, runs
/// again this often; then it takes a turn of its own among the others.
const READ_TRIES: u32 = 4;

impl Owner {
    /// Has this replica's lead checked for the reads that wait, if no check is under way.
    pub(super) fn check_reads(&mut self) {
        let Some(leading) = self.leading.as_mut() else { return };
        if leading.reads.is_empty() || leading.reads_checking {
            return;
        }
        leading.reads_checking = true;
        let reads = std::mem::take(&mut leading.reads);
        let (replica, events, leadership) = (self.replica.clone(), self.events.clone(), leading.leadership);
        tokio::spawn(async move {
            let result = replica.linearize().await;
            let _ = events.send(Event::ReadsChecked { leadership, reads, result });
        });
    }

    pub(super) fn reads_checked(
        &mut self,
        leadership: u64,
        reads: Vec<Admission>,
        result: Result<(), WriteError>,
    ) {
        let hint = self.leader_hint();
        let current = self.leading.as_mut().filter(|leading| leading.leadership == leadership);
        let (Some(leading), Ok(())) = (current, &result) else {
            for read in reads {
                if let Some(leading) =
                    self.leading.as_mut().filter(|leading| leading.leadership == leadership)
                {
                    leading.count_out(read.request.len());
                }
                let error =
                    GridError::new(Reason::NotLeader, "this replica could not make sure that it leads");
                read.reply_to.refuse_not_leader(error, hint);
            }
            if let Some(leading) = self.leading.as_mut().filter(|leading| leading.leadership == leadership) {
                leading.reads_checking = false;
            }
            return;
        };
        leading.reads_checking = false;
        for read in reads {
            if read.purpose == Purpose::Attach {
                self.read_ended_for(read.request.len());
                self.attach_or_refuse(read);
            } else {
                self.start_read(leadership, read);
            }
        }
    }

    fn start_read(&mut self, leadership: u64, read: Admission) {
        if read.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            self.read_ended_for(read.request.len());
            let error =
                GridError::new(Reason::DeadlineExceeded, "the deadline passed before the read could start");
            return read.reply_to.refuse(error);
        }
        let rows = self.agent_rows(&read.agent);
        let overlay = self.uncommitted_for_reads(&read.agent);
        let router = Arc::clone(&self.here.router);
        let turn = Turn {
            agent: read.agent.clone(),
            method: read.method.clone(),
            message_id: read.message_id,
            parent: read.message_id,
            request: read.request.clone(),
            now_ms: self.here.world.clock.now_ms(),
            seed: self.here.world.entropy.random_u64(),
            read_only: true,
        };
        let (host, world) = (Arc::clone(&self.here.host), self.here.world.clone());
        let events = self.events.clone();
        tokio::spawn(async move {
            let bytes = read.request.len();
            for _ in 0..READ_TRIES {
                // Another try may call others with other requests: its calls get ids of their own.
                let parent = MessageId::from_router(turn.now_ms, world.entropy.random_u128());
                let (agent, chain) = (read.agent.clone(), read.chain.clone());
                let caller = Caller { agent, message_id: read.message_id, parent, chain, runs_again: false };
                let calls = Calls::new(caller, Arc::clone(&router), None);
                let view = Arc::new(match &overlay {
                    None => View::of_read(rows.clone(), calls),
                    Some(overlay) => View::of_turn(rows.clone(), overlay.clone(), calls),
                });
                let result = executor::run(Arc::clone(&host), turn.clone(), Arc::clone(&view), || true).await;
                match view.reads_fit_together() {
                    Ok(true) => {
                        read.reply_to.reply(answer_of(result));
                        let _ = events.send(Event::ReadEnded { leadership, bytes, retry: None });
                        return;
                    }
                    Ok(false) => {}
                    Err(failure) => {
                        read.reply_to.reply(answer_of(Err(executor::RunFailure::Turn(failure))));
                        let _ = events.send(Event::ReadEnded { leadership, bytes, retry: None });
                        return;
                    }
                }
            }
            let _ = events.send(Event::ReadEnded { leadership, bytes, retry: Some(read) });
        });
    }

    /// What a read may see of what is not committed: nothing.
    fn uncommitted_for_reads(&self, agent: &AgentRef) -> Option<Overlay> {
        let state = self.leading.as_ref().and_then(|leading| leading.agents.get(agent));
        state.filter(|_| planted(Bug::ReadUncommitted)).map(|state| state.overlay.clone())
    }

    pub(super) fn read_ended(&mut self, leadership: u64, bytes: usize, retry: Option<Admission>) {
        if self.leading.as_ref().is_some_and(|leading| leading.leadership == leadership) {
            self.read_ended_for(bytes);
        }
        // Among the agent's own turns nothing changes beside it.
        if let Some(read) = retry {
            self.admit_as_turn(read);
        }
    }

    fn read_ended_for(&mut self, bytes: usize) {
        if let Some(leading) = self.leading.as_mut() {
            leading.count_out(bytes);
        }
    }
}

fn answer_of(result: Result<afdg_agent::host::TurnOutput, executor::RunFailure>) -> Result<Bytes, CallError> {
    match result {
        Ok(output) => output.reply.map_err(CallError::Agent),
        Err(failure) => Err(match refusal_of(failure) {
            Either::Left((reason, message)) => GridError::new(reason, message),
            Either::Right(storage) => {
                GridError::new(Reason::OutcomeUnknown, format!("this node's storage failed: {storage}"))
            }
        }
        .into()),
    }
}
