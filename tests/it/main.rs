//! The integration tests: one binary, so that everything is linked once.
//!
//! `crash` and `hostile` are binaries of their own: a kill -9 campaign, and measurements of latency and memory that other
//! tests in the same process would disturb.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that meets what it does not expect has failed"
)]

mod backup;
mod console;
mod contract;
mod creation;
mod deletion;
mod demo;
mod dependencies;
mod deployment;
mod events;
mod examples;
mod federation;
mod federation_edge;
mod formats;
mod key_assignment;
mod lifecycle;
mod loadtest;
#[path = "../mls_support/mod.rs"]
mod mls_support;
mod mutation;
mod race;
mod readme;
mod reports;
#[path = "../support/mod.rs"]
mod support;
mod traces;
mod trouble;
mod x509;
