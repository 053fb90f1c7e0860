//! Transfers between accounts. Each account is checked like a counter, to which a transfer adds at both ends
//! within the time of the call, and at the end a bank has to hold exactly what was deposited.
//!
//! Money goes from accounts of lower numbers to those of higher ones: agents that call each other in a
//! circle would wait for each other, which the grid does not see yet.

use super::{Client, LAST_READER, LastCalls, Workloads};
use crate::{
    caller::{Called, Outcome, lock},
    history::{Book, Limits},
};
use afdg_example_bank::v1::{Balance, DepositRequest, GetBalanceRequest, TransferRequest, TransferResponse};
use afdg_tests::linearizability::{Counter, CounterOp};
use rand::Rng;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

const LIMITS: Limits = Limits { name: "bank", agents: 1, operations_max: 400, unknown_max: 8 };
const ACCOUNTS: u32 = 6;
/// More than the transfers of a bank can move: none is refused.
const DEPOSIT_CENTS: i64 = 1_000_000;
const DEPOSIT: &str = "/bank.v1.Account/Deposit";
const TRANSFER: &str = "/bank.v1.Account/Transfer";
const GET: &str = "/bank.v1.Account/GetBalance";

pub struct Bank {
    /// Of accounts.
    pub book: Book<Counter>,
    /// Only to choose a bank.
    banks: Book<Counter>,
    /// Banks whose accounts have their deposits.
    open: tokio::sync::Mutex<Vec<String>>,
    transfers: Mutex<Vec<Transfer>>,
}

#[derive(Clone)]
struct Transfer {
    key: String,
    request: TransferRequest,
    /// None if its outcome is unknown.
    answer: Option<TransferResponse>,
}

impl Bank {
    pub fn new() -> Self {
        Self {
            book: Book::new(Limits { name: "account", ..LIMITS }),
            banks: Book::new(LIMITS),
            open: tokio::sync::Mutex::default(),
            transfers: Mutex::default(),
        }
    }
}

fn account(bank: &str, number: u32) -> String {
    format!("{bank}.{number}")
}

pub async fn call(all: &Workloads, client: &mut Client) {
    let bank = all.bank.banks.agent(&mut client.random);
    if !open(all, client, &bank).await {
        return;
    }
    let (extension, key) = (client.extension(), client.key());
    let from = client.random.random_range(0..ACCOUNTS - 1);
    let to = client.random.random_range(from + 1..ACCOUNTS);
    let (from, to) = (account(&bank, from), account(&bank, to));
    if client.chance(30) {
        let called = all.caller.once(extension, GET, GetBalanceRequest { account: to.clone() }).await;
        all.bank.book.note(&to, client.number, CounterOp::Get, &called, cents);
        return;
    }
    let moved = client.random.random_range(1..10);
    let request = TransferRequest { from: from.clone(), to: to.clone(), cents: moved };
    let called: Called<TransferResponse> =
        all.caller.with_key(extension, TRANSFER, request.clone(), &key).await;
    all.bank.book.note(&from, client.number, CounterOp::Add(-moved), &called, |answer| answer.from_cents);
    all.bank.book.note(&to, client.number, CounterOp::Add(moved), &called, |answer| answer.to_cents);
    let answer = match called.outcome {
        Outcome::Answered(answer) => Some(answer),
        Outcome::Unknown => None,
        Outcome::NoEffect | Outcome::Cancelled => return,
    };
    lock(&all.bank.transfers).push(Transfer { key, request, answer });
}

/// Deposits into all accounts of a bank, once; who comes meanwhile waits. False if that was not answered.
async fn open(all: &Workloads, client: &mut Client, bank: &String) -> bool {
    let mut open = all.bank.open.lock().await;
    if open.contains(bank) {
        return true;
    }
    for number in 0..ACCOUNTS {
        let (account, key) = (account(bank, number), format!("open-{bank}-{number}"));
        let request = DepositRequest { account: account.clone(), cents: DEPOSIT_CENTS };
        let called: Called<Balance> = all.caller.with_key(client.extension(), DEPOSIT, request, &key).await;
        if !matches!(called.outcome, Outcome::Answered(_)) {
            all.caller.tell_wrong(format!("{key} was not answered: {:?}", called.outcome));
            return false;
        }
        all.bank.book.note(&account, client.number, CounterOp::Add(DEPOSIT_CENTS), &called, cents);
    }
    open.push(bank.clone());
    true
}

/// Repeats what was not answered until it is, and what was answered: it has to be answered the same.
pub fn repeat(all: &Arc<Workloads>, calls: &mut LastCalls) {
    /// The last of those that were answered.
    const ANSWERED_MAX: usize = 2_000;
    let transfers = lock(&all.bank.transfers).clone();
    let recent = transfers.len().saturating_sub(ANSWERED_MAX);
    for (number, transfer) in transfers.into_iter().enumerate() {
        if transfer.answer.is_none() || number >= recent {
            let all = all.clone();
            calls.spawn(async move { again(&all, transfer, number).await });
        }
    }
}

async fn again(all: &Workloads, transfer: Transfer, extension: usize) {
    let Transfer { key, request, answer } = transfer;
    let called: Called<TransferResponse> = all.caller.with_key(extension, TRANSFER, request, &key).await;
    match (called.outcome, answer) {
        (Outcome::Answered(again), Some(first)) if again != first => {
            all.caller.tell_wrong(format!("{key} was answered {first:?} and, repeated, {again:?}"));
        }
        (Outcome::Answered(_), _) | (Outcome::Cancelled, None) => {}
        (outcome, _) => all.caller.tell_wrong(format!("{key} is not answered at the end: {outcome:?}")),
    }
}

pub async fn read(all: Arc<Workloads>, account: String) {
    let called = all.caller.read(0, GET, GetBalanceRequest { account: account.clone() }).await;
    all.bank.book.note(&account, LAST_READER, CounterOp::Get, &called, cents);
}

/// What the last reads have seen.
pub fn check_totals(all: &Workloads) {
    let mut totals: BTreeMap<String, i64> = BTreeMap::new();
    for (account, history) in all.bank.book.histories() {
        let last = history.iter().rev().find(|operation| operation.client == LAST_READER);
        let Some((_, cents)) = last.and_then(|operation| operation.answered) else {
            all.caller.tell_wrong(format!("{account} could not be read at the end"));
            continue;
        };
        let bank = account.split('.').next().unwrap_or_default().to_owned();
        *totals.entry(bank).or_default() += cents;
    }
    let open = all.bank.open.try_lock().map(|open| open.clone()).unwrap_or_default();
    let wanted = DEPOSIT_CENTS * i64::from(ACCOUNTS);
    for bank in open {
        let total = totals.get(&bank).copied().unwrap_or_default();
        if total != wanted {
            all.caller.tell_wrong(format!("all accounts of {bank} hold {total} cents, not {wanted}"));
        }
    }
}

fn cents(answer: &Balance) -> i64 {
    answer.cents
}
