//! The format of the rows, conversion from older formats, and opening a store with these tables.

use super::{
    table::{self, JOIN_INFOS, WELCOME_SHARES},
    welcome_shares, welcomes,
};
use crate::{
    engine::{Overlay, Schema, Table, meta::META, rows},
    errors::{OpenError, ReadError},
    options::StoreOptions,
    store::Store,
};

static SCHEMA: Schema = Schema::new(table::ALL, Store::FORMAT, convert);

/// Converts rows of an older format. It counts what each application has; from format 1, also the join infos, whose inviters are
/// unknown.
fn convert(overlay: &mut Overlay<'_>, from: u64) -> Result<(), ReadError> {
    if from < 8 {
        overlay.count_anew()?;
    }
    if from > 1 {
        return Ok(());
    }
    let infos = overlay.on_disk(JOIN_INFOS).map(|row| {
        let (key, value) = row?;
        let (app, handle, _) = welcomes::read_join_info_key(&key)?;
        Ok((app, handle, rows::decode(JOIN_INFOS, &value)?))
    });
    for (key, value) in welcome_shares::rows_for(infos)? {
        overlay.put(WELCOME_SHARES, &key, value);
    }
    Ok(())
}

impl Store {
    /// The format of the rows that this program writes, and the newest that it reads. Format 2 counts join infos in
    /// `welcome_shares`; format 1 does not have that table. From format 3 on, a snapshot may be in pieces. In format 4, the
    /// records and snapshots of groups are those of the gateway's own tracking of groups. From format 5 on, the records of groups are
    /// their entries in `log_entries`, to which the rows of `epochs` point; rows of format 4 are read where they are. From format 6
    /// on, the ids of deleted groups are in `deleted_groups`. From format 7 on, memberships have the epoch in which they began, and
    /// there are `reports` and `audit`. From format 8 on, the usage of each application is counted. From format 9 on, claims of key
    /// packages are in `audit`; older formats have none, so there is nothing to convert.
    pub const FORMAT: u64 = 9;

    /// Opens a store, creating it if there is none. It blocks while the journal is replayed: up to some hundred MiB after a
    /// crash under load.
    ///
    /// # Errors
    /// [`OpenError::InUse`] when another process has it, [`OpenError::NewerFormat`], [`OpenError::Lost`] when acknowledged writes
    /// are missing, [`OpenError::Damaged`] when the files on disk are damaged, [`OpenError::Io`] when the file system fails.
    pub fn open(options: &StoreOptions) -> Result<Self, OpenError> {
        Self::open_with(options, &SCHEMA)
    }

    /// Opens a store on a simulated disk, which may have the rows of an earlier one. It has no threads: [`Store::begin_write`]
    /// writes what waits.
    ///
    /// # Errors
    /// [`ReadError`] when its newest batch cannot be read.
    #[cfg(feature = "simulation")]
    pub fn open_simulated(
        options: &StoreOptions,
        disk: &crate::engine::SimulatedDisk,
    ) -> Result<Self, ReadError> {
        Self::open_simulated_with(options, disk, &SCHEMA)
    }

