//! Promises 5, 6 and 7 together, under kill: 2,000 orders of the example `order`, each a workflow across many
//! agents, while region nodes are killed until every region has lost its leader five times. Stock, money and
//! confirmations are then counted to the unit, by the orders and by everybody's own books.

mod books;
mod deaths;
mod look;
mod plan;

use crate::grid;
use afdg_example_order::v1::{
    Balance, DepositRequest, OrderState, PayRequest, RestockRequest, Status, Stock,
};
use afdg_tests::{
    client::Client, cluster::Cluster, persistent::Persistent, processes::Processes, stalls::Stalls,
};
use afdg_types::AgentError;
use anyhow::{Context, Result, bail, ensure};
use books::Books;
use deaths::Leaders;
use look::Look;
use plan::{CUSTOMERS, EXPIRES_MS, Intent, ORDERS, PRODUCTS};
use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{sync::watch, task::JoinSet};

const PLACE: &str = "/order.v1.Order/Place";
/// Orders side by side.
const WORKERS: usize = 64;
/// Less than a region is without a leader after a death: clients repeat their calls.
const ATTEMPT_LIMIT: Duration = Duration::from_millis(700);
/// How often every region loses its leader.
const DEATHS_EACH: u32 = 5;
/// How long a part of the orders may take, a death included.
const PROGRESS_LIMIT: Duration = Duration::from_secs(90);
/// How long it may take until all is quiet: the longest timer is 8 s.
const QUIET_LIMIT: Duration = Duration::from_secs(60);
/// How often the longest stall of a starved machine may come on top of that.
const STALLS_IN_A_WAIT: u32 = 100;
/// Of these orders the placing is repeated at the end.
const REPEAT_EVERY: usize = 4;

/// An order whose client is done with it, and what it was answered.
struct Seen {
    number: usize,
    /// None if the client went away.
    placed: Option<OrderState>,
    paid: Option<Result<OrderState, AgentError>>,
}

struct Clients {
    /// Begin with different extensions.
    calls: Vec<Persistent>,
    /// For those that ask once.
    once: Vec<Client>,
    next: AtomicUsize,
    /// Orders below this number may be placed.
    allowed: watch::Sender<usize>,
    done: watch::Sender<usize>,
    seen: Mutex<Vec<Seen>>,
}

impl Clients {
    fn new(endpoints: &[String]) -> Result<Self> {
        let calls = (0..endpoints.len())
            .map(|first| Ok(Persistent::new(endpoints, first)?.with_attempt_limit(ATTEMPT_LIMIT)));
        let once = endpoints.iter().map(|endpoint| Client::lazy(endpoint));
        Ok(Self {
            once: once.collect::<Result<_>>()?,
            calls: calls.collect::<Result<_>>()?,
            next: AtomicUsize::new(0),
            allowed: watch::Sender::new(0),
            done: watch::Sender::new(0),
            seen: Mutex::default(),
        })
    }

    fn calls(&self, number: usize) -> &Persistent {
        &self.calls[number % self.calls.len()]
    }

    async fn fill_the_shop(&self) -> Result<()> {
        for number in 0..PRODUCTS {
            let (units, unit_cents) = (plan::units_stocked(number), plan::unit_cents(number));
            let request = RestockRequest { product: plan::product(number), units, unit_cents };
            let key = format!("restock-{number}");
            let _: Stock = self.calls(0).call("/order.v1.Product/Restock", request, &key).await?;
        }
        for number in 0..CUSTOMERS {
            let cents = plan::deposit_cents(number);
            let request = DepositRequest { account: plan::customer(number), cents };
            let key = format!("deposit-{number}");
            let _: Balance = self.calls(0).call("/order.v1.Account/Deposit", request, &key).await?;
        }
        Ok(())
    }

