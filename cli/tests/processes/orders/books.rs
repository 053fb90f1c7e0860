//! The books of everybody after the last order: what the orders say, and what the products, accounts and
//! inboxes hold. Each has to follow from the orders alone, to the unit.

use super::{
    look::{Look, values},
    plan::{CUSTOMERS, ORDERS, PRODUCTS, customer, deposit_cents, order, product, unit_cents, units_stocked},
};
use afdg_example_order::v1::{
    Balance, Confirmations, GetBalanceRequest, GetOrderRequest, GetStockRequest, ListConfirmationsRequest,
    OrderState, Status, Stock,
};
use afdg_tests::persistent::Persistent;
use anyhow::{Context, Result, bail, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use serde::Deserialize;
use std::{collections::BTreeMap, future::Future, time::Duration};
use tokio::time::Instant;

const SIDE_BY_SIDE: usize = 32;
const PAUSE: Duration = Duration::from_millis(200);

/// What a product keeps of an order.
#[derive(Deserialize)]
struct Reservation {
    state: String,
    units: i64,
    cents: i64,
}

/// What an account keeps of an order.
#[derive(Deserialize)]
struct Charge {
    cents: i64,
    refunded: bool,
}

struct ProductBook {
    stock: Stock,
    reservations: Vec<(String, Reservation)>,
}

struct CustomerBook {
    balance: Balance,
    charges: Vec<(String, Charge)>,
    /// Orders and what they cost, as they were confirmed.
    confirmations: Vec<(String, i64)>,
}

pub struct Books {
    /// Those that were placed: not if the client went away too early.
    pub orders: BTreeMap<String, OrderState>,
    products: Vec<ProductBook>,
    customers: Vec<CustomerBook>,
}

/// Everything read for one thing after the other, some at a time, in order.
async fn each<T, F: Future<Output = Result<T>>>(
    numbers: impl Iterator<Item = u64>,
    read: impl Fn(u64) -> F,
) -> Result<Vec<T>> {
    stream::iter(numbers).map(read).buffered(SIDE_BY_SIDE).try_collect().await
}

impl Books {
    /// Waits until no order is open, nobody holds, runs or awaits anything, and as many confirmations have come as
    /// there should be at least; then reads it all.
    pub async fn once_quiet(calls: &Persistent, look: &Look, limit: Duration) -> Result<Self> {
        let give_up = Instant::now() + limit;
        loop {
            let books = Self::read(calls, look).await?;
            let open = match books.open() {
                None => agents_at_work(look).await?,
                open => open,
            };
            match open {
                None => return Ok(books),
                Some(open) => ensure!(Instant::now() < give_up, "after {limit:?} {open}"),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn read(calls: &Persistent, look: &Look) -> Result<Self> {
        let orders = each(0..ORDERS as u64, |number| async move {
            let request = GetOrderRequest { order: order(number as usize) };
            let key = format!("get-{number}");
            match calls.call_or_refusal("/order.v1.Order/GetOrder", request, &key).await? {
                Ok(state) => Ok::<Option<OrderState>, _>(Some(state)),
                Err(refusal) if refusal.reason == "ORDER_UNKNOWN" => Ok(None),
                Err(refusal) => bail!("{refusal:?}"),
            }
        });
        let products = each(0..PRODUCTS, |number| async move {
            let request = GetStockRequest { product: product(number) };
            let stock = calls.read("/order.v1.Product/GetStock", request).await?;
            let found = look.inspect(&format!("order.v1.Product/{}", product(number))).await?;
            Ok(ProductBook { stock, reservations: values(&found, "order/")? })
        });
        let customers = each(0..CUSTOMERS, |number| async move {
            let request = GetBalanceRequest { account: customer(number) };
            let balance = calls.read("/order.v1.Account/GetBalance", request).await?;
            let found = look.inspect(&format!("order.v1.Account/{}", customer(number))).await?;
            let confirmations = confirmations(calls, &customer(number)).await?;
            Ok(CustomerBook { balance, charges: values(&found, "order/")?, confirmations })
        });
        let (orders, products, customers) = (orders.await?, products.await?, customers.await?);
        let orders = orders.into_iter().flatten().map(|state| (state.order.clone(), state)).collect();
        Ok(Self { orders, products, customers })
    }

    /// What is still under way, if anything.
    fn open(&self) -> Option<String> {
        let waiting = self.in_state(Status::AwaitingPayment).count();
        let held: i64 = self.products.iter().map(|book| book.stock.held).sum();
        let confirmed: usize = self.customers.iter().map(|book| book.confirmations.len()).sum();
        let paid = self.in_state(Status::Paid).count();
        (waiting > 0 || held > 0 || confirmed < paid).then(|| {
            format!("{waiting} orders are open, {held} units held, {confirmed} of {paid} orders confirmed")
        })
    }

    pub fn in_state(&self, status: Status) -> impl Iterator<Item = &OrderState> {
        self.orders.values().filter(move |state| state.status() == status)
    }

    pub fn check(&self) -> Result<()> {
        for state in self.orders.values() {
            let is_final = !matches!(state.status(), Status::Unspecified | Status::AwaitingPayment);
            ensure!(is_final, "{state:?} is not over");
        }
        for (number, book) in (0..).zip(&self.products) {
            self.check_product(number, book).with_context(|| product(number))?;
        }
        for (number, book) in (0..).zip(&self.customers) {
            self.check_customer(number, book).with_context(|| customer(number))?;
        }
        self.check_sums()
    }

    /// Stock: by its own count, by its records of orders, and by the orders.
    fn check_product(&self, number: u64, book: &ProductBook) -> Result<()> {
        let Stock { left, held, sold, .. } = book.stock;
        ensure!(held == 0, "{held} units are held for nobody");
        ensure!(left >= 0 && left + sold == units_stocked(number), "{left} are left and {sold} sold");
        let key = product(number);
        let wanted = |state: &OrderState| -> i64 {
            state.lines.iter().filter(|line| line.product == key).map(|line| line.units).sum()
        };
        let ordered: i64 = self.in_state(Status::Paid).map(wanted).sum();
        ensure!(sold == ordered, "{sold} units are sold, and paid orders have {ordered}");

        let mut recorded: BTreeMap<&str, &Reservation> = BTreeMap::new();
        for (order, reservation) in &book.reservations {
            recorded.insert(order, reservation);
            let state = self.orders.get(order).with_context(|| format!("{order} was never placed"))?;
            let closed = if state.status() == Status::Paid { "sold" } else { "released" };
            ensure!(reservation.state == closed, "{} for {order}: {:?}", reservation.state, state.status());
        }
        for state in self.in_state(Status::Paid).filter(|state| wanted(state) > 0) {
            let reservation = recorded.get(&*state.order).with_context(|| format!("no {}", state.order))?;
            ensure!(reservation.units == wanted(state), "{} units of {}", reservation.units, state.order);
            let cents = wanted(state) * unit_cents(number);
            ensure!(reservation.cents == cents, "{} at {} cents", state.order, reservation.cents);
        }
        let records = recorded.values().filter(|reservation| reservation.state == "sold");
        let records: i64 = records.map(|reservation| reservation.units).sum();
        ensure!(records == sold, "{sold} units are sold, and {records} by the records");
        Ok(())
    }

    /// Money and confirmations: by their own count, by the records of orders, and by the orders.
    fn check_customer(&self, number: u64, book: &CustomerBook) -> Result<()> {
        let key = customer(number);
        let paid: Vec<_> = self.in_state(Status::Paid).filter(|state| state.account == key).collect();
        let paid: BTreeMap<_, _> =
            paid.into_iter().map(|state| (state.order.clone(), state.total_cents)).collect();
        let Balance { cents, charged_cents } = book.balance;
        let sum: i64 = paid.values().sum();
        ensure!(charged_cents == sum, "{charged_cents} cents are charged, and paid orders cost {sum}");
        ensure!(cents >= 0 && cents + sum == deposit_cents(number), "{cents} are there, {sum} were paid");

        let charges = book.charges.iter().filter(|(_, charge)| !charge.refunded);
        let charges: BTreeMap<_, _> = charges.map(|(order, charge)| (order.clone(), charge.cents)).collect();
        ensure!(charges == paid, "charged {charges:?}, paid {paid:?}");

        let mut confirmed = book.confirmations.clone();
        confirmed.sort_unstable();
        // Sorted by order as the map is; an order that was confirmed twice would stand there twice.
        let paid: Vec<_> = paid.into_iter().collect();
        ensure!(confirmed == paid, "confirmed {confirmed:?}, paid {paid:?}");
        Ok(())
    }

    fn check_sums(&self) -> Result<()> {
        let cents: i64 = self.customers.iter().map(|book| book.balance.cents).sum();
        let charged: i64 = self.customers.iter().map(|book| book.balance.charged_cents).sum();
        let deposits: i64 = (0..CUSTOMERS).map(deposit_cents).sum();
        ensure!(cents + charged == deposits, "{cents} and {charged} cents of {deposits}");
        let worth = |(number, book): (u64, &ProductBook)| book.stock.sold * unit_cents(number);
        let worth: i64 = (0..).zip(&self.products).map(worth).sum();
        ensure!(worth == charged, "what was sold is worth {worth} cents, and {charged} were charged");
        Ok(())
    }

    /// How many orders ended how.
    pub fn ends(&self) -> BTreeMap<&'static str, usize> {
        let mut ends = BTreeMap::new();
        for state in self.orders.values() {
            *ends.entry(state.status().as_str_name()).or_default() += 1;
        }
        ends
    }
}

/// An agent of the shop that is at work or has messages, if there is one.
async fn agents_at_work(look: &Look) -> Result<Option<String>> {
    let products = (0..PRODUCTS).map(|number| format!("order.v1.Product/{}", product(number)));
    let accounts = (0..CUSTOMERS).map(|number| format!("order.v1.Account/{}", customer(number)));
    let inboxes = (0..CUSTOMERS).map(|number| format!("order.v1.Inbox/{}", customer(number)));
    let orders = (0..ORDERS).map(|number| format!("order.v1.Order/{}", order(number)));
    let agents = products.chain(accounts).chain(inboxes).chain(orders);
    let looks = agents.map(|agent| async move { look.inspect(&agent).await });
    let mut found = stream::iter(looks).buffer_unordered(SIDE_BY_SIDE);
    while let Some(found) = found.try_next().await? {
        if found.activity != "idle" || found.waiting > 0 || found.sends > 0 {
            let facts = (&found.activity, found.waiting, found.sends);
            return Ok(Some(format!("{} is at work: {facts:?}", found.agent)));
        }
    }
    Ok(None)
}

async fn confirmations(calls: &Persistent, customer: &str) -> Result<Vec<(String, i64)>> {
    let mut all = Vec::new();
    loop {
        let request = ListConfirmationsRequest { customer: customer.to_owned(), first: all.len() as u64 };
        let page: Confirmations = calls.read("/order.v1.Inbox/ListConfirmations", request).await?;
        let is_last = page.confirmations.is_empty();
        all.extend(page.confirmations.into_iter().map(|found| (found.order, found.total_cents)));
        if is_last {
            return Ok(all);
        }
    }
}
