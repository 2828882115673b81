//! The check of all rows: each can be read, and those that belong together agree.
//!
//! A row that is unique, such as that of a client's handle, of a queue's attributes or of a used key package, has its place in the key,
//! so there cannot be two of it; what is checked is that it names what there is, and is named by it.

use serde::de::DeserializeOwned;

use super::{
    assigned_key_packages::AssignedRow,
    audit,
    clients::{self, ClientRow},
    deleted_groups::{self, DeletedGroupRow},
    groups::{self, GroupRow},
    history::EpochRow,
    key_packages::{self, KeyPackageRow, UsedRow},
    key_queues::{self, QueueRow},
    missed::MissedEntries,
    records::{Head, LogId, log_key, read_log_key},
    reports::{self, ReportedEpoch},
    table,
    welcomes::{self, JoinInfoRow, WelcomeRow},
};
use crate::{
    engine::{Key, KeyRange, KeyReader, Recount, Rows as _, Slice, Table, View, rows},
    errors::ReadError,
    ids::{AppId, ClientId, Epoch, GroupId, KeyQueueId},
};

/// A check of one row: its key and its value.
type RowCheck = fn(&View, &[u8], &Slice) -> Result<Result<(), String>, ReadError>;

const CHECKS: &[(Table, RowCheck)] = &[
    (table::LOG_HEADS, check_log),
    (table::GROUPS, check_group),
    (table::MEMBERSHIPS, check_membership),
    (table::EPOCHS, check_epoch),
    (table::CLIENTS, check_client),
    (table::CLIENT_HANDLES, check_handle),
    (table::QUEUES, check_queue),
    (table::QUEUE_OWNERS, check_owner),
    (table::QUEUE_LABELS, check_label),
    (table::KEY_PACKAGES, check_holder),
    (table::QUEUE_KEY_PACKAGES, check_held),
    (table::USED_KEY_PACKAGES, check_used),
    (table::WELCOMES, check_welcome),
    (table::WELCOME_READERS, check_readers),
    (table::JOIN_INFOS, check_join_info),
    (table::MISSED_ENTRIES, |_, _, value| readable::<MissedEntries>(table::MISSED_ENTRIES, value)),
    (table::ASSIGNED_KEY_PACKAGES, check_assigned),
    (table::DELETED_GROUPS, check_deleted),
    (table::REPORTS, check_reported),
    (table::AUDIT, |_, key, value| audit::check(key, value)),
];

impl View {
    /// Checks all rows, and tells of each fault in a line of text. The states of groups and key queues are not looked into.
    ///
    /// # Errors
    /// [`ReadError::Storage`] when the disk fails.
    pub fn check_rows(&self, mut on_fault: impl FnMut(String)) -> Result<(), ReadError> {
        let mut recount = Recount::default();
        for table in self.tables() {
            let check = CHECKS.iter().find(|(checked, _)| *checked == table);
            for row in self.scan(table, KeyRange::all()) {
                // Each block of rows has a checksum: reading a row is a check of its own.
                let (key, value) = row?;
                recount.add(table, &key, &value);
                let Some((_, check)) = check else { continue };
                let outcome = match check(self, &key, &value) {
                    Err(ReadError::Damaged { what }) => Err(what),
                    outcome => outcome?,
                };
                if let Err(fault) = outcome {
                    on_fault(format!("{}: {fault}", table.name()));
                }
            }
        }
        for app in recount.differences(&self.all_usage()?) {
            on_fault(format!("meta: the usage of the application {app} is not that of its rows"));
        }
        Ok(())
    }
}

/// The outcome of a condition.
fn require(holds: bool, fault: impl FnOnce() -> String) -> Result<Result<(), String>, ReadError> {
    Ok(if holds { Ok(()) } else { Err(fault()) })
}

fn readable<T: DeserializeOwned>(table: Table, value: &[u8]) -> Result<Result<(), String>, ReadError> {
    rows::decode::<T>(table, value).map(|_| Ok(()))
}

fn check_log(view: &View, key: &[u8], value: &Slice) -> Result<Result<(), String>, ReadError> {
    let log = read_log_key(key)?;
    let head: Head = rows::decode(table::LOG_HEADS, value)?;
    let has_owner = match &log {
        LogId::Group(app, group) => view.group(*app, group)?.is_some(),
        LogId::KeyQueue(app, queue) => view.owner(*app, *queue)?.is_some(),
    };
    if !has_owner {
        return Ok(Err(format!("{log:?} belongs to nothing")));
    }
    // It reads the snapshot, and refuses a gap between the records.
    let loaded = view.load_log(&log)?;
    require(loaded.is_some_and(|loaded| loaded.head == head.head), || format!("{log:?} has no records"))
}

