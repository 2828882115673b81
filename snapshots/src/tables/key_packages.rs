//! Key packages: the queues that hold each one, and the ones that were used (*Advancing a Key Package Queue*).
//!
//! | table | key | value |
//! |---|---|---|
//! | `key_packages` | application, reference, queue | [`KeyPackageRow`] |
//! | `queue_key_packages` | application, queue, reference | when it expires, a number |
//! | `used_key_packages` | application, reference | [`UsedRow`] |
//!
//! All of these rows are deleted some time after the package has expired; see `retention.rs`.

use serde::{Deserialize, Serialize};

use super::{assigned_key_packages, key_queues, retention::Expiring, table};
use crate::{
    engine::{Batch, Key, KeyReader, Overlay, Rows, Slice, View, rows},
    errors::{ReadError, Refusal, Unmet},
    ids::{AppId, ClientId, Epoch, GroupId, KeyPackageRef, KeyQueueId, Timestamp},
};

/// A key package that a queue holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyPackageRow {
    /// Whether it may be used more than once: the queue's final key (*Managing Key Packages*).
    pub is_final: bool,
    /// The end of its lifetime (RFC 9420 §7.2).
    pub not_after: Timestamp,
    /// A digest of the signature key of its leaf; `None` in a row of an earlier version.
    #[serde(default, with = "serde_bytes")]
    pub signer: Option<[u8; 32]>,
}

impl KeyPackageRow {
    /// Whether a package that is held like this cannot also be held in the other way. A one-time package is in one queue only,
    /// and no package is both one-time and final.
    pub fn excludes(&self, is_same_queue: bool, is_final: bool) -> bool {
        self.is_final != is_final || !(is_final || is_same_queue)
    }
}

/// The use of a key package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsedRow {
    /// The group to which its client was added.
    pub group: GroupId,
    /// The epoch that the client joined in.
    pub epoch: Epoch,
    /// The end of the package's lifetime, after which it cannot be used anyway.
    pub not_after: Timestamp,
}

/// The key packages of a queue, by number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueCounts {
    /// Those that it holds: assigned and expired ones and final keys, too.
    pub held: u64,
    /// One-time packages that have not expired and are not assigned.
    pub available: u64,
}

fn holders_of(app: AppId, reference: &KeyPackageRef) -> Key {
    Key::of_app(app).part(reference.as_bytes())
}

pub(super) fn holder_key(app: AppId, reference: &KeyPackageRef, queue: KeyQueueId) -> Key {
    holders_of(app, reference).uuid(queue.as_uuid())
}

fn held_by(app: AppId, queue: KeyQueueId) -> Key {
    Key::of_app(app).uuid(queue.as_uuid())
}

pub(super) fn held_key(app: AppId, queue: KeyQueueId, reference: &KeyPackageRef) -> Key {
    held_by(app, queue).last(reference.as_bytes())
}

fn used_key(app: AppId, reference: &KeyPackageRef) -> Key {
    Key::of_app(app).last(reference.as_bytes())
}

impl Batch {
    /// Records that a queue holds a key package. Precondition: the queue exists, else [`Unmet::QueueMissing`].
    pub fn put_key_package(
        &mut self,
        app: AppId,
        queue: KeyQueueId,
        reference: &KeyPackageRef,
        row: &KeyPackageRow,
    ) -> &mut Self {
        let holder = self.key(holder_key(app, reference, queue));
        let held = self.key(held_key(app, queue, reference));
        let expiring = Expiring::Held { app, queue, reference: reference.clone() };
        let expiry = self.key(expiring.key(row.not_after));
        let value = self.row(row);
        let not_after = row.not_after;
        self.operation(move |overlay| {
            key_queues::require_queue(overlay, app, queue)?;
            if let Some(before) = overlay.value(table::QUEUE_KEY_PACKAGES, &held)? {
                let before = read_expiry(&before)?;
                overlay.delete(table::EXPIRIES, &expiring.key(before));
            }
            overlay.put(table::KEY_PACKAGES, &holder, value);
            overlay.put(table::QUEUE_KEY_PACKAGES, &held, Slice::from(not_after.0.to_be_bytes()));
            overlay.put(table::EXPIRIES, &expiry, Slice::from([]));
            Ok(())
        })
    }

