//! What is in the shop, what is in the accounts, and what each order asks for: all from numbers, so that
//! a repeat asks for the same.

use afdg_example_order::v1::{OrderLine, PlaceRequest};

pub const ORDERS: usize = 2_000;
pub const PRODUCTS: u64 = 36;
/// Customers, each with an account and an inbox.
pub const CUSTOMERS: u64 = 50;

/// An order that is to be paid waits longer than its payment takes to get through most deaths.
const PAY_WITHIN_MS: u64 = 8_000;
/// One that nobody pays, or that is paid just when it expires.
pub const EXPIRES_MS: u64 = 1_500;

/// What the client does beyond placing the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intent {
    PayAtOnce,
    PayNext,
    /// Pays when the order is about to expire.
    PayAtTheLast,
    NeverPay,
    /// To be paid at once, but the client asks once and goes away before long: what has begun has to be
    /// finished without it.
    GoAway,
}

pub fn product(number: u64) -> String {
    format!("product-{number}")
}

pub fn customer(number: u64) -> String {
    format!("customer-{number}")
}

pub fn order(number: usize) -> String {
    format!("order-{number}")
}

/// Of some products there is less than is asked for.
pub fn units_stocked(product: u64) -> i64 {
    if product.is_multiple_of(6) { 150 } else { 1_000 }
}

pub fn unit_cents(product: u64) -> i64 {
    101 + 37 * product as i64
}

/// Some accounts can't pay all their orders.
pub fn deposit_cents(customer: u64) -> i64 {
    if customer.is_multiple_of(5) { 60_000 } else { 10_000_000 }
}

pub fn intent(number: usize) -> Intent {
    match mixed(number) % 10 {
        0..=3 => Intent::PayAtOnce,
        4 => Intent::GoAway,
        5..=7 => Intent::PayNext,
        8 => Intent::PayAtTheLast,
        _ => Intent::NeverPay,
    }
}

/// How long a client waits that goes away: some before anything is recorded, some after.
pub fn patience_ms(number: usize) -> u64 {
    20 + mixed(number) / 10 % 400
}

/// Two to five lines of one to four units.
pub fn request(number: usize) -> PlaceRequest {
    let chance = mixed(number) >> 8;
    let customer = customer(chance % CUSTOMERS);
    let first = (chance >> 8) % PRODUCTS;
    // Any step below the number of products that has no factor in common with it meets each once.
    let step = [1, 5, 7, 11, 13][(chance >> 16) as usize % 5];
    let line = |place: u64| OrderLine {
        product: product((first + place * step) % PRODUCTS),
        units: 1 + (chance >> (24 + 4 * place)) as i64 % 4,
    };
    let intent = intent(number);
    PlaceRequest {
        order: order(number),
        account: customer.clone(),
        customer,
        lines: (0..2 + (chance >> 20) % 4).map(line).collect(),
        pay_at_once: matches!(intent, Intent::PayAtOnce | Intent::GoAway),
        pay_within_ms: if intent == Intent::PayNext { PAY_WITHIN_MS } else { EXPIRES_MS },
    }
}

/// SplitMix64's finish.
fn mixed(number: usize) -> u64 {
    let mut z = (number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
