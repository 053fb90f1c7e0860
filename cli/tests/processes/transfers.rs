//! Promise 7 under kill: money moved by a transfer is neither made nor lost.
//!
//! Transfers go from accounts of lower numbers to those of higher ones: agents that call each other in a
//! circle would wait for each other, which the grid does not see yet.

use crate::grid;
use afdg_example_bank::v1::{Balance, DepositRequest, GetBalanceRequest, TransferRequest, TransferResponse};
use afdg_tests::{client::Client, cluster::Cluster, load::keys_in, persistent::Persistent};
use anyhow::{Context, Result, ensure};
use std::{sync::Arc, time::Duration};
use tokio::{sync::watch, task::JoinSet};

const ACCOUNT: &str = "bank.v1.Account";
const TRANSFER: &str = "/bank.v1.Account/Transfer";
const ACCOUNTS: u64 = 20;
/// More than can be transferred: no transfer is refused.
const DEPOSIT_CENTS: i64 = 100_000_000;
/// Transfers side by side.
const WORKERS: u64 = 16;
/// Leaders that are killed.
const DEATHS: usize = 3;
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
        self.calls.call(TRANSFER, request, key).await
    }

    /// Transfers until it is answered; returns the key under which it was. An attempt that was given up may have
    /// had its call cut short: then nothing has moved under that key, and nothing will.
    async fn transfer_once(&self, number: u64) -> Result<(String, TransferResponse)> {
        let mut key = format!("transfer-{number}");
        loop {
            match self.calls.call_or_refusal(TRANSFER, transfer(number), &key).await? {
                Ok(response) => return Ok((key, response)),
                Err(refusal) if refusal.reason == "CALL_CANCELLED" => key.push_str("-again"),
                Err(refusal) => anyhow::bail!("{key} was refused: {refusal:?}"),
            }
        }
    }

    /// Transfers until told to stop, each repeated until it is answered.
    async fn work(self: Arc<Self>, worker: u64, stop: watch::Receiver<bool>) -> Result<Vec<Done>> {
        let mut done = Vec::new();
        while !*stop.borrow() {
            let number = worker + WORKERS * done.len() as u64;
            let (key, response) = self.transfer_once(number).await?;
            let request = transfer(number);
            done.push(Done { key, request, response });
            self.answered.send_modify(|answered| *answered += 1);
        }
        Ok(done)
    }

    async fn more_are_answered(&self, more: u64, workers: &JoinSet<Result<Vec<Done>>>) -> Result<()> {
        let goal = *self.answered.borrow() + more;
        let mut answered = self.answered.subscribe();
        // What it returns locks the count, and whoever reads that once more waits for a writer in between.
        let reached = async { answered.wait_for(|count| *count >= goal).await.map(|count| *count) };
        let waited = tokio::time::timeout(PROGRESS_LIMIT, reached).await;
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
            let balance: Balance = self.calls.read("/bank.v1.Account/GetBalance", request).await?;
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
    let cluster = Cluster::new(&grid.endpoints()[0])?;
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
        let (name, _) = cluster.busiest(&grid.names_of("node")).await?;
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
    grid.tell(format_args!("{} transfers, {} calls repeated by clients", done.len(), bank.calls.repeats()));
    grid.finish()
}

/// The other account's leader is frozen, so that the transfers are recorded and then wait for it. Their
/// callers go away, their leader dies, and the next one has to finish them.
#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_is_finished_though_its_leader_died_and_its_caller_is_gone() -> Result<()> {
    const CENTS: i64 = 70;
    let mut grid = grid().await?;
    let cluster = Cluster::new(&grid.endpoints()[0])?;
    let calls = Persistent::new(&grid.endpoints(), 0)?;
    let regions = cluster.regions().await?;
    let from_region = &regions[0];
    let to_region = regions.iter().find(|region| region.leader != from_region.leader);
    let to_region = to_region.context("one node leads all regions")?;
    let from_leader = cluster.name_of(from_region.leader).await?;
    let to_leader = cluster.name_of(to_region.leader).await?;
    let pairs: Vec<(String, String)> =
        keys_in(from_region, ACCOUNT, "from").zip(keys_in(to_region, ACCOUNT, "to")).take(10).collect();
    for (from, _) in &pairs {
        let request = DepositRequest { account: from.clone(), cents: DEPOSIT_CENTS };
        let _: Balance = calls.call("/bank.v1.Account/Deposit", request, &format!("first-{from}")).await?;
    }

    grid.freeze(&to_leader)?;
    let mut callers = JoinSet::new();
    for (from, to) in pairs.clone() {
        let client = Client::connect(&grid.endpoints()[0]).await?;
        let request = TransferRequest { from: from.clone(), to, cents: CENTS };
        callers.spawn(async move {
            let key = format!("transfer-{from}");
            let call = client.call_once::<_, TransferResponse>(TRANSFER, request, &key);
            // Less than the lease of a frozen leader: no other answers in its place.
            tokio::time::timeout(Duration::from_millis(800), call).await
        });
    }
    while let Some(answer) = callers.join_next().await {
        ensure!(answer?.is_err(), "a transfer was answered while the other account can't be reached");
    }
    grid.kill(&from_leader)?;
    grid.thaw(&to_leader)?;

    let mut finished = 0;
    for (from, to) in &pairs {
        // This comes behind what the account has begun.
        let request = DepositRequest { account: from.clone(), cents: 1 };
        let left: Balance = calls.call("/bank.v1.Account/Deposit", request, &format!("then-{from}")).await?;
        let moved = DEPOSIT_CENTS + 1 - left.cents;
        let request = GetBalanceRequest { account: to.clone() };
        let got: Balance = calls.read("/bank.v1.Account/GetBalance", request).await?;
        ensure!(moved == 0 || moved == CENTS, "{from} has paid {moved}");
        ensure!(got.cents == moved, "{from} has paid {moved}, and {to} has got {}", got.cents);
        finished += usize::from(moved == CENTS);
    }
    grid.tell(format_args!("{finished} of {} transfers were finished", pairs.len()));
    // One that had not yet reached its agent has gone with its caller.
    ensure!(finished > 0, "no transfer was finished");

    grid.restart(&from_leader)?;
    grid.until_well().await?;
    for (from, to) in &pairs {
        // Whoever comes back with the key is answered; then all are done, each once.
        let request = TransferRequest { from: from.clone(), to: to.clone(), cents: CENTS };
        let _: TransferResponse = calls.call(TRANSFER, request, &format!("transfer-{from}")).await?;
        for (account, wanted) in [(from, DEPOSIT_CENTS + 1 - CENTS), (to, CENTS)] {
            let request = GetBalanceRequest { account: account.clone() };
            let found: Balance = calls.read("/bank.v1.Account/GetBalance", request).await?;
            ensure!(found.cents == wanted, "{account} holds {}, not {wanted}", found.cents);
        }
    }
    grid.finish()
}
