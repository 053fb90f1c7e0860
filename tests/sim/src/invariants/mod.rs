//! What must hold, one file each. The first four are Raft's, as its paper states them (Ongaro and
//! Ousterhout, In Search of an Understandable Consensus Algorithm, figure 3); leader append-only is part of
//! log matching here, since a leader that rewrote its log would append another entry at a known place.

pub mod answers;
pub mod election_safety;
pub mod leader_completeness;
pub mod log_matching;
pub mod second_machine;
pub mod state_machine_safety;
