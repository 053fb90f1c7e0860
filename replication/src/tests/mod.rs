//! What stands between openraft and the disk: its bytes, its log, its state machine.

mod codec;
mod codec_frozen;
mod damage;
mod log_store;
mod openraft_suite;
mod order;
mod random;
mod server;
mod state_machine;
