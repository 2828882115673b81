//! The engine's own rows, and the place of a store's settings.
//!
//! | table | key | value |
//! |---|---|---|
//! | `meta` | 0 | the format, a number |
//! | `meta` | 1, 2 | rows of the tables: see `welcomes.rs`, `settings.rs` |
//! | `meta` | 3 | the number of the newest disk batch and when it was written; see `witness.rs` |
//! | `meta` | 5, application | what it has; see `usage.rs` |
//! | `meta` | 4 | the engine's sequence number before the newest disk batch; see `journal.rs` |

use super::{
    keys::Key,
    schema::{Table, TableDefinition, Values},
};

/// The table of single rows.
pub(crate) const META: Table =
    Table::new(&TableDefinition { number: 0, name: "meta", values: Values::Small, counting: None });

pub(crate) fn format_key() -> Key {
    Key::new().byte(0)
}

/// The key of the stamp of the newest disk batch.
pub(super) const BATCH_STAMP: [u8; 1] = [3];
/// The key of the engine's sequence number before the newest disk batch.
pub(super) const BATCH_SEQUENCE: [u8; 1] = [4];

pub(crate) fn batch_stamp_key() -> Key {
    Key::new().last(&BATCH_STAMP)
}

pub(crate) fn batch_sequence_key() -> Key {
    Key::new().last(&BATCH_SEQUENCE)
}

/// Whether a row belongs to this copy of the store, not to what it holds.
pub(crate) fn is_of_the_copy(table: Table, key: &[u8]) -> bool {
    table == META && (key == BATCH_STAMP || key == BATCH_SEQUENCE)
}
