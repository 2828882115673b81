//! Simulated histories: three gateways in one process, with the real code of groups, key queues, peers and the store, and with
//! the time, the network, the disks, the threads and the clients of a simulation. Everything follows from a seed.
//!
//! `MIMI_SIMULATION_HISTORIES=100000` plays that many; `MIMI_SIMULATION_SEED=n` plays one again; see docs/simulation.md.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "a test that cannot go on ends"
)]

#[path = "../support/at_domains.rs"]
mod at_domains;
mod campaign;
mod dice;
mod faults;
mod gateways;
mod ledger;
mod messages;
mod network;
mod shrink;
mod steps;
mod world;
