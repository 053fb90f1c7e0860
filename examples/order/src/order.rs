//! The workflow: one order, from being placed to its end.
//!
//! ```text
//! Place ── all reserved ──► AWAITING_PAYMENT ── Pay ──► charged ──► PAID      (sell, confirm)
//!   │           └─ pay_at_once ──────────────────────────┘ └──► DECLINED     (release)
//!   └── a product refused ──► REJECTED (release)       timer ──► EXPIRED     (release)
//! ```
//!
//! An order takes one message at a time. So a payment and the timer never meet half way: whichever gets
//! its turn first decides, and the other finds that it is decided.

use crate::{
    LINES_MAX, ORDER_BYTES_MAX, UNITS_MAX,
    v1::{
        self, AccountCalls, ChargeRequest, Confirmation, ExpireRequest, GetOrderRequest, InboxCalls,
        OrderAgent, OrderCalls, OrderState, PayRequest, PlaceRequest, ProductCalls, RefundRequest,
        ReleaseRequest, ReserveRequest, SellRequest,
    },
};
use afdg_agent::{AgentError, AgentRef, AgentType, CallError, Code, Context, async_trait};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, time::Duration};

/// The agent type `order.v1.Order`, for a host.
pub fn order() -> AgentType {
    v1::order_agent(Order)
}

/// Entity that holds the [`Record`].
const ORDER: &str = "order";
const PAY_WITHIN_MS_DEFAULT: u64 = 15 * 60 * 1_000;
const PAY_WITHIN_MS_MAX: u64 = 30 * 24 * 60 * 60 * 1_000;

/// All that an order knows of itself.
#[derive(Serialize, Deserialize)]
struct Record {
    status: Status,
    reason: String,
    total_cents: i64,
    pay_by_ms: u64,
    customer: String,
    account: String,
    lines: Vec<Line>,
}

#[derive(Clone, Serialize, Deserialize)]
struct Line {
    product: String,
    units: i64,
}

#[derive(Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum Status {
    AwaitingPayment,
    Paid,
    Rejected,
    Declined,
    Expired,
}

struct Order;

#[async_trait]
impl OrderAgent for Order {
    /// If the leader dies on the way, the next one runs this again before anything else of the order: the
    /// message was recorded before the first reservation left. It asks the same products under the same
    /// ids, and those that have reserved answer so once more. The caller may be long gone.
    async fn place(&self, ctx: &mut Context, request: PlaceRequest) -> Result<OrderState, AgentError> {
        // What is wrong with the request is said before anybody is touched: here an error is safe.
        let (mut record, pay_at_once, wait) = checked(ctx, request)?;
        if stored(ctx).await?.is_some() {
            return Err(AgentError::refused("ORDER_PLACED", "the order is there already"));
        }
        let reserve = |line: &Line| {
            let (order, units) = (ctx.key().to_owned(), line.units);
            ProductCalls::reserve(&line.product, ReserveRequest { order, units, ..Default::default() })
        };
        let calls = record.lines.iter().map(reserve).collect();
        let answers = ctx.call_all(calls).await;

        let (mut held, mut refusal) = (Vec::new(), None);
        for (line, answer) in record.lines.iter().zip(answers) {
            match answer {
                Ok(reservation) => {
                    record.total_cents += reservation.cents;
                    held.push(line.clone());
                }
                Err(error) => {
                    refusal.get_or_insert_with(|| error.reason().to_owned());
                    if may_have_happened(&error) {
                        held.push(line.clone());
                    }
                }
            }
        }
        if let Some(reason) = refusal {
            record.total_cents = 0;
            give_up(ctx, &mut record, Status::Rejected, &reason, &held)?;
        } else if pay_at_once {
            take_payment(ctx, &mut record).await?;
        } else {
            // The timer is committed with the order: there is none that waits without an end.
            ctx.send_after(wait, OrderCalls::expire(ctx.key(), ExpireRequest::default()))?;
        }
        store(ctx, &record).await
    }

    /// If the leader dies on the way, the next one asks the account again under the same id, and is told
    /// what the first was told. If it dies after the turn was committed, all that it sent is on its way.
    async fn pay(&self, ctx: &mut Context, _: PayRequest) -> Result<OrderState, AgentError> {
        let mut record = known(ctx).await?;
        if record.status != Status::AwaitingPayment {
            return Err(AgentError::refused("ORDER_CLOSED", "the order does not wait for payment")
                .with("status", record.status.shown().as_str_name()));
        }
        take_payment(ctx, &mut record).await?;
        store(ctx, &record).await
    }

    /// Touches nobody before its turn is committed, so a death loses nothing: the timer is tried again.
    async fn expire(&self, ctx: &mut Context, _: ExpireRequest) -> Result<OrderState, AgentError> {
        let mut record = known(ctx).await?;
        if record.status != Status::AwaitingPayment {
            return Ok(record.shown(ctx));
        }
        if ctx.now_ms() < record.pay_by_ms {
            // Some outsider's call; or the timer, by another node's clock: a send that is refused is tried
            // again a little later.
            return Err(AgentError::refused("ORDER_NOT_DUE", "the order may still be paid")
                .with("pay_by_ms", record.pay_by_ms));
        }
        let lines = record.lines.clone();
        give_up(ctx, &mut record, Status::Expired, "", &lines)?;
        store(ctx, &record).await
    }

    async fn get_order(&self, ctx: &mut Context, _: GetOrderRequest) -> Result<OrderState, AgentError> {
        Ok(known(ctx).await?.shown(ctx))
    }
}