    /// Records that a queue no longer holds a key package.
    pub fn delete_key_package(
        &mut self,
        app: AppId,
        queue: KeyQueueId,
        reference: &KeyPackageRef,
    ) -> &mut Self {
        let reference = reference.clone();
        self.operation(move |overlay| delete_key_package(overlay, app, queue, &reference))
    }

    /// Records that an Add used a key package. A one-time package is removed from all queues, which
    /// [`Appended::advanced`](crate::Appended) lists; precondition: it was not used before, else [`Unmet::KeyPackageUsed`], so
    /// only one of the commits that carry it wins. A package is one-time if a queue holds it other than as its final key, or if
    /// no queue holds it and [`AssignedRow::is_used_once`](crate::AssignedRow::is_used_once) says so.
    pub fn use_key_package(
        &mut self,
        app: AppId,
        reference: &KeyPackageRef,
        is_last_resort: bool,
        row: &UsedRow,
    ) -> &mut Self {
        self.key_package_used(app, reference, is_last_resort, row, |overlay, used, reference| {
            require_unused(overlay, used, reference.clone())
        })
    }

    /// As [`Batch::use_key_package`], without the precondition, for a commit that another gateway accepted. The first use stays
    /// recorded.
    pub fn note_key_package_used(
        &mut self,
        app: AppId,
        reference: &KeyPackageRef,
        is_last_resort: bool,
        row: &UsedRow,
    ) -> &mut Self {
        self.key_package_used(app, reference, is_last_resort, row, |_, _, _| Ok(()))
    }

