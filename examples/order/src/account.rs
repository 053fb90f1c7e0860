//! Money of a customer, and what each order took of it.

use crate::{
    entity_of,
    v1::{self, AccountAgent, Balance, ChargeRequest, DepositRequest, GetBalanceRequest, RefundRequest},
};
use afdg_agent::{AgentError, AgentType, Context, async_trait};
use serde::{Deserialize, Serialize};

/// The agent type `order.v1.Account`, for a host.
pub fn account() -> AgentType {
    v1::account_agent(Account)
}

/// Entity that holds the [`Money`].
const MONEY: &str = "money";

/// Cents by what became of them. Their sum fits, so giving back always does.
#[derive(Default, Serialize, Deserialize)]
struct Money {
    cents: i64,
    charged_cents: i64,
}

/// What was taken for an order. It stays when it is given back, so that no charge comes late.
#[derive(Serialize, Deserialize)]
struct Charge {
    cents: i64,
    refunded: bool,
}

struct Account;

#[async_trait]
impl AccountAgent for Account {
    async fn deposit(&self, ctx: &mut Context, request: DepositRequest) -> Result<Balance, AgentError> {
        let mut money = money(ctx).await?;
        let room = i64::MAX - money.cents - money.charged_cents;
        check(request.cents, room)?;
        money.cents += request.cents;
        ctx.entity(MONEY).set_value(&money).await?;
        Ok(money.shown())
    }

    async fn charge(&self, ctx: &mut Context, request: ChargeRequest) -> Result<Balance, AgentError> {
        let ChargeRequest { order, cents, .. } = request;
        check(cents, i64::MAX)?;
        let mut money = money(ctx).await?;
        match charge(ctx, &order).await? {
            Some(known) if !known.refunded && known.cents == cents => return Ok(money.shown()),
            Some(_) => {
                let message = format!("the order {order} was charged otherwise, or given its money back");
                return Err(AgentError::refused("CHARGE_CLOSED", message));
            }
            None => {}
        }
        if cents > money.cents {
            return Err(AgentError::refused("FUNDS_SHORT", "the account does not hold that much")
                .with("short_by_cents", cents - money.cents));
        }
        money.cents -= cents;
        money.charged_cents += cents;
        store(ctx, &order, &money, &Charge { cents, refunded: false }).await?;
        Ok(money.shown())
    }

    async fn refund(&self, ctx: &mut Context, request: RefundRequest) -> Result<Balance, AgentError> {
        let mut money = money(ctx).await?;
        let cents = match charge(ctx, &request.order).await? {
            Some(known) if known.refunded => return Ok(money.shown()),
            Some(known) => known.cents,
            // It never came, or is still to come: then it finds this, and is refused.
            None => 0,
        };
        money.charged_cents -= cents;
        money.cents += cents;
        store(ctx, &request.order, &money, &Charge { cents, refunded: true }).await?;
        Ok(money.shown())
    }

    async fn get_balance(&self, ctx: &mut Context, _: GetBalanceRequest) -> Result<Balance, AgentError> {
        Ok(money(ctx).await?.shown())
    }
}

impl Money {
    fn shown(&self) -> Balance {
        Balance { cents: self.cents, charged_cents: self.charged_cents }
    }
}

fn check(cents: i64, max: i64) -> Result<(), AgentError> {
    match (0..=max).contains(&cents) {
        true => Ok(()),
        false => {
            Err(AgentError::invalid("AMOUNT_INVALID", format!("0 to {max} cents can be moved; got {cents}")))
        }
    }
}

async fn money(ctx: &mut Context) -> Result<Money, AgentError> {
    Ok(ctx.entity(MONEY).value().await?.unwrap_or_default())
}

async fn charge(ctx: &mut Context, order: &str) -> Result<Option<Charge>, AgentError> {
    ctx.entity(&entity_of(order)).value().await
}

/// Both, or neither: they are one turn's effects.
async fn store(ctx: &mut Context, order: &str, money: &Money, charge: &Charge) -> Result<(), AgentError> {
    ctx.entity(MONEY).set_value(money).await?;
    ctx.entity(&entity_of(order)).set_value(charge).await
}
