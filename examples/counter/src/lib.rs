//! Example agent: a counter.
