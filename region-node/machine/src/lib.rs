//! The state machine of a region: pure, synchronous, total.
