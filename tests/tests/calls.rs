//! Calls through the whole grid: extension, router, region, executor, replication, and back.

use afdg_example_bank::v1::{
    Balance, DepositRequest, GetBalanceRequest, TransferRequest, TransferResponse, WithdrawRequest,
};
use afdg_example_counter::v1::{AddManyRequest, AddManyResponse, AddRequest, Count, GetRequest};
use afdg_tests::{client::Client, grid};
use anyhow::Result;
use tonic::Code;
use tonic_types::StatusExt;

const DEPOSIT: &str = "/bank.v1.Account/Deposit";
const TRANSFER: &str = "/bank.v1.Account/Transfer";

fn deposit(account: &str, cents: i64) -> DepositRequest {
    DepositRequest { account: account.to_owned(), cents }
}

async fn balance(client: &Client, account: &str) -> Result<i64> {
    let request = GetBalanceRequest { account: account.to_owned() };
    Ok(client.call::<_, Balance>("/bank.v1.Account/GetBalance", request).await?.cents)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_answers_remembers_and_calls_others() -> Result<()> {
    let (grid, _folder) = grid(|_| {}).await?;
    let client = Client::connect(&grid.endpoint()).await?;

    let first: Balance = client.call(DEPOSIT, deposit("alice", 500)).await?;
    assert_eq!(first.cents, 500);
    assert_eq!(balance(&client, "alice").await?, 500);

    // The same idempotency key: once. Another request under it: refused.
    for _ in 0..3 {
        let again: Balance = client.call_once(DEPOSIT, deposit("alice", 100), "order-1").await?;
        assert_eq!(again.cents, 600);
    }
    let reused = client.call_once::<_, Balance>(DEPOSIT, deposit("alice", 101), "order-1").await.unwrap_err();
    assert_eq!(reused.code(), Code::AlreadyExists);
    assert_eq!(reused.get_details_error_info().map(|info| info.reason), Some("ID_REUSED".to_owned()));

    // A refusal is the handler's own, with its facts, and changes nothing.
    let short = WithdrawRequest { account: "alice".to_owned(), cents: 1_000 };
    let refused = client.call::<_, Balance>("/bank.v1.Account/Withdraw", short).await.unwrap_err();
    let info = refused.get_details_error_info().unwrap();
    assert_eq!((refused.code(), info.reason.as_str()), (Code::FailedPrecondition, "BALANCE_SHORT"));
    assert_eq!(info.domain, "bank.v1.Account");
    assert_eq!(info.metadata["balance_cents"], "600");

    // Calls between agents, in whichever regions they are.
    for number in 0..10 {
        let to = format!("payee-{number}");
        let transfer = TransferRequest { from: "alice".to_owned(), to: to.clone(), cents: 10 };
        let moved: TransferResponse = client.call(TRANSFER, transfer).await?;
        assert_eq!((moved.from_cents, moved.to_cents), (600 - 10 * (number + 1), 10));
        assert_eq!(balance(&client, &to).await?, 10);
    }
    let to_itself = TransferRequest { from: "alice".to_owned(), to: "alice".to_owned(), cents: 10 };
    let cycle = client.call::<_, TransferResponse>(TRANSFER, to_itself).await.unwrap_err();
    assert!(cycle.message().contains("bank.v1.Account/alice -> bank.v1.Account/alice"), "{cycle}");
    assert_eq!(balance(&client, "alice").await?, 500);

    let counters: Vec<String> = (0..10).map(|number| format!("c{number}")).collect();
    let add_many = AddManyRequest { fanout: "f".to_owned(), counters, delta: 3 };
    let sum: AddManyResponse = client.call("/counter.v1.Fanout/AddMany", add_many).await?;
    assert_eq!(sum.sum, 30);
    grid.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_death_of_a_leader_loses_nothing_and_repeats_nothing() -> Result<()> {
    let (mut grid, _folder) = grid(|_| {}).await?;
    let client = Client::connect(&grid.endpoint()).await?;
    let add = |number: u32| AddRequest { counter: format!("c{}", number % 20), delta: 1 };
    const PATH: &str = "/counter.v1.Counter/Add";
    let names = grid.node_names();
    let mut number = 0;
    for name in names {
        for _ in 0..40 {
            client.call_once::<_, Count>(PATH, add(number), &format!("add-{number}")).await?;
            number += 1;
        }
        grid.stop_node(&name).await?;
        for _ in 0..40 {
            client.call_once::<_, Count>(PATH, add(number), &format!("add-{number}")).await?;
            number += 1;
        }
        grid.start_node(&name).await?;
    }
    // Every one again: none takes effect twice.
    for again in 0..number {
        client.call_once::<_, Count>(PATH, add(again), &format!("add-{again}")).await?;
    }
    let mut sum = 0;
    for counter in 0..20 {
        let request = GetRequest { counter: format!("c{counter}") };
        sum += client.call::<_, Count>("/counter.v1.Counter/Get", request).await?.value;
    }
    assert_eq!(sum, i64::from(number));
    grid.stop().await;
    Ok(())
}
