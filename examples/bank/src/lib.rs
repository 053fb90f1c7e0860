//! Example agent: a bank account that transfers to others.
//!
//! It shows refusals that a program can read, and a call to another agent inside a turn: a transfer
//! takes the money from its own balance and calls the other account's `Deposit`. If that is refused,
//! so is the transfer, and its own balance stays as it was; money is neither made nor lost.
//!
//! Where to look: the messages and methods in `proto/bank/v1/bank.proto`, the handlers below, and how
//! to test them without a cluster at the end. A program hosts it with
//! `NativeHost::new().with(account())`.

use afdg_agent::{AgentError, AgentType, Context, async_trait};
use v1::{
    AccountAgent, AccountCalls, Balance, DepositRequest, GetBalanceRequest, TransferRequest,
    TransferResponse, WithdrawRequest,
};

/// The package `bank.v1`: messages, the agent's trait, and callers.
pub mod v1 {
    afdg_agent::include_agent!("bank.v1");
}

/// The agent type `bank.v1.Account`, for a host.
pub fn account() -> AgentType {
    v1::account_agent(Account)
}

/// Entity that holds the balance in cents, an `i64`. Money is never a float.
const BALANCE: &str = "balance";

struct Account;

#[async_trait]
impl AccountAgent for Account {
    async fn deposit(&self, ctx: &mut Context, request: DepositRequest) -> Result<Balance, AgentError> {
        check_positive(request.cents)?;
        let cents = balance(ctx).await?.checked_add(request.cents).ok_or_else(|| {
            AgentError::refused("BALANCE_OVERFLOW", "the balance would not fit 64 bits of cents")
        })?;
        ctx.entity(BALANCE).set_value(&cents).await?;
        Ok(Balance { cents })
    }

    async fn withdraw(&self, ctx: &mut Context, request: WithdrawRequest) -> Result<Balance, AgentError> {
        let cents = take(ctx, request.cents).await?;
        Ok(Balance { cents })
    }

    async fn get_balance(&self, ctx: &mut Context, _: GetBalanceRequest) -> Result<Balance, AgentError> {
        let cents = balance(ctx).await?;
        Ok(Balance { cents })
    }

    async fn transfer(
        &self,
        ctx: &mut Context,
        request: TransferRequest,
    ) -> Result<TransferResponse, AgentError> {
        let from_cents = take(ctx, request.cents).await?;
        let deposit = DepositRequest { cents: request.cents, ..Default::default() };
        let to = ctx.call(AccountCalls::deposit(&request.to, deposit)).await?;
        Ok(TransferResponse { from_cents, to_cents: to.cents })
    }
}

async fn balance(ctx: &mut Context) -> Result<i64, AgentError> {
    Ok(ctx.entity(BALANCE).value().await?.unwrap_or(0))
}

/// Takes cents from the balance and returns what is left.
async fn take(ctx: &mut Context, cents: i64) -> Result<i64, AgentError> {
    check_positive(cents)?;
    let balance = balance(ctx).await?;
    // Neither number is negative, so the difference fits.
    let left = balance - cents;
    if left < 0 {
        return Err(AgentError::refused("BALANCE_SHORT", "the account does not hold that much")
            .with("balance_cents", balance)
            .with("short_by_cents", -left));
    }
    ctx.entity(BALANCE).set_value(&left).await?;
    Ok(left)
}

