//! What an extension has recorded before it carries it out.

use crate::{CatalogClient, client::Repeat, nodes::stub};
use afdg_proto::pb::internal::{RecordActionRequest, SettleDeadLettersAction, record_action_request::Action};
use afdg_types::GridError;
use std::time::Duration;

const RECORD_LIMIT: Duration = Duration::from_secs(5);

impl CatalogClient {
    /// Puts into the audit log that dead letters are to be settled. Asked again after an unknown outcome there
    /// may be two lines for one action: a line without its action does no harm.
    pub async fn record_settled_letters(
        &self,
        actor: String,
        reason: String,
        letters: SettleDeadLettersAction,
        within: Duration,
    ) -> Result<(), GridError> {
        let action = Some(Action::SettleDeadLetters(letters));
        let request = RecordActionRequest { actor, reason, action };
        self.ask_leader(within, RECORD_LIMIT, Repeat::Always, |channel| {
            let request = request.clone();
            async move { stub(channel).record_action(request).await }
        })
        .await?;
        Ok(())
    }
}
