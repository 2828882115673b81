//! Logs: the records of each group and each key queue, numbered from 1 without a gap.
//!
//! | table | key | value |
//! |---|---|---|
//! | `log_heads` | kind, application, id | [`Head`] |
//! | `records` | kind, application, id, sequence number | the record of a key queue |
//!
//! A snapshot at *n* replaces the records up to *n*. Those of a key queue are deleted with it; see `actor_snapshots.rs`. Those of a
//! group are its accepted entries, which are kept longer and have a table of their own; see `log_entries.rs`. Up to format 4, the
//! records of groups were in `records`; those that no snapshot has replaced since are read there.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{
    log_entries::{delete_entries_after, entries_of},
    snapshot_pieces::{Pieces, delete_pieces},
    table,
};
use crate::{
    engine::{Batch, Key, KeyRange, KeyReader, Overlay, Rows, Slice, Table, View, rows},
    errors::{ReadError, Refusal, Unmet},
    ids::{AppId, GroupId, KeyQueueId},
};

const GROUP: u8 = 1;
const KEY_QUEUE: u8 = 2;

/// The owner of a log.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LogId {
    /// A group's: its accepted entries.
    Group(AppId, GroupId),
    /// A key queue's: its uploads, assignments and advances.
    KeyQueue(AppId, KeyQueueId),
}

/// A log as its actor loads it. The state is the snapshot with the records applied to it in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadedLog {
    /// The newest snapshot, and the sequence number of the last record in it.
    pub snapshot: Option<(u64, Bytes)>,
    /// The records after the snapshot, each with its sequence number, without a gap.
    pub records: Vec<(u64, Bytes)>,
    /// The sequence number of the last record; 0 before the first.
    pub head: u64,
}

/// The position of a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Head {
    /// The sequence number of the last record.
    pub(crate) head: u64,
    /// The sequence number of the first record that `records` still has, or of the next when it has none.
    pub(crate) first: u64,
    /// The sequence number of the last record in the snapshot.
    pub(crate) snapshot: Option<u64>,
    /// The pieces of the snapshot; `None` if it is one row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pieces: Option<Pieces>,
    /// The pieces of a snapshot that is not complete yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) unfinished: Option<Pieces>,
    /// The sequence number of a group's last entry that was stored without its welcome.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) partial: Option<u64>,
}

impl Head {
    /// The head of a log whose last record has this number and which stores neither records nor a snapshot.
    fn starting_at(head: u64) -> Self {
        Self {
            head,
            first: head.saturating_add(1),
            snapshot: None,
            pieces: None,
            unfinished: None,
            partial: None,
        }
    }
}

/// The prefix of a log's keys in all tables of this file; in `log_heads` and `actor_snapshots`, the whole key.
pub(crate) fn log_key(log: &LogId) -> Key {
    match log {
        LogId::Group(app, group) => Key::new().byte(GROUP).uuid(app.as_uuid()).group(group),
        LogId::KeyQueue(app, queue) => Key::new().byte(KEY_QUEUE).uuid(app.as_uuid()).uuid(queue.as_uuid()),
    }
}

pub(super) fn read_log_key(key: &[u8]) -> Result<LogId, ReadError> {
    let mut reader = KeyReader::new(key, "log_heads");
    let log = match reader.byte()? {
        GROUP => LogId::Group(reader.app()?, reader.group()?),
        KEY_QUEUE => LogId::KeyQueue(reader.app()?, KeyQueueId::new(reader.uuid()?)),
        _ => return Err(reader.damaged()),
    };
    reader.end()?;
    Ok(log)
}

fn record_key(log: &LogId, sequence: u64) -> Key {
    log_key(log).u64(sequence)
}

/// The table of a log's records, and the prefix of their keys.
fn records_of(log: &LogId) -> (Table, Key) {
    match log {
        LogId::Group(app, group) => (table::LOG_ENTRIES, entries_of(*app, group)),
        LogId::KeyQueue(..) => (table::RECORDS, log_key(log)),
    }
}

impl Batch {
    /// Begins a log, at 0. Precondition: it does not exist, else [`Unmet::LogExists`].
    pub fn create_log(&mut self, log: &LogId) -> &mut Self {
        let key = self.key(log_key(log));
        self.operation(move |overlay| create_log(overlay, &key))
    }

