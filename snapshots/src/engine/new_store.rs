//! A new store, made next to its place, so that a crash in the midst of it does not prevent the next attempt.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

use fjall::PersistMode;

use super::{
    Slice,
    directory::{Unfinished, lock, make_private},
    disk::{Changes, Disk, open_engine, open_error},
    meta::{self, META},
    schema::{Schema, Table},
};
use crate::errors::OpenError;

/// A new store that is filled next to its place, and moved there once it is complete and synced.
pub(crate) struct NewStore {
    // Declared before `beside`, so that it is closed first.
    disk: Disk,
    beside: Unfinished,
    directory: PathBuf,
    changes: Changes,
}

impl NewStore {
    /// The files in the directory of a store that was begun and not finished.
    pub(crate) const LEFT_BEHIND: [&str; 2] = ["lock", "store.new"];

    /// Begins one, in a directory that has no store, with rows of this format.
    pub(crate) fn begin(
        directory: &Path,
        cache_bytes: u64,
        schema: &'static Schema,
        format: u64,
    ) -> Result<Self, OpenError> {
        make_private(directory).map_err(|source| OpenError::Io { path: directory.to_owned(), source })?;
        let lock = lock(directory)?;
        Self::begin_locked(directory, cache_bytes, schema, format, lock)
    }

    pub(super) fn begin_locked(
        directory: &Path,
        cache_bytes: u64,
        schema: &'static Schema,
        format: u64,
        lock: File,
    ) -> Result<Self, OpenError> {
        let beside = Unfinished::new(directory.join("store.new"));
        match std::fs::remove_dir_all(beside.path()) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(OpenError::Io { path: directory.to_owned(), source });
            }
            Ok(()) | Err(_) => {}
        }
        let database = open_engine(beside.path(), cache_bytes, schema)?;
        let disk = Disk::new(database, schema, Some(lock));
        let mut new = Self { disk, beside, directory: directory.to_owned(), changes: Changes::new() };
        let format = Slice::from(format.to_be_bytes());
        new.changes.insert((META, meta::format_key().to_slice()), Some(format));
        Ok(new)
    }

    /// The table of this name.
    pub(crate) fn table(&self, name: &str) -> Option<Table> {
        self.disk.tables().find(|table| table.name() == name)
    }

    /// Whether a row is written by the store itself.
    pub(crate) fn is_its_own(&self, table: Table, key: &[u8]) -> bool {
        meta::is_of_the_copy(table, key) || (table == META && key == meta::format_key().as_bytes())
    }

    /// Adds a row to those that [`NewStore::write`] writes.
    pub(crate) fn put(&mut self, table: Table, key: &[u8], value: Vec<u8>) {
        self.changes.insert((table, Slice::from(key)), Some(Slice::from(value)));
    }

    /// Writes the rows that were added.
    pub(crate) fn write(&mut self) -> Result<(), OpenError> {
        let changes = std::mem::take(&mut self.changes);
        let written = self.disk.write(changes, Some(PersistMode::Buffer));
        written.map_err(|error| open_error(&self.directory, error))
    }

    /// Syncs the store, closes it and moves it to its place.
    pub(crate) fn finish(mut self) -> Result<(), OpenError> {
        self.write()?;
        let Self { disk, beside, directory, .. } = self;
        let synced = disk.persist(PersistMode::SyncAll);
        // The engine ends before its directory is moved or removed.
        let _lock = disk.close();
        synced.map_err(|error| open_error(&directory, error))?;
        let moved = beside.take_place(&directory.join("store"));
        moved.map_err(|source| OpenError::Io { path: directory, source })
    }
}
