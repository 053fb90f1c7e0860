//! A region node that hosts one's own agents, here the example counter. To host yours, name their
//! crates in `Cargo.toml` and their types below.

use afdg_agent::NativeHost;
use afdg_example_counter::{counter, fanout};
use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    afdg_region_node::process::run(NativeHost::new().with(counter()).with(fanout())).await
}
