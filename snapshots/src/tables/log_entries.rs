//! Entries of groups' logs: each accepted proposal and commit is one row, from which a restart, the history, peers and event streams
//! are served (*Group Evolution*).
//!
//! | table | key | value |
//! |---|---|---|
//! | `log_entries` | application, group, sequence number | the entry, in the stored form of its owner |
//!
//! An entry is the record of its group's log, so it is written by [`Batch::append_record`]. It is kept as long as the epoch that it
//! led to, and until a snapshot includes it; see `retention.rs`. The creation, entry 0, is written for peers alone: the first
//! snapshot has all of it.

use bytes::Bytes;

use super::{
    records::{Head, LogId, log_key},
    table,
};
use crate::{
    engine::{Batch, Key, KeyReader, Overlay, Rows, Slice, View},
    errors::ReadError,
    ids::{AppId, GroupId},
};

/// The most entries that are deleted with a log. Others are out of reach until the next log of the group overwrites them.
const DELETED_MAX: usize = 20_000;

/// The prefix of the keys of a group's entries.
pub(crate) fn entries_of(app: AppId, group: &GroupId) -> Key {
    Key::of_app(app).group(group)
}

fn entry_key(app: AppId, group: &GroupId, sequence: u64) -> Key {
    entries_of(app, group).u64(sequence)
}

/// Deletes the entries of a group's log after number `kept`, or all.
pub(crate) fn delete_entries_after(
    overlay: &mut Overlay<'_>,
    app: AppId,
    group: &GroupId,
    kept: Option<u64>,
) -> Result<(), ReadError> {
    let entries = entries_of(app, group);
    let range = match kept {
        Some(kept) => entries.prefix_after(entry_key(app, group, kept)),
        None => entries.prefix(),
    };
    for key in overlay.keys(table::LOG_ENTRIES, range, DELETED_MAX)? {
        overlay.delete_at(table::LOG_ENTRIES, key);
    }
    Ok(())
}

impl Batch {
    /// Writes an entry of a group's log that is not a record: the creation, for the group's peers.
    pub fn put_log_entry(
        &mut self,
        app: AppId,
        group: &GroupId,
        sequence: u64,
        bytes: impl AsRef<[u8]>,
    ) -> &mut Self {
        let (key, value) = (self.key(entry_key(app, group, sequence)), self.raw(bytes.as_ref()));
        self.put(table::LOG_ENTRIES, key, value)
    }
}

