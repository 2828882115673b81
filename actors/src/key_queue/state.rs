//! A key queue's state: pure, synchronous, without clock, disk or actor. The state is a function of a snapshot and the
//! records after it; reads leave out packages that have expired, were used or belong to an earlier handle (*Key Package
//! Retrieval*, *Advancing a Key Package Queue*).

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};
use snapshots::{KeyPackageRef, Timestamp};

use super::{
    PoolCounts,
    package::{NewPackage, Receiver, Requester},
    stored::{FORMAT, NewSnapshot, Snapshot, StoredRecord},
};
use crate::{
    codec::{CodecError, decode, encode, encode_long},
    durable::DurableState,
};

/// A queue's final key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FinalKey {
    pub(crate) package: NewPackage,
    generation: u64,
}

/// One accepted change of a queue, as it is kept on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum QueueRecord {
    Uploaded {
        is_reset: bool,
        packages: Vec<NewPackage>,
        final_key: Option<NewPackage>,
        /// The client's handle generation that the packages were checked against.
        generation: u64,
        /// The time of the upload. Older records lack it and count as later than the beginning of any lifetime.
        #[serde(default = "after_all")]
        at: Timestamp,
    },
    Assigned {
        reference: KeyPackageRef,
        receiver: Receiver,
        /// Few packages are left, which is told for the first time since packages were uploaded.
        #[serde(default)]
        is_low: bool,
    },
    /// The final key was given out, for the first time since packages were uploaded.
    FinalKeyUsed,
}

fn after_all() -> Timestamp {
    Timestamp(u64::MAX)
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredPackage {
    package: NewPackage,
    generation: u64,
    receiver: Option<Receiver>,
}

/// The order in which packages are assigned: by expiry, then by arrival.
pub(super) type QueuePosition = (Timestamp, u64);

/// A key queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct KeyQueueState {
    held: BTreeMap<QueuePosition, StoredPackage>,
    /// The size of the packages in `held` in a snapshot, in bytes.
    held_bytes: usize,
    places: HashMap<KeyPackageRef, QueuePosition>,
    assigned: HashMap<Receiver, QueuePosition>,
    final_key: Option<FinalKey>,
    /// The final key before the present one. It stays in use until the lifetime of the present one begins.
    earlier_final_key: Option<FinalKey>,
    arrivals: u64,
    /// Packages that a reset removed after they were assigned: if one is uploaded again, it belongs to its receiver.
    removed: BTreeMap<KeyPackageRef, Removed>,
    /// Whether the final key was given out since packages were last uploaded.
    is_final_key_used: bool,
    /// Whether it was told since then that few packages are left.
    is_low_told: bool,
}

/// An assigned package that a reset removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Removed {
    receiver: Receiver,
    not_after: Timestamp,
}

/// Packages that were dropped because no group could add them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DroppedPackages {
    pub(crate) count: usize,
    /// The reason for the first one.
    pub(crate) reason: String,
}

/// The number of remembered removed packages; beyond it, those that expire first are dropped.
const REMOVED_MAX: usize = 4096;

/// The largest size of a package in a snapshot in addition to its message, with a receiver id of the default limit.
const PACKAGE_OVERHEAD_BYTES: usize = 640;

/// The memory of a queue in addition to its packages, in bytes.
const WEIGHT_OF_QUEUE: usize = 4 << 10;

/// The memory of a package that a reset removed, in bytes.
const WEIGHT_OF_REMOVED: usize = 512;

/// A package that may answer a request.
#[derive(Debug)]
pub(crate) struct Candidate<'a> {
    pub(crate) package: &'a NewPackage,
    pub(crate) is_final: bool,
}

/// The outcome of a request for a key package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// A package that is assigned to the receiver already.
    Assigned(NewPackage),
    /// A package that can be assigned to the receiver.
    Assignable(NewPackage),
    /// Only the final key is left.
    Final(NewPackage),
    Nothing,
}

/// The size of a package in a snapshot, at most, in bytes.
fn snapshot_bytes(package: &NewPackage) -> usize {
    package.message.len().saturating_add(PACKAGE_OVERHEAD_BYTES)
}

