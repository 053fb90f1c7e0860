//! What an administrator wants done, put into the audit log for an extension that carries it out.

use super::Core;
use afdg_catalog_machine::{AdminAction, Command, RecordAction, Reply};
use afdg_proto::pb::internal::{CancelSchedulesAction, RecordActionRequest, record_action_request::Action};
use afdg_types::{GridError, Reason};

impl Core {
    /// Returns the record's index once it is committed.
    pub(super) async fn record_action(&self, request: RecordActionRequest) -> Result<u64, GridError> {
        self.confirm_lead().await?;
        let RecordActionRequest { actor, reason, action } = request;
        let action = match action {
            Some(Action::SettleDeadLetters(letters)) => AdminAction::SettleDeadLetters {
                retry: letters.retry,
                count: letters.count,
                first: letters.first,
                filter: letters.filter,
            },
            Some(Action::CancelSchedules(CancelSchedulesAction { count, first, filter })) => {
                AdminAction::CancelSchedules { count, first, filter }
            }
            None => {
                let text = "the action to be recorded is missing, or this catalog is too old to know it";
                return Err(GridError::new(Reason::InvalidRequest, text).with("field", "action"));
            }
        };
        let at_ms = self.world.clock.now_ms();
        match self.propose(&Command::RecordAction(RecordAction { actor, reason, action, at_ms })).await? {
            Reply::Recorded { index } => Ok(index),
            reply => Err(GridError::new(Reason::Internal, format!("a record ended as {reply:?}"))),
        }
    }
}
