//! A server as a process of its own: its settings from a file and the environment, its log, how long it
//! runs, and with which exit code it ends.
//!
//! What is the same for all three servers stands here. Which settings a server has stands with whoever
//! starts it: a region node's in `afdg-region-node`, so that a program that hosts its own agents reads them
//! like `afdg server region-node` does; the others' in `afdg-cli`.

mod end;
pub mod environment;
mod error;
mod peer_token;
mod process_settings;
mod settings;
mod timing;

pub use end::until_end;
pub use error::{ProcessError, SettingsError};
pub use peer_token::peer_token;
pub use process_settings::{ProcessFile, ProcessSettings};
pub use settings::{Settings, Shown, Value, read_file};
pub use timing::TimingFile;
