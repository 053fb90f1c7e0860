//! Clients of the catalog: registration, heartbeats, the watched routing table, admin.
