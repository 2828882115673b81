//! The receivers of assigned one-time key packages, kept until the package is used or has expired. A package that is uploaded
//! again, to another queue or to a queue that was deleted and created again, still belongs to its receiver (*Key Package
//! Retrieval*). A package that was dropped because nobody used it in time keeps its row until its lifetime ends, whatever the limits,
//! so that no other receiver gets it. Final keys that were replaced, or deleted with their queue, are kept without a receiver.
//!
//! | table | key | value |
//! |---|---|---|
//! | `assigned_key_packages` | application, 0, reference | [`AssignedRow`] |
//! | `assigned_key_packages` | application, 1, client, when it expires, reference | nothing; for packages that were not dropped |
//! | `assigned_key_packages` | application, 2, client | how many packages of the client are assigned, a number |
//! | `assigned_key_packages` | application, 2, client, domain of a peer | how many of them to that peer, not counting dropped ones, a number |
//! | `assigned_key_packages` | application, 3, client, reference | nothing; for dropped packages |
//! | `assigned_key_packages` | application, 4, client | how many dropped packages of the client are remembered, a number |

use serde::{Deserialize, Serialize};

use super::{key_packages, key_queues::QueueRow, retention::Expiring, table};
use crate::{
    engine::{Batch, Key, KeyRange, KeyReader, Overlay, Rows, Slice, View, rows},
    errors::{ReadError, Refusal, Unmet},
    ids::{AppId, ClientId, DomainName, KeyPackageRef, Timestamp},
};

const ASSIGNED: u8 = 0;
const BY_EXPIRY: u8 = 1;
const COUNT: u8 = 2;
const DROPPED: u8 = 3;
const DROPPED_COUNT: u8 = 4;

/// The most assignments that a new one drops: more than one, so that the number shrinks to a limit that was lowered.
const FORGOTTEN_MAX: usize = 2;

/// An assigned key package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssignedRow {
    /// The package's client.
    pub client_id: ClientId,
    /// The gateway that asked; `None` when the application did.
    pub peer: Option<DomainName>,
    /// The receiver's id, chosen by the caller.
    pub receiver: String,
    /// The end of the package's lifetime.
    pub not_after: Timestamp,
    /// When it was assigned; `None` for a final key, and in a row of an earlier version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
    /// Whether the package was dropped because nobody used it in time after its assignment.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_dropped: bool,
}

/// Limits on the assigned packages of one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AssignedLimits {
    /// In total; beyond it, those that expire first are forgotten, except dropped packages.
    pub per_client_max: u64,
    /// To the receivers of one peer; beyond it, none is assigned.
    pub per_peer_max: u64,
}

impl AssignedRow {
    /// A key package that was the final key of a queue: many receivers may have it, so it must not be assigned as a one-time
    /// package.
    pub fn of_final_key(client_id: ClientId, not_after: Timestamp) -> Self {
        Self { client_id, peer: None, receiver: String::new(), not_after, at: None, is_dropped: false }
    }

    /// Whether the package was a final key. No receiver's id is empty.
    pub fn is_of_final_key(&self) -> bool {
        self.peer.is_none() && self.receiver.is_empty()
    }

    /// Whether the package was assigned before this time and was not dropped since.
    pub fn is_unused_since(&self, oldest_kept: Timestamp) -> bool {
        !self.is_dropped && self.at.is_some_and(|at| at < oldest_kept)
    }

    /// The row once the package is dropped.
    pub fn dropped(&self) -> Self {
        Self { is_dropped: true, ..self.clone() }
    }

    /// Whether a package that no queue holds may be used only once, by the row of its assignment, if there is one: not if it was a
    /// final key, nor if it is marked as a package of last resort and was not dropped after its assignment.
    pub fn is_used_once(row: Option<&Self>, is_last_resort: bool) -> bool {
        match row {
            Some(row) if row.is_of_final_key() => false,
            Some(row) => row.is_dropped || !is_last_resort,
            None => !is_last_resort,
        }
    }
}

fn assigned_key(app: AppId, reference: &KeyPackageRef) -> Key {
    Key::of_app(app).byte(ASSIGNED).last(reference.as_bytes())
}

fn expiries_of(app: AppId, client: ClientId) -> Key {
    Key::of_app(app).byte(BY_EXPIRY).uuid(client.as_uuid())
}

fn total_key(app: AppId, client: ClientId) -> Key {
    Key::of_app(app).byte(COUNT).uuid(client.as_uuid())
}

