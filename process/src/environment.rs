//! Names of all environment variables that servers read. Each stands over the value in the file; one that
//! is empty counts as not set.

/// Log filter, `info,afdg_router=debug`.
pub const LOG: &str = "AFDG_LOG";
/// `text` or `json`.
pub const LOG_FORMAT: &str = "AFDG_LOG_FORMAT";
/// `host:port` to listen on.
pub const LISTEN: &str = "AFDG_LISTEN";
/// `host:port` on which health is told.
pub const HEALTH_LISTEN: &str = "AFDG_HEALTH_LISTEN";
/// Folder of the server's data.
pub const DATA: &str = "AFDG_DATA";
/// The secret that the servers of a cluster share.
pub const PEER_TOKEN: &str = "AFDG_PEER_TOKEN";
/// A catalog server's number.
pub const CATALOG_ID: &str = "AFDG_CATALOG_ID";
/// Where [`CATALOG_ID`] is not set: the number of the pod in its StatefulSet, from 0; one less than the
/// catalog server's.
pub const POD_INDEX: &str = "AFDG_POD_INDEX";
/// Addresses of the catalog servers, with commas between them.
pub const CATALOG: &str = "AFDG_CATALOG";
/// A region node's name.
pub const NAME: &str = "AFDG_NAME";
/// `host:port` under which others reach a region node.
pub const ADVERTISE: &str = "AFDG_ADVERTISE";
/// A region node's zone.
pub const ZONE: &str = "AFDG_ZONE";
/// Where a region node ends at once, for tests: `POINT` or `POINT:AGENT`, with commas between several. A build
/// without debug assertions refuses it.
pub const FAIL_POINTS: &str = "AFDG_FAIL_POINTS";