    /// Takes one order after the other, as far as they are allowed.
    async fn work(self: Arc<Self>) -> Result<()> {
        let mut allowed = self.allowed.subscribe();
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if number >= ORDERS {
                return Ok(());
            }
            allowed.wait_for(|allowed| *allowed > number).await?;
            let seen = self.order(number).await?;
            self.seen.lock().unwrap_or_else(PoisonError::into_inner).push(seen);
            self.done.send_modify(|done| *done += 1);
        }
    }

    /// Places an order and pays it, each repeated under its key until it is answered.
    async fn order(&self, number: usize) -> Result<Seen> {
        let intent = plan::intent(number);
        if intent == Intent::GoAway {
            let once = &self.once[number % self.once.len()];
            let key = format!("place-{number}");
            let call = once.call_once(PLACE, plan::request(number), &key);
            let answer = tokio::time::timeout(Duration::from_millis(plan::patience_ms(number)), call).await;
            return Ok(Seen { number, placed: answer.ok().and_then(Result::ok), paid: None });
        }
        let placed = self.place(number).await?;
        let is_open = placed.status() == Status::AwaitingPayment;
        let mut paid = None;
        if is_open && matches!(intent, Intent::PayNext | Intent::PayAtTheLast) {
            if intent == Intent::PayAtTheLast {
                tokio::time::sleep(Duration::from_millis(EXPIRES_MS)).await;
            }
            let (request, key) = (PayRequest { order: plan::order(number) }, format!("pay-{number}"));
            let calls = self.calls(number + 1);
            paid = Some(calls.call_or_refusal("/order.v1.Order/Pay", request, &key).await?);
        }
        Ok(Seen { number, placed: Some(placed), paid })
    }

    async fn place(&self, number: usize) -> Result<OrderState> {
        self.calls(number).call(PLACE, plan::request(number), &format!("place-{number}")).await
    }

    fn allow(&self, more: usize) {
        self.allowed.send_modify(|allowed| *allowed += more);
    }

    /// Orders that are not allowed yet.
    fn left(&self) -> usize {
        ORDERS - *self.allowed.borrow()
    }

    /// Orders that are allowed and not done: as many are under way as there are workers.
    fn in_flight(&self) -> usize {
        let open = *self.allowed.borrow() - *self.done.borrow();
        open.min(WORKERS)
    }

    /// Waits until so many of the orders that are allowed are not done, or fewer. An error if a worker fails.
    async fn until_open(&self, at_most: usize, workers: &mut JoinSet<Result<()>>) -> Result<()> {
        let goal = *self.allowed.borrow() - at_most;
        let mut done = self.done.subscribe();
        let reached = async { done.wait_for(|done| *done >= goal).await.map(|done| *done) };
        let worker_fails = async {
            while let Some(ended) = workers.join_next().await {
                ended??;
            }
            std::future::pending::<Result<()>>().await
        };
        tokio::select! {
            waited = tokio::time::timeout(PROGRESS_LIMIT, reached) => {
                let stuck = || format!("orders are stuck at {} of {goal}", *self.done.borrow());
                waited.with_context(stuck)??;
                Ok(())
            }
            failed = worker_fails => failed,
        }
    }

    /// How many went away unanswered.
    fn gone(&self) -> usize {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.iter().filter(|seen| seen.placed.is_none()).count()
    }

    /// What was answered has to be what the orders came to.
    fn check_answers(&self, books: &Books) -> Result<()> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        ensure!(seen.len() == ORDERS, "{} orders were answered", seen.len());
        for Seen { number, placed, paid } in &*seen {
            let state = books.orders.get(&plan::order(*number));
            let told = format!("{:?}: {placed:?}, {paid:?}, and then {state:?}", plan::intent(*number));
            let Some(placed) = placed else {
                // Nobody can say whether it was placed; if it was, it has come to its end.
                ensure!(state.is_none_or(|state| state.status() != Status::Expired), told);
                continue;
            };
            let state = state.with_context(|| told.clone())?;
            match paid {
                Some(Ok(paid)) => ensure!(paid == state, told),
                Some(Err(refusal)) => {
                    let status = refusal.metadata.get("status").map(String::as_str);
                    ensure!(status == Some(state.status().as_str_name()), told);
                    ensure!(refusal.reason == "ORDER_CLOSED" && state.status() == Status::Expired, told);
                }
                None if placed.status() == Status::AwaitingPayment => {
                    ensure!(state.status() == Status::Expired, told);
                }
                None => ensure!(placed == state, told),
            }
            let request = plan::request(*number);
            ensure!(state.lines == request.lines && state.customer == request.customer, told);
        }
        Ok(())
    }

    /// Placed once more under their keys, orders are answered as they were.
    async fn check_repeats(&self) -> Result<()> {
        let seen = std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner));
        for Seen { number, placed, .. } in seen.iter().filter(|seen| seen.number % REPEAT_EVERY == 0) {
            if let Some(placed) = placed {
                let again = self.place(*number).await?;
                ensure!(again == *placed, "order {number} was answered {placed:?}, and then {again:?}");
            }
        }
        Ok(())
    }
}