fn peer_key(app: AppId, client: ClientId, peer: &DomainName) -> Key {
    // No domain is empty, so no peer's count has the key of the total.
    total_key(app, client).last(peer.as_str().as_bytes())
}

fn dropped_of(app: AppId, client: ClientId) -> Key {
    Key::of_app(app).byte(DROPPED).uuid(client.as_uuid())
}

fn dropped_count_key(app: AppId, client: ClientId) -> Key {
    Key::of_app(app).byte(DROPPED_COUNT).uuid(client.as_uuid())
}

/// The key under which the assignments of a client are found.
fn index_key(app: AppId, reference: &KeyPackageRef, row: &AssignedRow) -> Key {
    if row.is_dropped {
        dropped_of(app, row.client_id).last(reference.as_bytes())
    } else {
        expiries_of(app, row.client_id).u64(row.not_after.0).last(reference.as_bytes())
    }
}

/// The numbers that an assignment counts for.
fn count_keys(app: AppId, row: &AssignedRow) -> impl Iterator<Item = Key> {
    let further = if row.is_dropped {
        Some(dropped_count_key(app, row.client_id))
    } else {
        row.peer.as_ref().map(|peer| peer_key(app, row.client_id, peer))
    };
    [Some(total_key(app, row.client_id)), further].into_iter().flatten()
}

/// Whether a package that no queue holds may be used only once; see [`AssignedRow::is_used_once`].
pub(crate) fn is_used_once(
    overlay: &Overlay<'_>,
    app: AppId,
    reference: &KeyPackageRef,
    is_last_resort: bool,
) -> Result<bool, ReadError> {
    let row = overlay.row(table::ASSIGNED_KEY_PACKAGES, &assigned_key(app, reference))?;
    Ok(AssignedRow::is_used_once(row.as_ref(), is_last_resort))
}

impl Batch {
    /// Remembers the receiver of a key package. Precondition: the requesting peer, if there is one, has fewer than
    /// [`AssignedLimits::per_peer_max`] packages of the client, else [`Unmet::PeerShareTaken`].
    pub fn assign_key_package(
        &mut self,
        app: AppId,
        reference: &KeyPackageRef,
        row: &AssignedRow,
        limits: AssignedLimits,
    ) -> &mut Self {
        let expiring = Expiring::Assigned { app, reference: reference.clone() };
        self.key(assigned_key(app, reference));
        self.key(index_key(app, reference, row));
        self.key(expiring.key(row.not_after));
        let value = self.row(row);
        let (reference, row) = (reference.clone(), row.clone());
        self.operation(move |overlay| {
            forget(overlay, app, &reference)?;
            if let Some(peer) = &row.peer
                && count(overlay, &peer_key(app, row.client_id, peer))? >= limits.per_peer_max
            {
                return Err(Unmet::PeerShareTaken { max: limits.per_peer_max }.into());
            }
            assign(overlay, app, &reference, &row, value)?;
            forget_first(overlay, app, row.client_id, limits.per_client_max)
        })
    }

    /// Drops a key package because nobody used it in time after its assignment: its queue no longer holds it, and it no longer
    /// counts for the peer that asked. Nothing is done if the assignment is no longer `row`, or if `dropped_max` dropped packages of
    /// the client are remembered: one that is forgotten could be assigned to another receiver.
    pub fn drop_unused(
        &mut self,
        app: AppId,
        reference: &KeyPackageRef,
        row: &AssignedRow,
        dropped_max: u64,
    ) -> &mut Self {
        let key = assigned_key(app, reference);
        let dropped = row.dropped();
        self.key(index_key(app, reference, &dropped));
        let value = self.row(&dropped);
        let (reference, row) = (reference.clone(), row.clone());
        self.operation(move |overlay| {
            let is_same = overlay.row(table::ASSIGNED_KEY_PACKAGES, &key)?.as_ref() == Some(&row);
            if !is_same
                || row.is_dropped
                || count(overlay, &dropped_count_key(app, row.client_id))? >= dropped_max
            {
                return Ok(());
            }
            key_packages::delete_one_time(overlay, app, &reference)?;
            assign(overlay, app, &reference, &dropped, value)
        })
    }

