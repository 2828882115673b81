//! The outbox: stored log entries, the position of each peer in each log, and marks for logs with entries that a peer
//! lacks (*Group Evolution*).
//!
//! | table | key | value |
//! |---|---|---|
//! | `log_entries` | application, group, sequence number | the entry, in the stored form of its owner |
//! | `peer_positions` | peer's domain, application, group | the number of the entry that the peer needs next |
//! | `outbox` | peer's domain, application, group | nothing; the log may have entries that the peer lacks |
//!
//! An entry is written in the batch of its record, with a mark for each peer. Entries are kept as long as the epochs that they
//! created; see `retention.rs`.

use bytes::Bytes;

use super::{
    records::{Head, LogId, log_key},
    table,
};
use crate::{
    engine::{Batch, Key, KeyReader, Rows, Slice, View, rows},
    errors::ReadError,
    ids::{AppId, DomainName, GroupId},
};

fn entries_of(app: AppId, group: &GroupId) -> Key {
    Key::of_app(app).group(group)
}

fn entry_key(app: AppId, group: &GroupId, sequence: u64) -> Key {
    entries_of(app, group).u64(sequence)
}

fn of_peer(peer: &DomainName) -> Key {
    Key::new().domain(Some(peer))
}

fn place_key(peer: &DomainName, app: AppId, group: &GroupId) -> Key {
    of_peer(peer).uuid(app.as_uuid()).last(group.as_bytes())
}

impl Batch {
    /// Keeps an entry of a group's log for its peers.
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

    /// Marks a group's log as having entries for a peer.
    pub fn mark_outbox(&mut self, peer: &DomainName, app: AppId, group: &GroupId) -> &mut Self {
        let key = self.key(place_key(peer, app, group));
        self.put(table::OUTBOX, key, Slice::from([]))
    }

    /// Deletes a peer's mark of a group, whatever the peer's position.
    pub fn clear_outbox(&mut self, peer: &DomainName, app: AppId, group: &GroupId) -> &mut Self {
        let key = self.key(place_key(peer, app, group));
        self.operation(move |overlay| {
            overlay.delete(table::OUTBOX, &key);
            Ok(())
        })
    }

    /// Writes a peer's position in a group's log: the number of the entry that it needs next. The mark is deleted when the log
    /// has no such entry.
    pub fn put_peer_position(
        &mut self,
        peer: &DomainName,
        app: AppId,
        group: &GroupId,
        next: u64,
    ) -> &mut Self {
        let key = self.key(place_key(peer, app, group));
        let log = log_key(&LogId::Group(app, group.clone()));
        self.operation(move |overlay| {
            overlay.put(table::PEER_POSITIONS, &key, Slice::from(next.to_be_bytes()));
            let head = overlay.row::<Head>(table::LOG_HEADS, &log)?;
            if head.is_none_or(|head| next > head.head) {
                overlay.delete(table::OUTBOX, &key);
            }
            Ok(())
        })
    }
}

impl View {
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

