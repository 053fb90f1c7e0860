//! Tests of whole grids: in one process and as real processes.
