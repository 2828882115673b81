//! Welcomes and ratchet trees for new members, kept until they acknowledge them (*Joining*).
//!
//! | table | key | value |
//! |---|---|---|
//! | `welcomes` | application, group, epoch that the commit created | [`WelcomeRow`] |
//! | `welcome_readers` | application, group, epoch | the number of join infos that point at it |
//! | `join_infos` | application, client handle, delivery id | [`JoinInfoRow`] |
//! | `meta` | 1 | the next delivery id, a number |
//!
//! The welcome and the tree of a commit are stored once, and deleted with the last join info that points at them.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{
    events::{self, Event},
    table,
    welcome_shares::{self, InvitedClient, Inviter, ShareId, WelcomeLimits},
};
use crate::{
    engine::{Batch, Key, KeyRange, KeyReader, Overlay, Rows, Slice, View, meta::META, rows},
    errors::{AppendError, ReadError, Refusal},
    ids::{AppId, ClientHandle, DeliveryId, DomainName, Epoch, GroupId, Timestamp},
    store::Store,
};

const NEXT_DELIVERY: u8 = 1;

/// The welcome and the tree for all members that one commit added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WelcomeRow {
    /// The welcome, an `MLSMessage` (RFC 9420 §12.4.3.1).
    pub welcome: Bytes,
    /// The ratchet tree of the epoch that they join in (RFC 9420 §12.4.3.3); empty if it is not known, or not stored yet.
    pub ratchet_tree: Bytes,
    /// The time at which the hub accepted the commit.
    pub timestamp: Timestamp,
    /// The length of the tree if the group's owner has it and has not stored it yet, else 0. Trees are large and most welcomes
    /// are taken soon, so a tree is stored only when the owner writes a snapshot while the welcome waits.
    #[serde(default)]
    pub tree_bytes_to_store: u64,
}

/// A pointer from a client handle to a welcome for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinInfoRow {
    /// The group that it was added to.
    pub group: GroupId,
    /// The epoch that it joins in.
    pub epoch: Epoch,
    /// The time at which the hub accepted the commit.
    pub timestamp: Timestamp,
    /// The domain of the client. Rows of the first format do not have it.
    #[serde(default)]
    pub domain: Option<DomainName>,
    /// The shares that it counts in. Rows of the first format do not have it.
    #[serde(default)]
    pub counted_by: CountedBy,
}

impl JoinInfoRow {
    /// Whether it is for the client of this domain. A row of the first format names no domain and is for each.
    pub fn is_for(&self, domain: Option<&DomainName>) -> bool {
        self.domain.is_none() || self.domain.as_ref() == domain
    }
}

/// The shares of a client's join infos that one of them counts in; see [`WelcomeLimits`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum CountedBy {
    /// [`ShareId::UNKNOWN`].
    #[default]
    Unknown,
    /// Those of its inviter.
    Inviter {
        /// See [`Inviter::share`].
        share: ShareId,
        /// See [`Inviter::reserve`].
        reserve: Option<ShareId>,
    },
    /// None: another gateway accepted the commit and applied its own limits.
    Nobody,
}

/// The gateway whose limits on join infos apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invitation {
    /// This gateway: the commit is refused when a join info would pass a limit.
    Accepted {
        /// The inviter.
        by: Inviter,
        /// The limits.
        limits: WelcomeLimits,
    },
    /// Another gateway, which accepted the commit.
    AcceptedElsewhere,
}

fn welcome_key(app: AppId, group: &GroupId, epoch: Epoch) -> Key {
    Key::of_app(app).group(group).u64(epoch.0)
}

fn join_infos_of(app: AppId, handle: &ClientHandle) -> Key {
    Key::of_app(app).handle(handle)
}

fn join_info_key(app: AppId, handle: &ClientHandle, id: DeliveryId) -> Key {
    join_infos_of(app, handle).u64(id.0)
}

