//! Replication over a faulty network: every accepted entry reaches every gateway, in the same order and once.
//!
//! `MIMI_REPLICATION_SEEDS=200` plays 200 random histories; a history that fails prints its seed, and
//! `MIMI_REPLICATION_SEED=n` plays that one again.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "a test that cannot go on ends"
)]

#[path = "../support/at_domains.rs"]
mod at_domains;
mod deleted;
mod faults;
mod handed_over;
mod histories;
mod hubs_that_lie;
mod late;
mod members;
mod net;
mod welcomes;