fn check_group(view: &View, key: &[u8], value: &Slice) -> Result<Result<(), String>, ReadError> {
    let (app, group) = groups::read_group_key(key)?;
    let row: GroupRow = rows::decode(table::GROUPS, value)?;
    let has_log = view.holds(table::LOG_HEADS, &log_key(&LogId::Group(app, group.clone())))?;
    let newest = view.last_epoch(app, &group)?.unwrap_or(Epoch(0));
    require(has_log && newest <= row.epoch, || {
        format!("the group {group:?} has no log, or an epoch too many")
    })
}

fn check_membership(view: &View, key: &[u8], _: &Slice) -> Result<Result<(), String>, ReadError> {
    let (app, group) = groups::read_membership_key(key)?;
    let is_known = view.group(app, &group)?.is_some() || is_deleted(view, app, &group)?;
    require(is_known, || format!("a membership is of no group: {group:?}"))
}

fn check_epoch(view: &View, key: &[u8], value: &Slice) -> Result<Result<(), String>, ReadError> {
    let mut reader = KeyReader::new(key, "epochs");
    let (app, group) = (reader.app()?, reader.group()?);
    let row: EpochRow = rows::decode(table::EPOCHS, value)?;
    let head = view.log_head(&LogId::Group(app, group.clone()))?;
    let is_in_log = head.is_some_and(|head| row.sequence <= head);
    let has_messages = row.commit.is_some() || view.log_entry(app, &group, row.sequence)?.is_some();
    let is_good = is_in_log && has_messages || is_deleted(view, app, &group)?;
    require(is_good, || format!("an epoch of {group:?} has no commit in the log"))
}

/// Whether a group was deleted and what it leaves is still to be erased.
fn is_deleted(view: &View, app: AppId, group: &GroupId) -> Result<bool, ReadError> {
    Ok(view.deleted_group(app, group)?.is_some_and(|row| !row.is_erased))
}

/// Whether the row of a welcome is of a group that was deleted.
fn is_of_deleted(view: &View, key: &[u8]) -> Result<bool, ReadError> {
    let mut reader = KeyReader::new(key, "welcomes");
    let (app, group) = (reader.app()?, reader.group()?);
    is_deleted(view, app, &group)
}

fn check_deleted(view: &View, key: &[u8], value: &Slice) -> Result<Result<(), String>, ReadError> {
    let Some((app, group)) = deleted_groups::read_row_key(key)? else { return Ok(Ok(())) };
    let _: DeletedGroupRow = rows::decode(table::DELETED_GROUPS, value)?;
    require(view.group(app, &group)?.is_none(), || format!("the group {group:?} is deleted, and is there"))
}

fn check_reported(view: &View, key: &[u8], value: &Slice) -> Result<Result<(), String>, ReadError> {
    let Some((app, group, epoch)) = reports::read_epoch_key(key)? else { return Ok(Ok(())) };
    let row: ReportedEpoch = rows::decode(table::REPORTS, value)?;
    let is_kept = view.epoch(app, &group, epoch)?.is_some();
    let is_counted = row.reporters == reports::count_reports(view, app, &group, epoch)?;
    let is_good = is_kept && is_counted || is_deleted(view, app, &group)?;
    require(is_good, || {
        format!("epoch {epoch:?} of {group:?} is reported, and missing or reported otherwise")
    })
}

fn check_client(view: &View, key: &[u8], value: &Slice) -> Result<Result<(), String>, ReadError> {
    let mut reader = KeyReader::new(key, "clients");
    let (app, client) = (reader.app()?, ClientId::new(reader.uuid()?));
    let row: ClientRow = rows::decode(table::CLIENTS, value)?;
    let by_handle = view.client_by_handle(app, row.domain.as_ref(), &row.handle)?;
    let has_handle = by_handle.is_some_and(|found| found.client_id == client);
    let is_listed = clients::is_listed(view, app, &row)?;
    let is_its_own = row.client_id == client;
    require(has_handle && is_listed && is_its_own, || format!("{client} does not have its handle and tags"))
}

fn check_handle(view: &View, key: &[u8], value: &Slice) -> Result<Result<(), String>, ReadError> {
    let app = KeyReader::new(key, "client_handles").app()?;
    let client = ClientId::new(rows::uuid(table::CLIENT_HANDLES, value)?);
    let row = view.client(app, client)?;
    let is_its = row.is_some_and(|row| clients::handle_key(app, &row).as_bytes() == key);
    require(is_its, || format!("a handle is of {client}, which does not have it"))
}