impl Batch {
    /// Writes the welcome of the commit that created `epoch`, and one join info for each added client, in this order: their ids
    /// are in [`Appended::deliveries`](crate::Appended). With no clients nothing is written. Precondition: no join info exceeds
    /// a limit of the invitation, else [`Unmet::TooManyWelcomes`](crate::Unmet::TooManyWelcomes).
    pub fn put_welcome(
        &mut self,
        app: AppId,
        group: &GroupId,
        epoch: Epoch,
        row: &WelcomeRow,
        clients: &[InvitedClient],
        invitation: Invitation,
    ) -> &mut Self {
        if clients.is_empty() {
            return self;
        }
        let key = self.key(welcome_key(app, group, epoch));
        let value = self.row(row);
        let counted_by = match invitation {
            Invitation::Accepted { by, .. } => CountedBy::Inviter { share: by.share, reserve: by.reserve },
            Invitation::AcceptedElsewhere => CountedBy::Nobody,
        };
        let mut waiting: Vec<(InvitedClient, Key, Slice)> = Vec::with_capacity(clients.len());
        for client in clients {
            let info = JoinInfoRow {
                group: group.clone(),
                epoch,
                timestamp: row.timestamp,
                domain: client.domain.clone(),
                counted_by,
            };
            let of_handle = self.key(join_infos_of(app, &client.handle));
            let info = self.row(&info);
            waiting.push((client.clone(), of_handle, info));
        }
        let group = group.clone();
        self.operation(move |overlay| {
            let readers = readers(overlay, &key)?.saturating_add(waiting.len() as u64);
            overlay.put(table::WELCOMES, &key, value);
            overlay.put(table::WELCOME_READERS, &key, Slice::from(readers.to_be_bytes()));
            for (client, of_handle, info) in waiting {
                if let Invitation::Accepted { by, limits } = invitation {
                    welcome_shares::take(overlay, app, &client, by, limits, None)?;
                }
                let id = next_delivery(overlay)?;
                overlay.put(table::JOIN_INFOS, &of_handle.u64(id.0), info);
                let InvitedClient { handle, domain } = client;
                events::note(overlay, &Event::Welcome { handle, domain, group: group.clone(), epoch, id })?;
            }
            Ok(())
        })
    }

    /// Stores the tree of a welcome that waits and whose tree is not stored yet. Otherwise nothing is written. The tree does not count
    /// towards the size of the batch: it is accepted already, and must be stored whatever the limit is now.
    pub fn store_welcome_tree(
        &mut self,
        app: AppId,
        group: &GroupId,
        epoch: Epoch,
        ratchet_tree: Bytes,
    ) -> &mut Self {
        let key = self.key(welcome_key(app, group, epoch));
        self.operation(move |overlay| {
            let row = overlay.row::<WelcomeRow>(table::WELCOMES, &key)?;
            if let Some(row) = row.filter(|row| row.tree_bytes_to_store > 0) {
                let stored = WelcomeRow { ratchet_tree, tree_bytes_to_store: 0, ..row };
                let value = rows::encode(&stored).map_err(|error| ReadError::damaged(error.to_string()))?;
                overlay.put(table::WELCOMES, &key, value);
            }
            Ok(())
        })
    }

    /// Deletes a join info, so that it is never delivered again, and the welcome if no other join info points at it. A missing one
    /// counts as acknowledged already.
    pub fn acknowledge(&mut self, app: AppId, handle: &ClientHandle, id: DeliveryId) -> &mut Self {
        let handle = handle.clone();
        self.operation(move |overlay| delete_join_info(overlay, app, &handle, id))
    }
}

impl Store {
    /// Deletes a join info, so that it is never delivered again, and the welcome if no other join info points at it; unless it is
    /// for a client of another domain with the same handle. A missing join info counts as acknowledged already.
    ///
    /// # Errors
    /// [`AppendError`], but never a precondition.
    pub async fn acknowledge_in(
        &self,
        app: AppId,
        handle: &ClientHandle,
        domain: Option<&DomainName>,
        id: DeliveryId,
    ) -> Result<(), AppendError> {
        let (handle, domain) = (handle.clone(), domain.cloned());
        let mut batch = Batch::new();
        batch.operation(move |overlay| {
            let info = overlay.row::<JoinInfoRow>(table::JOIN_INFOS, &join_info_key(app, &handle, id))?;
            if info.is_some_and(|info| info.is_for(domain.as_ref())) {
                delete_join_info(overlay, app, &handle, id)?;
            }
            Ok(())
        });
        self.append(batch).await.map(|_| ())
    }
}

