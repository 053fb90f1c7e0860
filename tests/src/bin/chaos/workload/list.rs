//! Appends to lists and reads of whole lists; each item is appended once. A list is a customer's purchases.

use super::{Client, LAST_READER, Workloads};
use crate::history::Limits;
use afdg_example_shop::v1::{
    ListPurchasesRequest, ListPurchasesResponse, RecordPurchaseRequest, RecordPurchaseResponse,
};
use afdg_tests::linearizability::{ListAnswer, ListOp};
use std::sync::Arc;

/// Few enough for one page.
pub const LIMITS: Limits = Limits { name: "list", agents: 3, operations_max: 120, unknown_max: 6 };
const APPEND: &str = "/shop.v1.Customer/RecordPurchase";
const READ: &str = "/shop.v1.Customer/ListPurchases";
const PAGE: i32 = 1_000;
const DATE: &str = "20240229";

pub async fn call(all: &Workloads, client: &mut Client) {
    let customer = all.lists.agent(&mut client.random);
    let (extension, key) = (client.extension(), client.key());
    if client.chance(40) {
        let called = all.caller.once(extension, READ, whole(&customer)).await;
        all.lists.note(&customer, client.number, ListOp::Read, &called, items);
        return;
    }
    let item = i64::from(client.number) * 1_000_000 + client.calls as i64;
    let request =
        RecordPurchaseRequest { customer: customer.clone(), date: DATE.to_owned(), amount_cents: item };
    let called = match client.chance(70) {
        true => all.caller.with_key(extension, APPEND, request, &key).await,
        false => all.caller.once(extension, APPEND, request).await,
    };
    let appended = |answer: &RecordPurchaseResponse| {
        let RecordPurchaseResponse { count, total_cents: total } = *answer;
        ListAnswer::Appended { count, total }
    };
    all.lists.note(&customer, client.number, ListOp::Append(item), &called, appended);
}

pub async fn read(all: Arc<Workloads>, customer: String) {
    let called = all.caller.read(0, READ, whole(&customer)).await;
    all.lists.note(&customer, LAST_READER, ListOp::Read, &called, items);
}

fn whole(customer: &str) -> ListPurchasesRequest {
    ListPurchasesRequest { customer: customer.to_owned(), page_size: PAGE, page_token: String::new() }
}

fn items(answer: &ListPurchasesResponse) -> ListAnswer {
    ListAnswer::Items(answer.purchases.iter().map(|purchase| purchase.amount_cents).collect())
}
