//! The database engine on disk: its directory, its lock, its format.
//!
//! A data directory holds `lock`, held by the process that has it open, `store`, the engine's files, and `witness`, which says
//! how far the store was acknowledged. A new store is
//! made beside its place, as `store.new`, and moved there when it is whole: a crash at the first start leaves nothing
//! that a second start cannot use.

use std::fs::{File, TryLockError};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use fjall::{CompressionType, Database, PersistMode, Slice};
use tempfile::TempDir;

use crate::errors::{OpenError, ReadError};
use crate::ids::DeliveryId;
use crate::keys::Key;
use crate::meta;
use crate::presence::Presence;
use crate::rows;
use crate::store::Location;
use crate::tables::{Table, Tables};
use crate::witness::{BatchStamp, Loss, Witness};
use crate::{welcome_shares, welcomes};

/// Journals that are longer than this make the engine write out the tables that hold them up, in bytes. It bounds what
/// is read at a start.
const JOURNAL_BYTES_MAX: u64 = 128 << 20;

/// The open engine. The fields are dropped in this order: the engine first, then what it stands on.
pub(crate) struct Disk {
    pub(crate) tables: Tables,
    pub(crate) database: Database,
    /// What an open data directory is watched by; a temporary one is not.
    pub(crate) watched: Option<Watched>,
    _temporary: Option<TempDir>,
    _lock: Option<File>,
}

/// How a data directory is watched while it is open.
pub(crate) struct Watched {
    pub(crate) presence: Presence,
    pub(crate) witness: Witness,
    /// Acknowledged batches that were not found again when it was opened.
    pub(crate) loss: Option<Loss>,
}

impl Disk {
    pub(crate) fn open(location: &Location, cache_bytes: u64) -> Result<Self, OpenError> {
        match location {
            Location::Directory(directory) => Self::open_directory(directory, cache_bytes),
            Location::Temporary => Self::open_temporary(cache_bytes),
        }
    }

