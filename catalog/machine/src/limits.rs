//! Bounds of what the catalog keeps. Together they keep a routing table within one gRPC message
//! (`afdg_types::limits::FRAME_BYTES_MAX`), and the catalog's memory within some tens of megabytes.

/// Nodes that the catalog remembers, dead ones included.
pub const NODES_MAX: usize = 1_000;
/// Regions of one cluster.
pub const REGIONS_MAX: u16 = 4_096;
/// Replicas of one region.
pub const REPLICAS_MAX: u8 = 5;
/// Agent types of one cluster.
pub const TYPES_MAX: usize = 1_000;
/// Descriptors and names of one agent type.
pub const TYPE_BYTES_MAX: usize = 1024 * 1024;
/// Descriptors and names of all agent types together.
pub const TYPES_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Methods of one agent type.
pub const TYPE_METHODS_MAX: usize = 1_000;
/// Longest node name, incarnation or zone.
pub const NAME_BYTES_MAX: usize = afdg_types::limits::NODE_NAME_BYTES_MAX;
/// Longest address: a DNS name and a port.
pub const ADDRESS_BYTES_MAX: usize = 260;
/// Longest actor of an admin action.
pub const ACTOR_BYTES_MAX: usize = 128;
/// Longest reason of an admin action.
pub const REASON_BYTES_MAX: usize = 512;
/// Longest part of an admin action that its asker words.
pub const ACTION_PART_BYTES_MAX: usize = 2_048;
/// Admin actions that the catalog remembers; the oldest go first.
pub const AUDIT_RECORDS_MAX: usize = 1_000;
