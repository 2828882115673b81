//! The outbox: the position of each peer in each log, and marks for logs with entries that a peer lacks (*Group Evolution*).
//!
//! | table | key | value |
//! |---|---|---|
//! | `peer_positions` | peer's domain, application, group | the number of the entry that the peer needs next |
//! | `outbox` | peer's domain, application, group | nothing; the log may have entries that the peer lacks |
//!
//! The batch of an entry has a mark for each peer.

use super::{
    records::{Head, LogId, log_key},
    table,
};
use crate::{
    engine::{Batch, Key, KeyReader, Rows, Slice, Table, View, rows},
    errors::ReadError,
    ids::{AppId, DomainName, GroupId},
};

/// Whether a row is the position of a peer, which another copy of the store must find out anew.
pub(crate) fn is_position(table: Table) -> bool {
    table == table::PEER_POSITIONS
}

fn of_peer(peer: &DomainName) -> Key {
    Key::new().domain(Some(peer))
}

fn place_key(peer: &DomainName, app: AppId, group: &GroupId) -> Key {
    of_peer(peer).uuid(app.as_uuid()).last(group.as_bytes())
}

impl Batch {
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

    /// Notes that a peer was told of the deletion of a group: its mark and position are deleted.
    pub fn forget_peer_of(&mut self, peer: &DomainName, app: AppId, group: &GroupId) -> &mut Self {
        let key = self.key(place_key(peer, app, group));
        self.operation(move |overlay| {
            overlay.delete(table::OUTBOX, &key);
            overlay.delete(table::PEER_POSITIONS, &key);
            Ok(())
        })
    }

    /// Writes a peer's position in a group's log: the number of the entry that it needs next. The mark is deleted when the log
    /// has no such entry. If there is no log, nothing is written: the group was deleted, and the mark is for that.
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
            let Some(head) = overlay.row::<Head>(table::LOG_HEADS, &log)? else { return Ok(()) };
            overlay.put(table::PEER_POSITIONS, &key, Slice::from(next.to_be_bytes()));
            if next > head.head {
                overlay.delete(table::OUTBOX, &key);
            }
            Ok(())
        })
    }
}

impl View {
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

    /// Whether a peer is to be told of a group.
    ///
    /// # Errors
    /// [`ReadError`] when the disk fails.
    pub fn is_in_outbox(&self, peer: &DomainName, app: AppId, group: &GroupId) -> Result<bool, ReadError> {
        self.holds(table::OUTBOX, &place_key(peer, app, group))
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
        batch.create_log(&log).append_record(&log, 0, "first");
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
