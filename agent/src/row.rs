//! Rows: what an entity is stored in.
//!
//! An entity is a head row and, once its list outgrows the head, page rows:
//!
//! | row | key, relative to the agent | holds |
//! | --- | --- | --- |
//! | head | key length (1 byte), entity key, `0x00` | length, generation, number of the tail's first item, the tail's items |
//! | page | key length, entity key, `0x01`, generation (u32 BE), number of the first item (u64 BE) | items |
//!
//! Appending rewrites the head only, until its tail is full and is sealed into a page. So an append
//! costs the same on a list of ten as on a list of a million, and a single value is one row.
//! Clearing raises the generation and drops the old generation's prefix.

// Filled in by the entity module's owner.
