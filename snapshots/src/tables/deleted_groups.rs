//! Deleted groups. The id of one stays taken for a time, so that a late delivery or a repeated creation does not bring the group
//! back, and so that the peers that follow it can be told.
//!
//! | table | key | value |
//! |---|---|---|
//! | `deleted_groups` | 0, application, group | [`DeletedGroupRow`] |
//! | `deleted_groups` | 1, application, group | nothing; rows of the group are still to be erased |
//! | `deleted_groups` | 2, when it was deleted, application, group | nothing |
//!
//! One batch deletes the group: from then on there is neither its row nor its log. The other rows that belong to it are erased
//! after that, in small batches; see `erasure.rs`.

use serde::{Deserialize, Serialize};

use super::{
    groups::{self, GroupRow},
    records::{Head, LoadedLog, LogId, log_key},
    table,
};
use crate::{
    engine::{Batch, Key, KeyRange, KeyReader, Overlay, Rows, Slice, View, rows},
    errors::{ReadError, Refusal, Unmet},
    ids::{AppId, DomainName, GroupId, Timestamp},
};

const GROUP: u8 = 0;
const TO_ERASE: u8 = 1;
const BY_TIME: u8 = 2;

/// A deleted group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeletedGroupRow {
    /// When it was deleted here.
    pub deleted_at: Timestamp,
    /// The gateway that ordered it; `None` for this one.
    pub hub: Option<DomainName>,
    /// The position of its log, from which its members are known until they are erased.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) log: Option<Head>,
    /// Whether no other row of the group is left.
    pub is_erased: bool,
}

/// A deleted group by the time of its deletion.
pub type DeletedAt = (Timestamp, AppId, GroupId);

fn row_key(app: AppId, group: &GroupId) -> Key {
    Key::new().byte(GROUP).uuid(app.as_uuid()).last(group.as_bytes())
}

fn to_erase_key(app: AppId, group: &GroupId) -> Key {
    Key::new().byte(TO_ERASE).uuid(app.as_uuid()).last(group.as_bytes())
}

fn time_key((at, app, group): &DeletedAt) -> Key {
    Key::new().byte(BY_TIME).u64(at.0).uuid(app.as_uuid()).last(group.as_bytes())
}

fn last_group(mut reader: KeyReader<'_>) -> Result<(AppId, GroupId), ReadError> {
    let app = reader.app()?;
    let group = GroupId::new(reader.last()).map_err(|_| reader.damaged())?;
    Ok((app, group))
}

/// The group of a [`DeletedGroupRow`]; `None` for a row of another kind.
pub(super) fn read_row_key(key: &[u8]) -> Result<Option<(AppId, GroupId)>, ReadError> {
    let mut reader = KeyReader::new(key, "deleted_groups");
    if reader.byte()? == GROUP { last_group(reader).map(Some) } else { Ok(None) }
}

fn put_row(
    overlay: &mut Overlay<'_>,
    app: AppId,
    group: &GroupId,
    row: &DeletedGroupRow,
) -> Result<(), Refusal> {
    let value = rows::encode(row).map_err(|error| ReadError::damaged(error.to_string()))?;
    overlay.put(table::DELETED_GROUPS, &row_key(app, group), value);
    overlay.put(table::DELETED_GROUPS, &time_key(&(row.deleted_at, app, group.clone())), Slice::from([]));
    if row.is_erased {
        overlay.delete(table::DELETED_GROUPS, &to_erase_key(app, group));
    } else {
        overlay.put(table::DELETED_GROUPS, &to_erase_key(app, group), Slice::from([]));
    }
    Ok(())
}

fn stored(overlay: &Overlay<'_>, app: AppId, group: &GroupId) -> Result<Option<DeletedGroupRow>, ReadError> {
    overlay.row(table::DELETED_GROUPS, &row_key(app, group))
}

impl Batch {
    /// Deletes a group: its row and its log. Its id stays taken, and its other rows are to be erased. Precondition: the group has
    /// the creation and the hub of this row, else [`Unmet::GroupReplaced`].
    pub fn delete_group(
        &mut self,
        app: AppId,
        group: &GroupId,
        row: &GroupRow,
        deleted_at: Timestamp,
    ) -> &mut Self {
        self.require_group(app, group, row);
        self.key(row_key(app, group));
        let (group, hub) = (group.clone(), row.hub.clone());
        self.operation(move |overlay| {
            let log_key = log_key(&LogId::Group(app, group.clone()));
            let log = overlay.row::<Head>(table::LOG_HEADS, &log_key)?;
            overlay.delete(table::LOG_HEADS, &log_key);
            groups::delete_row(overlay, app, &group);
            put_row(overlay, app, &group, &DeletedGroupRow { deleted_at, hub, log, is_erased: false })
        })
    }

    /// Takes the id of a group that another gateway has deleted and that was never here. Preconditions: there is no group of this
    /// id, else [`Unmet::GroupReplaced`], and none was deleted, else [`Unmet::GroupDeleted`].
    pub fn note_deleted_group(
        &mut self,
        app: AppId,
        group: &GroupId,
        hub: &DomainName,
        deleted_at: Timestamp,
    ) -> &mut Self {
        self.key(row_key(app, group));
        let (group, hub) = (group.clone(), hub.clone());
        self.operation(move |overlay| {
            if groups::has_row(overlay, app, &group)? {
                return Err(Unmet::GroupReplaced.into());
            }
            if stored(overlay, app, &group)?.is_some() {
                return Err(Unmet::GroupDeleted.into());
            }
            let row = DeletedGroupRow { deleted_at, hub: Some(hub), log: None, is_erased: true };
            put_row(overlay, app, &group, &row)
        })
    }

