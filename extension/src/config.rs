//! What an extension is told when it starts, and its bounds.

use afdg_proto::peer_auth::PeerToken;
use std::time::Duration;

#[derive(Clone, Debug)]
pub struct ExtensionConfig {
    /// Names this server in the logs of others.
    pub name: String,
    /// `host:port` for clients; port 0 picks one.
    pub listen: String,
    /// `host:port` on which health alone is served, without TLS; none serves it on `listen` only.
    pub health_listen: Option<String>,
    /// The catalog's servers, `host:port` each.
    pub catalog_addresses: Vec<String>,
    pub peer_token: PeerToken,
}

/// Connections at the same time; further ones are closed at once.
pub(crate) const CONNECTIONS_MAX: usize = 10_000;
/// Requests in flight on one connection.
pub(crate) const CONNECTION_STREAMS_MAX: u32 = 4_096;
/// Headers of one request.
pub(crate) const HEADER_LIST_BYTES_MAX: u32 = 32 * 1024;
/// Largest HTTP/2 frame that a client may send.
pub(crate) const HTTP2_FRAME_BYTES_MAX: u32 = 64 * 1024;
/// What a client may send ahead on one request.
pub(crate) const STREAM_WINDOW_BYTES: u32 = 8 * 1024 * 1024;
/// What a client may send ahead on one connection.
pub(crate) const CONNECTION_WINDOW_BYTES: u32 = 16 * 1024 * 1024;
/// A connection that has not even sent its greeting by then is closed.
pub(crate) const GREETING_TIME_MAX: Duration = Duration::from_secs(10);
/// A connection is asked for a sign of life after this long without one.
pub(crate) const KEEPALIVE_EVERY: Duration = Duration::from_secs(20);
/// And closed if none comes.
pub(crate) const KEEPALIVE_TIME_MAX: Duration = Duration::from_secs(20);
/// Bytes of requests that are being received, all connections together.
pub(crate) const RECEIVING_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Bytes of results that wait for the clients of `Pipe` streams to read them, all together.
pub(crate) const PIPE_UNREAD_BYTES_MAX: usize = 256 * 1024 * 1024;
/// A request must be received within this, or within its deadline if that is earlier.
pub(crate) const RECEIVE_TIME_MAX: Duration = Duration::from_secs(60);
/// What a message around a request adds to it.
pub(crate) const ENVELOPE_BYTES_MAX: usize = 64 * 1024;
/// Results of one `CallMany` together.
pub(crate) const CALL_MANY_RESPONSE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Calls of one `CallMany` in flight at the same time, if it does not say how many.
pub(crate) const CALL_MANY_PARALLEL_DEFAULT: u32 = 256;
/// Calls of one `CallMany` in flight at the same time, at most.
pub(crate) const CALL_MANY_PARALLEL_MAX: u32 = 1_000;
/// Scatters through one extension at the same time.
pub(crate) const SCATTERS_MAX: usize = 64;
/// Agents that one scatter calls at the same time, if it does not say how many.
pub(crate) const SCATTER_PARALLEL_DEFAULT: u32 = 256;
/// Agents that one scatter calls at the same time, at most.
pub const SCATTER_PARALLEL_MAX: u32 = 4_096;
/// Regions that one scatter asks at the same time.
pub(crate) const SCATTER_REGIONS_MAX: usize = 16;
/// Bytes of results that wait for the clients of scatters to read them, all together.
pub(crate) const SCATTER_UNREAD_BYTES_MAX: usize = 256 * 1024 * 1024;
/// How long the drain waits for calls in flight.
pub(crate) const DRAIN_TIME_MAX: Duration = Duration::from_secs(30);
/// The drain ends connections on which no call has been in flight for this long.
pub(crate) const DRAIN_QUIET_TIME: Duration = Duration::from_secs(1);
/// How long an admin question may take if its client names no deadline.
pub(crate) const ADMIN_TIME_DEFAULT: Duration = Duration::from_secs(10);