impl QueueRecord {
    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>, CodecError> {
        encode(&StoredRecord { format: FORMAT, record: self.clone() })
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, CodecError> {
        let kept: StoredRecord = decode(bytes)?;
        if kept.format == FORMAT { Ok(kept.record) } else { Err(CodecError::damaged("format")) }
    }
}

impl KeyQueueState {
    /// Drops packages that have expired at `now` or were uploaded for an older handle.
    pub(crate) fn retire(&mut self, now: Timestamp, generation: u64) {
        let gone: Vec<KeyPackageRef> = self
            .held
            .values()
            .filter(|held| held.package.not_after <= now || held.generation != generation)
            .map(|held| held.package.reference.clone())
            .collect();
        for reference in gone {
            self.advance(&reference);
        }
        self.removed.retain(|_, removed| now < removed.not_after);
        let stale = |key: &FinalKey| key.package.not_after <= now || key.generation != generation;
        if self.final_key.as_ref().is_some_and(stale) {
            self.final_key = None;
        }
        // Without a later final key, there is no earlier one to keep.
        if self.final_key.is_none() || self.earlier_final_key.as_ref().is_some_and(stale) {
            self.earlier_final_key = None;
        }
    }

    /// The final key in use at this time.
    fn final_key_at(&self, at: Timestamp) -> Option<&FinalKey> {
        match &self.final_key {
            Some(key) if at < key.package.not_before => self.earlier_final_key.as_ref(),
            latest => latest.as_ref(),
        }
    }

    /// The final key that stays in use until the lifetime of a new one begins.
    fn kept_beside(&self, new: &NewPackage, generation: u64, at: Timestamp) -> Option<&FinalKey> {
        if new.not_before <= at {
            return None;
        }
        let is_repeated = |key: &FinalKey| key.package.reference == new.reference;
        let kept = match &self.final_key {
            Some(key) if is_repeated(key) => self.earlier_final_key.as_ref(),
            _ => self.final_key_at(at),
        };
        kept.filter(|key| key.generation == generation && !is_repeated(key))
    }

