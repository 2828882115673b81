//! Groups that members of several domains share, over real connections that fail and gateways that are killed: what is
//! accepted is everywhere in the end, in one order and once.
//!
//! `MIMI_FEDERATION_ROUNDS=200` plays so many rounds of trouble of each kind.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that meets what it does not expect has failed"
)]

#[expect(dead_code, reason = "every test target uses its part")]
#[path = "../mls_support/mod.rs"]
mod mls_support;
#[expect(dead_code, reason = "every test target uses its part")]
#[path = "../support/mod.rs"]
mod support;
mod trouble;
mod world;
