//! Groups, and the groups of each client handle (*Managing Groups without Metadata Protection*).
//!
//! | table | key | value |
//! |---|---|---|
//! | `groups` | application, group | [`GroupRow`] |
//! | `memberships` | application, client handle, group | the domains of the members with this handle, each with the epoch in which it came; up to format 6 the domains alone, or nothing for one without a domain |
//!
//! In `groups` the group id is the last part, so it has no length in front and groups are in the order of their bytes.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::table;
use crate::{
    engine::{Batch, Key, KeyRange, KeyReader, Overlay, Rows, Slice, View, rows},
    errors::{ReadError, Refusal, Unmet},
    ids::{AppId, ClientHandle, DomainName, Epoch, GroupId, Timestamp},
};

/// A group as it is found without activating its actor (*Group State*).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupRow {
    /// The current epoch.
    pub epoch: Epoch,
    /// The time at which the hub accepted its creation.
    pub created_at: Timestamp,
    /// SHA-256 of the request that created it, to recognise a retry.
    #[serde(with = "serde_bytes")]
    pub creation_digest: [u8; 32],
    /// The gateway that orders it; `None` for this one.
    pub hub: Option<DomainName>,
}

impl GroupRow {
    /// Whether two rows are of one group, at any two epochs: the creation and the hub are the same.
    fn is_same_group(&self, other: &Self) -> bool {
        let Self { epoch: _, created_at, creation_digest, hub } = self;
        (created_at, creation_digest, hub) == (&other.created_at, &other.creation_digest, &other.hub)
    }
}

fn group_key(app: AppId, group: &GroupId) -> Key {
    Key::of_app(app).last(group.as_bytes())
}

fn memberships_of(app: AppId, handle: &ClientHandle) -> Key {
    Key::of_app(app).handle(handle)
}

fn membership_key(app: AppId, handle: &ClientHandle, group: &GroupId) -> Key {
    memberships_of(app, handle).last(group.as_bytes())
}

/// Reads the rest of a key as a group id.
fn last_group(mut reader: KeyReader<'_>) -> Result<GroupId, ReadError> {
    let bytes = reader.last();
    GroupId::new(bytes).map_err(|_| reader.damaged())
}

pub(super) fn read_group_key(key: &[u8]) -> Result<(AppId, GroupId), ReadError> {
    let mut reader = KeyReader::new(key, "groups");
    Ok((reader.app()?, last_group(reader)?))
}

pub(super) fn read_membership_key(key: &[u8]) -> Result<(AppId, GroupId), ReadError> {
    let mut reader = KeyReader::new(key, "memberships");
    let app = reader.app()?;
    reader.part()?;
    Ok((app, last_group(reader)?))
}

impl Batch {
    /// Writes a group's row, over an older one. The precondition of its log ensures that a group is created once.
    pub fn put_group(&mut self, app: AppId, group: &GroupId, row: &GroupRow) -> &mut Self {
        let (key, value) = (self.key(group_key(app, group)), self.row(row));
        self.put(table::GROUPS, key, value)
    }

    /// Precondition: the group has the creation and the hub of this row, else [`Unmet::GroupReplaced`]. Its epoch does not
    /// matter. A precondition on the log is not enough: a log can be replaced by one with the same last number.
    pub fn require_group(&mut self, app: AppId, group: &GroupId, row: &GroupRow) -> &mut Self {
        let (key, expected) = (self.key(group_key(app, group)), row.clone());
        self.operation(move |overlay| match overlay.row::<GroupRow>(table::GROUPS, &key)? {
            Some(found) if found.is_same_group(&expected) => Ok(()),
            Some(_) | None => Err(Unmet::GroupReplaced.into()),
        })
    }

    /// Records that a client, by its handle and its domain, is in the group's tree since an epoch. One that is there already is
    /// there since its own.
    pub fn put_membership(
        &mut self,
        app: AppId,
        handle: &ClientHandle,
        domain: Option<&DomainName>,
        (group, since): (&GroupId, Epoch),
    ) -> &mut Self {
        let domain = domain.cloned();
        self.change_membership(app, handle, group, move |domains| {
            domains.entry(domain).or_insert(since);
        })
    }

    /// Records that a client is no longer in the group's tree. A client of another domain with the same handle stays.
    pub fn delete_membership(
        &mut self,
        app: AppId,
        handle: &ClientHandle,
        domain: Option<&DomainName>,
        group: &GroupId,
    ) -> &mut Self {
        let domain = domain.cloned();
        self.change_membership(app, handle, group, move |domains| {
            domains.remove(&domain);
        })
    }

