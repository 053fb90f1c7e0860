//! Example agent: a bank account that transfers to others.
