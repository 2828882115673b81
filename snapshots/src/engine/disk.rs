//! The database engine on disk: opening it, its rows, its format.
//!
//! A data directory has a file `lock`, locked by the process that has it open; the engine's files in `store`; and `witness`,
//! the newest acknowledged batch. A new store is made next to its place, as `store.new`, and moved there once it is complete,
//! so a crash at the first start does not prevent the second. `start.rs` checks all of it before the engine opens the store.

use std::{
    collections::BTreeMap,
    fs::File,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use fjall::{CompressionType, PersistMode};
use tempfile::TempDir;

use super::{
    Slice,
    database::{Database, Unread},
    directory::{lock, make_private, sync_directory, warn_if_others_read},
    keys::KeyRange,
    keyspaces::Keyspaces,
    meta::{self, META},
    new_store::NewStore,
    overlay::Overlay,
    presence::Presence,
    rows,
    schema::{Schema, Table},
    space::{Fragmented, fragmented_by},
    start::{self, OnLoss, Prepared},
    witness::{BatchStamp, Loss, Testimony, Witness},
};
use crate::{
    errors::{OpenError, ReadError},
    options::{Durability, Location},
};

/// The journal size, in bytes, at which the engine flushes the tables that keep old journals in use. It limits the reading at a
/// start.
const JOURNAL_BYTES_MAX: u64 = 128 << 20;

/// A row by its table and key.
pub(crate) type RowKey = (Table, Slice);

/// The rows of one disk batch; `None` deletes the row.
pub(crate) type Changes = BTreeMap<RowKey, Option<Slice>>;

/// The open engine. Fields are dropped in this order: the engine before its directory and lock.
pub(crate) struct Disk {
    pub(super) database: Database,
    pub(super) fragmented: Fragmented,
    schema: &'static Schema,
    /// The checks of an open data directory; `None` for a temporary one.
    pub(crate) watched: Option<Watched>,
    _temporary: Option<TempDir>,
    _lock: Option<File>,
}

/// The checks of a data directory while it is open.
pub(crate) struct Watched {
    pub(crate) presence: Presence,
    pub(crate) witness: Witness,
    /// Acknowledged batches that were missing when it was opened.
    pub(crate) loss: Option<Loss>,
    /// Batches before its end that were missing or damaged then.
    pub(crate) missing: u64,
}

impl Disk {
    /// Opens a store, which is created if it is missing.
    pub(crate) fn open(
        location: &Location,
        cache_bytes: u64,
        on_loss: OnLoss,
        schema: &'static Schema,
    ) -> Result<Self, OpenError> {
        match location {
            Location::Directory(directory) => Self::open_directory(directory, cache_bytes, on_loss, schema),
            Location::Temporary => Self::open_temporary(cache_bytes, schema),
        }
    }

    fn open_directory(
        directory: &Path,
        cache_bytes: u64,
        on_loss: OnLoss,
        schema: &'static Schema,
    ) -> Result<Self, OpenError> {
        let io_error = |source| OpenError::Io { path: directory.to_owned(), source };
        make_private(directory).map_err(io_error)?;
        warn_if_others_read(directory);
        let lock = lock(directory)?;
        let place = directory.join("store");
        if !place.try_exists().map_err(io_error)? {
            NewStore::begin_locked(
                directory,
                cache_bytes,
                schema,
                schema.format,
                lock.try_clone().map_err(io_error)?,
            )?
            .finish()?;
        }
        let (witness, said) = Witness::open(directory).map_err(io_error)?;
        let prepared = start::prepare(directory, &place, said, on_loss)?;
        let opened =
            Self::open_checked(directory, cache_bytes, (on_loss, lock, &prepared), (witness, said), schema);
        prepared.end(opened.is_ok()).map_err(io_error)?;
        opened
    }

    /// Opens the engine, and checks that what was acknowledged is there.
    fn open_checked(
        directory: &Path,
        cache_bytes: u64,
        (on_loss, lock, prepared): (OnLoss, File, &Prepared),
        (mut witness, said): (Witness, Option<Testimony>),
        schema: &'static Schema,
    ) -> Result<Self, OpenError> {
        let io_error = |source| OpenError::Io { path: directory.to_owned(), source };
        let place = directory.join("store");
        let database = open_engine(&place, cache_bytes, schema)?;
        let mut disk = Self::new(database, schema, Some(lock));
        let format = disk.check_format(&place)?;
        let presence = Presence::of([directory.join("lock"), place.clone()]).map_err(io_error)?;
        let kept = disk.batch_stamp();
        let kept =
            kept.map_err(|error| OpenError::Damaged { path: place.clone(), what: error.to_string() })?;
        let mut loss = Loss::between(kept, said);
        if on_loss != OnLoss::Refuse {
            // The witness can be older than what was cut off.
            loss = loss.max(prepared.loss_after(kept));
        }
        if let Some(loss) = loss {
            if on_loss == OnLoss::Refuse {
                return Err(start::lost(&place, loss));
            }
            start::warn_of(loss);
        }
        if on_loss == OnLoss::Refuse {
            prepared.check_kept(&place, kept)?;
        }
        // Not before: a store that is refused stays as it is, for the program that wrote it.
        if format < schema.format {
            disk.convert(&place, format)?;
        }
        if on_loss != OnLoss::Refuse && (loss.is_some() || prepared.has_gap_before(kept)) {
            witness.accept_through(kept.number);
        }
        // Reported once: the batches are numbered anew from here on.
        witness.note(kept).map_err(io_error)?;
        // Otherwise a loss of power brings an accepted loss back, and the store is refused again.
        witness.sync().and_then(|()| sync_directory(directory)).map_err(io_error)?;
        let missing = prepared.missing();
        disk.watched = Some(Watched { presence, witness, loss, missing });
        Ok(disk)
    }

    fn open_temporary(cache_bytes: u64, schema: &'static Schema) -> Result<Self, OpenError> {
        let temporary = tempfile::Builder::new()
            .prefix("mimi-gateway-")
            .tempdir()
            .map_err(|source| OpenError::Io { path: std::env::temp_dir(), source })?;
        let database = open_engine(&temporary.path().join("store"), cache_bytes, schema)?;
        Ok(Self { _temporary: Some(temporary), ..Self::new(database, schema, None) })
    }

    pub(super) fn new(database: Database, schema: &'static Schema, lock: Option<File>) -> Self {
        let fragmented = Fragmented::all(schema.tables.len() + 1);
        Self { database, fragmented, schema, watched: None, _temporary: None, _lock: lock }
    }

    /// Opens a simulated disk.
    #[cfg(feature = "simulation")]
    pub(crate) fn open_simulated(disk: &super::SimulatedDisk, schema: &'static Schema) -> Self {
        Self::new(Database::Simulated(disk.clone()), schema, None)
    }

    /// Closes the engine; the lock is still held.
    pub(super) fn close(self) -> Option<File> {
        let Self { _lock, .. } = self;
        _lock
    }

    /// All tables, the engine's own first.
    pub(crate) fn tables(&self) -> impl Iterator<Item = Table> {
        [META].into_iter().chain(self.schema.tables.iter().copied())
    }

    /// The value at a key.
    pub(crate) fn value(&self, table: Table, key: &[u8]) -> Result<Option<Slice>, ReadError> {
        self.database.value(table, key)
    }

    /// The size of the value at a key, in bytes, without reading it if it is large.
    pub(crate) fn size_of(&self, table: Table, key: &[u8]) -> Result<Option<u64>, ReadError> {
        self.database.size_of(table, key)
    }

    /// The rows in a range that is not empty, in order, read lazily.
    pub(crate) fn rows(
        &self,
        table: Table,
        range: KeyRange,
    ) -> impl Iterator<Item = Result<(Slice, Slice), ReadError>> + use<> {
        self.database.range(table, range).map(Unread::row)
    }

    /// The keys in a range that is not empty, in order, without reading large values.
    pub(crate) fn keys(
        &self,
        table: Table,
        range: KeyRange,
    ) -> impl Iterator<Item = Result<Slice, ReadError>> + use<> {
        self.database.range(table, range).map(Unread::key)
    }

    /// Writes changes as one atomic batch.
    pub(crate) fn write(&self, changes: Changes, persist: Option<PersistMode>) -> fjall::Result<()> {
        let fragmented = fragmented_by(&changes);
        let written = self.database.write(changes, persist);
        // Not before: a merge that begins between the two would miss the changes, and forget the note.
        fragmented.into_iter().for_each(|table| self.fragmented.note(table));
        written
    }

    /// Makes earlier writes durable to the degree of `persist`. It fails when a background write has failed.
    pub(crate) fn persist(&self, persist: PersistMode) -> fjall::Result<()> {
        self.database.persist(persist)
    }

    /// The sequence number of the engine's next batch.
    pub(crate) fn sequence(&self) -> u64 {
        self.database.sequence()
    }

    /// The newest disk batch in the store.
    pub(crate) fn batch_stamp(&self) -> Result<BatchStamp, ReadError> {
        match self.value(META, meta::batch_stamp_key().as_bytes())? {
            Some(value) => BatchStamp::from_bytes(&value)
                .ok_or_else(|| ReadError::damaged("the number of the newest batch cannot be read")),
            None => Ok(BatchStamp::default()),
        }
    }

    /// Checks that the next process will find what is written; the error says why not.
    pub(crate) fn check_presence(&self) -> Result<(), String> {
        self.watched.as_ref().map_or(Ok(()), |watched| watched.presence.check())
    }

    /// Reads the format on disk, and refuses one newer than this program's.
    fn check_format(&self, place: &Path) -> Result<u64, OpenError> {
        let damaged = |what: String| OpenError::Damaged { path: place.to_owned(), what };
        let found = self.value(META, meta::format_key().as_bytes());
        let found = found.and_then(|value| value.map(|value| rows::number(META, &value)).transpose());
        match found.map_err(|error| damaged(error.to_string()))? {
            Some(found) if found > self.schema.format => {
                Err(OpenError::NewerFormat { found, supported: self.schema.format })
            }
            Some(found) => Ok(found),
            None => Err(damaged("it does not say its format".to_owned())),
        }
    }

    /// Brings a store of an older format to this one.
    fn convert(&self, place: &Path, format: u64) -> Result<(), OpenError> {
        let mut overlay = Overlay::new(self);
        let converted = (self.schema.convert)(&mut overlay, format);
        converted.map_err(|error| OpenError::Damaged { path: place.to_owned(), what: error.to_string() })?;
        overlay.put(META, &meta::format_key(), format_value(self.schema));
        let written = self.write(overlay.into_changes(), Some(PersistMode::SyncAll));
        written.map_err(|error| open_error(place, error))
    }
}

/// The persistence of a disk batch before it is answered; `None` leaves it in memory.
pub(crate) fn persistence(location: &Location, durability: Durability) -> Option<PersistMode> {
    match (location, durability) {
        (Location::Temporary, _) => None,
        (Location::Directory(_), Durability::Sync) => Some(PersistMode::SyncData),
        (Location::Directory(_), Durability::Buffer) => Some(PersistMode::Buffer),
    }
}

fn format_value(schema: &Schema) -> Slice {
    Slice::from(schema.format.to_be_bytes())
}

pub(super) fn open_engine(path: &Path, cache_bytes: u64, schema: &Schema) -> Result<Database, OpenError> {
    let open = || {
        let database = fjall::Database::builder(path)
            .cache_size(cache_bytes)
            .max_journaling_size(JOURNAL_BYTES_MAX)
            // Packets are mostly keys and ciphertext, which do not compress, and compression would run in the committer.
            .journal_compression(CompressionType::None)
            .open()?;
        let keyspaces = Keyspaces::open(&database, schema)?;
        Ok(Database::Library { keyspaces, database })
    };
    // The engine panics on some kinds of damage on disk.
    match catch_unwind(AssertUnwindSafe(open)) {
        Ok(opened) => opened.map_err(|error| open_error(path, error)),
        Err(_) => Err(OpenError::Damaged {
            path: path.to_owned(),
            what: "the engine cannot make sense of its files".to_owned(),
        }),
    }
}

pub(super) fn open_error(path: &Path, error: fjall::Error) -> OpenError {
    let path = PathBuf::from(path);
    if let fjall::Error::Io(source) | fjall::Error::Storage(fjall::LsmError::Io(source)) = error {
        OpenError::Io { path, source }
    } else if matches!(error, fjall::Error::Locked) {
        OpenError::InUse { path }
    } else {
        OpenError::Damaged { path, what: error.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{
        Key,
        schema::{TableDefinition, Values},
    };

    const CACHE_BYTES: u64 = 1 << 20;
    const ROWS: Table =
        Table::new(&TableDefinition { number: 1, name: "rows", values: Values::Small, counting: None });

    /// Its second format doubles each value of the first.
    static SCHEMA: Schema = Schema::new(&[ROWS], 2, |overlay, from| {
        assert_eq!(from, 1);
        for row in overlay.on_disk(ROWS) {
            let (key, value) = row?;
            overlay.put(ROWS, &Key::new().last(&key), Slice::from([&*value, &*value].concat()));
        }
        Ok(())
    });

    fn open(location: &Location) -> Result<Disk, OpenError> {
        Disk::open(location, CACHE_BYTES, OnLoss::Refuse, &SCHEMA)
    }

    #[test]
    fn a_temporary_store_leaves_nothing() {
        let disk = open(&Location::Temporary).unwrap();
        let place = disk._temporary.as_ref().unwrap().path().to_owned();
        assert!(place.join("store").is_dir());
        drop(disk);
        assert!(!place.exists());
    }

    #[test]
    fn one_at_a_time_has_a_directory() {
        let directory = tempfile::tempdir().unwrap();
        let location = Location::Directory(directory.path().to_owned());
        let first = open(&location).unwrap();
        match open(&location) {
            Err(OpenError::InUse { path }) => assert_eq!(path, directory.path()),
            other => panic!("{:?}", other.err()),
        }
        drop(first);
        assert!(open(&location).is_ok());
    }

    #[test]
    fn a_format_is_refused_when_it_is_newer_or_missing() {
        let directory = tempfile::tempdir().unwrap();
        let location = Location::Directory(directory.path().to_owned());
        let check = |value: Option<&[u8]>, accepted: fn(Result<(), OpenError>) -> bool| {
            let disk = open(&location).unwrap();
            let change = BTreeMap::from([((META, meta::format_key().to_slice()), value.map(Slice::from))]);
            disk.write(change, Some(PersistMode::SyncAll)).unwrap();
            drop(disk);
            assert!(accepted(open(&location).map(drop)), "{value:?}");
            // As it was, for the next check.
            let database = open_engine(&directory.path().join("store"), CACHE_BYTES, &SCHEMA).unwrap();
            let row = ((META, meta::format_key().to_slice()), Some(format_value(&SCHEMA)));
            database.write(BTreeMap::from([row]), Some(PersistMode::SyncAll)).unwrap();
        };
        check(Some(&1_u64.to_be_bytes()), |opened| opened.is_ok());
        check(Some(&2_u64.to_be_bytes()), |opened| opened.is_ok());
        check(Some(&3_u64.to_be_bytes()), |opened| {
            matches!(opened, Err(OpenError::NewerFormat { found: 3, supported: 2 }))
        });
        check(Some(b"two"), |opened| matches!(opened, Err(OpenError::Damaged { .. })));
        check(None, |opened| matches!(opened, Err(OpenError::Damaged { .. })));
    }

    #[test]
    fn an_older_format_is_converted_once() {
        let directory = tempfile::tempdir().unwrap();
        let location = Location::Directory(directory.path().to_owned());
        let key = Key::new().last(b"row").to_slice();
        let disk = open(&location).unwrap();
        let rows = [
            ((META, meta::format_key().to_slice()), Some(Slice::from(1_u64.to_be_bytes()))),
            ((ROWS, key.clone()), Some(Slice::from(b"1"))),
        ];
        disk.write(BTreeMap::from(rows), Some(PersistMode::SyncAll)).unwrap();
        drop(disk);
        for _ in 0..2 {
            let disk = open(&location).unwrap();
            assert_eq!(disk.value(ROWS, &key).unwrap().as_deref(), Some(&b"11"[..]));
            assert_eq!(disk.check_format(directory.path()).unwrap(), 2);
        }
    }

    #[test]
    fn a_store_that_lacks_acknowledged_writes_is_not_converted() {
        let directory = tempfile::tempdir().unwrap();
        let location = Location::Directory(directory.path().to_owned());
        let disk = open(&location).unwrap();
        let first = ((META, meta::format_key().to_slice()), Some(Slice::from(1_u64.to_be_bytes())));
        disk.write(BTreeMap::from([first]), Some(PersistMode::SyncAll)).unwrap();
        drop(disk);
        let (witness, _) = Witness::open(directory.path()).unwrap();
        witness.note(BatchStamp { number: 5, ..BatchStamp::default() }).unwrap();
        assert!(matches!(open(&location), Err(OpenError::Lost { batches: 5, .. })));

        let database = open_engine(&directory.path().join("store"), CACHE_BYTES, &SCHEMA).unwrap();
        assert_eq!(Disk::new(database, &SCHEMA, None).check_format(directory.path()).unwrap(), 1);
    }

    #[test]
    fn a_first_start_that_was_cut_short_is_begun_again() {
        let directory = tempfile::tempdir().unwrap();
        let beside = directory.path().join("store.new");
        std::fs::create_dir(&beside).unwrap();
        std::fs::write(beside.join("0.jnl"), "half a journal").unwrap();
        let location = Location::Directory(directory.path().to_owned());
        assert!(open(&location).is_ok());
        assert!(!beside.exists());
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_an_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let opened = open(&Location::Directory(file.path().join("data")));
        assert!(matches!(opened.err(), Some(OpenError::Io { .. })));
    }
}