fn check_queue(view: &View, key: &[u8], value: &Slice) -> Result<Result<(), String>, ReadError> {
    let mut reader = KeyReader::new(key, "queues");
    let app = reader.app()?;
    let row: QueueRow = rows::decode(table::QUEUES, value)?;
    let is_owned = view.owner(app, row.queue_id)? == Some(row.client_id);
    let has_label = view
        .value(table::QUEUE_LABELS, &key_queues::label_key_of(app, &row))?
        .is_some_and(|queue| &*queue == row.queue_id.as_uuid().as_bytes());
    let has_client = view.client(app, row.client_id)?.is_some();
    let has_log = view.holds(table::LOG_HEADS, &log_key(&LogId::KeyQueue(app, row.queue_id)))?;
    require(is_owned && has_label && has_client && has_log, || {
        format!("the queue {} lacks its client, its attributes or its log", row.queue_id)
    })
}

fn check_owner(view: &View, key: &[u8], _: &Slice) -> Result<Result<(), String>, ReadError> {
    let mut reader = KeyReader::new(key, "queue_owners");
    let (app, queue) = (reader.app()?, KeyQueueId::new(reader.uuid()?));
    require(view.queue_by_id(app, queue)?.is_some(), || format!("the queue {queue} is missing"))
}

fn check_label(view: &View, key: &[u8], value: &Slice) -> Result<Result<(), String>, ReadError> {
    let app = KeyReader::new(key, "queue_labels").app()?;
    let queue = KeyQueueId::new(rows::uuid(table::QUEUE_LABELS, value)?);
    let row = view.queue_by_id(app, queue)?;
    let is_its = row.is_some_and(|row| key_queues::label_key_of(app, &row).as_bytes() == key);
    require(is_its, || format!("attributes are those of {queue}, which does not have them"))
}

fn check_holder(view: &View, key: &[u8], value: &Slice) -> Result<Result<(), String>, ReadError> {
    let (app, reference, queue) = key_packages::read_holder_key(key)?;
    let row: KeyPackageRow = rows::decode(table::KEY_PACKAGES, value)?;
    let is_held = view.holds(table::QUEUE_KEY_PACKAGES, &key_packages::held_key(app, queue, &reference))?;
    if !is_held || view.owner(app, queue)?.is_none() {
        return Ok(Err(format!("{reference:?} is not in its queue {queue}")));
    }
    require(row.is_final || view.used(app, &reference)?.is_none(), || {
        format!("{reference:?} was used, and the queue {queue} still holds it")
    })
}

fn check_held(view: &View, key: &[u8], _: &Slice) -> Result<Result<(), String>, ReadError> {
    let (app, queue, reference) = key_packages::read_held_key(key)?;
    let is_held = view.holds(table::KEY_PACKAGES, &key_packages::holder_key(app, &reference, queue))?;
    require(is_held, || format!("the queue {queue} holds {reference:?}, which is not known"))
}

fn check_used(view: &View, key: &[u8], value: &Slice) -> Result<Result<(), String>, ReadError> {
    let app = KeyReader::new(key, "used_key_packages").app()?;
    let row: UsedRow = rows::decode(table::USED_KEY_PACKAGES, value)?;
    let group = view.group(app, &row.group)?;
    require(group.is_none_or(|group| row.epoch <= group.epoch), || {
        format!(
            "a key package was used in epoch {:?} of {:?}, which has not reached it",
            row.epoch, row.group
        )
    })
}

fn check_welcome(view: &View, key: &[u8], value: &Slice) -> Result<Result<(), String>, ReadError> {
    let _: WelcomeRow = rows::decode(table::WELCOMES, value)?;
    let is_read = view.holds(table::WELCOME_READERS, &Key::new().last(key))?;
    require(is_read || is_of_deleted(view, key)?, || "a welcome waits for nobody".to_owned())
}

fn check_readers(view: &View, key: &[u8], value: &Slice) -> Result<Result<(), String>, ReadError> {
    let readers = rows::number(table::WELCOME_READERS, value)?;
    let has_welcome = view.holds(table::WELCOMES, &Key::new().last(key))?;
    require(readers > 0 && has_welcome || is_of_deleted(view, key)?, || "a welcome is missing".to_owned())
}

fn check_join_info(view: &View, key: &[u8], value: &Slice) -> Result<Result<(), String>, ReadError> {
    let (app, handle, id) = welcomes::read_join_info_key(key)?;
    let row: JoinInfoRow = rows::decode(table::JOIN_INFOS, value)?;
    let has_welcome = view.welcome(app, &row.group, row.epoch)?.is_some();
    require(has_welcome || is_deleted(view, app, &row.group)?, || {
        format!("the welcome {} of {handle:?} is missing", id.0)
    })
}

fn check_assigned(_: &View, key: &[u8], value: &Slice) -> Result<Result<(), String>, ReadError> {
    let mut reader = KeyReader::new(key, "assigned_key_packages");
    let _: AppId = reader.app()?;
    match reader.byte()? {
        0 => readable::<AssignedRow>(table::ASSIGNED_KEY_PACKAGES, value),
        1 | 3 => Ok(Ok(())),
        _ => rows::number(table::ASSIGNED_KEY_PACKAGES, value).map(|_| Ok(())),
    }
}