    /// Remembers the final keys of a queue, which is about to be deleted.
    pub fn remember_final_keys(&mut self, app: AppId, row: &QueueRow, limits: AssignedLimits) -> &mut Self {
        let (queue, client) = (row.queue_id, row.client_id);
        self.operation(move |overlay| {
            for (reference, not_after) in key_packages::final_keys_of(overlay, app, queue)? {
                let row = AssignedRow::of_final_key(client, not_after);
                let value = rows::encode(&row).map_err(|error| ReadError::damaged(error.to_string()))?;
                assign(overlay, app, &reference, &row, value)?;
                forget_first(overlay, app, client, limits.per_client_max)?;
            }
            Ok(())
        })
    }

    /// Precondition: the key package has this receiver or none, else [`Unmet::KeyPackageAssigned`].
    pub fn require_assigned(
        &mut self,
        app: AppId,
        reference: &KeyPackageRef,
        expected: Option<&AssignedRow>,
    ) -> &mut Self {
        let (reference, expected) = (reference.clone(), expected.cloned());
        self.operation(move |overlay| {
            if overlay.row::<AssignedRow>(table::ASSIGNED_KEY_PACKAGES, &assigned_key(app, &reference))?
                == expected
            {
                Ok(())
            } else {
                Err(Unmet::KeyPackageAssigned { reference }.into())
            }
        })
    }
}

fn count(overlay: &Overlay<'_>, key: &Key) -> Result<u64, ReadError> {
    overlay
        .value(table::ASSIGNED_KEY_PACKAGES, key)?
        .map_or(Ok(0), |value| rows::number(table::ASSIGNED_KEY_PACKAGES, &value))
}

/// Writes an assignment, over an older one.
fn assign(
    overlay: &mut Overlay<'_>,
    app: AppId,
    reference: &KeyPackageRef,
    row: &AssignedRow,
    value: Slice,
) -> Result<(), Refusal> {
    forget(overlay, app, reference)?;
    let expiring = Expiring::Assigned { app, reference: reference.clone() };
    overlay.put(table::ASSIGNED_KEY_PACKAGES, &assigned_key(app, reference), value);
    overlay.put(table::ASSIGNED_KEY_PACKAGES, &index_key(app, reference, row), Slice::from([]));
    overlay.put(table::EXPIRIES, &expiring.key(row.not_after), Slice::from([]));
    for key in count_keys(app, row) {
        let more = count(overlay, &key)?.saturating_add(1);
        overlay.put(table::ASSIGNED_KEY_PACKAGES, &key, Slice::from(more.to_be_bytes()));
    }
    Ok(())
}

/// Drops an assignment, if there is one.
pub(crate) fn forget(
    overlay: &mut Overlay<'_>,
    app: AppId,
    reference: &KeyPackageRef,
) -> Result<(), Refusal> {
    let key = assigned_key(app, reference);
    let Some(row) = overlay.row::<AssignedRow>(table::ASSIGNED_KEY_PACKAGES, &key)? else { return Ok(()) };
    overlay.delete(table::ASSIGNED_KEY_PACKAGES, &key);
    overlay.delete(table::ASSIGNED_KEY_PACKAGES, &index_key(app, reference, &row));
    let expiring = Expiring::Assigned { app, reference: reference.clone() };
    overlay.delete(table::EXPIRIES, &expiring.key(row.not_after));
    for key in count_keys(app, &row) {
        count_one_less(overlay, &key)?;
    }
    Ok(())
}

fn count_one_less(overlay: &mut Overlay<'_>, key: &Key) -> Result<(), Refusal> {
    match count(overlay, key)? {
        0 | 1 => overlay.delete(table::ASSIGNED_KEY_PACKAGES, key),
        held => overlay.put(table::ASSIGNED_KEY_PACKAGES, key, Slice::from((held - 1).to_be_bytes())),
    }
    Ok(())
}

/// Forgets the assignments of a client that expire first, while it has more than `max`; never those of dropped packages.
fn forget_first(overlay: &mut Overlay<'_>, app: AppId, client: ClientId, max: u64) -> Result<(), Refusal> {
    for _ in 0..FORGOTTEN_MAX {
        if count(overlay, &total_key(app, client))? <= max {
            break;
        }
        let prefix = expiries_of(app, client);
        let skipped = prefix.as_bytes().len();
        let Some(key) = overlay.first_key(table::ASSIGNED_KEY_PACKAGES, prefix.prefix())? else { break };
        forget(overlay, app, &read_reference(&key, skipped)?)?;
    }
    Ok(())
}

