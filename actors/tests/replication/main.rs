//! Gateways that follow each other's groups, over a network that does everything wrong: what one accepted is everywhere in
//! the end, in the same order and once.
//!
//! `MIMI_REPLICATION_SEEDS=200` plays that many random histories; a history that fails names its seed, and
//! `MIMI_REPLICATION_SEED=n` plays that one again.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "a test that cannot go on ends"
)]

mod faults;
mod handed_over;
mod histories;
mod hubs_that_lie;
mod late;
mod members;
mod net;