    /// The final keys that a new one replaces.
    pub(crate) fn replaced_by<'a>(
        &'a self,
        new: &'a NewPackage,
        generation: u64,
        at: Timestamp,
    ) -> impl Iterator<Item = &'a NewPackage> {
        let kept = self.kept_beside(new, generation, at).map(|key| &key.package.reference);
        let present = [&self.final_key, &self.earlier_final_key].into_iter().flatten();
        present
            .map(|key| &key.package)
            .filter(move |key| key.reference != new.reference && Some(&key.reference) != kept)
    }

    /// Takes a used package out of the queue (*Advancing a Key Package Queue*).
    pub(crate) fn advance(&mut self, reference: &KeyPackageRef) {
        if let Some(place) = self.places.remove(reference)
            && let Some(held) = self.remove(&place)
            && let Some(receiver) = held.receiver
            && self.assigned.get(&receiver) == Some(&place)
        {
            // The receiver may have another one, which was uploaded again after a reset.
            let other = self.held.iter().find(|(_, other)| other.receiver.as_ref() == Some(&receiver));
            match other.map(|(place, _)| *place) {
                Some(other) => self.assigned.insert(receiver, other),
                None => self.assigned.remove(&receiver),
            };
        }
    }

    fn remove(&mut self, place: &QueuePosition) -> Option<StoredPackage> {
        let held = self.held.remove(place)?;
        self.held_bytes = self.held_bytes.saturating_sub(snapshot_bytes(&held.package));
        Some(held)
    }

    fn put(&mut self, place: QueuePosition, held: StoredPackage) {
        self.held_bytes = self.held_bytes.saturating_add(snapshot_bytes(&held.package));
        self.held.insert(place, held);
    }

    /// Assigns a package to its receiver, unless the receiver has an earlier one.
    fn point(&mut self, receiver: Receiver, place: QueuePosition) {
        self.assigned.entry(receiver).and_modify(|first| *first = place.min(*first)).or_insert(place);
    }

    /// The package for a receiver, among those that may be handed out now; call [`Self::retire`] first. A package that may not
    /// be handed out is skipped but stays, since it may become acceptable again; if its receiver gets another one instead, the
    /// record of that assignment removes it. The receivers of one peer have at most `per_peer_max` of the one-time packages, so
    /// that no peer takes all of them. Packages whose lifetime begins after `now` wait.
    pub(crate) fn choose(
        &self,
        receiver: &Receiver,
        now: Timestamp,
        per_peer_max: usize,
        mut is_usable: impl FnMut(&Candidate<'_>) -> bool,
    ) -> Choice {
        let mut usable = |package: &NewPackage, is_final| is_usable(&Candidate { package, is_final });
        let of_receiver = self.assigned.get(receiver).and_then(|place| self.held.get(place));
        if let Some(held) = of_receiver.filter(|held| usable(&held.package, false)) {
            return Choice::Assigned(held.package.clone());
        }
        let is_valid = |package: &NewPackage| package.not_before <= now;
        let mut free = self.held.values().filter(|held| held.receiver.is_none() && is_valid(&held.package));
        if self.has_share(&receiver.caller, per_peer_max)
            && let Some(held) = free.find(|held| usable(&held.package, false))
        {
            return Choice::Assignable(held.package.clone());
        }
        match self.final_key_at(now).filter(|key| usable(&key.package, true)) {
            Some(key) => Choice::Final(key.package.clone()),
            None => Choice::Nothing,
        }
    }

    /// Whether one more package may be assigned on behalf of this caller.
    fn has_share(&self, caller: &Requester, per_peer_max: usize) -> bool {
        match caller {
            Requester::Application => true,
            Requester::Peer(_) => {
                let taken = self.assigned.keys().filter(|receiver| receiver.caller == *caller);
                taken.count() < per_peer_max
            }
        }
    }

    /// The number of packages that the pool would have to assign after an upload. Assigned packages do not count, nor those
    /// that have expired at `now` but remain because the clock is not trusted.
    pub(crate) fn free_after(&self, is_reset: bool, packages: &[NewPackage], now: Timestamp) -> usize {
        let unassigned = packages.iter().filter(|package| package.receiver.is_none());
        if is_reset {
            return unassigned.count();
        }
        let is_free = |held: &&StoredPackage| held.receiver.is_none() && now < held.package.not_after;
        self.held.values().filter(is_free).count()
            + unassigned.filter(|package| !self.places.contains_key(&package.reference)).count()
    }

    /// The largest size in bytes that the queue's snapshot would have after an upload. The final key comes with its client's handle
    /// generation and the time.
    pub(crate) fn bytes_after(
        &self,
        is_reset: bool,
        packages: &[NewPackage],
        final_key: Option<(&NewPackage, u64, Timestamp)>,
    ) -> usize {
        let new = packages.iter().filter(|package| is_reset || !self.places.contains_key(&package.reference));
        let of_final = |key: Option<&FinalKey>| key.map_or(0, |key| snapshot_bytes(&key.package));
        let final_keys = match final_key {
            Some((new, generation, at)) => {
                snapshot_bytes(new).saturating_add(of_final(self.kept_beside(new, generation, at)))
            }
            None => {
                of_final(self.final_key.as_ref()).saturating_add(of_final(self.earlier_final_key.as_ref()))
            }
        };
        let before = if is_reset { 0 } else { self.held_bytes };
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
        let packages = self.held.values().map(|held| &held.package);
        let unfit: Vec<KeyPackageRef> =
            packages.filter(|package| !is_fit(package)).map(|package| package.reference.clone()).collect();
        self.final_key = self.final_key.take().filter(|key| is_fit(&key.package));
        self.earlier_final_key = self.earlier_final_key.take().filter(|key| is_fit(&key.package));
        for reference in unfit {
            self.advance(&reference);
        }
        dropped
    }

    pub(crate) fn references(&self) -> impl Iterator<Item = &KeyPackageRef> {
        self.places.keys()
    }

    /// The part of the queue that has not expired at `now`.
    pub(crate) fn counts(&self, now: Timestamp) -> PoolCounts {
        let is_current = |package: &NewPackage| now < package.not_after;
        let current = || self.held.values().filter(|held| is_current(&held.package));
        PoolCounts {
            in_pool: current().count(),
            available: current().filter(|held| held.receiver.is_none()).count(),
            has_final_key: self.final_key.as_ref().is_some_and(|key| is_current(&key.package)),
        }
    }

    /// Applies a recorded change.
    pub(crate) fn apply(&mut self, record: QueueRecord) {
        match record {
            QueueRecord::Uploaded { is_reset, packages, final_key, generation, at } => {
                let before = if is_reset {
                    self.places.clear();
                    self.assigned.clear();
                    self.held_bytes = 0;
                    std::mem::take(&mut self.held)
                } else {
                    BTreeMap::new()
                };
                // A package that comes back with a reset stays its receiver's: no other receiver may get it.
                for held in before.into_values().filter(|held| held.generation == generation) {
                    if let Some(receiver) = held.receiver {
                        let removed = Removed { receiver, not_after: held.package.not_after };
                        self.removed.insert(held.package.reference, removed);
                    }
                }
                self.is_low_told &= packages.is_empty();
                self.is_final_key_used &= packages.is_empty() && final_key.is_none();
                for mut package in packages {
                    let removed = self.removed.remove(&package.reference).map(|removed| removed.receiver);
                    let receiver = package.receiver.take().or(removed);
                    self.insert(package, generation, receiver);
                }
                while self.removed.len() > REMOVED_MAX {
                    let first = self.removed.iter().min_by_key(|(_, removed)| removed.not_after);
                    let Some(first) = first.map(|(reference, _)| reference.clone()) else { break };
                    self.removed.remove(&first);
                }
                if let Some(package) = final_key {
                    self.earlier_final_key = self.kept_beside(&package, generation, at).cloned();
                    self.final_key = Some(FinalKey { package, generation });
                }
            }
            QueueRecord::Assigned { reference, receiver, is_low } => {
                self.is_low_told |= is_low;
                // A receiver gets another package only when its own is gone: used, expired, or of an older handle.
                let had = self.assigned.get(&receiver).and_then(|place| self.held.get(place));
                if let Some(old) = had.map(|held| held.package.reference.clone())
                    && old != reference
                {
                    self.advance(&old);
                }
                if let Some(place) = self.places.get(&reference)
                    && let Some(held) = self.held.get_mut(place)
                {
                    held.receiver = Some(receiver.clone());
                    let place = *place;
                    self.point(receiver, place);
                }
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

    fn insert(&mut self, package: NewPackage, generation: u64, receiver: Option<Receiver>) {
        let held = self.places.get(&package.reference).and_then(|place| self.held.get(place));
        match held {
            Some(held) if held.generation == generation => return,
            // It was dropped with its client's older handle and is uploaded again under the present one.
            Some(_) => self.advance(&package.reference),
            None => {}
        }
        self.arrivals += 1;
        let place = (package.not_after, self.arrivals);
        self.places.insert(package.reference.clone(), place);
        if let Some(receiver) = &receiver {
            self.point(receiver.clone(), place);
        }
        self.put(place, StoredPackage { package, generation, receiver });
    }
}

impl DurableState for KeyQueueState {
    /// MessagePack, with the version of the format.
    fn to_snapshot(&self) -> Result<Vec<u8>, CodecError> {
        let snapshot = NewSnapshot {
            format: FORMAT,
            held: self.held.iter().collect(),
            final_key: self.final_key.as_ref(),
            earlier_final_key: self.earlier_final_key.as_ref(),
            arrivals: self.arrivals,
            removed: &self.removed,
            is_final_key_used: self.is_final_key_used,
            is_low_told: self.is_low_told,
        };
        encode_long(&snapshot, self.weight())
    }

    fn restore<'a>(
        snapshot: Option<&'a [u8]>,
        records: impl IntoIterator<Item = (u64, &'a [u8])>,
    ) -> Result<Self, CodecError> {
        let mut state = Self::default();
        if let Some(snapshot) = snapshot {
            let kept: Snapshot = decode(snapshot)?;
            if kept.format != FORMAT {
                return Err(CodecError::damaged("format"));
            }
            for (place, held) in kept.held {
                state.places.insert(held.package.reference.clone(), place);
                if let Some(receiver) = &held.receiver {
                    state.point(receiver.clone(), place);
                }
                state.put(place, held);
            }
            state.final_key = kept.final_key;
            state.earlier_final_key = kept.earlier_final_key;
            state.arrivals = kept.arrivals;
            state.removed = kept.removed;
            state.is_final_key_used = kept.is_final_key_used;
            state.is_low_told = kept.is_low_told;
        }
        for (_, record) in records {
            state.apply(QueueRecord::from_bytes(record)?);
        }
        Ok(state)
    }

    fn weight(&self) -> usize {
        WEIGHT_OF_QUEUE
            .saturating_add(self.bytes_after(false, &[], None))
            .saturating_add(self.removed.len().saturating_mul(WEIGHT_OF_REMOVED))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use snapshots::DomainName;

    use super::*;

    const NOW: Timestamp = Timestamp(50);

    fn package(name: u8, not_after: u64) -> NewPackage {
        NewPackage {
            reference: KeyPackageRef::new(vec![name; 32]).unwrap(),
            not_before: Timestamp(0),
            not_after: Timestamp(not_after),
            message: vec![name],
            signer: Some([name; 32]),
            receiver: None,
        }
    }

    fn receiver(id: &str) -> Receiver {
        Receiver { caller: Requester::Application, id: id.into() }
    }

    fn uploaded(packages: Vec<NewPackage>) -> QueueRecord {
        QueueRecord::Uploaded { is_reset: false, packages, final_key: None, generation: 0, at: NOW }
    }

    /// Chooses for a receiver and records what was chosen; answers the package's name.
    fn assign(state: &mut KeyQueueState, id: &str) -> Option<u8> {
        match state.choose(&receiver(id), NOW, 3, |_| true) {
            Choice::Assigned(package) | Choice::Final(package) => package.message.first().copied(),
            Choice::Assignable(package) => {
                let reference = package.reference.clone();
                state.apply(QueueRecord::Assigned { reference, receiver: receiver(id), is_low: false });
                package.message.first().copied()
            }
            Choice::Nothing => None,
        }
    }

    #[test]
    fn what_expires_first_is_assigned_first_and_again_to_the_same_receiver() {
        let mut state = KeyQueueState::default();
        state.apply(uploaded(vec![package(1, 300), package(2, 100), package(3, 200)]));
        for (id, expected) in [("a", Some(2)), ("b", Some(3)), ("a", Some(2)), ("c", Some(1)), ("d", None)] {
            assert_eq!(assign(&mut state, id), expected, "{id}");
        }
        assert_eq!(state.counts(Timestamp(0)), PoolCounts { in_pool: 3, available: 0, has_final_key: false });
        let other =
            Receiver { caller: Requester::Peer(DomainName::new("b.example").unwrap()), id: "a".into() };
        assert_eq!(
            state.choose(&other, NOW, 3, |_| true),
            Choice::Nothing,
            "a receiver id is the caller's own"
        );
        state.advance(&package(2, 100).reference);
        assert_eq!(assign(&mut state, "a"), None, "advanced");
    }

    #[test]
    fn no_peer_takes_more_than_its_share() {
        let mut state = KeyQueueState::default();
        state.apply(uploaded((1..=4).map(|name| package(name, u64::from(name) * 100)).collect()));
        let of = |peer: &str, id: &str| Receiver {
            caller: Requester::Peer(DomainName::new(peer).unwrap()),
            id: id.into(),
        };
        let take =
            |state: &mut KeyQueueState, receiver: Receiver| match state.choose(&receiver, NOW, 2, |_| true) {
                Choice::Assigned(package) | Choice::Final(package) => package.message.first().copied(),
                Choice::Assignable(package) => {
                    let reference = package.reference.clone();
                    state.apply(QueueRecord::Assigned { reference, receiver, is_low: false });
                    package.message.first().copied()
                }
                Choice::Nothing => None,
            };
        assert_eq!(take(&mut state, of("b.example", "1")), Some(1));
        assert_eq!(take(&mut state, of("b.example", "2")), Some(2));
        assert_eq!(take(&mut state, of("b.example", "3")), None);
        assert_eq!(take(&mut state, of("b.example", "1")), Some(1), "what it has it keeps");
        assert_eq!(take(&mut state, of("c.example", "3")), Some(3), "another peer has its own share");
        state.advance(&package(1, 100).reference);
        assert_eq!(take(&mut state, of("b.example", "3")), Some(4), "what was used counts no more");
    }

    #[test]
    fn what_cannot_be_handed_out_now_is_passed_over_and_stays() {
        let mut state = KeyQueueState::default();
        state.apply(QueueRecord::Uploaded {
            is_reset: false,
            packages: vec![package(1, 100), package(2, 200)],
            final_key: Some(package(9, 500)),
            generation: 0,
            at: NOW,
        });
        assert_eq!(assign(&mut state, "a"), Some(1));
        let before = state.clone();
        let choose = |id, unusable: &[u8]| {
            let usable = |candidate: &Candidate<'_>| !unusable.contains(&candidate.package.message[0]);
            match state.choose(&receiver(id), NOW, 3, usable) {
                Choice::Assigned(package) | Choice::Assignable(package) | Choice::Final(package) => {
                    Some(package.message[0])
                }
                Choice::Nothing => None,
            }
        };
        assert_eq!((choose("a", &[1]), choose("b", &[2])), (Some(2), Some(9)));
        assert_eq!((choose("a", &[1, 2, 9]), choose("b", &[2, 9])), (None, None));
        assert_eq!((choose("a", &[]), choose("b", &[])), (Some(1), Some(2)), "they are good again");
        assert_eq!(state, before);
    }

    #[test]
    fn expired_packages_and_those_of_an_older_handle_are_gone() {
        let mut state = KeyQueueState::default();
        state.apply(uploaded(vec![package(1, 100), package(2, 200)]));
        assert_eq!(assign(&mut state, "a"), Some(1));
        state.retire(Timestamp(100), 0);
        assert_eq!(assign(&mut state, "a"), Some(2), "an assigned package that expired is replaced");
        state.retire(Timestamp(100), 1);
        assert_eq!(state.counts(Timestamp(0)).in_pool, 0);
    }

    #[test]
    fn replay_without_retirement_comes_to_the_same() {
        let assigned = |name, id: &str| QueueRecord::Assigned {
            reference: package(name, 0).reference,
            receiver: receiver(id),
            is_low: false,
        };
        let of_generation = |is_reset, generation, packages| QueueRecord::Uploaded {
            is_reset,
            packages,
            final_key: None,
            generation,
            at: NOW,
        };
        // R's first package was used and R has a second: finding the first one used again takes nothing from R.
        let mut state = KeyQueueState::default();
        state.apply(uploaded(vec![package(1, 100), package(2, 200), package(3, 300)]));
        state.apply(assigned(1, "r"));
        state.apply(assigned(2, "r"));
        state.advance(&package(1, 100).reference);
        assert_eq!(assign(&mut state, "r"), Some(2));
        assert_eq!(state.counts(Timestamp(0)), PoolCounts { in_pool: 2, available: 1, has_final_key: false });
        // A package that comes back after a rename belongs to the present handle, and to no receiver.
        for is_reset in [false, true] {
            let mut state = KeyQueueState::default();
            state.apply(of_generation(false, 0, vec![package(1, 100)]));
            state.apply(assigned(1, "r"));
            state.apply(of_generation(is_reset, 2, vec![package(1, 100)]));
            state.apply(assigned(1, "s"));
            state.retire(Timestamp(0), 2);
            assert_eq!(
                state.counts(Timestamp(0)),
                PoolCounts { in_pool: 1, available: 0, has_final_key: false }
            );
            assert_eq!((assign(&mut state, "s"), assign(&mut state, "r")), (Some(1), None));
        }
    }

    #[test]
    fn the_final_key_comes_last_and_survives_a_reset() {
        let mut state = KeyQueueState::default();
        state.apply(QueueRecord::Uploaded {
            is_reset: false,
            packages: vec![package(1, 100)],
            final_key: Some(package(9, 500)),
            generation: 0,
            at: NOW,
        });
        assert_eq!(assign(&mut state, "a"), Some(1));
        assert_eq!(assign(&mut state, "b"), Some(9));
        state.apply(QueueRecord::Uploaded {
            is_reset: true,
            packages: vec![package(1, 100), package(2, 50)],
            final_key: None,
            generation: 0,
            at: NOW,
        });
        assert_eq!(
            assign(&mut state, "b"),
            Some(2),
            "what was assigned before the reset is not given to another"
        );
        assert_eq!(assign(&mut state, "a"), Some(1));
        assert_eq!(assign(&mut state, "c"), Some(9));
    }

    #[test]
    fn a_final_key_that_is_not_valid_yet_leaves_the_one_before_in_use_until_it_is() {
        let starting = |name, not_before| NewPackage {
            not_before: Timestamp(not_before),
            ..package(name, u64::from(name) * 1000)
        };
        let upload = |state: &mut KeyQueueState, package: NewPackage, at| {
            let record = QueueRecord::Uploaded {
                is_reset: false,
                packages: vec![],
                final_key: Some(package),
                generation: 0,
                at: Timestamp(at),
            };
            state.apply(QueueRecord::from_bytes(&record.to_bytes().unwrap()).unwrap());
        };
        let in_use =
            |state: &KeyQueueState, now| match state.choose(&receiver("a"), Timestamp(now), 3, |_| true) {
                Choice::Final(package) => package.message.first().copied(),
                Choice::Assigned(_) | Choice::Assignable(_) | Choice::Nothing => None,
            };
        let replaced = |state: &KeyQueueState, new: &NewPackage, at| -> Vec<u8> {
            state.replaced_by(new, 0, Timestamp(at)).map(|key| key.message[0]).collect()
        };
        let mut state = KeyQueueState::default();
        upload(&mut state, starting(1, 0), 0);
        assert!(replaced(&state, &starting(2, 100), 10).is_empty());
        upload(&mut state, starting(2, 100), 10);
        for (now, expected) in [(10, 1), (99, 1), (100, 2), (500, 2)] {
            assert_eq!(in_use(&state, now), Some(expected), "at {now}");
        }
        let reloaded = KeyQueueState::restore(Some(&state.to_snapshot().unwrap()), []).unwrap();
        assert_eq!(reloaded, state);
        // A retry changes nothing, and a third one replaces the second, which was never in use.
        upload(&mut state, starting(2, 100), 20);
        assert_eq!(state, reloaded);
        assert_eq!(replaced(&state, &starting(3, 200), 30), [2]);
        upload(&mut state, starting(3, 200), 30);
        assert_eq!((in_use(&state, 150), in_use(&state, 200)), (Some(1), Some(3)));
        // Once the third is in use, the first does not come back; one that is valid at once replaces all.
        upload(&mut state, starting(4, 300), 250);
        assert_eq!((in_use(&state, 299), in_use(&state, 300)), (Some(3), Some(4)));
        assert_eq!(replaced(&state, &starting(5, 0), 260), [4, 3]);
        upload(&mut state, starting(5, 0), 260);
        assert_eq!(in_use(&state, 260), Some(5));
        assert_eq!(state.bytes_after(false, &[], None), PACKAGE_OVERHEAD_BYTES + 1, "nothing else is kept");
        // What belongs to an older handle is not kept.
        let mut state = KeyQueueState::default();
        upload(&mut state, starting(1, 0), 0);
        let record = QueueRecord::Uploaded {
            is_reset: false,
            packages: vec![],
            final_key: Some(starting(2, 100)),
            generation: 1,
            at: Timestamp(10),
        };
        state.apply(record);
        assert_eq!(in_use(&state, 50), None);
    }

    #[test]
    fn packages_that_are_not_fit_are_dropped_and_counted_once() {
        let mut state = KeyQueueState::default();
        state.apply(QueueRecord::Uploaded {
            is_reset: false,
            packages: vec![package(1, 100), package(2, 200), package(3, 300)],
            final_key: Some(package(9, 500)),
            generation: 0,
            at: NOW,
        });
        let check = |message: &[u8]| if message == [2] { Ok(()) } else { Err(format!("{message:?}")) };
        assert_eq!(state.retain_fit(check), Some(DroppedPackages { count: 3, reason: "[1]".into() }));
        assert_eq!(state.counts(NOW), PoolCounts { in_pool: 1, available: 1, has_final_key: false });
        assert_eq!(state.retain_fit(check), None);
    }

    #[test]
    fn an_assigned_package_that_a_reset_removed_is_its_receivers_when_it_comes_back() {
        let reset = |packages| QueueRecord::Uploaded {
            is_reset: true,
            packages,
            final_key: None,
            generation: 0,
            at: NOW,
        };
        for is_reset in [false, true] {
            let mut state = KeyQueueState::default();
            state.apply(uploaded(vec![package(1, 100)]));
            assert_eq!(assign(&mut state, "a"), Some(1));
            state.apply(reset(vec![package(2, 200)]));
            assert_eq!(assign(&mut state, "a"), Some(2));
            let snapshot = state.to_snapshot().unwrap();
            let mut state = KeyQueueState::restore(Some(&snapshot), []).unwrap();
            let record = QueueRecord::Uploaded {
                is_reset,
                packages: vec![package(1, 100), package(3, 300)],
                final_key: None,
                generation: 0,
                at: NOW,
            };
            state.apply(record);
            assert_eq!(assign(&mut state, "b"), Some(3), "the first is not for another");
            assert_eq!(assign(&mut state, "b"), Some(3));
            assert_eq!(assign(&mut state, "c"), None);
            assert_eq!(assign(&mut state, "a"), Some(1));
            state.advance(&package(1, 100).reference);
            assert_eq!(assign(&mut state, "a"), if is_reset { None } else { Some(2) });
        }
        let mut state = KeyQueueState::default();
        state.apply(uploaded(vec![package(1, 100)]));
        assert_eq!(assign(&mut state, "a"), Some(1));
        state.apply(reset(vec![]));
        state.retire(Timestamp(100), 0);
        assert_eq!(
            state,
            KeyQueueState { arrivals: 1, ..KeyQueueState::default() },
            "forgotten when it expires"
        );
    }

    #[test]
    fn no_snapshot_is_larger_than_the_bytes_that_are_counted() {
        let mut state = KeyQueueState::default();
        let mut packages: Vec<NewPackage> = (1..=60).map(|name| package(name, 100)).collect();
        packages.iter_mut().for_each(|package| package.message = vec![7; 1000]);
        let last = packages.pop().unwrap();
        let counted = state.bytes_after(false, &packages, Some((&last, u64::MAX, NOW)));
        state.apply(QueueRecord::Uploaded {
            is_reset: false,
            packages,
            final_key: Some(last),
            generation: u64::MAX,
            at: NOW,
        });
        for name in 1..60_u8 {
            let id = format!("{name:0>256}");
            let caller = Requester::Peer(DomainName::new(format!("{}.example", "b".repeat(60))).unwrap());
            let (reference, receiver) = (package(name, 0).reference, Receiver { caller, id });
            state.apply(QueueRecord::Assigned { reference, receiver, is_low: false });
        }
        assert!(state.to_snapshot().unwrap().len() <= counted);
        assert_eq!(state.bytes_after(false, &[], None), counted);
        assert_eq!(
            state.free_after(false, &[package(1, 100), package(99, 100)], Timestamp(0)),
            1,
            "assigned ones are apart"
        );
        state.apply(uploaded(vec![package(98, 100)]));
        let free_at = |now| state.free_after(false, &[package(99, 200)], Timestamp(now));
        assert_eq!((free_at(99), free_at(100)), (2, 1), "expired ones take no place");
    }

    fn any_record() -> impl Strategy<Value = QueueRecord> {
        let packages = proptest::collection::vec((0_u8..12, 1_u64..20), 0..6);
        prop_oneof![
            (any::<bool>(), packages, any::<bool>()).prop_map(|(is_reset, packages, with_final)| {
                QueueRecord::Uploaded {
                    is_reset,
                    packages: packages
                        .into_iter()
                        .map(|(name, _)| package(name, u64::from(name) * 7))
                        .collect(),
                    final_key: with_final.then(|| package(200, 1000)),
                    generation: 0,
                    at: NOW,
                }
            }),
            (0_u8..12, 0_u8..4).prop_map(|(name, id)| QueueRecord::Assigned {
                reference: package(name, 0).reference,
                receiver: receiver(&id.to_string()),
                is_low: false,
            }),
        ]
    }

    proptest! {
        /// A queue that was passivated at any point equals the queue that stayed active.
        #[test]
        fn rest_changes_nothing(records in proptest::collection::vec(any_record(), 0..20), cut in 0_usize..20) {
            let mut live = KeyQueueState::default();
            let cut = cut.min(records.len());
            let (before, after) = records.split_at(cut);
            for record in before {
                if let QueueRecord::Assigned { receiver, reference, .. } = record
                    && (live.assigned.contains_key(receiver)
                        || live.places.get(reference).and_then(|place| live.held.get(place)).is_none_or(|held| held.receiver.is_some())) {
                    continue;
                }
                live.apply(record.clone());
            }
            let snapshot = live.to_snapshot().unwrap();
            let tail: Vec<Vec<u8>> = after.iter().map(|record| record.to_bytes().unwrap()).collect();
            let activated = KeyQueueState::restore(Some(&snapshot), (1..).zip(tail.iter().map(Vec::as_slice))).unwrap();
            for record in after {
                live.apply(record.clone());
            }
            prop_assert_eq!(&activated, &live);
            let of_all = |state: &KeyQueueState| state.held.values().map(|held| snapshot_bytes(&held.package)).sum::<usize>();
            prop_assert_eq!(live.held_bytes, of_all(&live));
            live.retire(Timestamp(40), 0);
            live.advance(&package(7, 0).reference);
            prop_assert_eq!(live.held_bytes, of_all(&live));
        }
    }
}
