//! Turns on a grid of three nodes, as agents made for the test see them: finished by the next leader, refused
//! when they would wait for themselves, shown while they wait, and as fast on a long list as on a short one.

mod call_cycles;
mod cancel;
mod gate;
mod long_lists;
mod other_ways;
mod recorded_turns;
mod reentrant;
mod reentrant_deaths;
mod rings;
mod waits;
mod whereabouts;
