//! Messages that nobody waits for, through the whole grid: accepted once, in order, tried again, given up,
//! held back, and looked after from elsewhere.

mod by_id;
mod dead_letters;
mod delayed;
mod mail;
mod metrics;
mod once;
mod opposite;
mod order;
