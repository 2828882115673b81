//! The database engine on disk: its directory, its lock, its format.
//!
//! A data directory has a file `lock`, locked by the process that has it open; the engine's files in `store`; and `witness`,
//! the newest acknowledged batch. A new store is made next to its place, as `store.new`, and moved there once it is complete,
//! so a crash at the first start does not prevent the second. The journals are checked before the engine opens them; see
//! `journal.rs`.

use std::{
    collections::BTreeMap,
    fs::{DirBuilder, File, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use fjall::{CompressionType, Database, OwnedWriteBatch, PersistMode};
use tempfile::TempDir;

use super::{
    Slice,
    journal::{self, JournalError, Journals},
    keys::KeyRange,
    keyspaces::Keyspaces,
    meta::{self, META},
    overlay::Overlay,
    presence::Presence,
    rows,
    schema::{Schema, Table},
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
    pub(super) keyspaces: Keyspaces,
    pub(super) database: Database,
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
}

/// What to do when acknowledged batches are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnLoss {
    /// Open nothing and change nothing.
    Refuse,
    /// Warn, and go on with what there is.
    Accept,
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
        let journals = check_journals(&place, said, on_loss)?;
        // The engine is about to cut it off, and only the tables on disk can say whether acknowledged batches were in it.
        let uncertain = journals.torn.filter(|_| journals.newest.is_none() && said.is_some());
        let saved =
            uncertain.map(|torn| SavedJournal::save(directory, torn)).transpose().map_err(io_error)?;
        let opened = Self::open_checked(directory, cache_bytes, (on_loss, lock), (witness, said), schema);
        match (saved, &opened) {
            (Some(saved), Ok(_)) => saved.remove().map_err(io_error)?,
            (Some(saved), Err(_)) => saved.put_back().map_err(io_error)?,
            (None, _) => {}
        }
        opened
    }

    /// Opens the engine, and checks that what was acknowledged is there.
    fn open_checked(
        directory: &Path,
        cache_bytes: u64,
        (on_loss, lock): (OnLoss, File),
        (mut witness, said): (Witness, Option<Testimony>),
        schema: &'static Schema,
    ) -> Result<Self, OpenError> {
        let io_error = |source| OpenError::Io { path: directory.to_owned(), source };
        let place = directory.join("store");
        let (database, keyspaces) = open_engine(&place, cache_bytes, schema)?;
        let mut disk =
            Self { keyspaces, database, schema, watched: None, _temporary: None, _lock: Some(lock) };
        let format = disk.check_format(&place)?;
        if format < schema.format {
            disk.convert(&place, format)?;
        }
        let presence = Presence::of([directory.join("lock"), place.clone()]).map_err(io_error)?;
        let kept = disk.batch_stamp();
        let kept =
            kept.map_err(|error| OpenError::Damaged { path: place.clone(), what: error.to_string() })?;
        let loss = Loss::between(kept, said);
        if let Some(loss) = loss {
            if on_loss == OnLoss::Refuse {
                return Err(lost(&place, loss));
            }
            warn_of(loss);
        }
        if on_loss == OnLoss::Accept {
            witness.accept_through(kept.number);
        }
        // Reported once: the batches are numbered anew from here on.
        witness.note(kept).map_err(io_error)?;
        if on_loss == OnLoss::Accept || loss.is_some() {
            // Otherwise a loss of power brings the old number back, and the store is refused again.
            witness.sync().map_err(io_error)?;
        }
        disk.watched = Some(Watched { presence, witness, loss });
        Ok(disk)
    }

    fn open_temporary(cache_bytes: u64, schema: &'static Schema) -> Result<Self, OpenError> {
        let temporary = tempfile::Builder::new()
            .prefix("mimi-gateway-")
            .tempdir()
            .map_err(|source| OpenError::Io { path: std::env::temp_dir(), source })?;
        let (database, keyspaces) = open_engine(&temporary.path().join("store"), cache_bytes, schema)?;
        Ok(Self { keyspaces, database, schema, watched: None, _temporary: Some(temporary), _lock: None })
    }

    /// All tables, the engine's own first.
    pub(crate) fn tables(&self) -> impl Iterator<Item = Table> {
        [META].into_iter().chain(self.schema.tables.iter().copied())
    }

    /// The value at a key.
    pub(crate) fn value(&self, table: Table, key: &[u8]) -> Result<Option<Slice>, ReadError> {
        Ok(self.keyspaces.of(table).get(key)?)
    }

    /// The rows in a range that is not empty, in order, read lazily.
    pub(crate) fn rows(
        &self,
        table: Table,
        range: KeyRange,
    ) -> impl Iterator<Item = Result<(Slice, Slice), ReadError>> + use<> {
        let guards = self.keyspaces.of(table).range((range.start, range.end));
        guards.map(|guard| guard.into_inner().map_err(ReadError::from))
    }

    /// The keys in a range that is not empty, in order, without reading large values.
    pub(crate) fn keys(
        &self,
        table: Table,
        range: KeyRange,
    ) -> impl Iterator<Item = Result<Slice, ReadError>> + use<> {
        let guards = self.keyspaces.of(table).range((range.start, range.end));
        guards.map(|guard| guard.key().map_err(ReadError::from))
    }

    /// Writes changes as one atomic batch.
    pub(crate) fn write(&self, changes: Changes, persist: Option<PersistMode>) -> fjall::Result<()> {
        let mut batch =
            OwnedWriteBatch::with_capacity(self.database.clone(), changes.len()).durability(persist);
        for ((table, key), change) in changes {
            let keyspace = self.keyspaces.of(table);
            match change {
                Some(value) => batch.insert(keyspace, key, value),
                None => batch.remove(keyspace, key),
            }
        }
        batch.commit()
    }

    /// Makes earlier writes durable to the degree of `persist`. It fails when a background write has failed.
    pub(crate) fn persist(&self, persist: PersistMode) -> fjall::Result<()> {
        self.database.persist(persist)
    }

    /// The sequence number of the engine's next batch.
    pub(crate) fn sequence(&self) -> u64 {
        self.database.seqno()
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

impl From<fjall::Error> for ReadError {
    fn from(error: fjall::Error) -> Self {
        Self::Storage(error.to_string())
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

/// Checks the journals before the engine opens them, which may cut them off.
fn check_journals(place: &Path, said: Option<Testimony>, on_loss: OnLoss) -> Result<Journals, OpenError> {
    let said = said.unwrap_or_default();
    match journal::read(place, said.known_through) {
        Ok(journals) => {
            let loss = journals.newest.and_then(|newest| Loss::between(newest, Some(said)));
            match loss.filter(|_| on_loss == OnLoss::Refuse) {
                Some(loss) => Err(lost(place, loss)),
                None => Ok(journals),
            }
        }
        Err(JournalError::Io(source)) => Err(OpenError::Io { path: place.to_owned(), source }),
        Err(JournalError::Damaged(what)) if on_loss == OnLoss::Accept => {
            tracing::warn!(what, "the store's journal is damaged; the store is opened as it is");
            Ok(Journals::default())
        }
        Err(JournalError::Damaged(what)) => Err(OpenError::Damaged { path: place.to_owned(), what }),
    }
}

/// A copy of a journal, from before the engine opened it.
struct SavedJournal {
    copy: PathBuf,
    journal: PathBuf,
}

impl SavedJournal {
    fn save(directory: &Path, journal: PathBuf) -> io::Result<Self> {
        let copy = directory.join("journal.saved");
        std::fs::copy(&journal, &copy)?;
        File::open(&copy)?.sync_all()?;
        Ok(Self { copy, journal })
    }

    fn remove(self) -> io::Result<()> {
        std::fs::remove_file(self.copy)
    }

    fn put_back(self) -> io::Result<()> {
        std::fs::rename(self.copy, self.journal)
    }
}

fn lost(place: &Path, Loss { kept, acknowledged }: Loss) -> OpenError {
    OpenError::Lost {
        path: place.to_owned(),
        kept: kept.written,
        acknowledged: acknowledged.written,
        batches: acknowledged.number.saturating_sub(kept.number),
    }
}

fn warn_of(Loss { kept, acknowledged }: Loss) {
    tracing::warn!(
        kept_batch = kept.number,
        kept_written = %kept.written,
        missing_batches_min = acknowledged.number.saturating_sub(kept.number),
        last_acknowledged_batch = acknowledged.number,
        last_acknowledged_written = %acknowledged.written,
        "the store lacks its newest writes although they were acknowledged: its journal ends early, an older store was \
         put in its place, or it was copied before the file `witness` while the gateway ran",
    );
}

fn format_value(schema: &Schema) -> Slice {
    Slice::from(schema.format.to_be_bytes())
}

/// Makes a directory for the gateway's user alone, because the store holds who talks with whom; those above it are as usual.
fn make_private(directory: &Path) -> io::Result<()> {
    if let Some(above) = directory.parent() {
        std::fs::create_dir_all(above)?;
    }
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && directory.is_dir() => Ok(()),
        made => made,
    }
}

fn warn_if_others_read(directory: &Path) {
    let mode = directory.metadata().map_or(0, |metadata| metadata.permissions().mode() & 0o777);
    if mode & 0o077 != 0 {
        tracing::warn!(
            directory = %directory.display(),
            mode = format!("{mode:03o}"),
            "other users of the machine have access to the data directory: chmod 700 ends that"
        );
    }
}

fn lock(directory: &Path) -> Result<File, OpenError> {
    let io_error = |source| OpenError::Io { path: directory.to_owned(), source };
    let options = File::options().create(true).truncate(false).write(true).open(directory.join("lock"));
    let file = options.map_err(io_error)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse { path: directory.to_owned() }),
        Err(TryLockError::Error(error)) => Err(io_error(error)),
    }
}

/// A new store that is filled next to its place, and moved there once it is complete and synced.
pub(crate) struct NewStore {
    disk: Disk,
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

    fn begin_locked(
        directory: &Path,
        cache_bytes: u64,
        schema: &'static Schema,
        format: u64,
        lock: File,
    ) -> Result<Self, OpenError> {
        let beside = directory.join("store.new");
        match std::fs::remove_dir_all(&beside) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(OpenError::Io { path: directory.to_owned(), source });
            }
            Ok(()) | Err(_) => {}
        }
        let (database, keyspaces) = open_engine(&beside, cache_bytes, schema)?;
        let disk = Disk { keyspaces, database, schema, watched: None, _temporary: None, _lock: Some(lock) };
        let mut new = Self { disk, directory: directory.to_owned(), changes: Changes::new() };
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
        let Self { disk, directory, .. } = self;
        disk.persist(PersistMode::SyncAll).map_err(|error| open_error(&directory, error))?;
        let Disk { keyspaces, database, _lock, .. } = disk;
        drop((keyspaces, database));
        let moved = std::fs::rename(directory.join("store.new"), directory.join("store"))
            .and_then(|()| File::open(&directory)?.sync_all());
        moved.map_err(|source| OpenError::Io { path: directory, source })
    }
}

fn open_engine(path: &Path, cache_bytes: u64, schema: &Schema) -> Result<(Database, Keyspaces), OpenError> {
    let open = || {
        let database = Database::builder(path)
            .cache_size(cache_bytes)
            .max_journaling_size(JOURNAL_BYTES_MAX)
            // Packets are mostly keys and ciphertext, which do not compress, and compression would run in the committer.
            .journal_compression(CompressionType::None)
            .open()?;
        let keyspaces = Keyspaces::open(&database, schema)?;
        Ok((database, keyspaces))
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

fn open_error(path: &Path, error: fjall::Error) -> OpenError {
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
    const ROWS: Table = Table::new(&TableDefinition { number: 1, name: "rows", values: Values::Small });

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
            let (database, keyspaces) =
                open_engine(&directory.path().join("store"), CACHE_BYTES, &SCHEMA).unwrap();
            keyspaces.of(META).insert(meta::format_key().to_slice(), format_value(&SCHEMA)).unwrap();
            database.persist(PersistMode::SyncAll).unwrap();
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
