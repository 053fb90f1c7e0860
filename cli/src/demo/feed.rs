//! Sends every purchase to its customer's agent: customers side by side, each one's purchases in order.

use super::{
    messages::{RECORD_PURCHASE, Recorded, read_recorded, record_purchase},
    money::Cents,
    persistent::Persistent,
    purchases::{CUSTOMER, Customer, Purchases},
};
use afdg_proto::pb::v1::CallRequest;
use futures::future::join_all;
use hdrhistogram::Histogram;
use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::watch;

/// Failed messages that are told one by one.
pub const TOLD_MAX: usize = 10;
/// Latencies above this are recorded as this.
const LATENCY_US_MAX: u64 = 600_000_000;

/// Who is sent to, and under which names.
#[derive(Clone, Debug)]
pub struct Names {
    pub key_prefix: String,
}

impl Names {
    /// The address of a customer's agent.
    pub fn agent(&self, customer: &Customer) -> String {
        match self.key_prefix.as_str() {
            "" => format!("{CUSTOMER}/{}", customer.id),
            prefix => format!("{CUSTOMER}/{prefix}/{}", customer.id),
        }
    }

    /// The same for the same row of the same run: a repeat has no second effect. The agent's key is part
    /// of a message's id, so that runs with other prefixes are other messages.
    fn idempotency_key(&self, row: u32) -> String {
        format!("demo-{}-{row}", self.key_prefix)
    }
}

/// How the feeding went.
#[derive(Debug)]
pub struct Fed {
    pub recorded: u64,
    /// Messages that the grid refused for good, and those of the same customers behind them.
    pub not_recorded: u64,
    /// Answers whose count and sum are not those of the customer's purchases up to there.
    pub out_of_step: u64,
    pub failures: Vec<String>,
    pub elapsed: Duration,
    /// From a message's first attempt to its answer.
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
}

#[derive(Default)]
struct Tally {
    not_recorded: u64,
    out_of_step: u64,
    failures: Vec<String>,
    latencies_us: Option<Histogram<u64>>,
}

impl Tally {
    fn tell(&mut self, what: String) {
        if self.failures.len() < TOLD_MAX {
            self.failures.push(what);
        }
    }
}

/// Sends all purchases with `in_flight` customers at a time. `recorded` counts the answers, and is dropped
/// at the end, so that nobody waits for a count that won't be reached.
pub async fn feed(
    purchases: &Purchases,
    names: &Names,
    calls: &Persistent,
    in_flight: usize,
    recorded: watch::Sender<u64>,
) -> Fed {
    let start = Instant::now();
    // Those with most purchases first: a customer's purchases go one after the other, and a long row
    // of them that starts last would be waited for alone.
    let mut order: Vec<&Customer> = purchases.customers.iter().collect();
    order.sort_by_key(|customer| std::cmp::Reverse(customer.purchases.len()));
    let next = AtomicUsize::new(0);
    let latencies_us = Histogram::new_with_bounds(1, LATENCY_US_MAX, 3).ok();
    let tally = Mutex::new(Tally { latencies_us, ..Tally::default() });
    let workers = (0..in_flight.min(order.len())).map(|_| async {
        while let Some(customer) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
            record_all(customer, names, calls, &recorded, &tally).await;
        }
    });
    join_all(workers).await;
    let tally = tally.into_inner().unwrap_or_else(PoisonError::into_inner);
    let ms = |us: u64| us as f64 / 1_000.0;
    let at = |quantile| tally.latencies_us.as_ref().map_or(0.0, |all| ms(all.value_at_quantile(quantile)));
    Fed {
        recorded: *recorded.borrow(),
        not_recorded: tally.not_recorded,
        out_of_step: tally.out_of_step,
        elapsed: start.elapsed(),
        p50_ms: at(0.5),
        p99_ms: at(0.99),
        max_ms: tally.latencies_us.as_ref().map_or(0.0, |all| ms(all.max())),
        failures: tally.failures,
    }
}

async fn record_all(
    customer: &Customer,
    names: &Names,
    calls: &Persistent,
    recorded: &watch::Sender<u64>,
    tally: &Mutex<Tally>,
) {
    let agent = names.agent(customer);
    let mut total = Cents::default();
    for (place, purchase) in customer.purchases.iter().enumerate() {
        let sent = Instant::now();
        let outcome = calls
            .call(CallRequest {
                agent: agent.clone(),
                method: RECORD_PURCHASE.to_owned(),
                request: record_purchase(purchase),
                idempotency_key: names.idempotency_key(purchase.row),
                timeout_ms: 0,
            })
            .await;
        let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
        let response = match outcome {
            Ok(response) => response,
            Err(failure) => {
                // What comes behind it would be out of order.
                tally.not_recorded += (customer.purchases.len() - place) as u64;
                let what = format!("{} {}", failure.reason, failure.message);
                tally.tell(format!("row {} to {agent}: {what}", purchase.row));
                return;
            }
        };
        if let Some(latencies) = &mut tally.latencies_us {
            latencies.saturating_record(sent.elapsed().as_micros() as u64);
        }
        recorded.send_modify(|count| *count += 1);
        total = total.plus(purchase.amount).unwrap_or(total);
        let wanted = Recorded { purchases: place as u64 + 1, total };
        if read_recorded(&response) != Ok(wanted) {
            tally.out_of_step += 1;
            let got = read_recorded(&response);
            tally.tell(format!("row {} to {agent}: answered {got:?}, not {wanted:?}", purchase.row));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_one_address_and_one_key_in_a_run() {
        let customer = Customer { id: "7592".into(), purchases: Vec::new(), total: Default::default() };
        let names = Names { key_prefix: "run-1".into() };
        assert_eq!(names.agent(&customer), "shop.v1.Customer/run-1/7592");
        assert_eq!(names.idempotency_key(17), "demo-run-1-17");
        assert_eq!(Names { key_prefix: String::new() }.agent(&customer), "shop.v1.Customer/7592");
    }
}
