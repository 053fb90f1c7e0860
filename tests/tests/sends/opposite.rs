//! Transfers that are sent in opposite directions: their turns wait for one another in rings, again and again.

use afdg_example_bank::v1::{Balance, DepositRequest, GetBalanceRequest, TransferRequest};
use afdg_proto::pb::{
    admin::{SetTypeLimitsRequest, cluster_client::ClusterClient},
    v1::{CallRequest, SendRequest, grid_client::GridClient},
};
use afdg_tests::{PATIENCE, client::Client, grid};
use anyhow::{Result, ensure};
use prost::Message;
use std::time::Duration;
use tokio::{task::JoinSet, time::Instant};
use tonic::Code;

const CENTS: i64 = 10_000;
const PAUSE: Duration = Duration::from_millis(50);

/// Each ring that is set free lets one transfer through. It is found at once, and what waited for the one that was
/// refused comes before that one's other transfers, or they would close it again.
#[tokio::test(flavor = "multi_thread")]
async fn transfers_sent_in_opposite_directions_all_take_effect() -> Result<()> {
    let (grid, _folder) = grid(|_| {}).await?;
    let client = Client::connect(&grid.endpoint()).await?;
    all_arrive(&client, 60).await?;
    grid.stop().await;
    Ok(())
}

/// A call that found no room behind them would stand in no queue, and its ring would not be seen.
#[tokio::test(flavor = "multi_thread")]
async fn so_do_those_of_accounts_whose_mailboxes_are_full() -> Result<()> {
    let (grid, _folder) = grid(|_| {}).await?;
    let client = Client::connect(&grid.endpoint()).await?;
    let limits = SetTypeLimitsRequest {
        r#type: "bank.v1.Account".to_owned(),
        set: [("mailbox_messages_max".to_owned(), 1)].into(),
        actor: "test".to_owned(),
        reason: "full mailboxes".to_owned(),
        ..SetTypeLimitsRequest::default()
    };
    ClusterClient::new(client.channel()).set_type_limits(limits).await?;
    all_arrive(&client, 20).await?;
    grid.stop().await;
    Ok(())
}

/// Sends so many transfers each way, one cent there and two back, and waits until all have taken effect.
async fn all_arrive(client: &Client, transfers: i64) -> Result<()> {
    for account in ["east", "west"] {
        let deposit = DepositRequest { account: account.to_owned(), cents: CENTS };
        let _: Balance = client.call("/bank.v1.Account/Deposit", deposit).await?;
    }
    let began = Instant::now();
    let mut sends = JoinSet::new();
    for (from, to, cents) in [("east", "west", 1), ("west", "east", 2)] {
        let mut service = GridClient::new(client.channel());
        sends.spawn(async move {
            for number in 0..transfers {
                let transfer = TransferRequest { to: to.to_owned(), cents, ..TransferRequest::default() };
                let send = SendRequest {
                    agent: format!("bank.v1.Account/{from}"),
                    method: "Transfer".to_owned(),
                    request: transfer.encode_to_vec().into(),
                    idempotency_key: format!("{from}-{number}"),
                    ..SendRequest::default()
                };
                // There is room again once a turn has ended.
                while let Err(status) = service.send(send.clone()).await {
                    ensure!(status.code() == Code::ResourceExhausted, "{status:?}");
                    tokio::time::sleep(PAUSE).await;
                }
            }
            Ok(())
        });
    }
    let accepted = tokio::time::timeout(PATIENCE, async {
        while let Some(sent) = sends.join_next().await {
            sent??;
        }
        anyhow::Ok(())
    });
    accepted.await??;
    loop {
        let mut balances = Vec::new();
        for account in ["east", "west"] {
            let get = GetBalanceRequest { account: account.to_owned() };
            balances.push(client.call::<_, Balance>("/bank.v1.Account/GetBalance", get).await?.cents);
        }
        if balances == [CENTS + transfers, CENTS - transfers] {
            eprintln!("{transfers} transfers each way took {:?}", began.elapsed());
            return Ok(());
        }
        ensure!(began.elapsed() < 2 * PATIENCE, "after {:?} the balances are {balances:?}", began.elapsed());
        tokio::time::sleep(PAUSE).await;
    }
}

/// However a caller names the agent, its request is the same one under the same key.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_the_same_wherever_its_caller_puts_the_agents_key() -> Result<()> {
    let (grid, _folder) = grid(|_| {}).await?;
    let client = Client::connect(&grid.endpoint()).await?;
    let named = DepositRequest { account: "ann".to_owned(), cents: 5 };
    let bare = DepositRequest { cents: 5, ..DepositRequest::default() };
    let first: Balance = client.call_once("/bank.v1.Account/Deposit", named.clone(), "k").await?;
    assert_eq!(first.cents, 5);
    let mut service = GridClient::new(client.channel());
    for request in [named, bare] {
        let call = CallRequest {
            agent: "bank.v1.Account/ann".to_owned(),
            method: "Deposit".to_owned(),
            request: request.encode_to_vec().into(),
            idempotency_key: "k".to_owned(),
            ..CallRequest::default()
        };
        let again = service.call(call).await?.into_inner().response;
        assert_eq!(Balance::decode(again)?.cents, 5, "{request:?}");
    }
    grid.stop().await;
    Ok(())
}
