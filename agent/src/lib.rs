//! What authors of AFDG agents use.
//!
//! An agent type is a protobuf service with the option `(afdg.agent)`. Its crate compiles the `.proto`
//! with `afdg_agent_build` in `build.rs`, includes the result with [`include_agent!`] and writes one
//! `impl` of the generated trait:
//!
//! ```ignore
//! afdg_agent::include_agent!("bank.v1");
//!
//! struct Account;
//!
//! #[async_trait]
//! impl AccountAgent for Account {
//!     async fn deposit(&self, ctx: &mut Context, request: DepositRequest) -> Result<Balance, AgentError> {
//!         let cents = ctx.entity("balance").value::<i64>().await?.unwrap_or(0) + request.cents;
//!         ctx.entity("balance").set_value(&cents).await?;
//!         Ok(Balance { cents })
//!     }
//! }
//!
//! /// For the binary: `NativeHost::new().with(account())`.
//! pub fn account() -> AgentType {
//!     account_agent(Account)
//! }
//! ```
//!
//! [`Context`] is all that a handler needs of the grid; [`testing`] runs handlers without one.
//! What a region node sees of agents is in [`host`] and [`row`], and for people who look at stored
//! data in [`inspect`].

mod call;
mod context;
pub mod due_times;
mod entity;
mod error;
pub mod host;
pub mod inspect;
mod json;
mod list;
pub mod native;
pub mod read_set;
pub mod row;
mod schedule;
mod store;
pub mod testing;
#[cfg(test)]
mod tests;

pub use afdg_types::{AgentError, AgentRef, Code, GridError, MessageId, Missed, Reason};
pub use async_trait::async_trait;
pub use call::Call;
pub use context::{Context, ENTITIES_LISTED_MAX, REFUSAL_MESSAGE_BYTES_MAX, REFUSAL_METADATA_BYTES_MAX};
pub use entity::Entity;
pub use error::CallError;
pub use native::{AgentType, NativeHost};
pub use schedule::{Schedule, ScheduleError};
// Generated code names these through this crate, so that an author depends on no more than it.
pub use {bytes, prost, prost_types};

/// Includes what `afdg_agent_build` made of a protobuf package, `include_agent!("bank.v1")`.
#[macro_export]
macro_rules! include_agent {
    ($package:literal) => {
        include!(concat!(env!("OUT_DIR"), "/", $package, ".rs"));
    };
}
