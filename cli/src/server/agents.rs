//! The agents that this program hosts: the examples.

use afdg_agent::{NativeHost, host::AgentHost};
use std::sync::Arc;

/// Counter, bank account and shop customer.
pub fn examples() -> Arc<dyn AgentHost> {
    let host = NativeHost::new()
        .with(afdg_example_counter::counter())
        .with(afdg_example_counter::fanout())
        .with(afdg_example_bank::account())
        .with(afdg_example_shop::customer());
    Arc::new(host)
}
