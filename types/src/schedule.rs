//! When a schedule is due, and what becomes of due times that passed without anybody to see them.

use serde::{Deserialize, Serialize};

/// The due times of a schedule. Part of what regions store: variants and fields stay as they are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct When {
    pub timing: Timing,
    /// Not before this, milliseconds since the Unix epoch.
    pub start_ms: Option<u64>,
    /// Not after this, milliseconds since the Unix epoch.
    pub until_ms: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Timing {
    /// At its start, and every so many milliseconds from then on; without a start the first time after one
    /// period.
    Every { period_ms: u64 },
    /// When a calendar says so, by the clocks of a time zone.
    Cron { text: String, zone: String },
}

/// What becomes of due times that have passed: because no leader was there, or because it came late.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Missed {
    /// The latest of them fires if it is no more than [`crate::limits::SCHEDULE_LATE_MS_MAX`] ago; the others
    /// do not.
    Skip,
    /// The latest of them fires, however long ago it was; the others do not.
    #[default]
    Once,
    /// Each fires, in order.
    All,
}
