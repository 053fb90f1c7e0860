//! A customer's confirmations.
//!
//! It looks for no repeats: a send takes effect once. That makes it a witness, too.

use crate::v1::{self, Confirmation, Confirmations, InboxAgent, ListConfirmationsRequest, Received};
use afdg_agent::{AgentError, AgentType, Context, async_trait};
use serde::{Deserialize, Serialize};

/// The agent type `order.v1.Inbox`, for a host.
pub fn inbox() -> AgentType {
    v1::inbox_agent(Inbox)
}

/// Entity that lists every [`Kept`].
const CONFIRMATIONS: &str = "confirmations";
const PAGE: u64 = 100;

#[derive(Serialize, Deserialize)]
struct Kept {
    order: String,
    total_cents: i64,
}

struct Inbox;

#[async_trait]
impl InboxAgent for Inbox {
    async fn receive(&self, ctx: &mut Context, confirmation: Confirmation) -> Result<Received, AgentError> {
        let Confirmation { order, total_cents, .. } = confirmation;
        ctx.entity(CONFIRMATIONS).push(&Kept { order, total_cents }).await?;
        Ok(Received { count: ctx.entity(CONFIRMATIONS).len().await? })
    }

    async fn list_confirmations(
        &self,
        ctx: &mut Context,
        request: ListConfirmationsRequest,
    ) -> Result<Confirmations, AgentError> {
        let (first, customer) = (request.first, ctx.key().to_owned());
        let kept: Vec<Kept> = ctx.entity(CONFIRMATIONS).range(first..first.saturating_add(PAGE)).await?;
        let show =
            |Kept { order, total_cents }| Confirmation { customer: customer.clone(), order, total_cents };
        let count = ctx.entity(CONFIRMATIONS).len().await?;
        Ok(Confirmations { confirmations: kept.into_iter().map(show).collect(), count })
    }
}