    /// Records that no client of this handle is in the group's tree.
    pub(super) fn erase_membership(
        &mut self,
        app: AppId,
        handle: &ClientHandle,
        group: &GroupId,
    ) -> &mut Self {
        let key = self.key(membership_key(app, handle, group));
        self.operation(move |overlay| {
            overlay.delete(table::MEMBERSHIPS, &key);
            Ok(())
        })
    }

    fn change_membership(
        &mut self,
        app: AppId,
        handle: &ClientHandle,
        group: &GroupId,
        change: impl FnOnce(&mut Domains) + Send + 'static,
    ) -> &mut Self {
        let key = self.key(membership_key(app, handle, group));
        self.operation(move |overlay| {
            let mut domains = domains_at(overlay, &key)?;
            change(&mut domains);
            put_domains(overlay, &key, &domains)
        })
    }
}

/// Deletes the row of a group.
pub(super) fn delete_row(overlay: &mut Overlay<'_>, app: AppId, group: &GroupId) {
    overlay.delete(table::GROUPS, &group_key(app, group));
}

/// Whether there is a group of this id.
pub(super) fn has_row(overlay: &Overlay<'_>, app: AppId, group: &GroupId) -> Result<bool, ReadError> {
    overlay.holds(table::GROUPS, &group_key(app, group))
}

/// The keys of the memberships of a group among `limit` memberships of its application after the one given, and the last of
/// these if there are more.
pub(super) fn memberships_of_group(
    view: &View,
    app: AppId,
    group: &GroupId,
    after: Option<Slice>,
    limit: usize,
) -> Result<(Vec<Slice>, Option<Slice>), ReadError> {
    let of_app = Key::of_app(app);
    let skipped = of_app.as_bytes().len();
    let range = of_app.prefix_from(after.map(|key| Key::new().last(&key)));
    let (mut found, mut last) = (Vec::new(), None);
    for (read, key) in view.scan_keys(table::MEMBERSHIPS, range).enumerate() {
        if read == limit {
            return Ok((found, last));
        }
        let key = key?;
        let mut reader = KeyReader::new(key.get(skipped..).unwrap_or(&[]), "memberships");
        reader.part()?;
        if last_group(reader)? == *group {
            found.push(key.clone());
        }
        last = Some(key);
    }
    Ok((found, None))
}

/// The domains of the members with one handle, each with the epoch in which it came; 0 where that is not known.
type Domains = BTreeMap<Option<DomainName>, Epoch>;

fn domains_at(overlay: &Overlay<'_>, key: &Key) -> Result<Domains, ReadError> {
    read_domains(overlay.value(table::MEMBERSHIPS, key)?.as_ref())
}

fn read_domains(value: Option<&Slice>) -> Result<Domains, ReadError> {
    match value {
        None => Ok(Domains::new()),
        Some(value) if value.is_empty() => Ok(Domains::from([(None, Epoch(0))])),
        Some(value) if is_map(value) => rows::decode(table::MEMBERSHIPS, value),
        Some(value) => {
            let domains: BTreeSet<Option<DomainName>> = rows::decode(table::MEMBERSHIPS, value)?;
            Ok(domains.into_iter().map(|domain| (domain, Epoch(0))).collect())
        }
    }
}

/// Whether MessagePack begins with a map.
fn is_map(value: &[u8]) -> bool {
    matches!(value.first(), Some(0x80..=0x8f | 0xde | 0xdf))
}

fn put_domains(overlay: &mut Overlay<'_>, key: &Key, domains: &Domains) -> Result<(), Refusal> {
    if domains.is_empty() {
        overlay.delete(table::MEMBERSHIPS, key);
    } else {
        let value = rows::encode(domains)
            .map_err(|error| ReadError::damaged(format!("the domains of a membership: {error}")))?;
        overlay.put(table::MEMBERSHIPS, key, value);
    }
    Ok(())
}

impl View {
    /// A group's row.
    ///
    /// # Errors
    /// [`ReadError`] when the disk fails or the row is damaged.
    pub fn group(&self, app: AppId, group: &GroupId) -> Result<Option<GroupRow>, ReadError> {
        self.row(table::GROUPS, &group_key(app, group))
    }