    pub(crate) fn schema() -> &'static Schema {
        &SCHEMA
    }

    /// The names of all tables, the engine's own first.
    pub(crate) fn table_names() -> impl Iterator<Item = &'static str> {
        [META].into_iter().chain(SCHEMA.tables.iter().copied()).map(Table::name)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use serde::Serialize;

    use super::*;
    use crate::{
        engine::{
            Batch, Key, Slice,
            disk::{self, Changes, Disk},
            meta,
            start::OnLoss,
        },
        errors::AppendError,
        ids::{AppId, ClientHandle, DeliveryId, DomainName, Epoch, GroupId, Timestamp},
        options::{Durability, Location},
        tables::{
            welcome_shares::{InvitedClient, Inviter, ShareId, WelcomeLimits},
            welcomes::{Invitation, WelcomeRow},
        },
    };

    fn app() -> AppId {
        AppId::new(uuid::Uuid::from_u128(0x4000_8000_0000_0000_0001))
    }

    fn welcome_row() -> WelcomeRow {
        WelcomeRow {
            welcome: Bytes::new(),
            ratchet_tree: Bytes::new(),
            timestamp: Timestamp(2),
            tree_bytes_to_store: 0,
        }
    }

    /// A join info as format 1 has it.
    #[derive(Serialize)]
    struct OldJoinInfo {
        group: GroupId,
        epoch: Epoch,
        timestamp: Timestamp,
    }

    #[test]
    fn join_infos_of_the_first_format_count_as_those_of_an_unknown_inviter() {
        let directory = tempfile::tempdir().unwrap();
        let location = Location::Directory(directory.path().to_owned());
        let options = StoreOptions { location: location.clone(), ..StoreOptions::default() };
        let app = app();
        let alice = ClientHandle::new("alice").unwrap();
        let group = GroupId::new([7; 4]).unwrap();
        let mut changes = Changes::from([
            ((META, meta::format_key().to_slice()), Some(Slice::from(1_u64.to_be_bytes()))),
            // The next delivery id.
            ((META, Key::new().byte(1).to_slice()), Some(Slice::from(4_u64.to_be_bytes()))),
        ]);
        for (id, name) in [(1, "alice"), (2, "alice"), (3, "bob")] {
            let handle = ClientHandle::new(name).unwrap();
            let (epoch, timestamp) = (Epoch(id), Timestamp(1));
            let row = rows::encode(&OldJoinInfo { group: group.clone(), epoch, timestamp }).unwrap();
            changes.insert((JOIN_INFOS, Key::of_app(app).handle(&handle).u64(id).to_slice()), Some(row));
        }
        let disk = Disk::open(&location, 1 << 20, OnLoss::Refuse, &SCHEMA).unwrap();
        disk.write(changes, disk::persistence(&location, Durability::Sync)).unwrap();
        drop(disk);

        let invite = |store: &Store, domain: Option<&str>| {
            let limits = WelcomeLimits {
                per_client_max: 2,
                per_inviter_max: 2,
                reserved_max: 0,
                elsewhere_window: Duration::ZERO,
            };
            let by = Inviter { share: ShareId::new([1; 16]), reserve: None };
            let domain = domain.map(|name| DomainName::new(name).unwrap());
            let clients = [InvitedClient { handle: alice.clone(), domain }];
            let row = welcome_row();
            let mut batch = Batch::new();
            let invitation = Invitation::Accepted { by, limits };
            batch.put_welcome(app, &group, Epoch(9), &row, &clients, invitation);
            store.append_blocking(batch).is_ok()
        };
        for _ in 0..2 {
            // It is counted once, however often it is opened.
            let store = Store::open(&options).unwrap();
            // They do not name the domain of their client, so they count in each.
            assert!(!invite(&store, None) && !invite(&store, Some("a.example")));
            assert_eq!(store.view().join_infos(app, &alice, None, 9).unwrap().len(), 2);
        }
        let store = Store::open(&options).unwrap();
        let mut batch = Batch::new();
        batch.acknowledge(app, &alice, DeliveryId(1));
        store.append_blocking(batch).unwrap();
        assert!(invite(&store, Some("a.example")));
        assert!(!invite(&store, Some("a.example")));
        assert!(invite(&store, None));
        assert!(!invite(&store, None));
    }

    #[test]
    fn delivery_ids_end_without_a_panic() {
        let directory = tempfile::tempdir().unwrap();
        let location = Location::Directory(directory.path().to_owned());
        let options = StoreOptions { location: location.clone(), ..StoreOptions::default() };
        let disk = Disk::open(&location, 1 << 20, OnLoss::Refuse, &SCHEMA).unwrap();
        let last = ((META, Key::new().byte(1).to_slice()), Some(Slice::from(u64::MAX.to_be_bytes())));
        disk.write(Changes::from([last]), disk::persistence(&location, Durability::Sync)).unwrap();
        drop(disk);
        let store = Store::open(&options).unwrap();
        let mut batch = Batch::new();
        let group = GroupId::new([7; 4]).unwrap();
        let clients = [InvitedClient { handle: ClientHandle::new("alice").unwrap(), domain: None }];
        let row = welcome_row();
        batch.put_setting("with it", "value");
        batch.put_welcome(app(), &group, Epoch(1), &row, &clients, Invitation::AcceptedElsewhere);
        assert!(matches!(store.append_blocking(batch), Err(AppendError::Storage(_))));
        assert_eq!(store.view().setting("with it"), Ok(None));
        assert!(!store.is_failed());
    }
}