/// Kills one leader after the other in the midst of orders, until every region has lost its own so often.
async fn kill_leaders(
    grid: &mut Processes,
    leaders: &mut Leaders,
    clients: &Clients,
    workers: &mut JoinSet<Result<()>>,
) -> Result<()> {
    let (mut deaths, mut met) = (0, 0);
    while leaders.lacking(DEATHS_EACH) > 0 {
        // Each death is at least one that some region lacked, so orders are kept for as many deaths. Nobody
        // moves leads back, so most take the leader of about four regions: the rest goes by that.
        let lacking = leaders.lacking(DEATHS_EACH) as usize;
        let kept = lacking * WORKERS;
        ensure!(clients.left() >= kept, "{} orders are left, {kept} should be", clients.left());
        let share = WORKERS + (clients.left() - kept) / (lacking.div_ceil(4) + 1);
        clients.allow(share);
        clients.until_open(share * 3 / 4, workers).await?;
        let (name, led) = leaders.to_kill(DEATHS_EACH).await?;
        let in_flight = clients.in_flight();
        grid.kill(&name)?;
        leaders.died(&led);
        grid.tell(format_args!("it led {led:?}; {in_flight} orders were in flight"));
        (deaths, met) = (deaths + 1, met + in_flight);
        // The others carry on without it.
        clients.until_open(0, workers).await?;
        grid.restart(&name)?;
        grid.until_well().await?;
    }
    ensure!(met > deaths * WORKERS / 4, "{deaths} deaths met {met} orders in flight: too few to show much");
    grid.tell(format_args!("{deaths} deaths met {met} orders in flight; leaders lost: {:?}", leaders.lost));
    Ok(())
}

async fn check(clients: &Clients, look: &Look, stalls: &Stalls) -> Result<Books> {
    let limit = QUIET_LIMIT + STALLS_IN_A_WAIT * stalls.longest();
    let books = Books::once_quiet(clients.calls(0), look, limit).await?;
    books.check()?;
    let dead = look.dead_letters().await?;
    ensure!(dead.is_empty(), "dead letters: {dead:?}");
    Ok(books)
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_under_the_death_of_every_leader_are_exact_to_the_unit() -> Result<()> {
    let stalls = Stalls::watch();
    let mut grid = grid().await?;
    let cluster = Cluster::new(&grid.endpoints()[0])?;
    let look = Look::new(&grid.endpoints()[0])?;
    let clients = Arc::new(Clients::new(&grid.endpoints())?);
    clients.fill_the_shop().await?;

    let mut workers = JoinSet::new();
    for _ in 0..WORKERS {
        workers.spawn(clients.clone().work());
    }
    let mut leaders = Leaders::new(look.clone(), &cluster, &grid.names_of("node")).await?;
    kill_leaders(&mut grid, &mut leaders, &clients, &mut workers).await?;
    clients.allow(clients.left());
    clients.until_open(0, &mut workers).await?;

    grid.tell("all orders are answered");
    let books = check(&clients, &look, &stalls).await?;
    clients.check_answers(&books)?;
    let (ends, gone, unplaced) = (books.ends(), clients.gone(), ORDERS - books.orders.len());
    grid.tell(format_args!("{ends:?}; {gone} clients went away, of {unplaced} the order was not placed"));
    ensure!(gone > unplaced, "no order was finished without its client");
    for status in [Status::Paid, Status::Rejected, Status::Declined, Status::Expired] {
        let count = ends.get(status.as_str_name()).copied().unwrap_or_default();
        ensure!(count >= ORDERS / 50, "{count} orders are {status:?}: too few to show much");
    }

    // Whatever a leader still had in mind, the next one takes from the disks; and a repeat changes nothing.
    grid.kill_together(&grid.names_of("node"))?;
    grid.start_all()?;
    grid.until_well().await?;
    clients.check_repeats().await?;
    let again = check(&clients, &look, &stalls).await?;
    if again.orders != books.orders {
        bail!("orders have changed after they were over");
    }
    let repeats: u64 = clients.calls.iter().map(Persistent::repeats).sum();
    ensure!(repeats > 0, "no client had to repeat a call");
    grid.tell(format_args!("{repeats} calls repeated by clients; longest stall {:.1?}", stalls.longest()));
    grid.finish()
}
