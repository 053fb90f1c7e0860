//! A turn that has called another agent is finished, whoever dies.

use crate::{
    gate::Gate,
    whereabouts::{Home, eventually, home_of, until_settled},
};
use afdg_agent::{AgentRef, NativeHost};
use afdg_dev_grid::DevGrid;
use afdg_example_bank::v1::{Balance, DepositRequest, GetBalanceRequest, TransferRequest, TransferResponse};
use afdg_example_counter::v1::{AddRequest, Count};
use afdg_tests::{client::Client, grid};
use anyhow::{Context, Result};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tonic::{Code, Status};
use tonic_types::StatusExt;

const ALICE: &str = "alice";
const KEY: &str = "transfer-1";

fn with_bank() -> NativeHost {
    without_bank().with(afdg_example_bank::account())
}

fn without_bank() -> NativeHost {
    NativeHost::new().with(afdg_example_counter::counter())
}

fn account(key: &str) -> Result<AgentRef> {
    Ok(AgentRef::new("bank.v1.Account", key)?)
}

fn is_not_hosted(status: &Status) -> bool {
    let reason = status.get_details_error_info().map(|info| info.reason);
    (status.code(), reason.as_deref()) == (Code::NotFound, Some("UNKNOWN_TYPE"))
}

/// Asks again while a node leads that does not host accounts: on a busy machine the lead moves by itself.
async fn hosted<T>(ask: impl AsyncFn() -> Result<T, Status>) -> Result<T> {
    let mut answer = None;
    eventually("a leader that hosts accounts", async || {
        answer = Some(ask().await).filter(|answer| !answer.as_ref().is_err_and(is_not_hosted));
        Ok(answer.is_some())
    })
    .await?;
    Ok(answer.context("there is an answer")??)
}

struct Bank {
    grid: DevGrid,
    client: Client,
    gate: Gate,
    _folder: TempDir,
}

impl Bank {
    /// Alice has 100 cents.
    async fn open(regions: u16) -> Result<Self> {
        let gate = Gate::new();
        let (grid, folder) = grid(|options| {
            options.agents = gate.before(with_bank());
            options.size.regions = Some(regions);
        })
        .await?;
        let client = Client::connect(&grid.endpoint()).await?;
        let deposit = DepositRequest { account: ALICE.to_owned(), cents: 100 };
        client.call::<_, Balance>("/bank.v1.Account/Deposit", deposit).await?;
        Ok(Self { grid, client, gate, _folder: folder })
    }

    async fn balance(&self, account: &str) -> Result<i64, Status> {
        let request = GetBalanceRequest { account: account.to_owned() };
        Ok(self.client.call::<_, Balance>("/bank.v1.Account/GetBalance", request).await?.cents)
    }

    /// What alice and the other have, by a leader that hosts accounts.
    async fn both(&self, to: &str) -> Result<(i64, i64)> {
        let alice = hosted(async || self.balance(ALICE).await).await?;
        Ok((alice, hosted(async || self.balance(to).await).await?))
    }

    /// Alice gives 30 cents.
    async fn transfer(client: Client, to: String) -> Result<TransferResponse, Status> {
        let request = TransferRequest { from: ALICE.to_owned(), to, cents: 30 };
        client.call_once("/bank.v1.Account/Transfer", request, KEY).await
    }

    /// Starts a transfer that stands at the gate: the other has the money, and alice's part is not committed.
    /// Nobody waits for it any more.
    async fn leave_a_transfer_half_done(&self, to: &str) -> Result<()> {
        let caller: JoinHandle<_> = tokio::spawn(Self::transfer(self.client.clone(), to.to_owned()));
        self.gate.until("the transfer has called", |seen| seen.reached >= 1).await?;
        assert_eq!(self.both(to).await?, (100, 30));
        caller.abort();
        assert!(caller.await.is_err_and(|error| error.is_cancelled()), "the transfer was answered");
        Ok(())
    }

    /// The transfer took effect once at both sides, and whoever asks again is told what the first would
    /// have been.
    async fn is_moved_once(&self, to: &str) -> Result<()> {
        eventually("alice's part of the transfer", async || Ok(self.both(to).await? != (100, 30))).await?;
        assert_eq!(self.both(to).await?, (70, 30));
        let again = hosted(async || Self::transfer(self.client.clone(), to.to_owned()).await).await?;
        assert_eq!(again, TransferResponse { from_cents: 70, to_cents: 30 });
        assert_eq!(self.both(to).await?, (70, 30));
        Ok(())
    }

    async fn count(&self) -> Result<i64> {
        let add = AddRequest { counter: "hits".to_owned(), delta: 5 };
        Ok(self.client.call::<_, Count>("/counter.v1.Counter/Add", add).await?.value)
    }

    /// Somebody whose region is led elsewhere than alice's.
    async fn somebody_elsewhere(&self, alice: &Home) -> Result<(String, Home)> {
        for number in 0..1_000 {
            let key = format!("bob-{number}");
            let home = home_of(&self.client, &account(&key)?).await?;
            if home.region != alice.region && home.preferred != alice.preferred {
                return Ok((key, home));
            }
        }
        anyhow::bail!("all regions are led by {}", alice.preferred)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_whose_leader_dies_is_finished_by_the_next_without_its_caller() -> Result<()> {
    let mut bank = Bank::open(3).await?;
    let alice = home_of(&bank.client, &account(ALICE)?).await?;
    let (bob, bobs_home) = bank.somebody_elsewhere(&alice).await?;
    until_settled(&bank.grid, &alice).await?;
    until_settled(&bank.grid, &bobs_home).await?;

    bank.leave_a_transfer_half_done(&bob).await?;
    bank.grid.stop_node(&alice.preferred).await?;
    bank.gate.until("the next leader runs the transfer", |seen| seen.reached >= 2).await?;
    assert_eq!(bank.both(&bob).await?, (100, 30));

    bank.gate.open();
    bank.is_moved_once(&bob).await?;

    // Nor does the first leader know better when it is back.
    bank.grid.start_node(&alice.preferred).await?;
    until_settled(&bank.grid, &alice).await?;
    bank.is_moved_once(&bob).await?;
    bank.grid.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_waits_for_a_leader_that_hosts_its_type() -> Result<()> {
    let mut bank = Bank::open(1).await?;
    let home = home_of(&bank.client, &account(ALICE)?).await?;
    until_settled(&bank.grid, &home).await?;
    let others = bank.grid.node_names().into_iter().filter(|name| *name != home.preferred);
    for name in others.collect::<Vec<_>>() {
        bank.grid.stop_node(&name).await?;
        bank.grid.start_node_with(&name, bank.gate.before(without_bank())).await?;
        bank.grid.until_well(afdg_tests::PATIENCE).await?;
    }
    assert_eq!(bank.grid.leader_of(home.region).as_deref(), Some(&*home.preferred));

    bank.leave_a_transfer_half_done("bob").await?;
    bank.grid.stop_node(&home.preferred).await?;
    let reached = bank.gate.seen().reached;
    bank.gate.until("the next leader has tried", |seen| seen.without_code > 0).await?;
    // It serves what it hosts, and says that it does not host accounts.
    assert_eq!(bank.count().await?, 5);
    let refused = bank.balance(ALICE).await.unwrap_err();
    assert!(is_not_hosted(&refused), "{refused:?}");
    assert_eq!(bank.gate.seen().reached, reached);

    bank.gate.open();
    bank.grid.start_node(&home.preferred).await?;
    until_settled(&bank.grid, &home).await?;
    bank.is_moved_once("bob").await?;
    bank.grid.stop().await;
    Ok(())
}