    /// Writes the record after `after`. Precondition: the log's last record is `after`, else [`Unmet::LogMoved`], so only one
    /// of several concurrent appends wins.
    pub fn append_record(&mut self, log: &LogId, after: u64, bytes: impl AsRef<[u8]>) -> &mut Self {
        let key = self.key(log_key(log));
        let (table, records) = records_of(log);
        let value = self.raw(bytes.as_ref());
        self.operation(move |overlay| {
            let mut head = require_head(overlay, &key)?;
            let moved = Unmet::LogMoved { at: Some(head.head) };
            let next = after.checked_add(1).filter(|_| head.head == after).ok_or(moved)?;
            if head.first == next && table != table::RECORDS {
                head.first = next.saturating_add(1);
            }
            head.head = next;
            put_head(overlay, &key, &head)?;
            overlay.put(table, &records.u64(next), value);
            Ok(())
        })
    }

    /// Notes that the newest record of a group's log is an entry without its welcome, so that peers are not sent the log up to
    /// there.
    pub fn note_partial_entry(&mut self, app: AppId, group: &GroupId) -> &mut Self {
        let key = log_key(&LogId::Group(app, group.clone()));
        self.operation(move |overlay| {
            let head = require_head(overlay, &key)?;
            put_head(overlay, &key, &Head { partial: Some(head.head), ..head })
        })
    }

    /// Begins a log in the middle: its last record is `head`, and a snapshot at `head` must follow in the batch. An existing
    /// log is replaced; a group keeps its entries up to `head`, which are its history. Precondition: its last record is `instead_of`, or for `None` there is no log, else [`Unmet::LogMoved`]
    /// or [`Unmet::LogExists`].
    pub fn start_log_at(&mut self, log: &LogId, instead_of: Option<u64>, head: u64) -> &mut Self {
        let log = log.clone();
        let key = self.key(log_key(&log));
        self.operation(move |overlay| {
            match instead_of {
                Some(at) => {
                    let found = require_head(overlay, &key)?.head;
                    if found != at {
                        return Err(Unmet::LogMoved { at: Some(found) }.into());
                    }
                    delete_log_after(overlay, &log, Some(head))?;
                }
                None if overlay.holds(table::LOG_HEADS, &key)? => return Err(Unmet::LogExists.into()),
                None => {}
            }
            put_head(overlay, &key, &Head::starting_at(head))
        })
    }

    /// Precondition: the log's last record is `at`, else [`Unmet::LogMoved`].
    pub fn require_log_at(&mut self, log: &LogId, at: u64) -> &mut Self {
        let key = log_key(log);
        self.operation(move |overlay| {
            let head = require_head(overlay, &key)?.head;
            if head == at { Ok(()) } else { Err(Unmet::LogMoved { at: Some(head) }.into()) }
        })
    }

    /// Deletes a log with its records and its snapshot, if there is one.
    pub fn delete_log(&mut self, log: &LogId) -> &mut Self {
        let log = log.clone();
        self.operation(move |overlay| delete_log(overlay, &log))
    }
}

pub(crate) fn create_log(overlay: &mut Overlay<'_>, key: &Key) -> Result<(), Refusal> {
    if overlay.holds(table::LOG_HEADS, key)? {
        return Err(Unmet::LogExists.into());
    }
    put_head(overlay, key, &Head::starting_at(0))
}

pub(crate) fn delete_log(overlay: &mut Overlay<'_>, log: &LogId) -> Result<(), Refusal> {
    delete_log_after(overlay, log, None)
}

/// Deletes a log, but for the entries of a group up to `kept`.
fn delete_log_after(overlay: &mut Overlay<'_>, log: &LogId, kept: Option<u64>) -> Result<(), Refusal> {
    let key = log_key(log);
    let Some(head) = overlay.row::<Head>(table::LOG_HEADS, &key)? else { return Ok(()) };
    delete_records(overlay, log, head.first, head.head);
    if let LogId::Group(app, group) = log {
        delete_entries_after(overlay, *app, group, kept)?;
    }
    if head.snapshot.is_some() {
        overlay.delete(table::ACTOR_SNAPSHOTS, &key);
    }
    delete_pieces(overlay, log, head.pieces);
    delete_pieces(overlay, log, head.unfinished);
    overlay.delete(table::LOG_HEADS, &key);
    Ok(())
}

/// Deletes the rows of `records` from `first` to `last`. Their keys are known, so nothing is read.
pub(crate) fn delete_records(overlay: &mut Overlay<'_>, log: &LogId, first: u64, last: u64) {
    for sequence in first..=last {
        overlay.delete(table::RECORDS, &record_key(log, sequence));
    }
}

pub(crate) fn require_head(overlay: &Overlay<'_>, key: &Key) -> Result<Head, Refusal> {
    Ok(overlay.row(table::LOG_HEADS, key)?.ok_or(Unmet::LogMoved { at: None })?)
}

pub(crate) fn put_head(overlay: &mut Overlay<'_>, key: &Key, head: &Head) -> Result<(), Refusal> {
    let value = rows::encode(head).map_err(|error| ReadError::damaged(error.to_string()))?;
    overlay.put(table::LOG_HEADS, key, value);
    Ok(())
}