    fn open_directory(directory: &Path, cache_bytes: u64) -> Result<Self, OpenError> {
        let io_error = |source| OpenError::Io { path: directory.to_owned(), source };
        std::fs::create_dir_all(directory).map_err(io_error)?;
        let lock = lock(directory)?;
        let place = directory.join("store");
        if !place.try_exists().map_err(io_error)? {
            let beside = directory.join("store.new");
            match std::fs::remove_dir_all(&beside) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io_error(error)),
                Ok(()) | Err(_) => {}
            }
            create(&beside, cache_bytes)?;
            std::fs::rename(&beside, &place).map_err(io_error)?;
            File::open(directory).and_then(|opened| opened.sync_all()).map_err(io_error)?;
        }
        let (database, tables) = open_engine(&place, cache_bytes)?;
        let mut disk = Self { tables, database, watched: None, _temporary: None, _lock: Some(lock) };
        if disk.check_format(&place)? < meta::FORMAT {
            disk.convert(&place)?;
        }
        let presence = Presence::of([directory.join("lock"), place.clone()]).map_err(io_error)?;
        let (witness, acknowledged) = Witness::open(directory).map_err(io_error)?;
        let kept = disk.batch_stamp();
        let kept = kept.map_err(|error| OpenError::Damaged { path: place, what: error.to_string() })?;
        let loss = Loss::between(kept, acknowledged);
        if let Some(Loss { kept, acknowledged }) = loss {
            tracing::warn!(
                kept_batch = kept.number,
                kept_written = %kept.written,
                missing_batches_min = acknowledged.number.saturating_sub(kept.number),
                last_acknowledged_batch = acknowledged.number,
                last_acknowledged_written = %acknowledged.written,
                "the store lacks its newest writes although they were acknowledged: its journal ends early, an older \
                 store was put in its place, or it was copied before the file `witness` while the gateway ran",
            );
        }
        // Said once: from here on the batches are numbered anew.
        witness.note(kept).map_err(io_error)?;
        disk.watched = Some(Watched { presence, witness, loss });
        Ok(disk)
    }

    fn open_temporary(cache_bytes: u64) -> Result<Self, OpenError> {
        let temporary = tempfile::Builder::new()
            .prefix("mimi-gateway-")
            .tempdir()
            .map_err(|source| OpenError::Io { path: std::env::temp_dir(), source })?;
        let (database, tables) = open_engine(&temporary.path().join("store"), cache_bytes)?;
        Ok(Self { tables, database, watched: None, _temporary: Some(temporary), _lock: None })
    }

    /// The id that the next join info gets.
    pub(crate) fn next_delivery(&self) -> Result<DeliveryId, ReadError> {
        // The first is 1, so that 0 can be "after none".
        Ok(DeliveryId(self.number(&meta::next_delivery_key())?.unwrap_or(1)))
    }

    /// The newest disk batch that is there.
    pub(crate) fn batch_stamp(&self) -> Result<BatchStamp, ReadError> {
        match self.tables.of(Table::Meta).get(meta::batch_stamp_key().as_bytes())? {
            Some(value) => BatchStamp::from_bytes(&value)
                .ok_or_else(|| ReadError::damaged("the number of the newest batch cannot be read")),
            None => Ok(BatchStamp::default()),
        }
    }

    /// Says why what is written can no longer be found again, if it cannot.
    pub(crate) fn check_presence(&self) -> Result<(), String> {
        self.watched.as_ref().map_or(Ok(()), |watched| watched.presence.check())
    }

    /// The format on disk, which is not newer than this program's.
    fn check_format(&self, place: &Path) -> Result<u64, OpenError> {
        let damaged = |what: String| OpenError::Damaged { path: place.to_owned(), what };
        match self.number(&meta::format_key()).map_err(|error| damaged(error.to_string()))? {
            Some(found) if found > meta::FORMAT => {
                Err(OpenError::NewerFormat { found, supported: meta::FORMAT })
            }
            Some(found) => Ok(found),
            None => Err(damaged("it does not say its format".to_owned())),
        }
    }

    /// Brings a store of format 1 to this format: counts its join infos, whose inviters are not known.
    fn convert(&self, place: &Path) -> Result<(), OpenError> {
        let damaged =
            |error: ReadError| OpenError::Damaged { path: place.to_owned(), what: error.to_string() };
        let infos = self.tables.of(Table::JoinInfos).iter().map(|guard| {
            let (key, value) = guard.into_inner()?;
            let (app, handle, _) = welcomes::read_join_info_key(&key)?;
            Ok((app, handle, rows::decode(Table::JoinInfos, &value)?))
        });
        let mut batch = self.database.batch().durability(Some(PersistMode::SyncAll));
        for (key, value) in welcome_shares::rows_for(infos).map_err(damaged)? {
            batch.insert(self.tables.of(Table::WelcomeShares), key, value);
        }
        batch.insert(
            self.tables.of(Table::Meta),
            meta::format_key().to_slice(),
            Slice::from(meta::FORMAT.to_be_bytes()),
        );
        batch.commit().map_err(|error| open_error(place, error))
    }

    fn number(&self, key: &Key) -> Result<Option<u64>, ReadError> {
        let value = self.tables.of(Table::Meta).get(key.as_bytes())?;
        value.map(|value| rows::number(Table::Meta, &value)).transpose()
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

/// Makes an empty store of this format and leaves it closed and synced.
fn create(path: &Path, cache_bytes: u64) -> Result<(), OpenError> {
    let (database, tables) = open_engine(path, cache_bytes)?;
    let mut batch = database.batch().durability(Some(PersistMode::SyncAll));
    batch.insert(
        tables.of(Table::Meta),
        meta::format_key().to_slice(),
        Slice::from(meta::FORMAT.to_be_bytes()),
    );
    batch.commit().map_err(|error| open_error(path, error))
}

fn open_engine(path: &Path, cache_bytes: u64) -> Result<(Database, Tables), OpenError> {
    let open = || {
        let database = Database::builder(path)
            .cache_size(cache_bytes)
            .max_journaling_size(JOURNAL_BYTES_MAX)
            // Packets are mostly keys and ciphertext, which do not shrink, and this runs in the committer.
            .journal_compression(CompressionType::None)
            .open()?;
        let tables = Tables::open(&database)?;
        Ok((database, tables))
    };
    // The engine asserts some of what it finds on disk.
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
    use crate::store::{Store, StoreOptions};

    const CACHE_BYTES: u64 = 1 << 20;

    #[test]
    fn a_temporary_store_leaves_nothing() {
        let disk = Disk::open(&Location::Temporary, CACHE_BYTES).unwrap();
        let place = disk._temporary.as_ref().unwrap().path().to_owned();
        assert!(place.join("store").is_dir());
        drop(disk);
        assert!(!place.exists());
    }

    #[test]
    fn one_at_a_time_has_a_directory() {
        let directory = tempfile::tempdir().unwrap();
        let location = Location::Directory(directory.path().to_owned());
        let first = Disk::open(&location, CACHE_BYTES).unwrap();
        match Disk::open(&location, CACHE_BYTES) {
            Err(OpenError::InUse { path }) => assert_eq!(path, directory.path()),
            other => panic!("{:?}", other.err()),
        }
        drop(first);
        assert!(Disk::open(&location, CACHE_BYTES).is_ok());
    }

    #[test]
    fn a_format_is_refused_when_it_is_newer_or_missing() {
        let directory = tempfile::tempdir().unwrap();
        let location = Location::Directory(directory.path().to_owned());
        let check = |value: Option<&[u8]>, accepted: fn(Result<(), OpenError>) -> bool| {
            let disk = Disk::open(&location, CACHE_BYTES).unwrap();
            let key = meta::format_key().to_slice();
            match value {
                Some(value) => disk.tables.of(Table::Meta).insert(key, value).unwrap(),
                None => disk.tables.of(Table::Meta).remove(key).unwrap(),
            }
            drop(disk);
            assert!(accepted(Disk::open(&location, CACHE_BYTES).map(|_| ())), "{value:?}");
            // As it was, for the next check.
            let (database, tables) = open_engine(&directory.path().join("store"), CACHE_BYTES).unwrap();
            let format = Slice::from(meta::FORMAT.to_be_bytes());
            tables.of(Table::Meta).insert(meta::format_key().to_slice(), format).unwrap();
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

    /// A join info as format 1 has it.
    #[derive(serde::Serialize)]
    struct OldJoinInfo {
        group: crate::GroupId,
        epoch: crate::Epoch,
        timestamp: crate::Timestamp,
    }

    #[test]
    fn join_infos_of_the_first_format_count_as_those_of_an_unknown_inviter() {
        let directory = tempfile::tempdir().unwrap();
        let location = Location::Directory(directory.path().to_owned());
        let options = StoreOptions { location: location.clone(), ..StoreOptions::default() };
        let app = crate::AppId::new(uuid::Uuid::from_u128(0x4000_8000_0000_0000_0001));
        let alice = crate::ClientHandle::new("alice").unwrap();
        let group = crate::GroupId::new([7; 4]).unwrap();
        let disk = Disk::open(&location, CACHE_BYTES).unwrap();
        for (id, name) in [(1, "alice"), (2, "alice"), (3, "bob")] {
            let handle = crate::ClientHandle::new(name).unwrap();
            let (epoch, timestamp) = (crate::Epoch(id), crate::Timestamp(1));
            let row = rows::encode(&OldJoinInfo { group: group.clone(), epoch, timestamp }).unwrap();
            let key = Key::of_app(app).handle(&handle).u64(id);
            disk.tables.of(Table::JoinInfos).insert(key.to_slice(), row).unwrap();
        }
        let next = Slice::from(4_u64.to_be_bytes());
        disk.tables.of(Table::Meta).insert(meta::next_delivery_key().to_slice(), next).unwrap();
        let first = Slice::from(1_u64.to_be_bytes());
        disk.tables.of(Table::Meta).insert(meta::format_key().to_slice(), first).unwrap();
        drop(disk);

        let invite = |store: &Store, domain: Option<&str>| {
            let limits = crate::WelcomeLimits {
                per_client_max: 2,
                per_inviter_max: 2,
                reserved_max: 0,
                elsewhere_window: std::time::Duration::ZERO,
            };
            let by = crate::Inviter { share: crate::ShareId::new([1; 16]), reserve: None };
            let domain = domain.map(|name| crate::DomainName::new(name).unwrap());
            let clients = [crate::InvitedClient { handle: alice.clone(), domain }];
            let row = crate::WelcomeRow {
                welcome: crate::Bytes::new(),
                ratchet_tree: crate::Bytes::new(),
                timestamp: crate::Timestamp(2),
            };
            let mut batch = crate::Batch::new();
            let invitation = crate::Invitation::Accepted { by, limits };
            batch.put_welcome(app, &group, crate::Epoch(9), &row, &clients, invitation);
            store.append_blocking(batch).is_ok()
        };
        for _ in 0..2 {
            // It is counted once, however often it is opened.
            let store = Store::open(&options).unwrap();
            // They do not say of which domain their client is, and count in each.
            assert!(!invite(&store, None) && !invite(&store, Some("a.example")));
            assert_eq!(store.view().join_infos(app, &alice, None, 9).unwrap().len(), 2);
        }
        let store = Store::open(&options).unwrap();
        let mut batch = crate::Batch::new();
        batch.acknowledge(app, &alice, DeliveryId(1));
        store.append_blocking(batch).unwrap();
        assert!(invite(&store, Some("a.example")));
        assert!(!invite(&store, Some("a.example")));
        assert!(invite(&store, None));
        assert!(!invite(&store, None));
    }

    #[test]
    fn a_first_start_that_was_cut_short_is_begun_again() {
        let directory = tempfile::tempdir().unwrap();
        let beside = directory.path().join("store.new");
        std::fs::create_dir(&beside).unwrap();
        std::fs::write(beside.join("0.jnl"), "half a journal").unwrap();
        let location = Location::Directory(directory.path().to_owned());
        assert!(Store::open(&StoreOptions { location, ..StoreOptions::default() }).is_ok());
        assert!(!beside.exists());
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_an_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let opened = Disk::open(&Location::Directory(file.path().join("data")), CACHE_BYTES);
        assert!(matches!(opened.err(), Some(OpenError::Io { .. })));
    }
}
