//! Promise 7 under kill: money moved by a transfer is neither made nor lost.
//!
//! Transfers go from accounts of lower numbers to those of higher ones: agents that call each other in a
//! circle would wait for each other, which the grid does not see yet.

use crate::grid;
use afdg_example_bank::v1::{Balance, DepositRequest, GetBalanceRequest, TransferRequest, TransferResponse};
use afdg_tests::{cluster::Cluster, persistent::Persistent};
use anyhow::{Context, Result, ensure};
use std::{sync::Arc, time::Duration};
use tokio::{sync::watch, task::JoinSet};

const ACCOUNTS: u64 = 20;
/// More than can be transferred: no transfer is refused.
const DEPOSIT_CENTS: i64 = 100_000_000;
/// Transfers side by side.
const WORKERS: u64 = 16;
/// Leaders that are killed.
const DEATHS: usize = 4;
/// Transfers that are answered before a death, and after it.
const BETWEEN_DEATHS: u64 = 60;
const PROGRESS_LIMIT: Duration = Duration::from_secs(90);

/// A transfer that was answered, and how.
struct Done {
    key: String,
    request: TransferRequest,
    response: TransferResponse,
}

struct Bank {
    calls: Persistent,
    answered: watch::Sender<u64>,
}

fn account(number: u64) -> String {
    format!("account-{number}")
}

/// Which transfer is made, from its number: any that looks like chance does.
fn transfer(number: u64) -> TransferRequest {
    let mixed = (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    let from = mixed % (ACCOUNTS - 1);
    let to = from + 1 + (mixed >> 8) % (ACCOUNTS - 1 - from);
    TransferRequest { from: account(from), to: account(to), cents: 1 + (mixed >> 16) as i64 % 9 }
}

impl Bank {
    async fn deposit_all(&self) -> Result<()> {
        for number in 0..ACCOUNTS {
            let request = DepositRequest { account: account(number), cents: DEPOSIT_CENTS };
            let key = format!("deposit-{number}");
            let _: Balance = self.calls.call("/bank.v1.Account/Deposit", request, &key).await?;
        }
        Ok(())
    }

    async fn transfer(&self, key: &str, request: TransferRequest) -> Result<TransferResponse> {
        self.calls.call("/bank.v1.Account/Transfer", request, key).await
    }

    /// Transfers until told to stop, each repeated until it is answered.
    async fn work(self: Arc<Self>, worker: u64, stop: watch::Receiver<bool>) -> Result<Vec<Done>> {
        let mut done = Vec::new();
        while !*stop.borrow() {
            let number = worker + WORKERS * done.len() as u64;
            let (key, request) = (format!("transfer-{number}"), transfer(number));
            let response = self.transfer(&key, request.clone()).await?;
            done.push(Done { key, request, response });
            self.answered.send_modify(|answered| *answered += 1);
        }
        Ok(done)
    }

    async fn more_are_answered(&self, more: u64, workers: &JoinSet<Result<Vec<Done>>>) -> Result<()> {
        let goal = *self.answered.borrow() + more;
        let mut answered = self.answered.subscribe();
        let waited = tokio::time::timeout(PROGRESS_LIMIT, answered.wait_for(|count| *count >= goal)).await;
        let count = *self.answered.borrow();
        waited.with_context(|| format!("{} workers are stuck at {count} of {goal}", workers.len()))??;
        Ok(())
    }

    /// Every account has to hold what the answered transfers leave there, to the cent.
    async fn check(&self, done: &[Done]) -> Result<()> {
        let mut sum = 0;
        for number in 0..ACCOUNTS {
            let account = account(number);
            let received: i64 =
                done.iter().filter(|d| d.request.to == account).map(|d| d.request.cents).sum();
            let paid: i64 = done.iter().filter(|d| d.request.from == account).map(|d| d.request.cents).sum();
            let request = GetBalanceRequest { account: account.clone() };
            let key = format!("read-{account}");
            let balance: Balance = self.calls.call("/bank.v1.Account/GetBalance", request, &key).await?;
            let wanted = DEPOSIT_CENTS + received - paid;
            ensure!(balance.cents == wanted, "{account} holds {}, not {wanted}", balance.cents);
            sum += balance.cents;
        }
        ensure!(sum == DEPOSIT_CENTS * ACCOUNTS as i64, "all accounts hold {sum}");
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn transfers_under_the_death_of_leaders_make_and_lose_no_money() -> Result<()> {
    let mut grid = grid().await?;
    let cluster = Cluster::new(&grid.endpoint()?)?;
    let calls = Persistent::new(&grid.endpoints(), 0)?;
    let bank = Arc::new(Bank { calls, answered: watch::Sender::new(0) });
    bank.deposit_all().await?;

    let (stop, stopped) = watch::channel(false);
    let mut workers = JoinSet::new();
    for worker in 0..WORKERS {
        workers.spawn(bank.clone().work(worker, stopped.clone()));
    }
    for _ in 0..DEATHS {
        bank.more_are_answered(BETWEEN_DEATHS, &workers).await?;
        let (name, _) = cluster.busiest(&grid.names_of("region-node")).await?;
        grid.kill(&name)?;
        bank.more_are_answered(BETWEEN_DEATHS, &workers).await?;
        grid.restart(&name)?;
        grid.until_well().await?;
    }
    stop.send_replace(true);
    let mut done = Vec::new();
    while let Some(worker) = workers.join_next().await {
        done.extend(worker??);
    }
    bank.check(&done).await?;

    // Repeated under its key, each is answered as it was and moves nothing.
    for Done { key, request, response } in &done {
        let again = bank.transfer(key, request.clone()).await?;
        ensure!(again == *response, "{key} was answered {response:?}, and then {again:?}");
    }
    bank.check(&done).await?;
    eprintln!("{} transfers, {} calls repeated by clients", done.len(), bank.calls.repeats());
    grid.stop().await
}
