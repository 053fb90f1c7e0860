//! The catalog server: which nodes, regions, slots and agent types there are.
