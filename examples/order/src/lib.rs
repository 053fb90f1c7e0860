//! Example agents: an order, and those whom it works with.
//!
//! It shows a workflow across many agents that is finished whatever dies meanwhile:
//!
//! | step | how | where |
//! | --- | --- | --- |
//! | reserve stock with many products side by side | `ctx.call_all` | `order.rs`, `place` |
//! | charge an account | `ctx.call` | `order.rs`, `take_payment` |
//! | confirm to the customer | `ctx.send` | `order.rs`, `take_payment` |
//! | expire if nobody pays | `ctx.send_after` to itself | `order.rs`, `place`, `expire` |
//! | compensate if a step fails | `ctx.send`, with the order's new state | `order.rs`, `give_up` |
//!
//! There is no table of steps that were done, no outbox, no job that looks for orders that are stuck, and
//! no code for a crash. A handler reads like a program that can't die, because the grid finishes it: the
//! turn's message is recorded before its first call leaves, a turn that is run again makes the same calls
//! under the same ids and gets the same answers, and what it stores and sends is committed together.
//!
//! Three rules are left to whoever copies it:
//!
//! 1. **A workflow that has touched others ends with `Ok`.** A handler that returns `Err` takes back its
//!    own changes and sends, but not what the agents did that it called. So a sold-out product is no error
//!    of `Place`: the order becomes `REJECTED`, and the releases go out with that.
//! 2. **Compensate what may have happened, not only what did.** A called agent's refusal is certain: it
//!    has changed nothing. An error of the grid need not be: after 24 h without an answer it gives up, with an
//!    unknown outcome. `Release` and `Refund` are right in both cases, and close the door behind them: what
//!    comes late finds a reservation that is closed.
//! 3. **What compensates can't be refused.** `Release`, `Refund`, `Sell` and `Receive` have no reason to
//!    say no to an order that keeps to its states. If one ever did, a dead letter would say so.
//!
//! What the grid can't do for the author: a handler that panics after it has called others is not run
//! again if it was called (a send is), and what it reserved stays held. Don't index, don't unwrap.
//!
//! Where to look: the messages and methods in `proto/order/v1/order.proto`, then `order.rs` (the
//! workflow), `product.rs`, `account.rs`, `inbox.rs`, and how to test them without a cluster in
//! `tests.rs`. `cli/tests/processes/orders` in this repository runs 2,000 orders on a grid whose
//! leaders are killed all the time, and counts every unit, cent and confirmation. A program hosts them
//! with `NativeHost::new().with(order()).with(product()).with(account()).with(inbox())`.

mod account;
mod inbox;
mod order;
mod product;
#[cfg(test)]
mod tests;

pub use account::account;
pub use inbox::inbox;
pub use order::order;
pub use product::product;

/// The package `order.v1`: messages, the agents' traits, and callers.
pub mod v1 {
    afdg_agent::include_agent!("order.v1");
}

/// Most units of one line. With [`UNIT_CENTS_MAX`] and [`LINES_MAX`] it keeps every order's sum within 64
/// bits, so no step can fail for that.
const UNITS_MAX: i64 = 1_000_000;
/// Highest price of a unit.
const UNIT_CENTS_MAX: i64 = 10_000_000_000;
/// Most lines of an order.
const LINES_MAX: usize = 100;
/// Longest key of an order: others keep an entity for each, whose key it is part of.
const ORDER_BYTES_MAX: usize = 200;

/// The entity in which a product or an account keeps what it did for an order.
fn entity_of(order: &str) -> String {
    format!("order/{order}")
}