pub(crate) fn forget_all_of(overlay: &mut Overlay<'_>, app: AppId, client: ClientId) -> Result<(), Refusal> {
    let prefix = expiries_of(app, client);
    let skipped = prefix.as_bytes().len();
    for (key, _) in overlay.scan(table::ASSIGNED_KEY_PACKAGES, prefix.prefix())? {
        forget(overlay, app, &read_reference(&key, skipped)?)?;
    }
    let prefix = dropped_of(app, client);
    let skipped = prefix.as_bytes().len();
    for (key, _) in overlay.scan(table::ASSIGNED_KEY_PACKAGES, prefix.prefix())? {
        let reference = KeyPackageRef::new(key.get(skipped..).unwrap_or(&[]));
        forget(overlay, app, &reference.map_err(|error| ReadError::damaged(error.to_string()))?)?;
    }
    Ok(())
}

fn read_reference(key: &[u8], skipped: usize) -> Result<KeyPackageRef, ReadError> {
    let mut reader = KeyReader::new(key.get(skipped..).unwrap_or(&[]), "assigned_key_packages");
    reader.u64()?;
    let damaged = reader.damaged();
    KeyPackageRef::new(reader.last()).map_err(|_| damaged)
}

impl View {
    /// The receiver of a key package that was neither used nor expired since its assignment.
    ///
    /// # Errors
    /// [`ReadError`] when the disk fails or the row is damaged.
    pub fn assigned(&self, app: AppId, reference: &KeyPackageRef) -> Result<Option<AssignedRow>, ReadError> {
        self.row(table::ASSIGNED_KEY_PACKAGES, &assigned_key(app, reference))
    }

    /// The number of a client's key packages that are assigned to the receivers of a peer, over all queues that the client has
    /// or had.
    ///
    /// # Errors
    /// [`ReadError`] when the disk fails or the row is damaged.
    pub fn assigned_to_peer(
        &self,
        app: AppId,
        client: ClientId,
        peer: &DomainName,
    ) -> Result<u64, ReadError> {
        let value = self.value(table::ASSIGNED_KEY_PACKAGES, &peer_key(app, client, peer))?;
        value.map_or(Ok(0), |value| rows::number(table::ASSIGNED_KEY_PACKAGES, &value))
    }

    /// The number of a client's dropped key packages that are remembered.
    ///
    /// # Errors
    /// [`ReadError`] when the disk fails or the row is damaged.
    pub fn dropped_key_packages(&self, app: AppId, client: ClientId) -> Result<u64, ReadError> {
        let value = self.value(table::ASSIGNED_KEY_PACKAGES, &dropped_count_key(app, client))?;
        value.map_or(Ok(0), |value| rows::number(table::ASSIGNED_KEY_PACKAGES, &value))
    }

    /// The assignments of all applications, in the order of their keys, after the one given. Rows of other kinds are skipped
    /// without reading them.
    pub(super) fn assigned_after(
        &self,
        after: Option<&(AppId, KeyPackageRef)>,
    ) -> impl Iterator<Item = Result<(AppId, KeyPackageRef, AssignedRow), ReadError>> {
        let scan = |range| self.scan(table::ASSIGNED_KEY_PACKAGES, range);
        let mut rows = scan(match after {
            Some((app, reference)) => KeyRange::after(assigned_key(*app, reference).as_bytes()),
            None => KeyRange::all(),
        });
        std::iter::from_fn(move || {
            loop {
                let (key, value) = match rows.next()? {
                    Ok(row) => row,
                    Err(error) => return Some(Err(error)),
                };
                match read_assigned(&key, &value) {
                    Ok((app, None)) => {
                        rows = scan(KeyRange::after(Key::of_app(app).byte(u8::MAX).as_bytes()))
                    }
                    Ok((app, Some((reference, row)))) => return Some(Ok((app, reference, row))),
                    Err(error) => return Some(Err(error)),
                }
            }
        })
    }
}

/// The application of a row, and its assignment if it is one.
fn read_assigned(
    key: &[u8],
    value: &Slice,
) -> Result<(AppId, Option<(KeyPackageRef, AssignedRow)>), ReadError> {
    let mut reader = KeyReader::new(key, "assigned_key_packages");
    let app = reader.app()?;
    if reader.byte()? != ASSIGNED {
        return Ok((app, None));
    }
    let damaged = reader.damaged();
    let reference = KeyPackageRef::new(reader.last()).map_err(|_| damaged)?;
    Ok((app, Some((reference, rows::decode(table::ASSIGNED_KEY_PACKAGES, value)?))))
}
