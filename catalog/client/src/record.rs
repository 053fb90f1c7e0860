//! What an extension has recorded before it carries it out.

use crate::{CatalogClient, client::Repeat, nodes::stub};
use afdg_proto::pb::internal::{
    CancelSchedulesAction, RecordActionRequest, SettleDeadLettersAction, record_action_request::Action,
};
use afdg_types::GridError;
use std::time::Duration;

const RECORD_LIMIT: Duration = Duration::from_secs(5);

impl CatalogClient {
    /// Puts into the audit log that dead letters are to be settled.
    pub async fn record_settled_letters(
        &self,
        actor: String,
        reason: String,
        letters: SettleDeadLettersAction,
        within: Duration,
    ) -> Result<(), GridError> {
        self.record(actor, reason, Action::SettleDeadLetters(letters), within).await
    }

    /// Puts into the audit log that schedules are to be cancelled.
    pub async fn record_cancelled_schedules(
        &self,
        actor: String,
        reason: String,
        schedules: CancelSchedulesAction,
        within: Duration,
    ) -> Result<(), GridError> {
        self.record(actor, reason, Action::CancelSchedules(schedules), within).await
    }

    /// Asked again after an unknown outcome there may be two lines for one action: a line without its action
    /// does no harm.
    async fn record(
        &self,
        actor: String,
        reason: String,
        action: Action,
        within: Duration,
    ) -> Result<(), GridError> {
        let action = Some(action);
        let request = RecordActionRequest { actor, reason, action };
        self.ask_leader(within, RECORD_LIMIT, Repeat::Always, |channel| {
            let request = request.clone();
            async move { stub(channel).record_action(request).await }
        })
        .await?;
        Ok(())
    }
}
