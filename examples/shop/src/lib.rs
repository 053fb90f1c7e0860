//! Example agent: a customer with a purchase history.
//!
//! It shows a list that grows without end: recording a purchase costs the same on the tenth as on the
//! millionth, since the total stands in an entity of its own, and reading the list goes page by page.
//!
//! Where to look: the messages and methods in `proto/shop/v1/shop.proto`, the handlers below, and how
//! to test them without a cluster in `tests.rs`. A program hosts it with
//! `NativeHost::new().with(customer())`.

use afdg_agent::{AgentError, AgentType, Context, async_trait};
use serde::{Deserialize, Serialize};
use v1::{
    CustomerAgent, GetSummaryRequest, ListPurchasesRequest, ListPurchasesResponse, RecordPurchaseRequest,
    RecordPurchaseResponse, Summary,
};

/// The package `shop.v1`: messages, the agent's trait, and callers.
pub mod v1 {
    afdg_agent::include_agent!("shop.v1");
}

/// The agent type `shop.v1.Customer`, for a host.
pub fn customer() -> AgentType {
    v1::customer_agent(Customer)
}

/// Entity that lists every [`Purchase`].
const PURCHASES: &str = "purchases";
/// Entity that holds the [`Total`].
const TOTAL: &str = "total";
const PAGE_SIZE_DEFAULT: i32 = 100;
const PAGE_SIZE_MAX: i32 = 1_000;

/// A stored purchase. Its fields' names are stored too, so that it can be read without this type.
#[derive(Serialize, Deserialize)]
struct Purchase {
    date: String,
    amount_cents: i64,
}

/// What is known of all purchases together.
#[derive(Default, Serialize, Deserialize)]
struct Total {
    cents: i64,
    first_date: String,
    last_date: String,
}

struct Customer;

#[async_trait]
impl CustomerAgent for Customer {
    async fn record_purchase(
        &self,
        ctx: &mut Context,
        request: RecordPurchaseRequest,
    ) -> Result<RecordPurchaseResponse, AgentError> {
        let purchase = checked(request)?;
        let mut total: Total = ctx.entity(TOTAL).value().await?.unwrap_or_default();
        total.add(&purchase)?;
        ctx.entity(TOTAL).set_value(&total).await?;
        ctx.entity(PURCHASES).push(&purchase).await?;
        let count = ctx.entity(PURCHASES).len().await?;
        Ok(RecordPurchaseResponse { count, total_cents: total.cents })
    }

    async fn get_summary(&self, ctx: &mut Context, _: GetSummaryRequest) -> Result<Summary, AgentError> {
        let Total { cents, first_date, last_date } = ctx.entity(TOTAL).value().await?.unwrap_or_default();
        let count = ctx.entity(PURCHASES).len().await?;
        Ok(Summary { count, total_cents: cents, first_date, last_date })
    }

    async fn list_purchases(
        &self,
        ctx: &mut Context,
        request: ListPurchasesRequest,
    ) -> Result<ListPurchasesResponse, AgentError> {
        let page_size = page_size(request.page_size)?;
        let first = page_start(&request.page_token)?;
        let end = first.saturating_add(page_size);
        let purchases: Vec<Purchase> = ctx.entity(PURCHASES).range(first..end).await?;
        let more = end < ctx.entity(PURCHASES).len().await?;
        let show = |Purchase { date, amount_cents }| v1::Purchase { date, amount_cents };
        Ok(ListPurchasesResponse {
            purchases: purchases.into_iter().map(show).collect(),
            next_page_token: if more { end.to_string() } else { String::new() },
        })
    }
}

impl Total {
    fn add(&mut self, purchase: &Purchase) -> Result<(), AgentError> {
        self.cents = self.cents.checked_add(purchase.amount_cents).ok_or_else(|| {
            AgentError::refused("TOTAL_OVERFLOW", "the total would not fit 64 bits of cents")
        })?;
        // Dates of eight digits are in the order of their text.
        if self.first_date.is_empty() || purchase.date < self.first_date {
            self.first_date.clone_from(&purchase.date);
        }
        if purchase.date > self.last_date {
            self.last_date.clone_from(&purchase.date);
        }
        Ok(())
    }
}

fn checked(request: RecordPurchaseRequest) -> Result<Purchase, AgentError> {
    if !is_date(&request.date) {
        let date = request.date.chars().take(16).collect::<String>();
        let message =
            format!("a date is a day of the calendar written YYYYMMDD; got '{}'", date.escape_debug());
        return Err(AgentError::invalid("DATE_INVALID", message));
    }
    if request.amount_cents < 0 {
        let message = format!("an amount is 0 or more cents; got {}", request.amount_cents);
        return Err(AgentError::invalid("AMOUNT_NEGATIVE", message));
    }
    Ok(Purchase { date: request.date, amount_cents: request.amount_cents })
}

/// Whether a text is a day of the Gregorian calendar, years 0001 to 9999, as eight digits.
fn is_date(text: &str) -> bool {
    if text.len() != 8 || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return false;
    }
    let number = |digits: &str| digits.bytes().fold(0, |sum, digit| sum * 10 + u32::from(digit - b'0'));
    let (year, month, day) = (number(&text[..4]), number(&text[4..6]), number(&text[6..]));
    let leap = year % 4 == 0 && year % 100 != 0 || year % 400 == 0;
    let days = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 => 28 + u32::from(leap),
        _ => 0,
    };
    year > 0 && (1..=days).contains(&day)
}

fn page_size(asked: i32) -> Result<u64, AgentError> {
    let size = if asked == 0 { PAGE_SIZE_DEFAULT } else { asked };
    match u64::try_from(size) {
        Ok(size) if asked <= PAGE_SIZE_MAX => Ok(size),
        _ => Err(AgentError::invalid(
            "PAGE_SIZE_INVALID",
            format!(
                "a page has 1 to {PAGE_SIZE_MAX} purchases, 0 stands for {PAGE_SIZE_DEFAULT}; got {asked}"
            ),
        )),
    }
}

/// A token is the number of the page's first purchase.
fn page_start(token: &str) -> Result<u64, AgentError> {
    if token.is_empty() {
        return Ok(0);
    }
    token.parse().map_err(|_| {
        AgentError::invalid("PAGE_TOKEN_INVALID", "the page token is none that this agent gave out")
    })
}

#[cfg(test)]
mod tests;
