//! Fixtures: ids and rows by small numbers and names, and stores for them.

use std::collections::BTreeSet;
use std::path::Path;

use snapshots::{
    AppId, AppendError, Batch, Bytes, ClientHandle, ClientId, ClientRow, CommittedProposal, DomainName,
    EpochRow, GroupId, GroupRow, Invitation, InvitedClient, Inviter, KeyPackageRef, KeyQueueId, Location,
    LogId, QueueRow, ShareId, Store, StoreOptions, Timestamp, Unmet, WelcomeLimits, WelcomeRow,
};
use uuid::Uuid;

pub(crate) const APP: AppId = AppId::new(Uuid::from_u128(0x4000_8000_0000_0000_0001));
pub(crate) const OTHER_APP: AppId = AppId::new(Uuid::from_u128(0x4000_8000_0000_0000_0002));

pub(crate) fn temporary() -> Store {
    Store::open(&StoreOptions::default()).unwrap()
}

pub(crate) fn options(directory: &Path) -> StoreOptions {
    StoreOptions { location: Location::Directory(directory.to_owned()), ..StoreOptions::default() }
}

pub(crate) fn open(directory: &Path) -> Store {
    Store::open(&options(directory)).unwrap()
}

/// Appends what `build` puts into a batch.
pub(crate) fn append(store: &Store, build: impl FnOnce(&mut Batch)) -> Result<Vec<u64>, AppendError> {
    let mut batch = Batch::new();
    build(&mut batch);
    let appended = store.append_blocking(batch)?;
    Ok(appended.deliveries.into_iter().map(|id| id.0).collect())
}

/// Says that what `build` puts into a batch is refused for this reason, and that nothing changes.
#[track_caller]
pub(crate) fn check_refused(store: &Store, unmet: Unmet, build: impl FnOnce(&mut Batch)) {
    let before = rows(store);
    assert_eq!(append(store, build), Err(AppendError::Precondition(unmet)));
    assert_eq!(rows(store), before);
}

/// The tables that have rows, with how many; not the store's own.
pub(crate) fn rows(store: &Store) -> Vec<(&'static str, u64)> {
    let counts = store.view().row_counts().unwrap();
    counts.into_iter().filter(|(table, count)| *table != "meta" && *count > 0).collect()
}

pub(crate) fn group(number: u8) -> GroupId {
    GroupId::new([number; 4]).unwrap()
}

pub(crate) fn group_log(number: u8) -> LogId {
    LogId::Group(APP, group(number))
}

pub(crate) fn handle(name: &str) -> ClientHandle {
    ClientHandle::new(name).unwrap()
}

pub(crate) fn domain(name: &str) -> DomainName {
    DomainName::new(name).unwrap()
}

pub(crate) fn client(number: u128) -> ClientId {
    ClientId::new(Uuid::from_u128(number))
}

pub(crate) fn queue(number: u128) -> KeyQueueId {
    KeyQueueId::new(Uuid::from_u128(number))
}

pub(crate) fn reference(number: u8) -> KeyPackageRef {
    KeyPackageRef::new([number; 32]).unwrap()
}

pub(crate) fn client_row(number: u128, name: &str) -> ClientRow {
    ClientRow {
        client_id: client(number),
        handle: handle(name),
        domain: None,
        tags: BTreeSet::new(),
        handle_generation: 0,
        created_at: Timestamp(1),
    }
}

pub(crate) fn tagged(row: &ClientRow, tags: &[&str]) -> ClientRow {
    ClientRow { tags: tags.iter().map(|tag| (*tag).to_owned()).collect(), ..row.clone() }
}

pub(crate) fn queue_row(number: u128, of: u128, label: &str) -> QueueRow {
    QueueRow {
        queue_id: queue(number),
        client_id: client(of),
        protocol_version: 1,
        cipher_suite: 1,
        app_label: label.to_owned(),
    }
}

pub(crate) fn group_row(epoch: u64) -> GroupRow {
    GroupRow { epoch: snapshots::Epoch(epoch), created_at: Timestamp(1), creation_digest: [7; 32], hub: None }
}

pub(crate) fn epoch_row(timestamp: u64) -> EpochRow {
    EpochRow {
        timestamp: Timestamp(timestamp),
        commit: None,
        proposals: vec![CommittedProposal::Entry(1), CommittedProposal::Packet(Bytes::from_static(b"two"))],
        digest: [9; 32],
        sequence: 0,
        committer: None,
    }
}

pub(crate) fn welcome_row(timestamp: u64) -> WelcomeRow {
    WelcomeRow {
        welcome: Bytes::from_static(b"welcome"),
        ratchet_tree: Bytes::from(vec![2; 5000]),
        timestamp: Timestamp(timestamp),
        tree_bytes_to_store: 0,
    }
}

pub(crate) fn key_package_row(not_after: u64) -> snapshots::KeyPackageRow {
    snapshots::KeyPackageRow { is_final: false, not_after: Timestamp(not_after), signer: None }
}

pub(crate) fn used_row(not_after: u64) -> snapshots::UsedRow {
    snapshots::UsedRow { group: group(1), epoch: snapshots::Epoch(1), not_after: Timestamp(not_after) }
}

/// Clients without a domain.
pub(crate) fn invited(handles: &[ClientHandle]) -> Vec<InvitedClient> {
    handles.iter().map(|handle| InvitedClient { handle: handle.clone(), domain: None }).collect()
}

/// An invitation within any limit.
pub(crate) fn invitation() -> Invitation {
    let limits = WelcomeLimits {
        per_client_max: u64::MAX,
        per_inviter_max: u64::MAX,
        reserved_max: 0,
        elsewhere_window: std::time::Duration::MAX,
    };
    Invitation::Accepted { by: inviter(1), limits }
}

/// An inviter without a reserve.
pub(crate) fn inviter(number: u8) -> Inviter {
    Inviter { share: ShareId::new([number; 16]), reserve: None }
}
