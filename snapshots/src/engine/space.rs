//! Space on disk that deleted and overwritten rows take: the files of their tables are merged, and the engine gives it back.
//!
//! By itself the engine merges files only as new ones appear, so that a table to which nothing is written keeps what was deleted.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use fjall::PersistMode;

use super::{
    disk::{Changes, Disk},
    schema::{Table, Values},
};
use crate::errors::ReadError;

/// The number of times that a table is merged: the first finds which values nothing leads to any more, and the second deletes their
/// files, or writes them anew without these values.
const MERGES: usize = 2;
/// The pause between two looks at whether what is in memory is on disk.
const LOOK_PERIOD: Duration = Duration::from_millis(10);

/// The tables with rows that were deleted or overwritten since they were merged, by their numbers.
#[derive(Debug)]
pub(super) struct Fragmented(Vec<AtomicBool>);

impl Fragmented {
    /// All tables: it is not known what was deleted before the store was opened.
    pub(super) fn all(tables: usize) -> Self {
        Self((0..tables).map(|_| AtomicBool::new(true)).collect())
    }

    /// Notes the tables of changes that delete rows, or that may overwrite large ones.
    pub(super) fn note(&self, changes: &Changes) {
        for ((table, _), change) in changes {
            if (change.is_none() || table.values() == Values::Large)
                && let Some(noted) = self.0.get(table.number())
            {
                noted.store(true, Ordering::Relaxed);
            }
        }
    }

    fn take(&self, table: Table) -> bool {
        self.0.get(table.number()).is_some_and(|noted| noted.swap(false, Ordering::Relaxed))
    }

    fn put_back(&self, table: Table) {
        if let Some(noted) = self.0.get(table.number()) {
            noted.store(true, Ordering::Relaxed);
        }
    }
}

impl Disk {
    /// Merges the tables in which rows were deleted or overwritten. Versions that the newest write replaced, and those that an open
    /// view shows, stay until the next time. It blocks the thread, for long if there is much; it ends early, between two tables, once
    /// `goes_on` is false. Reads and writes go on meanwhile.
    pub(crate) fn merge_fragmented(&self, goes_on: &dyn Fn() -> bool) -> Result<(), ReadError> {
        let Some((keyspaces, _)) = self.database.library() else { return Ok(()) };
        self.flush(goes_on)?;
        for table in self.tables().filter(|_| goes_on()) {
            let keyspace = keyspaces.of(table);
            if self.fragmented.take(table) && keyspace.table_count() > 0 {
                let merged = (0..MERGES).try_for_each(|_| keyspace.major_compact());
                merged.inspect_err(|_| self.fragmented.put_back(table))?;
            }
        }
        Ok(())
    }

    /// Writes what is in memory to the tables on disk. The engine then deletes files that were merged before the newest write.
    pub(crate) fn flush(&self, goes_on: &dyn Fn() -> bool) -> Result<(), ReadError> {
        let Some((keyspaces, _)) = self.database.library() else { return Ok(()) };
        for table in self.tables() {
            keyspaces.of(table).rotate_memtable()?;
        }
        while self.tables().any(|table| keyspaces.of(table).sealed_memtable_count() > 0) && goes_on() {
            // It fails if a write in the background has failed.
            self.persist(PersistMode::Buffer)?;
            std::thread::sleep(LOOK_PERIOD);
        }
        Ok(())
    }

    /// The bytes that the store's files have on disk.
    pub(crate) fn bytes(&self) -> Result<u64, ReadError> {
        self.database.library().map_or(Ok(0), |(_, database)| Ok(database.disk_space()?))
    }
}