    /// The first entry of a group's log, from number `from` to `last`, that is kept.
    ///
    /// # Errors
    /// [`ReadError`] when the disk fails or a key is damaged.
    pub fn first_log_entry(
        &self,
        app: AppId,
        group: &GroupId,
        from: u64,
        last: u64,
    ) -> Result<Option<u64>, ReadError> {
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

    /// A peer's position in a group's log, if it is known: the number of the entry that it needs next.
    ///
    /// # Errors
    /// [`ReadError`] when the disk fails or the row is damaged.
    pub fn peer_position(
        &self,
        peer: &DomainName,
        app: AppId,
        group: &GroupId,
    ) -> Result<Option<u64>, ReadError> {
        let value = self.value(table::PEER_POSITIONS, &place_key(peer, app, group))?;
        value.map(|value| rows::number(table::PEER_POSITIONS, &value)).transpose()
    }

    /// Up to `limit` groups with entries for a peer, in the order of their keys, after the one given.
    ///
    /// # Errors
    /// [`ReadError`] when the disk fails or a key is damaged.
    pub fn outbox(
        &self,
        peer: &DomainName,
        after: Option<&(AppId, GroupId)>,
        limit: usize,
    ) -> Result<Vec<(AppId, GroupId)>, ReadError> {
        let prefix = of_peer(peer);
        let skipped = prefix.as_bytes().len();
        let range = match after {
            Some((app, group)) => prefix.prefix_after(place_key(peer, *app, group)),
            None => prefix.prefix(),
        };
        let place = |key: Result<Slice, ReadError>| {
            let key = key?;
            let mut reader = KeyReader::new(key.get(skipped..).unwrap_or(&[]), "outbox");
            let app = reader.app()?;
            let group = GroupId::new(reader.last()).map_err(|_| reader.damaged())?;
            Ok((app, group))
        };
        self.scan_keys(table::OUTBOX, range).take(limit).map(place).collect()
    }

    /// The keys of the entries of a group's log up to number `last`.
    pub(crate) fn log_entry_keys(
        &self,
        app: AppId,
        group: &GroupId,
        last: u64,
    ) -> impl Iterator<Item = Result<Slice, ReadError>> {
        self.scan_keys(table::LOG_ENTRIES, entry_key(app, group, 0).through(entry_key(app, group, last)))
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

    fn peer(name: &str) -> DomainName {
        DomainName::new(name).unwrap()
    }

    #[test]
    fn a_mark_stays_until_the_peer_has_everything() {
        let store = Store::open(&StoreOptions::default()).unwrap();
        let (group, log) = (group(1), LogId::Group(APP, group(1)));
        let (b, c) = (peer("b.example"), peer("c.example"));
        let mut batch = Batch::new();
        batch.create_log(&log).put_log_entry(APP, &group, 0, "created");
        batch.append_record(&log, 0, "record").put_log_entry(APP, &group, 1, "first");
        batch.mark_outbox(&b, APP, &group).mark_outbox(&c, APP, &group);
        store.append_blocking(batch).unwrap();

        let check = |next: u64, marked: bool| {
            let mut batch = Batch::new();
            batch.put_peer_position(&b, APP, &group, next);
            store.append_blocking(batch).unwrap();
            let view = store.view();
            assert_eq!(view.peer_position(&b, APP, &group), Ok(Some(next)));
            assert_eq!(!view.outbox(&b, None, 10).unwrap().is_empty(), marked, "{next}");
            assert_eq!(view.outbox(&c, None, 10).unwrap(), [(APP, group.clone())]);
        };
        check(0, true);
        check(1, true);
        check(2, false);
        assert_eq!(store.view().peer_position(&c, APP, &group), Ok(None));
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
        let first = |from: u64, last: u64| store.view().first_log_entry(APP, &group(1), from, last);
        assert_eq!([first(0, 9), first(3, 9), first(5, 9)], [Ok(Some(2)), Ok(Some(3)), Ok(Some(7))]);
        assert_eq!([first(0, 1), first(5, 6), first(8, u64::MAX), first(4, 3)], [const { Ok(None) }; 4]);
    }

    #[test]
    fn the_outbox_of_a_peer_is_its_own() {
        let store = Store::open(&StoreOptions::default()).unwrap();
        let (short, long) = (peer("b.example"), peer("b.example.org"));
        let mut batch = Batch::new();
        for number in [1, 2, 3] {
            batch.mark_outbox(&short, APP, &group(number));
        }
        batch.mark_outbox(&long, APP, &group(9));
        store.append_blocking(batch).unwrap();
        let view = store.view();
        let first = view.outbox(&short, None, 2).unwrap();
        assert_eq!(first, [(APP, group(1)), (APP, group(2))]);
        assert_eq!(view.outbox(&short, first.last(), 10).unwrap(), [(APP, group(3))]);
        assert_eq!(view.outbox(&long, None, 10).unwrap(), [(APP, group(9))]);
    }
}
