//! The way of a message into a region: resolve, forward, reply.
//!
//! [`Router::call`] resolves the agent to its region, forwards the message to the replica that leads,
//! and replies with the result or a typed error. It holds the one retry loop of the system: everything
//! else tries once and says precisely what happened.
//!
//! Why retrying is safe: a message keeps its id for all attempts, and a region answers a known id from
//! its record. So the loop may send a message again whose outcome it does not know, and even have two
//! attempts open at once. What it must not do is claim that nothing happened after an attempt that may
//! have been delivered; see [`Reason::DeadlineOutcomeUnknown`](afdg_types::Reason).
//!
//! The router makes no connections (that is `afdg-region-client`) and does not watch the catalog: it
//! reads the newest [`Routes`](afdg_catalog_client::Routes) from a channel.

mod admission;
mod attempts;
mod backoff;
mod find;
mod itinerary;
mod journey;
mod leaving;
mod message;
mod questions;
mod rates;
mod router;
mod table;
mod verdict;

pub use find::{Found, Whereabouts};
pub use message::OutgoingMessage;
pub use questions::ask_leader;
pub use router::{Router, too_large, unknown_method, unknown_type};
