//! Why a grid can't start, or a server of it can't be stopped or started.

use std::{io, path::PathBuf, time::Duration};

#[derive(Debug, thiserror::Error)]
pub enum DevGridError {
    /// Nothing was started.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    #[error("a folder for the grid's data: {0}")]
    Folder(io::Error),
    #[error("a grid that runs keeps its data in {0}: end it first, or use another folder")]
    InUse(PathBuf),
    #[error("{server}: {why}")]
    Server { server: String, why: String },
    #[error("calls did not succeed within {limit:?}: {why}")]
    NotReady { limit: Duration, why: String },
    #[error("there is no {0}")]
    Unknown(String),
}

/// Why a data folder does not say where the grid's servers are.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// A grid's size does not change by starting it. `what` is `catalogs`, `nodes` or `regions`.
    #[error("the grid in {folder} has {found} {what}, not {wanted}")]
    OtherSize { folder: PathBuf, what: &'static str, found: usize, wanted: usize },
    #[error("{file} has format {found}, this program knows {known}: use another folder")]
    OtherFormat { file: PathBuf, found: u32, known: u32 },
    #[error("{file} can't be understood: {why}")]
    Malformed { file: PathBuf, why: String },
    #[error("no {wanted} free ports were found on {host} from {first} to {last}")]
    NoPorts { wanted: usize, host: &'static str, first: u64, last: u64 },
    #[error("{file}: {error}")]
    Io { file: PathBuf, error: io::Error },
}