    /// Precondition: no group of this id was deleted, as far as that is remembered, else [`Unmet::GroupDeleted`].
    pub fn require_not_deleted(&mut self, app: AppId, group: &GroupId) -> &mut Self {
        let group = group.clone();
        self.operation(move |overlay| match stored(overlay, app, &group)? {
            Some(_) => Err(Unmet::GroupDeleted.into()),
            None => Ok(()),
        })
    }

    /// Makes the id of a deleted group free again. Nothing is written if rows of the group are still to be erased.
    pub fn forget_deleted_group(&mut self, app: AppId, group: &GroupId) -> &mut Self {
        let group = group.clone();
        self.operation(move |overlay| {
            let Some(row) = stored(overlay, app, &group)?.filter(|row| row.is_erased) else { return Ok(()) };
            overlay.delete(table::DELETED_GROUPS, &time_key(&(row.deleted_at, app, group.clone())));
            overlay.delete(table::DELETED_GROUPS, &row_key(app, &group));
            Ok(())
        })
    }

    /// Notes how far a deleted group is erased.
    pub(super) fn note_erased(&mut self, app: AppId, group: &GroupId, is_erased: bool) -> &mut Self {
        let group = group.clone();
        self.operation(move |overlay| match stored(overlay, app, &group)? {
            Some(row) => put_row(overlay, app, &group, &DeletedGroupRow { log: None, is_erased, ..row }),
            None => Ok(()),
        })
    }
}

impl View {
    /// A group that was deleted, as long as its id stays taken.
    ///
    /// # Errors
    /// [`ReadError`] when the disk fails or the row is damaged.
    pub fn deleted_group(&self, app: AppId, group: &GroupId) -> Result<Option<DeletedGroupRow>, ReadError> {
        self.row(table::DELETED_GROUPS, &row_key(app, group))
    }

    /// The log of a deleted group, until its members are erased.
    ///
    /// # Errors
    /// As [`View::load_log`].
    pub fn deleted_log(&self, app: AppId, group: &GroupId) -> Result<Option<LoadedLog>, ReadError> {
        let head = self.deleted_group(app, group)?.and_then(|row| row.log);
        head.map(|head| self.log_at(&LogId::Group(app, group.clone()), &head)).transpose()
    }

    /// Up to `limit` deleted groups of an application in the order of their ids, after the one given.
    ///
    /// # Errors
    /// [`ReadError`] when the disk fails or a row is damaged.
    pub fn deleted_groups(
        &self,
        app: AppId,
        after: Option<GroupId>,
        limit: usize,
    ) -> Result<Vec<(GroupId, DeletedGroupRow)>, ReadError> {
        let prefix = Key::new().byte(GROUP).uuid(app.as_uuid());
        let range = prefix.prefix_from(after.map(|group| row_key(app, &group)));
        let read = |row: Result<(Slice, Slice), ReadError>| {
            let (key, value) = row?;
            let (_, group) = last_group(KeyReader::new(key.get(1..).unwrap_or(&[]), "deleted_groups"))?;
            Ok((group, rows::decode(table::DELETED_GROUPS, &value)?))
        };
        self.scan(table::DELETED_GROUPS, range).take(limit).map(read).collect()
    }

    /// Up to `limit` deleted groups that have rows to erase, in the order of their keys.
    ///
    /// # Errors
    /// [`ReadError`] when the disk fails or a key is damaged.
    pub fn groups_to_erase(&self, limit: usize) -> Result<Vec<(AppId, GroupId)>, ReadError> {
        let range = Key::new().byte(TO_ERASE).prefix();
        let read = |key: Result<Slice, ReadError>| {
            last_group(KeyReader::new(key?.get(1..).unwrap_or(&[]), "deleted_groups"))
        };
        self.scan_keys(table::DELETED_GROUPS, range).take(limit).map(read).collect()
    }

    /// Up to `limit` groups that were deleted before a time, the earliest first, after the one given.
    ///
    /// # Errors
    /// [`ReadError`] when the disk fails or a key is damaged.
    pub fn groups_deleted_before(
        &self,
        time: Timestamp,
        after: Option<&DeletedAt>,
        limit: usize,
    ) -> Result<Vec<DeletedAt>, ReadError> {
        let end = Key::new().byte(BY_TIME).u64(time.0);
        let range = match after {
            Some(after) => KeyRange { end: end.before().end, ..KeyRange::after(time_key(after).as_bytes()) },
            None => Key::new().byte(BY_TIME).until(end),
        };
        let read = |key: Result<Slice, ReadError>| {
            let key = key?;
            let mut reader = KeyReader::new(key.get(1..).unwrap_or(&[]), "deleted_groups");
            let at = Timestamp(reader.u64()?);
            let (app, group) = last_group(reader)?;
            Ok((at, app, group))
        };
        self.scan_keys(table::DELETED_GROUPS, range).take(limit).map(read).collect()
    }
}
