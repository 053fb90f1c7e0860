//! What a run of the demo came to. Figures of money and counts are added up from the agents' answers,
//! not from the input.

use super::{
    check::Checked,
    failover::Failover,
    feed::Fed,
    money::Cents,
    purchases::{CUSTOMER, Purchases, shown},
};
use crate::{
    admin::grouped,
    output::{Output, Table},
};
use serde::Serialize;
use std::time::Duration;

#[derive(Debug, Serialize)]
pub struct Report {
    pub grid: String,
    pub input: String,
    pub key_prefix: String,
    pub messages: u64,
    pub agents: u64,
    pub sum: Cents,
    pub first_date: String,
    pub last_date: String,
    /// Counted in the input: an agent's summary does not tell them apart.
    pub zero_amount_messages: u64,
    pub largest_total: Option<Standing>,
    pub most_purchases: Option<Standing>,
    pub top: Vec<Standing>,
    pub elapsed_s: f64,
    pub rate_per_s: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
    pub check_s: f64,
    pub retries: u64,
    pub unknown_outcomes: u64,
    pub failover: Option<Failover>,
    pub messages_not_recorded: u64,
    /// Answers whose count and sum are not those of the customer's purchases up to there.
    pub answers_out_of_step: u64,
    pub failures: Vec<String>,
    pub agents_wrong: u64,
    pub differences: Vec<String>,
    /// Every message recorded, and every agent's count, total and dates as the input says.
    pub exact: bool,
}

/// One customer among the others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Standing {
    pub customer: String,
    pub purchases: u64,
    pub total: Cents,
}

/// What a report is made of.
pub struct Facts<'a> {
    pub grid: String,
    pub input: String,
    pub key_prefix: String,
    pub purchases: &'a Purchases,
    pub fed: Fed,
    pub checked: Checked,
    pub check_elapsed: Duration,
    pub retries: u64,
    pub unknown_outcomes: u64,
    pub failover: Option<Failover>,
    pub top: usize,
}

impl Report {
    pub fn of(facts: Facts<'_>) -> Self {
        let Facts { purchases, fed, checked, .. } = facts;
        let mut standings: Vec<Standing> = checked
            .summaries
            .iter()
            .map(|(customer, summary)| Standing {
                customer: customer.clone(),
                purchases: summary.purchases,
                total: summary.total,
            })
            .collect();
        let most_purchases =
            standings.iter().max_by_key(|one| (one.purchases, std::cmp::Reverse(&one.customer))).cloned();
        standings.sort_by(|a, b| b.total.cmp(&a.total).then_with(|| a.customer.cmp(&b.customer)));
        let answered = || checked.summaries.iter().map(|(_, summary)| summary);
        // A sum past 64 bits can only come from wrong agents, which are told anyway.
        let sum = answered().fold(Cents(0), |sum, one| sum.plus(one.total).unwrap_or(Cents(i64::MAX)));
        let messages = answered().map(|summary| summary.purchases).sum();
        let all = purchases.customers.iter().flat_map(|customer| &customer.purchases);
        let exact = checked.wrong == 0
            && fed.not_recorded == 0
            && fed.out_of_step == 0
            && messages == u64::from(purchases.rows)
            && sum == purchases.total;
        Self {
            grid: facts.grid,
            input: facts.input,
            key_prefix: facts.key_prefix,
            messages,
            agents: checked.summaries.len() as u64,
            sum,
            first_date: shown(answered().filter_map(|summary| summary.first).min()),
            last_date: shown(answered().filter_map(|summary| summary.last).max()),
            zero_amount_messages: all.filter(|purchase| purchase.amount.0 == 0).count() as u64,
            largest_total: standings.first().cloned(),
            most_purchases,
            top: standings.into_iter().take(facts.top).collect(),
            elapsed_s: fed.elapsed.as_secs_f64(),
            rate_per_s: fed.recorded as f64 / fed.elapsed.as_secs_f64().max(f64::MIN_POSITIVE),
            p50_ms: fed.p50_ms,
            p99_ms: fed.p99_ms,
            max_ms: fed.max_ms,
            check_s: facts.check_elapsed.as_secs_f64(),
            retries: facts.retries,
            unknown_outcomes: facts.unknown_outcomes,
            failover: facts.failover,
            messages_not_recorded: fed.not_recorded,
            answers_out_of_step: fed.out_of_step,
            failures: fed.failures,
            agents_wrong: checked.wrong,
            differences: checked.told,
            exact,
        }
    }

    pub fn print(&self, output: &mut Output) -> std::io::Result<()> {
        let standing = |one: &Option<Standing>| {
            one.as_ref().map_or("none".to_owned(), |one| {
                format!("{} with {} purchases, {} in all", one.customer, grouped(one.purchases), one.total)
            })
        };
        let mut facts = Table::facts();
        facts.fact("grid", &self.grid).fact("input", &self.input);
        let prefix = if self.key_prefix.is_empty() { String::new() } else { format!("{}/", self.key_prefix) };
        facts.fact("keys", format!("{CUSTOMER}/{prefix}..."));
        facts.fact("messages", grouped(self.messages)).fact("agents", grouped(self.agents));
        facts.fact("sum of all", self.sum);
        facts.fact("dates", format!("{} to {}", self.first_date, self.last_date));
        facts.fact("messages of 0.00", grouped(self.zero_amount_messages));
        facts.fact("largest total", standing(&self.largest_total));
        facts.fact("most purchases", standing(&self.most_purchases));
        facts.fact(
            "fed in",
            format!("{:.1} s, {} messages/s", self.elapsed_s, grouped(self.rate_per_s.round() as u64)),
        );
        facts.fact(
            "answered after",
            format!(
                "{:.1} ms half, {:.1} ms 99 of 100, {:.1} ms the last",
                self.p50_ms, self.p99_ms, self.max_ms
            ),
        );
        facts.fact("checked in", format!("{:.1} s", self.check_s));
        facts.fact("repeated sends", grouped(self.retries));
        let settled = if self.unknown_outcomes > 0 { ", settled by repeating with the same key" } else { "" };
        facts.fact("unknown outcomes", format!("{}{settled}", grouped(self.unknown_outcomes)));
        if let Some(failover) = &self.failover {
            facts.fact("leader stopped", failover);
        }
        output.table(&facts)?;
        let mut table = Table::new(&["CUSTOMER", "#PURCHASES", "#TOTAL"]);
        for one in &self.top {
            table.row([one.customer.clone(), grouped(one.purchases), one.total.to_string()]);
        }
        output.line("")?;
        output.table(&table)?;
        output.line("")?;
        self.print_verdict(output)
    }

    fn print_verdict(&self, output: &mut Output) -> std::io::Result<()> {
        if self.exact {
            return output
                .line("EXACT: every agent's count, total and dates are what the input says, to the cent");
        }
        output.line(format_args!(
            "NOT EXACT: {} messages were not recorded, {} answers were out of step, {} agents differ from the input",
            grouped(self.messages_not_recorded),
            grouped(self.answers_out_of_step),
            grouped(self.agents_wrong)
        ))?;
        for told in self.failures.iter().chain(&self.differences) {
            output.line(format_args!("  {}", crate::output::plain(told)))?;
        }
        Ok(())
    }
}