impl View {
    /// A log's snapshot and the records after it; `None` when there is no such log.
    ///
    /// # Errors
    /// [`ReadError::Damaged`] when a record or the snapshot is missing, [`ReadError::Storage`] when the disk fails.
    pub fn load_log(&self, log: &LogId) -> Result<Option<LoadedLog>, ReadError> {
        let head = self.row::<Head>(table::LOG_HEADS, &log_key(log))?;
        head.map(|head| self.log_at(log, &head)).transpose()
    }

    /// The log at this position.
    pub(crate) fn log_at(&self, log: &LogId, head: &Head) -> Result<LoadedLog, ReadError> {
        let snapshot = match head.snapshot {
            Some(at) => {
                let snapshot = match &head.pieces {
                    Some(pieces) => self.snapshot_of(log, pieces)?,
                    None => self.snapshot_at(log, at)?,
                };
                Some((at, snapshot))
            }
            None => None,
        };
        let records = self.records(log, head)?;
        Ok(LoadedLog { snapshot, records, head: head.head })
    }

    /// The sequence number of a log's last record, 0 before the first; `None` when there is no such log.
    ///
    /// # Errors
    /// [`ReadError`] when the disk fails or the row is damaged.
    pub fn log_head(&self, log: &LogId) -> Result<Option<u64>, ReadError> {
        Ok(self.row::<Head>(table::LOG_HEADS, &log_key(log))?.map(|head| head.head))
    }

    /// Up to `limit` logs in the order of their keys, after the one given.
    ///
    /// # Errors
    /// [`ReadError`] when the disk fails or a key is damaged.
    pub fn logs(&self, after: Option<&LogId>, limit: usize) -> Result<Vec<LogId>, ReadError> {
        let range = after.map_or_else(KeyRange::all, |log| KeyRange::after(log_key(log).as_bytes()));
        self.scan_keys(table::LOG_HEADS, range).take(limit).map(|key| read_log_key(&key?)).collect()
    }

