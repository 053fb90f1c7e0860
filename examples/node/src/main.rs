//! A region node that hosts one's own agents, here the example counter. To host yours, name their
//! crates in `Cargo.toml` and their types below.

mod node;
mod settings;

use afdg_agent::NativeHost;
use afdg_example_counter::{counter, fanout};
use std::{process::ExitCode, sync::Arc};

#[tokio::main]
async fn main() -> ExitCode {
    node::run(Arc::new(NativeHost::new().with(counter()).with(fanout()))).await
}
