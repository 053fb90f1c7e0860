//! Client of region nodes: hands messages to a node and brings back what became of them.
//!
//! [`RegionClients`] keeps one [`RegionClient`] an address. Each has one `Forward` stream on which any
//! number of messages are in flight; everything that waits when the transport can take more goes into
//! one frame, so a frame grows with the load and no timer holds a message back.
//!
//! What this crate owns is the difference between *not sent* and *lost* ([`ForwardError`]): a message
//! counts as sent from the moment the transport takes the frame that holds it. It does not retry,
//! choose a node or know deadlines; that is the router's.

mod answer;
mod clients;
mod frames;
mod in_flight;
mod link;
mod scatter;
#[cfg(feature = "testing")]
pub mod testing;
mod traffic;

pub use answer::{Answer, ForwardError, ForwardResult, result_of};
pub use clients::{RegionClient, RegionClients};
pub use in_flight::InFlight;
pub use scatter::{ScatterPage, ScatterPages};
