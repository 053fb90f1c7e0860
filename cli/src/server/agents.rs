//! The agents that this program hosts: the examples.

use afdg_agent::{NativeHost, host::AgentHost};
use std::sync::Arc;

/// Counter, bank account, shop customer, and the order with those whom it works with.
pub fn examples() -> Arc<dyn AgentHost> {
    let host = NativeHost::new()
        .with(afdg_example_counter::counter())
        .with(afdg_example_counter::fanout())
        .with(afdg_example_bank::account())
        .with(afdg_example_shop::customer())
        .with(afdg_example_order::order())
        .with(afdg_example_order::product())
        .with(afdg_example_order::account())
        .with(afdg_example_order::inbox());
    Arc::new(host)
}