impl View {
    /// One entry of a group's log, if it is kept.
    ///
    /// # Errors
    /// [`ReadError`] when the disk fails.
    pub fn log_entry(&self, app: AppId, group: &GroupId, sequence: u64) -> Result<Option<Bytes>, ReadError> {
        let value = self.value(table::LOG_ENTRIES, &entry_key(app, group, sequence))?;
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    /// Up to `limit` entries of a group's log from number `from`, in order, and at most `bytes_max` bytes of them, but at least
    /// the first. The list is empty when that entry is no longer kept.
    ///
    /// # Errors
    /// [`ReadError`] when the disk fails or a key is damaged.
    pub fn log_entries(
        &self,
        app: AppId,
        group: &GroupId,
        from: u64,
        limit: usize,
        bytes_max: usize,
    ) -> Result<Vec<(u64, Bytes)>, ReadError> {
        let skipped = entries_of(app, group).as_bytes().len();
        let range = entry_key(app, group, from).through(entry_key(app, group, u64::MAX));
        let mut entries = Vec::new();
        let mut bytes = 0_usize;
        for (expected, row) in (from..).zip(self.scan(table::LOG_ENTRIES, range).take(limit)) {
            let (key, value) = row?;
            let mut reader = KeyReader::new(key.get(skipped..).unwrap_or(&[]), "log_entries");
            bytes = bytes.saturating_add(value.len());
            if reader.u64()? != expected || (bytes > bytes_max && !entries.is_empty()) {
                break;
            }
            entries.push((expected, Bytes::copy_from_slice(&value)));
        }
        Ok(entries)
    }

    /// The number of the first entry of a group's log that peers can be sent, if it is kept: all entries from there on are stored
    /// with their welcomes.
    ///
    /// # Errors
    /// [`ReadError`] when the disk fails or the row is damaged.
    pub fn whole_entries_from(&self, app: AppId, group: &GroupId) -> Result<u64, ReadError> {
        let head = self.row::<Head>(table::LOG_HEADS, &log_key(&LogId::Group(app, group.clone())))?;
        Ok(head.and_then(|head| head.partial).map_or(0, |partial| partial.saturating_add(1)))
    }

    /// The first entry of a group's log, from number `from` to `last`, that peers can be sent.
    ///
    /// # Errors
    /// [`ReadError`] when the disk fails or a key is damaged.
    pub fn first_whole_entry(
        &self,
        app: AppId,
        group: &GroupId,
        from: u64,
        last: u64,
    ) -> Result<Option<u64>, ReadError> {
        let from = from.max(self.whole_entries_from(app, group)?);
        if from > last {
            return Ok(None);
        }
        let skipped = entries_of(app, group).as_bytes().len();
        let range = entry_key(app, group, from).through(entry_key(app, group, last));
        let number = |key: Result<Slice, ReadError>| {
            KeyReader::new(key?.get(skipped..).unwrap_or(&[]), "log_entries").u64()
        };
        self.scan_keys(table::LOG_ENTRIES, range).next().map(number).transpose()
    }

    /// The keys of the entries of a group's log from number `first` to `last`.
    pub(crate) fn log_entry_keys(
        &self,
        app: AppId,
        group: &GroupId,
        (first, last): (u64, u64),
    ) -> impl Iterator<Item = Result<Slice, ReadError>> {
        self.scan_keys(table::LOG_ENTRIES, entry_key(app, group, first).through(entry_key(app, group, last)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{options::StoreOptions, store::Store};

    const APP: AppId = AppId::new(uuid::Uuid::from_u128(0x4000_8000_0000_0000_0001));

    fn group(number: u8) -> GroupId {
        GroupId::new([number; 4]).unwrap()
    }

    #[test]
    fn peers_are_sent_nothing_up_to_an_entry_without_its_welcome() {
        let store = Store::open(&StoreOptions::default()).unwrap();
        let log = LogId::Group(APP, group(1));
        let append = |after: u64, is_partial: bool| {
            let mut batch = Batch::new();
            batch.append_record(&log, after, [1]);
            if is_partial {
                batch.note_partial_entry(APP, &group(1));
            }
            store.append_blocking(batch).unwrap();
            let view = store.view();
            let first = view.first_whole_entry(APP, &group(1), 0, 9).unwrap();
            (view.whole_entries_from(APP, &group(1)).unwrap(), first)
        };
        let mut batch = Batch::new();
        batch.create_log(&log).put_log_entry(APP, &group(1), 0, [1]);
        store.append_blocking(batch).unwrap();
        assert_eq!(append(0, false), (0, Some(0)));
        assert_eq!(append(1, true), (3, None));
        assert_eq!(append(2, false), (3, Some(3)));
        assert_eq!(append(3, true), (5, None));
        assert_eq!(store.view().log_entries(APP, &group(1), 1, 9, 99).unwrap().len(), 4);
    }

    #[test]
    fn entries_are_read_without_a_gap() {
        let store = Store::open(&StoreOptions::default()).unwrap();
        let mut batch = Batch::new();
        for sequence in [2, 3, 4, 7] {
            batch.put_log_entry(APP, &group(1), sequence, [0; 10]);
        }
        // Another group, whose id comes after.
        batch.put_log_entry(APP, &group(2), 5, [0; 10]);
        store.append_blocking(batch).unwrap();
        let check = |from: u64, limit: usize, bytes_max: usize, expected: &[u64]| {
            let found = store.view().log_entries(APP, &group(1), from, limit, bytes_max).unwrap();
            assert_eq!(found.iter().map(|(sequence, _)| *sequence).collect::<Vec<_>>(), expected, "{from}");
        };
        check(0, 10, 1000, &[]);
        check(2, 10, 1000, &[2, 3, 4]);
        check(3, 1, 1000, &[3]);
        check(2, 10, 25, &[2, 3]);
        check(2, 10, 1, &[2]);
        check(5, 10, 1000, &[]);
        check(8, 10, 1000, &[]);
        let first = |from: u64, last: u64| store.view().first_whole_entry(APP, &group(1), from, last);
        assert_eq!([first(0, 9), first(3, 9), first(5, 9)], [Ok(Some(2)), Ok(Some(3)), Ok(Some(7))]);
        assert_eq!([first(0, 1), first(5, 6), first(8, u64::MAX), first(4, 3)], [const { Ok(None) }; 4]);
    }
}
