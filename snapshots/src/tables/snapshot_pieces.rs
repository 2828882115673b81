//! Snapshots too large for one batch: written in pieces, one batch each, and valid once the last batch has recorded all
//! of them.
//!
//! | table | key | value |
//! |---|---|---|
//! | `snapshot_pieces` | as in `log_heads`, the snapshot's id, number from 0 | that part of the snapshot |
//!
//! The log's head lists the pieces, so there is no search for them: those of the valid snapshot, and those of an unfinished
//! one, which the next snapshot or the deletion of the log deletes.

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    actor_snapshots::count_snapshot,
    groups::GroupRow,
    records::{Head, LogId, log_key, put_head, require_head},
    table,
};
use crate::{
    engine::{Batch, Key, Overlay, Rows, Slice, View},
    errors::{AppendError, ReadError, Refusal, Unmet},
    store::Store,
};

/// The longest piece, in bytes: other writes wait behind one.
const PIECE_BYTES_MAX: usize = 4 << 20;

/// The pieces of one snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pieces {
    /// The id of the snapshot.
    id: Uuid,
    /// Their number.
    count: u64,
    /// Their total size, in bytes.
    bytes: u64,
}

fn piece_key(log: &LogId, id: &Uuid, number: u64) -> Key {
    log_key(log).uuid(id).u64(number)
}

/// Deletes pieces, if there are any. Their keys are known, so nothing is read.
pub(crate) fn delete_pieces(overlay: &mut Overlay<'_>, log: &LogId, pieces: Option<Pieces>) {
    let Some(Pieces { id, count, .. }) = pieces else { return };
    for number in 0..count {
        overlay.delete(table::SNAPSHOT_PIECES, &piece_key(log, &id, number));
    }
}

impl Store {
    /// Writes an actor's snapshot of any size, as [`Batch::put_snapshot`]: in pieces if it is too large for one batch. Until
    /// all of them are written, the older snapshot and the records after it are valid. `of` is the row of the group whose state
    /// it is: a log can be replaced by that of another group.
    ///
    /// # Errors
    /// As [`Store::append`], but for the size. [`Unmet::SnapshotOvertaken`] when another snapshot of the log was begun
    /// meanwhile, [`Unmet::GroupReplaced`] when the group of the log is another one.
    pub async fn append_snapshot(
        &self,
        log: &LogId,
        of: Option<&GroupRow>,
        at: u64,
        bytes: &[u8],
    ) -> Result<(), AppendError> {
        let begin = || {
            let mut batch = Batch::new();
            if let (LogId::Group(app, group), Some(row)) = (log, of) {
                batch.require_group(*app, group, row);
            }
            batch
        };
        let mut whole = begin();
        whole.put_snapshot(log, at, bytes);
        if whole.bytes() <= self.batch_bytes_max() {
            return self.append(whole).await.map(drop);
        }
        let mut pieces = Pieces { id: crate::away::random_uuid(), count: 0, bytes: 0 };
        let piece_bytes = PIECE_BYTES_MAX.min(self.batch_bytes_max() / 2).max(1);
        for piece in bytes.chunks(piece_bytes) {
            let mut batch = begin();
            pieces = batch.put_piece(log, at, pieces, piece);
            self.append(batch).await?;
        }
        let mut batch = begin();
        batch.put_snapshot_of_pieces(log, at, pieces);
        self.append(batch).await.map(drop)
    }
}

impl Batch {
    /// Writes the piece after `before`, and returns the pieces with it. Preconditions: the log's last record is `at` or later,
    /// else [`Unmet::LogMoved`], and the pieces before exist, else [`Unmet::SnapshotOvertaken`].
    fn put_piece(&mut self, log: &LogId, at: u64, before: Pieces, piece: &[u8]) -> Pieces {
        let with_it = Pieces {
            count: before.count.saturating_add(1),
            bytes: before.bytes.saturating_add(u64::try_from(piece.len()).unwrap_or(u64::MAX)),
            ..before
        };
        let key = self.key(piece_key(log, &before.id, before.count));
        let value = self.raw(piece);
        let (log, written) = (log.clone(), with_it.clone());
        self.operation(move |overlay| {
            let mut head = require_snapshot_wanted(overlay, &log, at)?;
            if before.count == 0 {
                delete_pieces(overlay, &log, head.unfinished.take());
            } else if head.unfinished.as_ref() != Some(&before) {
                return Err(Unmet::SnapshotOvertaken.into());
            }
            head.unfinished = Some(written);
            put_head(overlay, &log_key(&log), &head)?;
            overlay.put(table::SNAPSHOT_PIECES, &key, value);
            Ok(())
        });
        with_it
    }