    /// Up to `limit` groups of an application in the order of their ids, after the one given.
    ///
    /// # Errors
    /// [`ReadError`] when the disk fails or a row is damaged.
    pub fn groups(
        &self,
        app: AppId,
        after: Option<GroupId>,
        limit: usize,
    ) -> Result<Vec<(GroupId, GroupRow)>, ReadError> {
        let prefix = Key::of_app(app);
        let range = prefix.prefix_from(after.map(|group| group_key(app, &group)));
        self.scan_groups(range).take(limit).map(|row| row.map(|(_, group, row)| (group, row))).collect()
    }

    /// The number of groups of an application, counted up to `max`.
    ///
    /// # Errors
    /// [`ReadError`] when the disk fails.
    pub fn count_groups(&self, app: AppId, max: usize) -> Result<usize, ReadError> {
        self.count_rows(table::GROUPS, Key::of_app(app).prefix(), max)
    }

    /// Up to `limit` groups whose current tree holds a client, by its handle and its domain, with their current epoch, in
    /// the order of their ids, after the one given.
    ///
    /// # Errors
    /// [`ReadError`] when the disk fails or a row is damaged or missing.
    pub fn groups_of(
        &self,
        app: AppId,
        handle: &ClientHandle,
        domain: Option<&DomainName>,
        after: Option<GroupId>,
        limit: usize,
    ) -> Result<Vec<(GroupId, Epoch)>, ReadError> {
        let domain = domain.cloned();
        let prefix = memberships_of(app, handle);
        let skipped = prefix.as_bytes().len();
        let range = prefix.prefix_from(after.map(|group| membership_key(app, handle, &group)));
        let is_member = |(_, value): &(Slice, Slice)| {
            read_domains(Some(value)).map(|domains| domains.contains_key(&domain))
        };
        let found = |row: Result<(Slice, Slice), ReadError>| {
            let row = row?;
            if !is_member(&row)? {
                return Ok(None);
            }
            let (key, _) = row;
            let group = last_group(KeyReader::new(key.get(skipped..).unwrap_or(&[]), "memberships"))?;
            match self.group(app, &group)? {
                Some(row) => Ok(Some((group, row.epoch))),
                // What it leaves is not erased yet.
                None if self.deleted_group(app, &group)?.is_some() => Ok(None),
                None => Err(ReadError::damaged(format!("a membership names no group: {group:?}"))),
            }
        };
        self.scan(table::MEMBERSHIPS, range).map(found).filter_map(Result::transpose).take(limit).collect()
    }

    /// The epoch since which a client, by its handle and its domain, is in a group's tree: 0 in a row of format 6 or earlier,
    /// `None` if it is not there.
    ///
    /// # Errors
    /// [`ReadError`] when the disk fails or the row is damaged.
    pub fn member_since(
        &self,
        app: AppId,
        handle: &ClientHandle,
        domain: Option<&DomainName>,
        group: &GroupId,
    ) -> Result<Option<Epoch>, ReadError> {
        let value = self.value(table::MEMBERSHIPS, &membership_key(app, handle, group))?;
        Ok(read_domains(value.as_ref())?.get(&domain.cloned()).copied())
    }

    /// Whether a client, by its handle and its domain, is listed as in a group's tree.
    ///
    /// # Errors
    /// As [`View::member_since`].
    pub fn is_member(
        &self,
        app: AppId,
        handle: &ClientHandle,
        domain: Option<&DomainName>,
        group: &GroupId,
    ) -> Result<bool, ReadError> {
        Ok(self.member_since(app, handle, domain, group)?.is_some())
    }

    /// The groups of every application, in the order of their keys, after the one given.
    pub(crate) fn groups_after(
        &self,
        after: Option<&(AppId, GroupId)>,
    ) -> impl Iterator<Item = Result<(AppId, GroupId, GroupRow), ReadError>> {
        self.scan_groups(match after {
            Some((app, group)) => KeyRange::after(group_key(*app, group).as_bytes()),
            None => KeyRange::all(),
        })
    }

    fn scan_groups(
        &self,
        range: KeyRange,
    ) -> impl Iterator<Item = Result<(AppId, GroupId, GroupRow), ReadError>> {
        self.scan(table::GROUPS, range).map(|row| {
            let (key, value) = row?;
            let (app, group) = read_group_key(&key)?;
            Ok((app, group, rows::decode(table::GROUPS, &value)?))
        })
    }
}