    /// The records after the snapshot.
    fn records(&self, log: &LogId, head: &Head) -> Result<Vec<(u64, Bytes)>, ReadError> {
        let damaged = |what: String| ReadError::damaged(format!("the log {log:?} {what}"));
        let after = head.snapshot.unwrap_or(0);
        let mut records: Vec<(u64, Bytes)> = Vec::new();
        let mut last = after;
        let of_earlier_versions = (head.first <= head.head).then(|| (table::RECORDS, log_key(log)));
        let (table, prefix) = records_of(log);
        let others = (table != table::RECORDS).then_some((table, prefix));
        for (table, prefix) in of_earlier_versions.into_iter().chain(others) {
            let skipped = prefix.as_bytes().len();
            let range = prefix.clone().u64(last.saturating_add(1)).through(prefix.u64(head.head));
            for row in self.scan(table, range) {
                let (key, value): (Slice, Slice) = row?;
                let mut reader = KeyReader::new(key.get(skipped..).unwrap_or(&[]), table.name());
                let sequence = reader.u64()?;
                reader.end()?;
                if last.checked_add(1) != Some(sequence) {
                    return Err(damaged(format!("has no record {}", last.saturating_add(1))));
                }
                last = sequence;
                records.push((sequence, Bytes::copy_from_slice(&value)));
            }
        }
        if last == head.head {
            Ok(records)
        } else {
            Err(damaged(format!("stands at {} but its last record is {last}", head.head)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{options::StoreOptions, store::Store};

    const APP: AppId = AppId::new(uuid::Uuid::from_u128(0x4000_8000_0000_0000_0001));

    #[test]
    fn a_damaged_log_is_an_error_that_names_it() {
        let store = Store::open(&StoreOptions::default()).unwrap();
        let check = |number: u8, named: bool, damage: fn(&mut Overlay<'_>, &LogId)| {
            let log = LogId::Group(APP, GroupId::new([number; 4]).unwrap());
            let mut batch = Batch::new();
            batch.create_log(&log);
            for after in 0..5 {
                batch.append_record(&log, after, [1]);
            }
            let damaged = log.clone();
            batch.put_snapshot(&log, 2, [2]).operation(move |overlay| {
                damage(overlay, &damaged);
                Ok(())
            });
            store.append_blocking(batch).unwrap();
            match store.view().load_log(&log) {
                Err(ReadError::Damaged { what }) => {
                    assert_eq!(what.contains(&format!("{number:02x}").repeat(4)), named, "{what}");
                }
                other => panic!("{number}: {other:?}"),
            }
        };
        fn delete(overlay: &mut Overlay<'_>, log: &LogId, sequence: u64) {
            let (table, records) = records_of(log);
            overlay.delete(table, &records.u64(sequence));
        }
        check(0xa1, true, |overlay, log| delete(overlay, log, 3));
        check(0xa2, true, |overlay, log| delete(overlay, log, 4));
        check(0xa3, true, |overlay, log| delete(overlay, log, 5));
        check(0xa4, true, |overlay, log| overlay.delete(table::ACTOR_SNAPSHOTS, &log_key(log)));
        check(0xa5, false, |overlay, log| {
            overlay.put(table::ACTOR_SNAPSHOTS, &log_key(log), Slice::from([1]))
        });
        check(0xa6, false, |overlay, log| overlay.put(table::LOG_HEADS, &log_key(log), Slice::from([0xc1])));
    }

    /// Up to format 4, the records of groups were in the table of those of key queues.
    #[test]
    fn a_log_of_format_4_is_read_where_it_is_and_continues_as_entries() {
        let store = Store::open(&StoreOptions::default()).unwrap();
        let log = LogId::Group(APP, GroupId::new([7; 4]).unwrap());
        let mut batch = Batch::new();
        let old = log.clone();
        batch.operation(move |overlay| {
            let head = Head { first: 3, snapshot: Some(2), ..Head::starting_at(4) };
            put_head(overlay, &log_key(&old), &head)?;
            overlay.put(table::ACTOR_SNAPSHOTS, &log_key(&old), Slice::from([0, 0, 0, 0, 0, 0, 0, 2, 2]));
            for sequence in 3..=4_u8 {
                overlay.put(table::RECORDS, &record_key(&old, sequence.into()), Slice::from([sequence]));
                // As it was kept for peers.
                let (table, entries) = records_of(&old);
                overlay.put(table, &entries.u64(sequence.into()), Slice::from([sequence, sequence]));
            }
            Ok(())
        });
        store.append_blocking(batch).unwrap();
        let check = |snapshot: u64, records: &[(u64, &'static [u8])], old: usize| {
            let view = store.view();
            let found = view.load_log(&log).unwrap().unwrap();
            let records: Vec<_> =
                records.iter().map(|(at, bytes)| (*at, Bytes::from_static(bytes))).collect();
            assert_eq!((found.snapshot.unwrap().0, found.records), (snapshot, records));
            assert_eq!(view.scan_keys(table::RECORDS, KeyRange::all()).count(), old);
        };
        let write = |write: &dyn Fn(&mut Batch)| {
            let mut batch = Batch::new();
            write(&mut batch);
            store.append_blocking(batch).unwrap();
        };
        check(2, &[(3, &[3]), (4, &[4])], 2);
        write(&|batch| _ = batch.append_record(&log, 4, [5]).append_record(&log, 5, [6]));
        check(2, &[(3, &[3]), (4, &[4]), (5, &[5]), (6, &[6])], 2);
        write(&|batch| _ = batch.put_snapshot(&log, 5, [0]));
        check(5, &[(6, &[6])], 0);
        write(&|batch| _ = batch.append_record(&log, 6, [7]));
        check(5, &[(6, &[6]), (7, &[7])], 0);
        let head: Head = store.view().row(table::LOG_HEADS, &log_key(&log)).unwrap().unwrap();
        assert_eq!((head.head, head.first), (7, 8));
    }

    /// A head as it was before there were pieces.
    #[derive(Serialize)]
    struct OldHead {
        head: u64,
        first: u64,
        snapshot: Option<u64>,
    }

    #[test]
    fn a_head_without_pieces_is_written_and_read_as_before_there_were_any() {
        for snapshot in [None, Some(4)] {
            let head = Head { snapshot, ..Head::starting_at(9) };
            let old = rows::encode(&OldHead { head: 9, first: 10, snapshot }).unwrap();
            assert_eq!(rows::encode(&head).unwrap(), old);
            assert_eq!(rows::decode::<Head>(table::LOG_HEADS, &old), Ok(head));
        }
    }

    #[test]
    fn log_keys_are_taken_apart_again() {
        let logs = [
            LogId::Group(APP, GroupId::new([7; 3]).unwrap()),
            LogId::KeyQueue(APP, KeyQueueId::new(uuid::Uuid::from_u128(2))),
        ];
        for log in logs {
            let key = log_key(&log);
            assert_eq!(read_log_key(key.as_bytes()), Ok(log.clone()));
            assert!(read_log_key(record_key(&log, 1).as_bytes()).is_err());
            assert!(read_log_key(&key.as_bytes()[..10]).is_err());
        }
        assert!(read_log_key(&[]).is_err());
        assert!(read_log_key(&[9; 33]).is_err());
    }
}