/// Deletes the join infos of a client. Those without a domain are deleted with the last client of the handle.
pub(crate) fn delete_join_infos_of(
    overlay: &mut Overlay<'_>,
    app: AppId,
    handle: &ClientHandle,
    domain: Option<&DomainName>,
    is_last: bool,
) -> Result<(), Refusal> {
    for (key, value) in overlay.scan(table::JOIN_INFOS, join_infos_of(app, handle).prefix())? {
        let info: JoinInfoRow = rows::decode(table::JOIN_INFOS, &value)?;
        let goes = match &info.domain {
            Some(of) => Some(of) == domain,
            None => is_last,
        };
        if goes {
            let (_, _, id) = read_join_info_key(&key)?;
            delete_join_info(overlay, app, handle, id)?;
        }
    }
    Ok(())
}

fn delete_join_info(
    overlay: &mut Overlay<'_>,
    app: AppId,
    handle: &ClientHandle,
    id: DeliveryId,
) -> Result<(), Refusal> {
    let key = join_info_key(app, handle, id);
    let Some(info) = overlay.row::<JoinInfoRow>(table::JOIN_INFOS, &key)? else { return Ok(()) };
    overlay.delete(table::JOIN_INFOS, &key);
    welcome_shares::give_back(overlay, app, handle, &info)?;
    let welcome = welcome_key(app, &info.group, info.epoch);
    match readers(overlay, &welcome)? {
        0 | 1 => {
            overlay.delete(table::WELCOME_READERS, &welcome);
            overlay.delete(table::WELCOMES, &welcome);
        }
        more => overlay.put(table::WELCOME_READERS, &welcome, Slice::from((more - 1).to_be_bytes())),
    }
    Ok(())
}

/// Assigns the next position in the order of delivery, which takes effect if the batch is written.
fn next_delivery(overlay: &mut Overlay<'_>) -> Result<DeliveryId, ReadError> {
    let key = Key::new().byte(NEXT_DELIVERY);
    let stored = overlay.value(META, &key)?;
    // The first is 1, so that 0 can be "after none".
    let id = stored.map_or(Ok(1), |value| rows::number(META, &value))?;
    let next = id.checked_add(1).ok_or_else(|| ReadError::damaged("delivery ids are used up"))?;
    overlay.put(META, &key, Slice::from(next.to_be_bytes()));
    overlay.answer_with(DeliveryId(id));
    Ok(DeliveryId(id))
}

fn readers(overlay: &Overlay<'_>, welcome: &Key) -> Result<u64, ReadError> {
    let value = overlay.value(table::WELCOME_READERS, welcome)?;
    value.map_or(Ok(0), |value| rows::number(table::WELCOME_READERS, &value))
}

pub(crate) fn read_join_info_key(key: &[u8]) -> Result<(AppId, ClientHandle, DeliveryId), ReadError> {
    let mut reader = KeyReader::new(key, "join_infos");
    let app = reader.app()?;
    let handle = ClientHandle::new(reader.part()?).map_err(|_| reader.damaged())?;
    let id = DeliveryId(reader.u64()?);
    reader.end()?;
    Ok((app, handle, id))
}

impl View {
    /// Up to `limit` join infos that wait for a handle, in order of delivery, after the one given.
    ///
    /// # Errors
    /// [`ReadError`] when the disk fails or a row is damaged.
    pub fn join_infos(
        &self,
        app: AppId,
        handle: &ClientHandle,
        after: Option<DeliveryId>,
        limit: usize,
    ) -> Result<Vec<(DeliveryId, JoinInfoRow)>, ReadError> {
        self.join_infos_from(app, handle, after).take(limit).collect()
    }

