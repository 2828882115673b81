//! The HTTP contract, over real sockets: each endpoint, and each problem that needs no member of a group.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that meets what it does not expect has failed"
)]

#[expect(dead_code, reason = "every test target uses its part")]
#[path = "../support/mod.rs"]
mod support;

mod access;
mod bodies;
mod clients;
mod groups;
mod key_packages;
mod limits;
mod pages;
mod restart;
mod routing;
mod starting;
mod stopping;
mod tls;
mod typed_client;
mod x509;
