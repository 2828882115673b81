//! Snapshots of actors: one per log, in place of the records up to it.
//!
//! | table | key | value |
//! |---|---|---|
//! | `actor_snapshots` | as in `log_heads` | the sequence number, then the snapshot's bytes |

use bytes::Bytes;
use fjall::Slice;

use crate::batch::Batch;
use crate::errors::{ReadError, Unmet};
use crate::keys::KeyReader;
use crate::records::{LogId, delete_records, log_key, put_head, require_head};
use crate::rows::Rows;
use crate::tables::Table;
use crate::view::View;

/// How many records one snapshot deletes. A log that grew longer without one loses the rest with its next snapshots;
/// records that a snapshot stands for are never read again.
const DELETED_MAX: u64 = 10_000;

impl Batch {
    /// Writes an actor's state after the record `at`, 0 for before the first, over its older snapshot, and deletes the
    /// records that it stands for. Preconditions: there is such a log and it stands at `at` or after, else
    /// [`Unmet::LogMoved`]. A snapshot that is older than the one that is there is let go.
    pub fn put_snapshot(&mut self, log: &LogId, at: u64, bytes: impl AsRef<[u8]>) -> &mut Self {
        let log = log.clone();
        let key = self.key(log_key(&log));
        let value = self.raw(&[&at.to_be_bytes(), bytes.as_ref()].concat());
        self.step(move |draft| {
            let mut head = require_head(draft, &key)?;
            if at > head.head {
                return Err(Unmet::LogMoved { at: Some(head.head) }.into());
            }
            if head.snapshot.is_some_and(|older| older > at) {
                return Ok(());
            }
            let last = at.min(head.first.saturating_add(DELETED_MAX - 1));
            delete_records(draft, &log, head.first, last);
            head.first = head.first.max(last.saturating_add(1));
            head.snapshot = Some(at);
            put_head(draft, &key, &head)?;
            draft.put(Table::ActorSnapshots, &key, value);
            Ok(())
        })
    }
}

impl View {
    pub(crate) fn snapshot_at(&self, log: &LogId, at: u64) -> Result<Bytes, ReadError> {
        let damaged = |what: &str| ReadError::damaged(format!("the log {log:?} {what}"));
        let value: Slice = self
            .value(Table::ActorSnapshots, &log_key(log))?
            .ok_or_else(|| damaged("has no snapshot where it says so"))?;
        let mut reader = KeyReader::new(&value, "actor_snapshots");
        if reader.u64()? != at {
            return Err(damaged("has another snapshot than it says"));
        }
        Ok(Bytes::copy_from_slice(reader.last()))
    }
}
