//! Asks every customer's agent for its summary and compares it with what the input says.

use super::{
    feed::{Names, TOLD_MAX},
    messages::{GET_SUMMARY, Summary, read_summary},
    persistent::Persistent,
    purchases::{Customer, Purchases, shown},
};
use afdg_proto::pb::v1::CallRequest;
use futures::StreamExt;

/// What the agents said.
#[derive(Debug, Default)]
pub struct Checked {
    /// One for each customer that answered, in the order of the input.
    pub summaries: Vec<(String, Summary)>,
    pub wrong: u64,
    pub told: Vec<String>,
}

impl Checked {
    fn add(&mut self, customer: &Customer, answer: Result<Summary, String>) {
        let why = match &answer {
            Ok(summary) => difference(customer, summary),
            Err(why) => Some(why.clone()),
        };
        if let Ok(summary) = answer {
            self.summaries.push((customer.id.clone(), summary));
        }
        if let Some(why) = why {
            self.wrong += 1;
            if self.told.len() < TOLD_MAX {
                self.told.push(format!("customer {}: {why}", customer.id));
            }
        }
    }
}

pub async fn check(purchases: &Purchases, names: &Names, calls: &Persistent, in_flight: usize) -> Checked {
    let mut checked = Checked::default();
    let mut answers = futures::stream::iter(&purchases.customers)
        .map(|customer| async move { (customer, ask(names.agent(customer), calls).await) })
        .buffered(in_flight);
    while let Some((customer, answer)) = answers.next().await {
        checked.add(customer, answer);
    }
    checked
}

async fn ask(agent: String, calls: &Persistent) -> Result<Summary, String> {
    let call = CallRequest { agent, method: GET_SUMMARY.to_owned(), ..CallRequest::default() };
    let response = calls
        .call(call)
        .await
        .map_err(|failure| format!("its agent gave no summary: {} {}", failure.reason, failure.message))?;
    read_summary(&response).map_err(|error| format!("its agent's summary can't be read: {error}"))
}

/// Where a summary differs from the input, in words; none if nowhere.
fn difference(customer: &Customer, summary: &Summary) -> Option<String> {
    let mut parts = Vec::new();
    let wanted = customer.purchases.len() as u64;
    if summary.purchases != wanted {
        parts.push(format!("{} purchases instead of {wanted}", summary.purchases));
    }
    if summary.total != customer.total {
        parts.push(format!("{} in all instead of {}", summary.total, customer.total));
    }
    let dates = || customer.purchases.iter().map(|purchase| purchase.date);
    let (first, last) = (dates().min(), dates().max());
    if (summary.first, summary.last) != (first, last) {
        parts.push(format!(
            "dates {} to {} instead of {} to {}",
            shown(summary.first),
            shown(summary.last),
            shown(first),
            shown(last)
        ));
    }
    (!parts.is_empty()).then(|| parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::{
        money::Cents,
        purchases::{Date, read},
    };

    #[test]
    fn every_difference_is_told() {
        let purchases = read("p.csv", &b"ID,Date,Amount\n7,20170101,12\n7,20170102,0.5\n"[..]).unwrap();
        let customer = &purchases.customers[0];
        let right = Summary {
            purchases: 2,
            total: Cents(1_250),
            first: Some(Date(20_170_101)),
            last: Some(Date(20_170_102)),
        };
        assert_eq!(difference(customer, &right), None);
        let twice = Summary { purchases: 3, total: Cents(1_300), ..right };
        assert_eq!(
            difference(customer, &twice).unwrap(),
            "3 purchases instead of 2, 13.00 in all instead of 12.50"
        );
        let late = Summary { last: Some(Date(20_170_103)), ..right };
        assert!(difference(customer, &late).unwrap().contains("2017-01-03 instead of"));
        let mut checked = Checked::default();
        checked.add(customer, Ok(right));
        checked.add(customer, Ok(twice));
        checked.add(customer, Err("no answer".into()));
        assert_eq!((checked.wrong, checked.summaries.len()), (2, 2));
        assert_eq!(checked.told[1], "customer 7: no answer");
    }
}
