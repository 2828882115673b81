//! Reads: a consistent view of all tables at one moment.

use std::sync::Arc;

use super::{
    Slice,
    database::{Moment, Unread},
    disk::Disk,
    keys::{Key, KeyRange},
    rows::Rows,
    schema::Table,
};
use crate::errors::ReadError;

/// A consistent snapshot of the whole store: the batches that were durable when it was taken, each whole or not at all. Old
/// rows stay on disk for as long as a view may show them, so keep it for one answer only.
///
/// Reading blocks on the disk when a row is not in the cache.
#[derive(Clone)]
pub struct View {
    // Declared before `disk`, so that it is released while the engine is open.
    moment: Moment,
    disk: Arc<Disk>,
}

impl View {
    pub(crate) fn new(disk: Arc<Disk>) -> Self {
        Self { moment: disk.database.moment(), disk }
    }

    /// The number of rows of each table, with its name. It reads every key: for inspection and tests.
    ///
    /// # Errors
    /// [`ReadError::Storage`] when the disk fails.
    pub fn row_counts(&self) -> Result<Vec<(&'static str, u64)>, ReadError> {
        let count = |table: Table| {
            let rows = self.moment.rows(&self.disk.database, table)?;
            Ok((table.name(), u64::try_from(rows).unwrap_or(u64::MAX)))
        };
        self.disk.tables().map(count).collect()
    }

    /// All tables, the engine's own first.
    pub(crate) fn tables(&self) -> impl Iterator<Item = Table> {
        self.disk.tables()
    }

    /// The rows in a range of keys, in order, read lazily.
    pub(crate) fn scan(
        &self,
        table: Table,
        range: KeyRange,
    ) -> impl DoubleEndedIterator<Item = Result<(Slice, Slice), ReadError>> {
        self.moment.range(&self.disk.database, table, range).map(Unread::row)
    }

    /// The keys in a range, in order, without reading large values.
    pub(crate) fn scan_keys(
        &self,
        table: Table,
        range: KeyRange,
    ) -> impl DoubleEndedIterator<Item = Result<Slice, ReadError>> {
        self.moment.range(&self.disk.database, table, range).map(Unread::key)
    }

    /// The number of rows in a range, counted up to `max`.
    pub(crate) fn count_rows(&self, table: Table, range: KeyRange, max: usize) -> Result<usize, ReadError> {
        self.scan_keys(table, range).take(max).try_fold(0, |count, key| key.map(|_| count + 1))
    }
}

impl Rows for View {
    fn value(&self, table: Table, key: &Key) -> Result<Option<Slice>, ReadError> {
        if key.is_too_long() {
            return Ok(None);
        }
        self.moment.value(&self.disk.database, table, key)
    }
}
