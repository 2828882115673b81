//! Attacks on a gateway's resources, next to a bystander that must not suffer.
//!
//! Each test starts the real binary, measures a bystander of another application while all is quiet, attacks, and
//! measures the bystander again: nothing of it may fail, its 99th percentile may grow by a stated factor only, and the
//! gateway's memory stays below a stated bound. The numbers are small; `MIMI_HOSTILE_SCALE=N` multiplies them by N
//! (a campaign; raise `ulimit -n` for it).

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that meets what it does not expect has failed"
)]

mod bystander;
mod connections;
mod edge;
mod limits;
mod lists;
#[expect(dead_code, reason = "the benchmark of the cost of messages uses the rest")]
#[path = "../../benches/work_by_size/messages.rs"]
mod messages;
mod operators;
mod packets;
mod peers;
mod queues;
#[expect(dead_code, reason = "every test target uses its part")]
#[path = "../support/mod.rs"]
mod support;
mod target;
mod work;
