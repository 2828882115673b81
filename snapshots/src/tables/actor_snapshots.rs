//! Snapshots of actors: one per log, which replaces the records up to it.
//!
//! | table | key | value |
//! |---|---|---|
//! | `actor_snapshots` | as in `log_heads` | the sequence number, then the snapshot's bytes |
//!
//! A snapshot that is too large for one batch is stored in pieces; see `snapshot_pieces.rs`.

use bytes::Bytes;

use super::{
    records::{Head, LogId, delete_records, log_key, put_head, require_head},
    snapshot_pieces::{Pieces, delete_pieces},
    table,
};
use crate::{
    engine::{Batch, KeyReader, Overlay, Rows, Slice, View},
    errors::{ReadError, Unmet},
};

/// The most records that one snapshot deletes. The next snapshots delete the rest; records that a snapshot replaces are never
/// read again.
const DELETED_MAX: u64 = 10_000;

impl Batch {
    /// Writes an actor's state after the record `at` (0: before the first) over its older snapshot, and deletes the records
    /// that it replaces. Precondition: the log exists and its last record is `at` or later, else [`Unmet::LogMoved`]. A
    /// snapshot older than the stored one is discarded.
    pub fn put_snapshot(&mut self, log: &LogId, at: u64, bytes: impl AsRef<[u8]>) -> &mut Self {
        let log = log.clone();
        let key = self.key(log_key(&log));
        let value = self.raw(&[&at.to_be_bytes(), bytes.as_ref()].concat());
        self.operation(move |overlay| {
            let mut head = require_head(overlay, &key)?;
            if at > head.head {
                return Err(Unmet::LogMoved { at: Some(head.head) }.into());
            }
            if head.snapshot.is_some_and(|older| older > at) {
                return Ok(());
            }
            let unfinished = head.unfinished.take();
            delete_pieces(overlay, &log, unfinished);
            count_snapshot(overlay, &log, &mut head, at, None);
            put_head(overlay, &key, &head)?;
            overlay.put(table::ACTOR_SNAPSHOTS, &key, value);
            Ok(())
        })
    }
}

/// Notes in a log's head the snapshot at `at`, and deletes what it replaces: the rows of `records`, and the pieces of the snapshot
/// before. The entries of groups stay.
pub(crate) fn count_snapshot(
    overlay: &mut Overlay<'_>,
    log: &LogId,
    head: &mut Head,
    at: u64,
    pieces: Option<Pieces>,
) {
    let last = at.min(head.first.saturating_add(DELETED_MAX - 1));
    delete_records(overlay, log, head.first, last);
    head.first = head.first.max(last.saturating_add(1));
    if last == at && matches!(log, LogId::Group(..)) {
        // The later ones are in `log_entries`: a version that wrote here took this snapshot's records from there.
        head.first = head.head.saturating_add(1);
    }
    head.snapshot = Some(at);
    delete_pieces(overlay, log, std::mem::replace(&mut head.pieces, pieces));
}

impl View {
    pub(crate) fn snapshot_at(&self, log: &LogId, at: u64) -> Result<Bytes, ReadError> {
        let damaged = |what: &str| ReadError::damaged(format!("the log {log:?} {what}"));
        let value: Slice = self
            .value(table::ACTOR_SNAPSHOTS, &log_key(log))?
            .ok_or_else(|| damaged("has no snapshot where it says so"))?;
        let mut reader = KeyReader::new(&value, "actor_snapshots");
        if reader.u64()? != at {
            return Err(damaged("has another snapshot than it says"));
        }
        Ok(Bytes::copy_from_slice(reader.last()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        engine::KeyRange,
        ids::{AppId, KeyQueueId},
        options::StoreOptions,
        store::Store,
    };

    #[test]
    fn a_snapshot_deletes_from_where_the_last_one_stopped() {
        let store = Store::open(&StoreOptions::default()).unwrap();
        let log = LogId::KeyQueue(
            AppId::new(uuid::Uuid::from_u128(0x4000_8000_0000_0000_0001)),
            KeyQueueId::new(uuid::Uuid::from_u128(2)),
        );
        let last = DELETED_MAX + 500;
        let mut batch = Batch::new();
        batch.create_log(&log);
        for after in 0..last {
            batch.append_record(&log, after, [1]);
        }
        store.append_blocking(batch).unwrap();
        let check = |at: u64, first: u64| {
            let mut batch = Batch::new();
            batch.put_snapshot(&log, at, "state");
            store.append_blocking(batch).unwrap();
            let view = store.view();
            let head: Head = view.row(table::LOG_HEADS, &log_key(&log)).unwrap().unwrap();
            assert_eq!((head.head, head.first, head.snapshot), (last, first, Some(at)));
            let stored = view.scan_keys(table::RECORDS, KeyRange::all()).count();
            assert_eq!(stored as u64, last + 1 - first);
            let loaded = view.load_log(&log).unwrap().unwrap();
            assert_eq!(loaded.records.len() as u64, last - at);
        };
        check(0, 1);
        check(3, 4);
        // More than one snapshot deletes: the next one takes the rest.
        check(last, DELETED_MAX + 4);
        check(last, last + 1);
    }
}
