//! Names of all environment variables that `afdg` reads: here those of commands, in `afdg-process` those of
//! servers.

pub use afdg_process::environment::LOG;

/// Where the grid is: the address of an extension.
pub const ENDPOINT: &str = "AFDG_ENDPOINT";
/// Who acts, for the audit log.
pub const ACTOR: &str = "AFDG_ACTOR";
/// Set by the system: who acts where [`ACTOR`] is not set.
pub const USER: &str = "USER";
/// The same where [`USER`] is not set, as in some containers and cron jobs.
pub const LOGNAME: &str = "LOGNAME";