    /// Makes the pieces the snapshot at `at`. Preconditions as for [`Batch::put_piece`].
    fn put_snapshot_of_pieces(&mut self, log: &LogId, at: u64, pieces: Pieces) {
        let log = log.clone();
        self.key(log_key(&log));
        self.operation(move |overlay| {
            let mut head = require_snapshot_wanted(overlay, &log, at)?;
            if head.unfinished.as_ref() != Some(&pieces) {
                return Err(Unmet::SnapshotOvertaken.into());
            }
            head.unfinished = None;
            count_snapshot(overlay, &log, &mut head, at, Some(pieces));
            overlay.delete(table::ACTOR_SNAPSHOTS, &log_key(&log));
            put_head(overlay, &log_key(&log), &head)
        });
    }
}

/// The head of a log that has reached `at` and has no later snapshot.
fn require_snapshot_wanted(overlay: &Overlay<'_>, log: &LogId, at: u64) -> Result<Head, Refusal> {
    let head = require_head(overlay, &log_key(log))?;
    if at > head.head {
        return Err(Unmet::LogMoved { at: Some(head.head) }.into());
    }
    if head.snapshot.is_some_and(|later| later > at) {
        return Err(Unmet::SnapshotOvertaken.into());
    }
    Ok(head)
}

impl View {
    /// The snapshot in these pieces.
    pub(crate) fn snapshot_of(&self, log: &LogId, pieces: &Pieces) -> Result<Bytes, ReadError> {
        let damaged = || ReadError::damaged(format!("the log {log:?} lacks a piece of its snapshot"));
        let mut snapshot = BytesMut::new();
        for number in 0..pieces.count {
            let piece: Option<Slice> =
                self.value(table::SNAPSHOT_PIECES, &piece_key(log, &pieces.id, number))?;
            snapshot.extend_from_slice(&piece.ok_or_else(damaged)?);
        }
        if u64::try_from(snapshot.len()) == Ok(pieces.bytes) { Ok(snapshot.freeze()) } else { Err(damaged()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        engine::KeyRange,
        ids::{AppId, GroupId},
        options::{Location, StoreOptions},
    };

    const BATCH_BYTES_MAX: usize = 1000;

    fn log() -> LogId {
        LogId::Group(AppId::new(Uuid::from_u128(0x4000_8000_0000_0000_0001)), GroupId::new([7; 5]).unwrap())
    }

    fn store(location: Location) -> Store {
        Store::open(&StoreOptions { location, batch_bytes_max: BATCH_BYTES_MAX, ..StoreOptions::default() })
            .unwrap()
    }

    /// A store with a log of five records.
    fn store_with_log() -> Store {
        let store = store(Location::Temporary);
        let mut batch = Batch::new();
        batch.create_log(&log());
        for after in 0..5 {
            batch.append_record(&log(), after, [1]);
        }
        store.append_blocking(batch).unwrap();
        store
    }

    fn state(length: usize) -> Vec<u8> {
        (0..length).map(|place| u8::try_from(place % 251).unwrap()).collect()
    }

    /// The snapshot that counts, and how many pieces are stored.
    fn found(store: &Store) -> (Option<(u64, Vec<u8>)>, usize) {
        let view = store.view();
        let log = view.load_log(&log()).unwrap().unwrap();
        let pieces = view.scan_keys(table::SNAPSHOT_PIECES, KeyRange::all()).count();
        (log.snapshot.map(|(at, bytes)| (at, bytes.to_vec())), pieces)
    }

    /// Writes all pieces but does not let them count, as a gateway does that ends in between.
    fn write_pieces(store: &Store, at: u64, bytes: &[u8]) -> Pieces {
        let mut pieces = Pieces { id: Uuid::new_v4(), count: 0, bytes: 0 };
        for piece in bytes.chunks(BATCH_BYTES_MAX / 2) {
            let mut batch = Batch::new();
            pieces = batch.put_piece(&log(), at, pieces, piece);
            store.append_blocking(batch).unwrap();
        }
        pieces
    }

    #[tokio::test]
    async fn a_snapshot_of_any_size_is_written_and_replaces_the_one_before() {
        let store = store_with_log();
        for (at, length, pieces) in
            [(1, 10, 0), (1, 2300, 5), (3, 5000, 10), (3, 5001, 11), (4, 900, 0), (5, 100_000, 200)]
        {
            store.append_snapshot(&log(), None, at, &state(length)).await.unwrap();
            assert_eq!(found(&store), (Some((at, state(length))), pieces), "{length} bytes at {at}");
            let log = store.view().load_log(&log()).unwrap().unwrap();
            assert_eq!(log.records.len() as u64, 5 - at);
        }
        let older = store.append_snapshot(&log(), None, 4, &state(5000)).await;
        assert_eq!(older, Err(AppendError::Precondition(Unmet::SnapshotOvertaken)));
        assert_eq!(found(&store), (Some((5, state(100_000))), 200));
        let late = store.append_snapshot(&log(), None, 6, &state(5000)).await;
        assert_eq!(late, Err(AppendError::Precondition(Unmet::LogMoved { at: Some(5) })));
        let mut batch = Batch::new();
        batch.delete_log(&log());
        store.append_blocking(batch).unwrap();
        assert_eq!(store.view().scan_keys(table::SNAPSHOT_PIECES, KeyRange::all()).count(), 0);
    }

    #[test]
    fn pieces_of_a_snapshot_that_was_not_finished_do_not_count_and_do_not_stay() {
        let directory = tempfile::tempdir().unwrap();
        let location = Location::Directory(directory.path().to_owned());
        type Next = fn(&mut Batch);
        let next: [(Next, usize); 4] = [
            (|batch| _ = batch.put_snapshot(&log(), 2, state(20)), 0),
            (|batch| _ = batch.put_piece(&log(), 2, Pieces { id: Uuid::nil(), count: 0, bytes: 0 }, &[1]), 1),
            (|batch| _ = batch.delete_log(&log()), 0),
            (|batch| _ = batch.start_log_at(&log(), Some(2), 7).put_snapshot(&log(), 7, "x"), 0),
        ];
        for (next, left) in next {
            let opened = store(location.clone());
            let mut batch = Batch::new();
            batch.delete_log(&log()).create_log(&log()).put_snapshot(&log(), 0, "zero");
            batch.append_record(&log(), 0, [1]).append_record(&log(), 1, [1]);
            opened.append_blocking(batch).unwrap();
            write_pieces(&opened, 2, &state(3000));
            opened.close();
            drop(opened);
            let reopened = store(location.clone());
            assert_eq!(found(&reopened), (Some((0, b"zero".to_vec())), 6));
            let mut batch = Batch::new();
            next(&mut batch);
            reopened.append_blocking(batch).unwrap();
            let pieces = reopened.view().scan_keys(table::SNAPSHOT_PIECES, KeyRange::all()).count();
            assert_eq!(pieces, left);
        }
    }

    #[test]
    fn two_snapshots_at_once_do_not_mix() {
        let store = store_with_log();
        let first = write_pieces(&store, 4, &state(3000));
        let second = write_pieces(&store, 4, &state(2000));
        let mut batch = Batch::new();
        batch.put_snapshot_of_pieces(&log(), 4, first.clone());
        let overtaken = AppendError::Precondition(Unmet::SnapshotOvertaken);
        assert_eq!(store.append_blocking(batch), Err(overtaken.clone()));
        let mut batch = Batch::new();
        batch.put_piece(&log(), 4, first, &[1]);
        assert_eq!(store.append_blocking(batch), Err(overtaken));
        let mut batch = Batch::new();
        batch.put_snapshot_of_pieces(&log(), 4, second);
        store.append_blocking(batch).unwrap();
        assert_eq!(found(&store), (Some((4, state(2000))), 4));
    }

    #[test]
    fn a_piece_that_is_missing_or_too_short_is_damage() {
        for damage in [
            (|overlay, key| overlay.delete(table::SNAPSHOT_PIECES, key)) as fn(&mut Overlay<'_>, &Key),
            |overlay, key| overlay.put(table::SNAPSHOT_PIECES, key, Slice::from([1])),
        ] {
            let store = store_with_log();
            let pieces = write_pieces(&store, 4, &state(3000));
            let mut batch = Batch::new();
            batch.put_snapshot_of_pieces(&log(), 4, pieces.clone());
            batch.operation(move |overlay| {
                damage(overlay, &piece_key(&log(), &pieces.id, 3));
                Ok(())
            });
            store.append_blocking(batch).unwrap();
            assert!(matches!(store.view().load_log(&log()), Err(ReadError::Damaged { .. })));
        }
    }
}
