//! Missed entries of replicas whose hub sent the group's state instead (*Group Evolution*).
//!
//! | table | key | value |
//! |---|---|---|
//! | `missed_entries` | application, group | [`MissedEntries`] |
//!
//! While there is such a row, history before [`MissedEntries::shown_from`] is not contiguous and is not shown.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::table;
use crate::{
    engine::{Batch, Key, KeyRange, Rows, View},
    errors::{ReadError, Unmet},
    ids::{AppId, Epoch, GroupId, Timestamp},
};

/// The entries of a group's log between the last one that a replica appended and the transferred state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissedEntries {
    /// The number of the first entry that is still missing.
    pub next: u64,
    /// The number of the last one, which the transferred state includes.
    pub through: u64,
    /// The group's epoch before entry `next`; `None` when that is not known, since the entries before it are not kept
    /// anywhere.
    pub epoch: Option<Epoch>,
    /// The time at which the entry before `next` was accepted.
    pub stamp: Timestamp,
    /// The proposals accepted in `epoch` before entry `next`, each an `MLSMessage`.
    pub proposals: Vec<Bytes>,
    /// The interim transcript hash of `epoch` (RFC 9420 §8.2), if it is known.
    pub interim_transcript_hash: Option<Bytes>,
    /// The epoch of the transferred state.
    pub until: Epoch,
    /// Its confirmed transcript hash (RFC 9420 §8.2).
    pub confirmed_transcript_hash: Bytes,
    /// Whether the transfer included the welcome of `until`.
    pub has_last_welcome: bool,
    /// History before this epoch stays incomplete: its entries are not kept anywhere. 0 if there is no such history.
    pub floor: Epoch,
}

impl MissedEntries {
    /// Whether entries are still missing; when none are, the row stays because of its `floor`.
    pub fn is_open(&self) -> bool {
        self.next <= self.through
    }

    /// The first epoch from which on the history is contiguous.
    pub fn shown_from(&self) -> Epoch {
        if self.is_open() { self.until.next().unwrap_or(self.until) } else { self.floor }
    }
}

fn missed_key(app: AppId, group: &GroupId) -> Key {
    Key::of_app(app).last(group.as_bytes())
}

/// The row of a group.
pub(super) fn row_range(app: AppId, group: &GroupId) -> KeyRange {
    missed_key(app, group).through(missed_key(app, group))
}

impl Batch {
    /// Writes the missing entries of a group's log; `None` if there are none. Precondition: `before` is the stored row, else
    /// [`Unmet::MissedEntriesChanged`].
    pub fn replace_missed_entries(
        &mut self,
        app: AppId,
        group: &GroupId,
        before: Option<&MissedEntries>,
        after: Option<&MissedEntries>,
    ) -> &mut Self {
        let key = self.key(missed_key(app, group));
        let before = before.cloned();
        let value = after.map(|after| self.row(after));
        self.operation(move |overlay| {
            if overlay.row::<MissedEntries>(table::MISSED_ENTRIES, &key)? != before {
                return Err(Unmet::MissedEntriesChanged.into());
            }
            match value {
                Some(value) => overlay.put(table::MISSED_ENTRIES, &key, value),
                None => overlay.delete(table::MISSED_ENTRIES, &key),
            }
            Ok(())
        })
    }
}

impl View {
    /// The missing entries of a group's log; `None` when the whole history is contiguous.
    ///
    /// # Errors
    /// [`ReadError`] when the disk fails or the row is damaged.
    pub fn missed_entries(&self, app: AppId, group: &GroupId) -> Result<Option<MissedEntries>, ReadError> {
        self.row(table::MISSED_ENTRIES, &missed_key(app, group))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{errors::AppendError, options::StoreOptions, store::Store};

    const APP: AppId = AppId::new(uuid::Uuid::from_u128(0x4000_8000_0000_0000_0001));

    #[test]
    fn two_who_fill_the_same_gap_do_so_once() {
        let store = Store::open(&StoreOptions::default()).unwrap();
        let group = GroupId::new([1; 4]).unwrap();
        let first = MissedEntries {
            next: 3,
            through: 4,
            epoch: Some(Epoch(2)),
            stamp: Timestamp(7),
            proposals: vec![Bytes::from_static(b"proposal")],
            interim_transcript_hash: None,
            until: Epoch(4),
            confirmed_transcript_hash: Bytes::from_static(b"hash"),
            has_last_welcome: false,
            floor: Epoch(0),
        };
        let second = MissedEntries { next: 5, floor: Epoch(3), ..first.clone() };
        assert_eq!((first.shown_from(), second.shown_from()), (Epoch(5), Epoch(3)));
        let replace = |before: Option<&MissedEntries>, after: Option<&MissedEntries>| {
            let mut batch = Batch::new();
            batch.replace_missed_entries(APP, &group, before, after);
            store.append_blocking(batch).map(drop)
        };
        let changed = Err(AppendError::Precondition(Unmet::MissedEntriesChanged));
        assert_eq!(replace(None, Some(&first)), Ok(()));
        assert_eq!(replace(None, Some(&first)), changed);
        assert_eq!(replace(Some(&first), Some(&second)), Ok(()));
        assert_eq!(replace(Some(&first), Some(&second)), changed);
        assert_eq!(store.view().missed_entries(APP, &group), Ok(Some(second.clone())));
        assert_eq!(replace(Some(&second), None), Ok(()));
        assert_eq!(store.view().missed_entries(APP, &group), Ok(None));
    }
}
