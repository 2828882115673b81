//! The database below the store: the library with its files or, in a simulation, tables in memory.

#[cfg(feature = "simulation")]
use std::sync::Arc;

use fjall::{OwnedWriteBatch, PersistMode, Readable as _};

#[cfg(feature = "simulation")]
use super::simulated::{SimulatedDisk, SimulatedRows, Tables};
use super::{
    Slice,
    disk::Changes,
    keys::{Key, KeyRange},
    keyspaces::Keyspaces,
    schema::Table,
};
use crate::errors::ReadError;

/// An open database.
pub(crate) enum Database {
    /// The library.
    Library {
        // Declared before `database`, so that they are released first.
        keyspaces: Keyspaces,
        database: fjall::Database,
    },
    /// A simulated disk.
    #[cfg(feature = "simulation")]
    Simulated(SimulatedDisk),
}

/// One moment of a database.
#[derive(Clone)]
pub(crate) enum Moment {
    Library {
        snapshot: fjall::Snapshot,
    },
    #[cfg(feature = "simulation")]
    Simulated(Arc<Tables>),
}

/// Rows in the order of their keys, read lazily.
pub(crate) enum RowsInOrder {
    Nothing,
    Library(fjall::Iter),
    #[cfg(feature = "simulation")]
    Simulated(SimulatedRows),
}

/// A row, or its key, that is still to be read.
pub(crate) enum Unread {
    Library(fjall::Guard),
    #[cfg(feature = "simulation")]
    Simulated((Slice, Slice)),
}

impl Database {
    /// The library with its files; `None` if they are simulated.
    pub(super) fn library(&self) -> Option<(&Keyspaces, &fjall::Database)> {
        match self {
            Self::Library { keyspaces, database } => Some((keyspaces, database)),
            #[cfg(feature = "simulation")]
            Self::Simulated(_) => None,
        }
    }

    /// The present value at a key.
    pub(super) fn value(&self, table: Table, key: &[u8]) -> Result<Option<Slice>, ReadError> {
        match self {
            Self::Library { keyspaces, .. } => Ok(keyspaces.of(table).get(key)?),
            #[cfg(feature = "simulation")]
            Self::Simulated(disk) => Ok(disk.tables().value(table, key)),
        }
    }

    /// The size of the present value at a key, in bytes, without reading a large one.
    pub(super) fn size_of(&self, table: Table, key: &[u8]) -> Result<Option<u64>, ReadError> {
        match self {
            Self::Library { keyspaces, .. } => Ok(keyspaces.of(table).size_of(key)?.map(u64::from)),
            #[cfg(feature = "simulation")]
            Self::Simulated(disk) => {
                let value = disk.tables().value(table, key);
                Ok(value.map(|value| u64::try_from(value.len()).unwrap_or(u64::MAX)))
            }
        }
    }

    /// The present rows in a range.
    pub(super) fn range(&self, table: Table, range: KeyRange) -> RowsInOrder {
        if range.is_empty() {
            return RowsInOrder::Nothing;
        }
        match self {
            Self::Library { keyspaces, .. } => {
                RowsInOrder::Library(keyspaces.of(table).range((range.start, range.end)))
            }
            #[cfg(feature = "simulation")]
            Self::Simulated(disk) => RowsInOrder::Simulated(disk.tables().range(table, range)),
        }
    }

    /// The present moment.
    pub(super) fn moment(&self) -> Moment {
        match self {
            Self::Library { database, .. } => Moment::Library { snapshot: database.snapshot() },
            #[cfg(feature = "simulation")]
            Self::Simulated(disk) => Moment::Simulated(disk.tables()),
        }
    }

    /// Writes changes as one atomic batch.
    pub(super) fn write(&self, changes: Changes, persist: Option<PersistMode>) -> fjall::Result<()> {
        match self {
            Self::Library { keyspaces, database } => {
                let mut batch =
                    OwnedWriteBatch::with_capacity(database.clone(), changes.len()).durability(persist);
                for ((table, key), change) in changes {
                    let keyspace = keyspaces.of(table);
                    match change {
                        Some(value) => batch.insert(keyspace, key, value),
                        None => batch.remove(keyspace, key),
                    }
                }
                batch.commit()
            }
            #[cfg(feature = "simulation")]
            Self::Simulated(disk) => {
                disk.write(changes);
                Ok(())
            }
        }
    }