    fn key_package_used(
        &mut self,
        app: AppId,
        reference: &KeyPackageRef,
        is_last_resort: bool,
        row: &UsedRow,
        precondition: fn(&Overlay<'_>, &Key, &KeyPackageRef) -> Result<(), Refusal>,
    ) -> &mut Self {
        let expiry = self.key(Expiring::Used { app, reference: reference.clone() }.key(row.not_after));
        let used = self.key(used_key(app, reference));
        let value = self.row(row);
        let reference = reference.clone();
        self.operation(move |overlay| {
            let holders = holders(overlay, app, &reference)?;
            let is_used_up = if holders.is_empty() {
                assigned_key_packages::is_used_once(overlay, app, &reference, is_last_resort)?
            } else {
                holders.iter().any(|(_, held)| !held.is_final)
            };
            // One that was used once is never used again, even if no queue holds it now and it is marked as a package of last resort.
            if !is_used_up && !overlay.holds(table::USED_KEY_PACKAGES, &used)? {
                return Ok(());
            }
            precondition(overlay, &used, &reference)?;
            for (queue, _) in holders {
                delete_key_package(overlay, app, queue, &reference)?;
                overlay.advanced(queue, reference.clone());
            }
            if !overlay.holds(table::USED_KEY_PACKAGES, &used)? {
                overlay.put(table::USED_KEY_PACKAGES, &used, value);
                overlay.put(table::EXPIRIES, &expiry, Slice::from([]));
            }
            assigned_key_packages::forget(overlay, app, &reference)
        })
    }

    /// Precondition: no queue holds the key package in a way that excludes this one (see [`KeyPackageRow::excludes`]), else
    /// [`Unmet::KeyPackageHeld`].
    pub fn require_holdable(
        &mut self,
        app: AppId,
        queue: KeyQueueId,
        reference: &KeyPackageRef,
        is_final: bool,
    ) -> &mut Self {
        let reference = reference.clone();
        self.operation(move |overlay| {
            for (holder, held) in holders(overlay, app, &reference)? {
                if held.excludes(holder == queue, is_final) {
                    return Err(Unmet::KeyPackageHeld { reference }.into());
                }
            }
            Ok(())
        })
    }

    /// Precondition: the key package was not used, else [`Unmet::KeyPackageUsed`].
    pub fn require_unused(&mut self, app: AppId, reference: &KeyPackageRef) -> &mut Self {
        let (key, reference) = (used_key(app, reference), reference.clone());
        self.operation(move |overlay| require_unused(overlay, &key, reference))
    }
}

/// The queues that hold a key package.
fn holders(
    overlay: &Overlay<'_>,
    app: AppId,
    reference: &KeyPackageRef,
) -> Result<Vec<(KeyQueueId, KeyPackageRow)>, ReadError> {
    let prefix = holders_of(app, reference);
    let skipped = prefix.as_bytes().len();
    let holders = overlay.scan(table::KEY_PACKAGES, prefix.prefix())?.into_iter();
    holders
        .map(|(key, value)| Ok((read_holder(&key, skipped)?, rows::decode(table::KEY_PACKAGES, &value)?)))
        .collect()
}

fn require_unused(overlay: &Overlay<'_>, key: &Key, reference: KeyPackageRef) -> Result<(), Refusal> {
    if overlay.holds(table::USED_KEY_PACKAGES, key)? {
        return Err(Unmet::KeyPackageUsed { reference }.into());
    }
    Ok(())
}

pub(crate) fn delete_key_packages_of(
    overlay: &mut Overlay<'_>,
    app: AppId,
    queue: KeyQueueId,
) -> Result<(), Refusal> {
    let prefix = held_by(app, queue);
    let skipped = prefix.as_bytes().len();
    for (key, _) in overlay.scan(table::QUEUE_KEY_PACKAGES, prefix.prefix())? {
        delete_key_package(overlay, app, queue, &read_reference(key.get(skipped..).unwrap_or(&[]))?)?;
    }
    Ok(())
}

/// The final keys that a queue holds, with the ends of their lifetimes.
pub(crate) fn final_keys_of(
    overlay: &Overlay<'_>,
    app: AppId,
    queue: KeyQueueId,
) -> Result<Vec<(KeyPackageRef, Timestamp)>, ReadError> {
    let prefix = held_by(app, queue);
    let skipped = prefix.as_bytes().len();
    let mut found = Vec::new();
    for (key, _) in overlay.scan(table::QUEUE_KEY_PACKAGES, prefix.prefix())? {
        let reference = read_reference(key.get(skipped..).unwrap_or(&[]))?;
        let row = overlay.row::<KeyPackageRow>(table::KEY_PACKAGES, &holder_key(app, &reference, queue))?;
        if let Some(KeyPackageRow { is_final: true, not_after, .. }) = row {
            found.push((reference, not_after));
        }
    }
    Ok(found)
}

/// Deletes a held package's rows, if it is held.
pub(crate) fn delete_key_package(
    overlay: &mut Overlay<'_>,
    app: AppId,
    queue: KeyQueueId,
    reference: &KeyPackageRef,
) -> Result<(), Refusal> {
    let held = held_key(app, queue, reference);
    let Some(not_after) = overlay.value(table::QUEUE_KEY_PACKAGES, &held)? else { return Ok(()) };
    let expiring = Expiring::Held { app, queue, reference: reference.clone() };
    overlay.delete(table::EXPIRIES, &expiring.key(read_expiry(&not_after)?));
    overlay.delete(table::QUEUE_KEY_PACKAGES, &held);
    overlay.delete(table::KEY_PACKAGES, &holder_key(app, reference, queue));
    Ok(())
}

/// Deletes the rows of a package in the queues that hold it other than as their final key.
pub(crate) fn delete_one_time(
    overlay: &mut Overlay<'_>,
    app: AppId,
    reference: &KeyPackageRef,
) -> Result<(), Refusal> {
    for (queue, held) in holders(overlay, app, reference)? {
        if !held.is_final {
            delete_key_package(overlay, app, queue, reference)?;
        }
    }
    Ok(())
}

/// Deletes the row of a used package.
pub(crate) fn delete_used(overlay: &mut Overlay<'_>, app: AppId, reference: &KeyPackageRef) {
    overlay.delete(table::USED_KEY_PACKAGES, &used_key(app, reference));
}

fn read_reference(bytes: &[u8]) -> Result<KeyPackageRef, ReadError> {
    KeyPackageRef::new(bytes).map_err(|error| ReadError::damaged(error.to_string()))
}

fn read_holder(key: &[u8], skipped: usize) -> Result<KeyQueueId, ReadError> {
    let mut reader = KeyReader::new(key.get(skipped..).unwrap_or(&[]), "key_packages");
    let queue = KeyQueueId::new(reader.uuid()?);
    reader.end()?;
    Ok(queue)
}

/// The application, the reference and the queue of a row of `key_packages`.
pub(super) fn read_holder_key(key: &[u8]) -> Result<(AppId, KeyPackageRef, KeyQueueId), ReadError> {
    let mut reader = KeyReader::new(key, "key_packages");
    let (app, reference) = (reader.app()?, read_reference(reader.part()?)?);
    let queue = KeyQueueId::new(reader.uuid()?);
    reader.end()?;
    Ok((app, reference, queue))
}

/// The application, the queue and the reference of a row of `queue_key_packages`.
pub(super) fn read_held_key(key: &[u8]) -> Result<(AppId, KeyQueueId, KeyPackageRef), ReadError> {
    let mut reader = KeyReader::new(key, "queue_key_packages");
    let (app, queue) = (reader.app()?, KeyQueueId::new(reader.uuid()?));
    Ok((app, queue, read_reference(reader.last())?))
}

fn read_expiry(value: &[u8]) -> Result<Timestamp, ReadError> {
    rows::number(table::QUEUE_KEY_PACKAGES, value).map(Timestamp)
}

impl View {
    /// The key packages of a queue, counted. It reads each of them.
    ///
    /// # Errors
    /// [`ReadError`] when the disk fails or a row is damaged.
    pub fn queue_counts(
        &self,
        app: AppId,
        queue: KeyQueueId,
        now: Timestamp,
    ) -> Result<QueueCounts, ReadError> {
        let prefix = held_by(app, queue);
        let skipped = prefix.as_bytes().len();
        let mut counts = QueueCounts::default();
        for row in self.scan(table::QUEUE_KEY_PACKAGES, prefix.prefix()) {
            let (key, not_after) = row?;
            counts.held += 1;
            if read_expiry(&not_after)? <= now {
                continue;
            }
            let reference = read_reference(key.get(skipped..).unwrap_or(&[]))?;
            let row: Option<KeyPackageRow> =
                self.row(table::KEY_PACKAGES, &holder_key(app, &reference, queue))?;
            if row.is_some_and(|row| !row.is_final) && self.assigned(app, &reference)?.is_none() {
                counts.available += 1;
            }
        }
        Ok(counts)
    }

