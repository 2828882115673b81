//! A key queue's state: pure, synchronous, without clock, disk or actor. The state is a function of a snapshot and the
//! records after it; reads leave out packages that have expired, were used or belong to an earlier handle (*Key Package
//! Retrieval*, *Advancing a Key Package Queue*).

mod choice;
mod final_keys;
mod one_time;
#[cfg(test)]
mod tests;

use snapshots::{KeyPackageRef, Timestamp};

pub(crate) use self::choice::Choice;
pub(super) use self::{
    choice::Candidate,
    final_keys::FinalKey,
    one_time::{QueuePosition, Removed, StoredPackage},
};
use self::{final_keys::FinalKeys, one_time::OneTimePackages};
use super::{
    PoolCounts,
    package::{NewPackage, Receiver},
    record::QueueRecord,
    stored::{FORMAT, NewSnapshot, Snapshot},
};
use crate::{
    codec::{CodecError, decode, encode_long},
    durable::DurableState,
};

/// A key queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct KeyQueueState {
    packages: OneTimePackages,
    final_keys: FinalKeys,
    /// Whether the final key was given out since packages were last uploaded.
    is_final_key_used: bool,
    /// Whether it was told since then that few packages are left.
    is_low_told: bool,
}

/// Packages that were dropped because no group could add them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DroppedPackages {
    pub(crate) count: usize,
    /// The reason for the first one.
    pub(crate) reason: String,
}

/// The largest size of a package in a snapshot in addition to its message, with a receiver id of the default limit.
const PACKAGE_OVERHEAD_BYTES: usize = 640;

/// The memory of a queue in addition to its packages, in bytes.
const WEIGHT_OF_QUEUE: usize = 4 << 10;

/// The memory of a package that a reset removed, in bytes.
const WEIGHT_OF_REMOVED: usize = 512;

/// The size of a package in a snapshot, at most, in bytes.
fn snapshot_bytes(package: &NewPackage) -> usize {
    package.message.len().saturating_add(PACKAGE_OVERHEAD_BYTES)
}

impl KeyQueueState {
    /// Drops packages that have expired at `now` or were uploaded for an older handle.
    pub(crate) fn retire(&mut self, now: Timestamp, generation: u64) {
        self.packages.retire(now, generation);
        self.final_keys.retire(now, generation);
    }

