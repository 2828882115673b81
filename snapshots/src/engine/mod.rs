//! The engine: ordered keyspaces on disk, one writer, consistent reads.
//!
//! It knows tables only as a [`Schema`]: their names, their numbers, the format of their rows. The meaning of the rows is in
//! `tables/`, and nothing is imported from there.
//!
//! - `batch.rs`, `append_queue.rs`, `committer.rs`: operations are collected, queued, and run by one thread.
//! - `overlay.rs`: the store as the operations of one disk batch see and change it.
//! - `view.rs`: one consistent moment for readers.
//! - `keys.rs`, `rows.rs`, `meta.rs`: the encoding of keys and rows; the engine's own rows.
//! - `usage.rs`: what each application has, for its quotas.
//! - `counters.rs`: counts and times of writes.
//! - `feed.rs`: what written batches announce, in order.
//! - `database.rs`, `keyspaces.rs`, `disk.rs`, `new_store.rs`, `space.rs`: the database library.
//! - `simulated.rs`: a disk in memory that loses what a crash would.
//! - `directory.rs`, `presence.rs`: the data directory.
//! - `start.rs`, `journal.rs`, `table_lists.rs`, `witness.rs`: the checks at a start, and that no acknowledged batch is missing.
//!
//! Only `database.rs`, `keyspaces.rs`, `disk.rs`, `new_store.rs` and `space.rs` call the database library; `journal.rs` and
//! `table_lists.rs` read its files. Another library would replace these, below [`Overlay`] and [`View`].

pub(crate) mod append_queue;
pub(crate) mod batch;
pub(crate) mod committer;
pub(crate) mod counters;
pub(crate) mod database;
mod directory;
pub(crate) mod disk;
mod feed;
mod journal;
mod keys;
mod keyspaces;
pub(crate) mod meta;
pub(crate) mod new_store;
mod overlay;
mod presence;
pub(crate) mod rows;
mod schema;
#[cfg(feature = "simulation")]
pub(crate) mod simulated;
mod space;
pub(crate) mod start;
mod table_lists;
pub(crate) mod usage;
mod view;
mod witness;

/// The bytes of a key or a value.
pub(crate) use fjall::Slice;

#[cfg(feature = "simulation")]
pub use self::simulated::{DiskFault, SimulatedDisk, SimulatedWrite};
pub use self::{
    batch::{Appended, Batch, ReportOutcome},
    counters::StoreCounts,
    feed::Announced,
    view::View,
};
pub(crate) use self::{
    feed::{Announcement, Feed},
    keys::{KEY_BYTES_MAX, Key, KeyRange, KeyReader},
    overlay::Overlay,
    rows::Rows,
    schema::{Schema, Table, TableDefinition, Values},
    usage::{Counting, Recount},
};
