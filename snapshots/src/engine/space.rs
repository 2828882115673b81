//! Space on disk that deleted and overwritten rows take: the files of their tables are merged, and the engine gives it back.
//!
//! By itself the engine merges files only as new ones appear, so that a table to which nothing is written keeps what was deleted.

use std::{
    collections::BTreeSet,
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

    pub(super) fn note(&self, table: Table) {
        if let Some(noted) = self.0.get(table.number()) {
            noted.store(true, Ordering::Relaxed);
        }
    }

    fn take(&self, table: Table) -> bool {
        self.0.get(table.number()).is_some_and(|noted| noted.swap(false, Ordering::Relaxed))
    }
}

/// The tables in which changes delete rows, or may overwrite large ones.
pub(super) fn fragmented_by(changes: &Changes) -> BTreeSet<Table> {
    let fragmenting =
        changes.iter().filter(|((table, _), change)| change.is_none() || table.values() == Values::Large);
    fragmenting.map(|((table, _), _)| *table).collect()
}

impl Disk {
    /// Merges the tables in which rows were deleted or overwritten. Versions that the newest write replaced, and those that an open
    /// view shows, stay until the next time. It blocks the thread, for long if there is much; it ends early, between two tables, once
    /// `goes_on` is false. Reads and writes go on meanwhile.
    pub(crate) fn merge_fragmented(&self, goes_on: &dyn Fn() -> bool) -> Result<(), ReadError> {
        let Some((keyspaces, _)) = self.database.library() else { return Ok(()) };
        // Before the tables are written: what is deleted later may be in memory until the next time.
        let fragmented: Vec<_> = self.tables().filter(|table| self.fragmented.take(*table)).collect();
        let mut left = fragmented.iter();
        let merged = self.flush(goes_on).and_then(|()| {
            while let Some(table) = left.as_slice().first().filter(|_| goes_on()) {
                let keyspace = keyspaces.of(*table);
                if keyspace.table_count() > 0 {
                    (0..MERGES).try_for_each(|_| keyspace.major_compact())?;
                }
                left.next();
            }
            Ok(())
        });
        left.for_each(|table| self.fragmented.note(*table));
        merged
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

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::{
        engine::{
            Key, Slice,
            schema::{Schema, TableDefinition},
            start::OnLoss,
        },
        options::Location,
    };

    const ROWS: Table =
        Table::new(&TableDefinition { number: 1, name: "rows", values: Values::Small, counting: None });
    const OTHERS: Table =
        Table::new(&TableDefinition { number: 2, name: "others", values: Values::Small, counting: None });
    static SCHEMA: Schema = Schema::new(&[ROWS, OTHERS], 1, |_, _| Ok(()));

    fn write(disk: &Disk, table: Table, numbers: std::ops::Range<u64>, bytes: Option<usize>) {
        let mut seed = 1_u64;
        let mut noise = |_| {
            seed = seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            (seed >> 56) as u8
        };
        let mut row = |number: u64| {
            let value = bytes.map(|bytes| Slice::from((0..bytes).map(&mut noise).collect::<Vec<u8>>()));
            ((table, Key::new().u64(number).to_slice()), value)
        };
        disk.write(numbers.map(&mut row).collect(), Some(PersistMode::Buffer)).unwrap();
    }

    #[test]
    fn what_is_deleted_while_tables_are_merged_is_given_back_the_next_time() {
        let directory = tempfile::tempdir().unwrap();
        let location = Location::Directory(directory.path().to_owned());
        let disk = Disk::open(&location, 1 << 20, OnLoss::Refuse, &SCHEMA).unwrap();
        let (keyspaces, _) = disk.database.library().unwrap();
        write(&disk, ROWS, 0..400, Some(10_000));
        let has_deleted = Cell::new(false);
        disk.merge_fragmented(&|| {
            let is_written = disk.tables().all(|table| keyspaces.of(table).sealed_memtable_count() == 0);
            if is_written && !has_deleted.replace(true) {
                write(&disk, ROWS, 0..400, None);
            }
            true
        })
        .unwrap();
        assert!(has_deleted.get() && keyspaces.of(ROWS).disk_space() > 3_000_000, "the rows are on disk");
        write(&disk, OTHERS, 0..1, Some(1));
        disk.merge_fragmented(&|| true).unwrap();
        let left = keyspaces.of(ROWS).disk_space();
        assert!(left < 100_000, "{left} bytes are left");
    }

    #[test]
    fn tables_that_were_not_merged_are_merged_the_next_time() {
        let disk = Disk::open(&Location::Temporary, 1 << 20, OnLoss::Refuse, &SCHEMA).unwrap();
        disk.merge_fragmented(&|| false).unwrap();
        assert!([ROWS, OTHERS].iter().all(|table| disk.fragmented.take(*table)));
        disk.merge_fragmented(&|| true).unwrap();
        assert!(![ROWS, OTHERS].iter().any(|table| disk.fragmented.take(*table)));
    }
}
