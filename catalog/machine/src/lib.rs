//! The catalog's state machine: pure, synchronous, total.