    /// The final keys that a new one replaces.
    pub(crate) fn replaced_by<'a>(
        &'a self,
        new: &'a NewPackage,
        generation: u64,
        at: Timestamp,
    ) -> impl Iterator<Item = &'a NewPackage> {
        self.final_keys.replaced_by(new, generation, at)
    }

    /// The package of a receiver.
    pub(crate) fn package_of(&self, receiver: &Receiver) -> Option<&KeyPackageRef> {
        self.packages.of_receiver(receiver).map(|held| &held.package.reference)
    }

    /// The packages that have a receiver.
    pub(crate) fn assigned_references(&self) -> impl Iterator<Item = &KeyPackageRef> {
        self.packages.assigned().map(|package| &package.reference)
    }

    /// Takes a used or dropped package out of the queue (*Advancing a Key Package Queue*).
    pub(crate) fn advance(&mut self, reference: &KeyPackageRef) {
        self.packages.advance(reference);
    }

    /// The number of packages that the pool would have to assign after an upload. Assigned packages do not count, nor those
    /// that have expired at `now` but remain because the clock is not trusted.
    pub(crate) fn free_after(&self, is_reset: bool, packages: &[NewPackage], now: Timestamp) -> usize {
        let unassigned = packages.iter().filter(|package| package.receiver.is_none());
        if is_reset {
            return unassigned.count();
        }
        self.packages.free().filter(|package| now < package.not_after).count()
            + unassigned.filter(|package| !self.packages.holds(&package.reference)).count()
    }

    /// The largest size in bytes that the queue's snapshot would have after an upload. The final key comes with its client's handle
    /// generation and the time.
    pub(crate) fn bytes_after(
        &self,
        is_reset: bool,
        packages: &[NewPackage],
        final_key: Option<(&NewPackage, u64, Timestamp)>,
    ) -> usize {
        let new = packages.iter().filter(|package| is_reset || !self.packages.holds(&package.reference));
        let final_keys = match final_key {
            Some((new, generation, at)) => {
                let kept = self.final_keys.kept_beside(new, generation, at);
                snapshot_bytes(new).saturating_add(kept.map_or(0, |key| snapshot_bytes(&key.package)))
            }
            None => self.final_keys.iter().map(snapshot_bytes).fold(0, usize::saturating_add),
        };
        let before = if is_reset { 0 } else { self.packages.held_bytes };
        before.saturating_add(new.map(snapshot_bytes).sum()).saturating_add(final_keys)
    }

    /// Drops the packages and final keys that are not fit, which were stored before fitness was checked; returns the dropped
    /// ones, if any.
    pub(crate) fn retain_fit(
        &mut self,
        check_fit: impl Fn(&[u8]) -> Result<(), String>,
    ) -> Option<DroppedPackages> {
        let mut dropped: Option<DroppedPackages> = None;
        let mut is_fit = |package: &NewPackage| match check_fit(&package.message) {
            Ok(()) => true,
            Err(reason) => {
                dropped.get_or_insert(DroppedPackages { count: 0, reason }).count += 1;
                false
            }
        };
        let packages = self.packages.held.values().map(|held| &held.package);
        let unfit: Vec<KeyPackageRef> =
            packages.filter(|package| !is_fit(package)).map(|package| package.reference.clone()).collect();
        self.final_keys.retain(is_fit);
        for reference in unfit {
            self.advance(&reference);
        }
        dropped
    }

    pub(crate) fn references(&self) -> impl Iterator<Item = &KeyPackageRef> {
        self.packages.references()
    }

    /// The packages that are used once and have not expired.
    pub(crate) fn references_at(&self, now: Timestamp) -> impl Iterator<Item = &KeyPackageRef> {
        let held = self.packages.held.values().map(|held| &held.package);
        held.filter(move |package| now < package.not_after).map(|package| &package.reference)
    }

    /// The part of the queue that has not expired at `now`.
    pub(crate) fn counts(&self, now: Timestamp) -> PoolCounts {
        let is_current = |package: &NewPackage| now < package.not_after;
        let current = || self.packages.held.values().filter(|held| is_current(&held.package));
        PoolCounts {
            in_pool: current().count(),
            available: current().filter(|held| held.receiver.is_none()).count(),
            has_final_key: self.final_keys.latest.as_ref().is_some_and(|key| is_current(&key.package)),
        }
    }

    /// Applies a recorded change.
    pub(crate) fn apply(&mut self, record: QueueRecord) {
        match record {
            QueueRecord::Uploaded { is_reset, packages, final_key, generation, at } => {
                if is_reset {
                    self.packages.reset(generation);
                }
                self.is_low_told &= packages.is_empty();
                self.is_final_key_used &= packages.is_empty() && final_key.is_none();
                self.packages.add(packages, generation);
                if let Some(package) = final_key {
                    self.final_keys.put(package, generation, at);
                }
            }
            QueueRecord::Assigned { reference, receiver, is_low } => {
                self.is_low_told |= is_low;
                self.packages.assign(&reference, receiver);
            }
            QueueRecord::FinalKeyUsed => self.is_final_key_used = true,
        }
    }

    /// Whether the final key was given out since packages were last uploaded.
    pub(crate) fn is_final_key_used(&self) -> bool {
        self.is_final_key_used
    }

    /// Whether it was told since packages were last uploaded that few are left.
    pub(crate) fn is_low_told(&self) -> bool {
        self.is_low_told
    }
}

impl DurableState for KeyQueueState {
    /// MessagePack, with the version of the format.
    fn to_snapshot(&self) -> Result<Vec<u8>, CodecError> {
        let snapshot = NewSnapshot {
            format: FORMAT,
            held: self.packages.held.iter().collect(),
            final_key: self.final_keys.latest.as_ref(),
            earlier_final_key: self.final_keys.earlier.as_ref(),
            arrivals: self.packages.arrivals,
            removed: &self.packages.removed,
            is_final_key_used: self.is_final_key_used,
            is_low_told: self.is_low_told,
        };
        encode_long(&snapshot, self.weight())
    }

    fn restore<'a>(
        snapshot: Option<&'a [u8]>,
        records: impl IntoIterator<Item = (u64, &'a [u8])>,
    ) -> Result<Self, CodecError> {
        let mut state = match snapshot {
            Some(snapshot) => {
                let kept: Snapshot = decode(snapshot)?;
                if kept.format != FORMAT {
                    return Err(CodecError::damaged("format"));
                }
                Self {
                    packages: OneTimePackages::restored(kept.held, kept.arrivals, kept.removed),
                    final_keys: FinalKeys { latest: kept.final_key, earlier: kept.earlier_final_key },
                    is_final_key_used: kept.is_final_key_used,
                    is_low_told: kept.is_low_told,
                }
            }
            None => Self::default(),
        };
        for (_, record) in records {
            state.apply(QueueRecord::from_bytes(record)?);
        }
        Ok(state)
    }

    fn weight(&self) -> usize {
        WEIGHT_OF_QUEUE
            .saturating_add(self.bytes_after(false, &[], None))
            .saturating_add(self.packages.removed.len().saturating_mul(WEIGHT_OF_REMOVED))
    }
}