fn check_positive(cents: i64) -> Result<(), AgentError> {
    match cents {
        1.. => Ok(()),
        _ => Err(AgentError::invalid(
            "AMOUNT_NOT_POSITIVE",
            format!("an amount is positive; got {cents} cents"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use afdg_agent::{Call, CallError, Code, testing::TestGrid};

    fn deposit(account: &str, cents: i64) -> Call<Balance> {
        AccountCalls::deposit(account, DepositRequest { cents, ..Default::default() })
    }

    fn withdraw(account: &str, cents: i64) -> Call<Balance> {
        AccountCalls::withdraw(account, WithdrawRequest { cents, ..Default::default() })
    }

    fn transfer(from: &str, to: &str, cents: i64) -> Call<TransferResponse> {
        AccountCalls::transfer(from, TransferRequest { to: to.to_owned(), cents, ..Default::default() })
    }

    async fn cents(grid: &TestGrid, account: &str) -> i64 {
        grid.call(AccountCalls::get_balance(account, GetBalanceRequest::default())).await.unwrap().cents
    }

    fn refusal<R>(result: Result<R, CallError>) -> AgentError {
        match result {
            Err(CallError::Agent(refusal)) => refusal,
            Err(CallError::Grid(error)) => panic!("the grid failed: {error}"),
            Ok(_) => panic!("it was done"),
        }
    }

    #[test]
    fn the_agent_type_is_what_its_proto_says() {
        let agent_type = account();
        let description = agent_type.description();
        assert_eq!(description.name, "bank.v1.Account");
        let read_only: Vec<_> = description
            .methods
            .iter()
            .filter(|method| method.read_only)
            .map(|method| &*method.name)
            .collect();
        assert_eq!((description.methods.len(), read_only), (4, vec!["GetBalance"]));
        assert!(description.methods.iter().all(|method| method.key_field == Some(1)));
        let holds = |text: &[u8]| description.descriptors.windows(text.len()).any(|part| part == text);
        assert!(holds(b"bank/v1/bank.proto") && holds(b"afdg/options.proto"));
    }

    #[tokio::test]
    async fn money_goes_in_and_out() {
        let grid = TestGrid::new([account()]);
        assert_eq!(cents(&grid, "alice").await, 0);
        assert_eq!(grid.call(deposit("alice", 500)).await.unwrap().cents, 500);
        assert_eq!(grid.call(withdraw("alice", 500)).await.unwrap().cents, 0);
        assert_eq!(cents(&grid, "alice").await, 0);
    }

    #[tokio::test]
    async fn no_more_than_the_balance_can_be_taken() {
        let grid = TestGrid::new([account()]);
        grid.call(deposit("alice", 250)).await.unwrap();
        for refused in [
            refusal(grid.call(withdraw("alice", 300)).await),
            refusal(grid.call(transfer("alice", "bob", 300)).await),
        ] {
            assert_eq!((refused.code, &*refused.reason), (Code::FailedPrecondition, "BALANCE_SHORT"));
            assert_eq!(refused.metadata["balance_cents"], "250");
            assert_eq!(refused.metadata["short_by_cents"], "50");
        }
        assert_eq!((cents(&grid, "alice").await, cents(&grid, "bob").await), (250, 0));
    }

    #[tokio::test]
    async fn amounts_are_positive() {
        let grid = TestGrid::new([account()]);
        for cents in [0, -1, i64::MIN] {
            for refused in [
                refusal(grid.call(deposit("alice", cents)).await),
                refusal(grid.call(withdraw("alice", cents)).await),
                refusal(grid.call(transfer("alice", "bob", cents)).await),
            ] {
                assert_eq!((refused.code, &*refused.reason), (Code::InvalidArgument, "AMOUNT_NOT_POSITIVE"));
            }
        }
    }

    #[tokio::test]
    async fn a_transfer_moves_money_once() {
        let grid = TestGrid::new([account()]);
        grid.call(deposit("alice", 1_000)).await.unwrap();
        let moved = grid.call(transfer("alice", "bob", 300)).await.unwrap();
        assert_eq!(moved, TransferResponse { from_cents: 700, to_cents: 300 });
        assert_eq!((cents(&grid, "alice").await, cents(&grid, "bob").await), (700, 300));
    }

    #[tokio::test]
    async fn a_transfer_whose_deposit_is_refused_takes_nothing() {
        let grid = TestGrid::new([account()]);
        grid.call(deposit("alice", 10)).await.unwrap();
        grid.call(deposit("rich", i64::MAX)).await.unwrap();
        let refused = refusal(grid.call(transfer("alice", "rich", 1)).await);
        assert_eq!((refused.code, &*refused.reason), (Code::FailedPrecondition, "BALANCE_OVERFLOW"));
        assert_eq!((cents(&grid, "alice").await, cents(&grid, "rich").await), (10, i64::MAX));
    }

    #[tokio::test]
    async fn a_transfer_to_itself_or_to_nobody_is_refused() {
        let grid = TestGrid::new([account()]);
        grid.call(deposit("alice", 10)).await.unwrap();
        assert_eq!(refusal(grid.call(transfer("alice", "alice", 1)).await).reason, "CALL_CYCLE");
        assert_eq!(refusal(grid.call(transfer("alice", "", 1)).await).reason, "KEY_MISSING");
        assert_eq!(cents(&grid, "alice").await, 10);
    }
}
