//! The shop's messages: from a purchase to bytes, and from bytes to what a customer's agent says.

use super::{
    money::Cents,
    purchases::{Date, Purchase},
};
use afdg_example_shop::v1;
use bytes::Bytes;
use prost::Message;

pub const RECORD_PURCHASE: &str = "RecordPurchase";
pub const GET_SUMMARY: &str = "GetSummary";

/// What an agent answers to a purchase: how many it has now, and their sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recorded {
    pub purchases: u64,
    pub total: Cents,
}

/// What a customer's agent says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    pub purchases: u64,
    pub total: Cents,
    /// None if it has no purchases.
    pub first: Option<Date>,
    pub last: Option<Date>,
}

/// The customer's field stays empty: the agent's address names it.
pub fn record_purchase(purchase: &Purchase) -> Bytes {
    let request = v1::RecordPurchaseRequest {
        customer: String::new(),
        date: format!("{:08}", purchase.date.0),
        amount_cents: purchase.amount.0,
    };
    request.encode_to_vec().into()
}

pub fn read_recorded(response: &[u8]) -> Result<Recorded, String> {
    let response = v1::RecordPurchaseResponse::decode(response).map_err(|error| error.to_string())?;
    Ok(Recorded { purchases: response.count, total: Cents(response.total_cents) })
}

pub fn read_summary(response: &[u8]) -> Result<Summary, String> {
    let summary = v1::Summary::decode(response).map_err(|error| error.to_string())?;
    let date = |text: &str| match text {
        "" => Ok(None),
        text => Date::parse(text).map(Some).ok_or_else(|| format!("'{}' is no date", text.escape_debug())),
    };
    Ok(Summary {
        purchases: summary.count,
        total: Cents(summary.total_cents),
        first: date(&summary.first_date)?,
        last: date(&summary.last_date)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_purchase_and_a_summary_survive_the_wire() {
        let purchase = Purchase { row: 1, date: Date(20_170_101), amount: Cents(1_177) };
        let request = v1::RecordPurchaseRequest::decode(record_purchase(&purchase)).unwrap();
        assert_eq!((request.date.as_str(), request.amount_cents), ("20170101", 1_177));
        let summary = v1::Summary {
            count: 2,
            total_cents: 5,
            first_date: "20170101".into(),
            last_date: "20170102".into(),
        };
        let read = read_summary(&summary.encode_to_vec()).unwrap();
        assert_eq!((read.purchases, read.last), (2, Some(Date(20_170_102))));
        assert_eq!(read_summary(b"").unwrap().first, None);
        let wrong = v1::Summary { first_date: "x".into(), ..summary };
        assert!(read_summary(&wrong.encode_to_vec()).is_err());
    }
}