    /// Makes earlier writes durable to the degree of `persist`. It fails when a background write has failed.
    pub(super) fn persist(&self, persist: PersistMode) -> fjall::Result<()> {
        match self {
            Self::Library { database, .. } => database.persist(persist),
            #[cfg(feature = "simulation")]
            Self::Simulated(_) => Ok(()),
        }
    }

    /// The sequence number of the next batch.
    pub(super) fn sequence(&self) -> u64 {
        match self {
            Self::Library { database, .. } => database.seqno(),
            #[cfg(feature = "simulation")]
            Self::Simulated(disk) => disk.batches(),
        }
    }
}

impl Moment {
    /// The value at a key.
    pub(super) fn value(
        &self,
        database: &Database,
        table: Table,
        key: &Key,
    ) -> Result<Option<Slice>, ReadError> {
        match (self, database) {
            (Self::Library { snapshot }, Database::Library { keyspaces, .. }) => {
                Ok(snapshot.get(keyspaces.of(table), key.as_bytes())?)
            }
            #[cfg(feature = "simulation")]
            (Self::Simulated(tables), _) => Ok(tables.value(table, key.as_bytes())),
            #[cfg(feature = "simulation")]
            (Self::Library { .. }, Database::Simulated(_)) => Ok(None),
        }
    }

    /// The rows in a range.
    pub(super) fn range(&self, database: &Database, table: Table, range: KeyRange) -> RowsInOrder {
        if range.is_empty() {
            return RowsInOrder::Nothing;
        }
        match (self, database) {
            (Self::Library { snapshot }, Database::Library { keyspaces, .. }) => {
                RowsInOrder::Library(snapshot.range(keyspaces.of(table), (range.start, range.end)))
            }
            #[cfg(feature = "simulation")]
            (Self::Simulated(tables), _) => RowsInOrder::Simulated(tables.range(table, range)),
            #[cfg(feature = "simulation")]
            (Self::Library { .. }, Database::Simulated(_)) => RowsInOrder::Nothing,
        }
    }

    /// The number of rows of a table. It reads every key.
    pub(super) fn rows(&self, database: &Database, table: Table) -> Result<usize, ReadError> {
        match (self, database) {
            (Self::Library { snapshot }, Database::Library { keyspaces, .. }) => {
                Ok(snapshot.len(keyspaces.of(table))?)
            }
            #[cfg(feature = "simulation")]
            (Self::Simulated(tables), _) => Ok(tables.rows(table)),
            #[cfg(feature = "simulation")]
            (Self::Library { .. }, Database::Simulated(_)) => Ok(0),
        }
    }
}

impl Iterator for RowsInOrder {
    type Item = Unread;

    fn next(&mut self) -> Option<Unread> {
        match self {
            Self::Nothing => None,
            Self::Library(rows) => rows.next().map(Unread::Library),
            #[cfg(feature = "simulation")]
            Self::Simulated(rows) => rows.next().map(Unread::Simulated),
        }
    }
}

impl DoubleEndedIterator for RowsInOrder {
    fn next_back(&mut self) -> Option<Unread> {
        match self {
            Self::Nothing => None,
            Self::Library(rows) => rows.next_back().map(Unread::Library),
            #[cfg(feature = "simulation")]
            Self::Simulated(rows) => rows.next_back().map(Unread::Simulated),
        }
    }
}

impl Unread {
    /// The key and the value.
    pub(super) fn row(self) -> Result<(Slice, Slice), ReadError> {
        match self {
            Self::Library(guard) => guard.into_inner().map_err(ReadError::from),
            #[cfg(feature = "simulation")]
            Self::Simulated(row) => Ok(row),
        }
    }

    /// The key, without reading a large value.
    pub(super) fn key(self) -> Result<Slice, ReadError> {
        match self {
            Self::Library(guard) => guard.key().map_err(ReadError::from),
            #[cfg(feature = "simulation")]
            Self::Simulated((key, _)) => Ok(key),
        }
    }
}

impl From<fjall::Error> for ReadError {
    fn from(error: fjall::Error) -> Self {
        Self::Storage(error.to_string())
    }
}