    /// As [`View::join_infos`], of the client of one domain, without those of groups that were deleted.
    ///
    /// # Errors
    /// [`ReadError`] when the disk fails or a row is damaged.
    pub fn join_infos_in(
        &self,
        app: AppId,
        handle: &ClientHandle,
        domain: Option<&DomainName>,
        after: Option<DeliveryId>,
        limit: usize,
    ) -> Result<Vec<(DeliveryId, JoinInfoRow)>, ReadError> {
        let mut found = Vec::new();
        for row in self.join_infos_from(app, handle, after) {
            let (id, info) = row?;
            if found.len() >= limit {
                break;
            }
            if info.is_for(domain) && self.deleted_group(app, &info.group)?.is_none() {
                found.push((id, info));
            }
        }
        Ok(found)
    }

    fn join_infos_from(
        &self,
        app: AppId,
        handle: &ClientHandle,
        after: Option<DeliveryId>,
    ) -> impl Iterator<Item = Result<(DeliveryId, JoinInfoRow), ReadError>> {
        let prefix = join_infos_of(app, handle);
        let range = prefix.prefix_from(after.map(|id| join_info_key(app, handle, id)));
        self.scan_join_infos(range).map(|row| row.map(|((_, _, id), row)| (id, row)))
    }

    /// The welcome of the commit that created an epoch, while a join info points at it.
    ///
    /// # Errors
    /// [`ReadError`] when the disk fails or the row is damaged.
    pub fn welcome(
        &self,
        app: AppId,
        group: &GroupId,
        epoch: Epoch,
    ) -> Result<Option<WelcomeRow>, ReadError> {
        self.row(table::WELCOMES, &welcome_key(app, group, epoch))
    }

    /// All welcomes, in the order of their keys, read lazily.
    pub fn all_welcomes(
        &self,
    ) -> impl Iterator<Item = Result<(AppId, GroupId, Epoch, WelcomeRow), ReadError>> {
        self.scan(table::WELCOMES, KeyRange::all()).map(|row| {
            let (key, value) = row?;
            let mut reader = KeyReader::new(&key, "welcomes");
            let (app, group, epoch) = (reader.app()?, reader.group()?, Epoch(reader.u64()?));
            reader.end()?;
            Ok((app, group, epoch, rows::decode(table::WELCOMES, &value)?))
        })
    }

    /// Whether the owner of a group has trees of waiting welcomes that are not stored. They are lost if its log is replaced then.
    ///
    /// # Errors
    /// [`ReadError`] when the disk fails or a row is damaged.
    pub fn lacks_welcome_trees(&self, app: AppId, group: &GroupId) -> Result<bool, ReadError> {
        for row in self.scan(table::WELCOMES, Key::of_app(app).group(group).prefix()) {
            if rows::decode::<WelcomeRow>(table::WELCOMES, &row?.1)?.tree_bytes_to_store > 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The join infos of every application and handle, in the order of their keys, after the one given.
    pub(crate) fn join_infos_after(
        &self,
        after: Option<&(AppId, ClientHandle, DeliveryId)>,
    ) -> impl Iterator<Item = Result<((AppId, ClientHandle, DeliveryId), JoinInfoRow), ReadError>> {
        self.scan_join_infos(match after {
            Some((app, handle, id)) => KeyRange::after(join_info_key(*app, handle, *id).as_bytes()),
            None => KeyRange::all(),
        })
    }

    fn scan_join_infos(
        &self,
        range: KeyRange,
    ) -> impl Iterator<Item = Result<((AppId, ClientHandle, DeliveryId), JoinInfoRow), ReadError>> {
        self.scan(table::JOIN_INFOS, range).map(|row| {
            let (key, value) = row?;
            Ok((read_join_info_key(&key)?, rows::decode(table::JOIN_INFOS, &value)?))
        })
    }
}