    /// The number of key packages that the queues of an application hold, counted up to `max`.
    ///
    /// # Errors
    /// [`ReadError`] when the disk fails.
    pub fn count_key_packages(&self, app: AppId, max: usize) -> Result<usize, ReadError> {
        self.count_rows(table::QUEUE_KEY_PACKAGES, Key::of_app(app).prefix(), max)
    }

    /// The queues that hold a key package, with their clients.
    ///
    /// # Errors
    /// [`ReadError`] when the disk fails or a row is damaged or missing.
    pub fn queues_holding(
        &self,
        app: AppId,
        reference: &KeyPackageRef,
    ) -> Result<Vec<(KeyQueueId, ClientId, KeyPackageRow)>, ReadError> {
        let prefix = holders_of(app, reference);
        let skipped = prefix.as_bytes().len();
        let found = |row: Result<(Slice, Slice), ReadError>| {
            let (key, value) = row?;
            let queue = read_holder(&key, skipped)?;
            let client = self.owner(app, queue)?;
            let client =
                client.ok_or_else(|| ReadError::damaged(format!("a key package is in no queue: {queue}")))?;
            Ok((queue, client, rows::decode(table::KEY_PACKAGES, &value)?))
        };
        self.scan(table::KEY_PACKAGES, prefix.prefix()).map(found).collect()
    }

    /// Whether a queue of a client holds a key package signed by this key, among the first `per_queue_max` of each queue.
    ///
    /// # Errors
    /// [`ReadError`] when the disk fails or a row is damaged or missing.
    pub fn holds_signed_by(
        &self,
        app: AppId,
        client: ClientId,
        signer: &[u8; 32],
        per_queue_max: usize,
    ) -> Result<bool, ReadError> {
        for queue in self.queues(app, client)? {
            let prefix = held_by(app, queue.queue_id);
            let skipped = prefix.as_bytes().len();
            for key in self.scan_keys(table::QUEUE_KEY_PACKAGES, prefix.prefix()).take(per_queue_max) {
                let reference = read_reference(key?.get(skipped..).unwrap_or(&[]))?;
                let key = holder_key(app, &reference, queue.queue_id);
                let row = self.row::<KeyPackageRow>(table::KEY_PACKAGES, &key)?;
                if row.and_then(|row| row.signer).as_ref() == Some(signer) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// The use of a key package; `None` when it was not used, or expired long ago.
    ///
    /// # Errors
    /// [`ReadError`] when the disk fails or the row is damaged.
    pub fn used(&self, app: AppId, reference: &KeyPackageRef) -> Result<Option<UsedRow>, ReadError> {
        self.row(table::USED_KEY_PACKAGES, &used_key(app, reference))
    }
}
