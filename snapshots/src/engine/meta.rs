//! The engine's own rows, and the place of a store's settings.
//!
//! | table | key | value |
//! |---|---|---|
//! | `meta` | 0 | the format, a number |
//! | `meta` | 1, 2 | rows of the tables: see `welcomes.rs`, `settings.rs` |
//! | `meta` | 3 | the number of the newest disk batch and when it was written; see `witness.rs` |

use super::{
    keys::Key,
    schema::{Table, TableDefinition, Values},
};

/// The table of single rows.
pub(crate) const META: Table =
    Table::new(&TableDefinition { number: 0, name: "meta", values: Values::Small });

pub(crate) fn format_key() -> Key {
    Key::new().byte(0)
}

pub(crate) fn batch_stamp_key() -> Key {
    Key::new().byte(3)
}