/// Charges the account, and sends what follows from its answer. All of it leaves with the order's new
/// state, in one commit: nobody is told of a payment that the order then does not know of.
async fn take_payment(ctx: &mut Context, record: &mut Record) -> Result<(), AgentError> {
    let (order, cents) = (ctx.key().to_owned(), record.total_cents);
    let charge = ChargeRequest { order: order.clone(), cents, ..Default::default() };
    match ctx.call(AccountCalls::charge(&record.account, charge)).await {
        Ok(_) => {
            record.status = Status::Paid;
            for line in &record.lines {
                let sell = SellRequest { order: order.clone(), ..Default::default() };
                ctx.send(ProductCalls::sell(&line.product, sell))?;
            }
            let confirmation = Confirmation { order, total_cents: cents, ..Default::default() };
            ctx.send(InboxCalls::receive(&record.customer, confirmation))?;
            Ok(())
        }
        Err(error) => {
            if may_have_happened(&error) {
                let refund = RefundRequest { order, ..Default::default() };
                ctx.send(AccountCalls::refund(&record.account, refund))?;
            }
            let lines = record.lines.clone();
            give_up(ctx, record, Status::Declined, error.reason(), &lines)
        }
    }
}

/// Ends the order and releases these lines. The releases are sent: they leave with the order's end, or
/// neither is, and each takes effect once, when its product can be reached.
fn give_up(
    ctx: &mut Context,
    record: &mut Record,
    status: Status,
    reason: &str,
    held: &[Line],
) -> Result<(), AgentError> {
    (record.status, record.reason) = (status, reason.to_owned());
    for line in held {
        let release = ReleaseRequest { order: ctx.key().to_owned(), ..Default::default() };
        ctx.send(ProductCalls::release(&line.product, release))?;
    }
    Ok(())
}

/// An agent that refuses has changed nothing. Whether a call has that ended for the grid's reasons, it
/// seldom can say, and compensating is right either way.
fn may_have_happened(error: &CallError) -> bool {
    matches!(error, CallError::Grid(_))
}

/// The order as it is asked for, whether to charge at once, and how long to wait otherwise.
fn checked(ctx: &Context, request: PlaceRequest) -> Result<(Record, bool, Duration), AgentError> {
    let PlaceRequest { customer, account, lines, pay_at_once, pay_within_ms, .. } = request;
    let invalid = |message: String| Err(AgentError::invalid("ORDER_INVALID", message));
    if ctx.key().len() > ORDER_BYTES_MAX {
        return invalid(format!("an order's key has at most {ORDER_BYTES_MAX} bytes"));
    }
    if lines.is_empty() || lines.len() > LINES_MAX {
        return invalid(format!("an order has 1 to {LINES_MAX} lines; this one has {}", lines.len()));
    }
    let mut products = BTreeSet::new();
    for (number, line) in (1..).zip(&lines) {
        if !(1..=UNITS_MAX).contains(&line.units) {
            return invalid(format!("line {number} has {} units; 1 to {UNITS_MAX} can be had", line.units));
        }
        if !products.insert(&line.product) {
            return invalid(format!("line {number} has the product of another line: make it one"));
        }
        check_key("order.v1.Product", &line.product)?;
    }
    check_key("order.v1.Inbox", &customer)?;
    check_key("order.v1.Account", &account)?;
    let wait_ms = if pay_within_ms == 0 { PAY_WITHIN_MS_DEFAULT } else { pay_within_ms };
    if wait_ms > PAY_WITHIN_MS_MAX {
        return invalid(format!("an order waits for payment {PAY_WITHIN_MS_MAX} ms at most; got {wait_ms}"));
    }
    let lines = lines.into_iter().map(|line| Line { product: line.product, units: line.units }).collect();
    let record = Record {
        status: Status::AwaitingPayment,
        reason: String::new(),
        total_cents: 0,
        pay_by_ms: ctx.now_ms() + wait_ms,
        customer,
        account,
        lines,
    };
    Ok((record, pay_at_once, Duration::from_millis(wait_ms)))
}

/// A key that can't be one would fail a step half way.
fn check_key(agent_type: &str, key: &str) -> Result<(), AgentError> {
    let invalid = |why: String| Err(AgentError::invalid("ORDER_INVALID", why));
    match AgentRef::new(agent_type, key) {
        Ok(_) if !key.is_empty() => Ok(()),
        Ok(_) => invalid(format!("the order names no {agent_type}")),
        Err(error) => invalid(error.to_string()),
    }
}

async fn stored(ctx: &mut Context) -> Result<Option<Record>, AgentError> {
    ctx.entity(ORDER).value().await
}

async fn known(ctx: &mut Context) -> Result<Record, AgentError> {
    let unknown = || AgentError::new(Code::NotFound, "ORDER_UNKNOWN", "no such order was placed");
    stored(ctx).await?.ok_or_else(unknown)
}

async fn store(ctx: &mut Context, record: &Record) -> Result<OrderState, AgentError> {
    ctx.entity(ORDER).set_value(record).await?;
    Ok(record.shown(ctx))
}

impl Record {
    fn shown(&self, ctx: &Context) -> OrderState {
        let line = |Line { product, units }| v1::OrderLine { product, units };
        OrderState {
            order: ctx.key().to_owned(),
            status: self.status.shown().into(),
            reason: self.reason.clone(),
            total_cents: self.total_cents,
            lines: self.lines.iter().cloned().map(line).collect(),
            customer: self.customer.clone(),
            account: self.account.clone(),
        }
    }
}

impl Status {
    fn shown(self) -> v1::Status {
        match self {
            Self::AwaitingPayment => v1::Status::AwaitingPayment,
            Self::Paid => v1::Status::Paid,
            Self::Rejected => v1::Status::Rejected,
            Self::Declined => v1::Status::Declined,
            Self::Expired => v1::Status::Expired,
        }
    }
}
