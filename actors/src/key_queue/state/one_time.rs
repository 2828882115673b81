//! The packages of a queue that are used once, in the order of their assignment, and their receivers.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};
use snapshots::{KeyPackageRef, Timestamp};

use super::{
    super::package::{NewPackage, Receiver, Requester},
    snapshot_bytes,
};

/// A package of the queue that is used once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredPackage {
    pub(super) package: NewPackage,
    pub(super) generation: u64,
    pub(super) receiver: Option<Receiver>,
}

/// An assigned package that a reset removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Removed {
    receiver: Receiver,
    not_after: Timestamp,
}

/// The order in which packages are assigned: by expiry, then by arrival.
pub(crate) type QueuePosition = (Timestamp, u64);

/// The number of remembered removed packages; beyond it, those that expire first are dropped.
const REMOVED_MAX: usize = 4096;

/// The packages that are used once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct OneTimePackages {
    pub(super) held: BTreeMap<QueuePosition, StoredPackage>,
    /// The size of the packages in `held` in a snapshot, in bytes.
    pub(super) held_bytes: usize,
    places: HashMap<KeyPackageRef, QueuePosition>,
    assigned: HashMap<Receiver, QueuePosition>,
    pub(super) arrivals: u64,
    /// Packages that a reset removed after they were assigned: if one is uploaded again, it belongs to its receiver.
    pub(super) removed: BTreeMap<KeyPackageRef, Removed>,
}

impl OneTimePackages {
    /// Those that a snapshot holds.
    pub(super) fn restored(
        held: Vec<(QueuePosition, StoredPackage)>,
        arrivals: u64,
        removed: BTreeMap<KeyPackageRef, Removed>,
    ) -> Self {
        let mut packages = Self { arrivals, removed, ..Self::default() };
        for (place, held) in held {
            packages.places.insert(held.package.reference.clone(), place);
            if let Some(receiver) = &held.receiver {
                packages.point(receiver.clone(), place);
            }
            packages.put(place, held);
        }
        packages
    }

    pub(super) fn references(&self) -> impl Iterator<Item = &KeyPackageRef> {
        self.places.keys()
    }

    pub(super) fn holds(&self, reference: &KeyPackageRef) -> bool {
        self.places.contains_key(reference)
    }

    /// The package of a receiver.
    pub(super) fn of_receiver(&self, receiver: &Receiver) -> Option<&StoredPackage> {
        self.assigned.get(receiver).and_then(|place| self.held.get(place))
    }

    /// Those without a receiver, in the order of their assignment.
    pub(super) fn free(&self) -> impl Iterator<Item = &NewPackage> {
        self.held.values().filter(|held| held.receiver.is_none()).map(|held| &held.package)
    }

    /// The number of receivers of a requester that have a package.
    pub(super) fn count_taken_by(&self, requester: &Requester) -> usize {
        self.assigned.keys().filter(|receiver| receiver.caller == *requester).count()
    }

    /// Those that have a receiver.
    pub(super) fn assigned(&self) -> impl Iterator<Item = &NewPackage> {
        self.held.values().filter(|held| held.receiver.is_some()).map(|held| &held.package)
    }

    /// Drops those that have expired at `now` or were uploaded for an older handle.
    pub(super) fn retire(&mut self, now: Timestamp, generation: u64) {
        self.removed.retain(|_, removed| now < removed.not_after);
        let count = self.held.len();
        self.held.retain(|_, held| now < held.package.not_after && held.generation == generation);
        if self.held.len() == count {
            return;
        }
        // All at once: very many may expire together.
        self.held_bytes = self.held.values().map(|held| snapshot_bytes(&held.package)).sum();
        self.places.retain(|_, place| self.held.contains_key(place));
        self.assigned.clear();
        for (place, held) in &self.held {
            if let Some(receiver) = &held.receiver {
                // A receiver that has more than one gets the first.
                self.assigned.entry(receiver.clone()).or_insert(*place);
            }
        }
    }

    /// Takes a used package out (*Advancing a Key Package Queue*).
    pub(super) fn advance(&mut self, reference: &KeyPackageRef) {
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

    /// Removes all for a reset. Those that were assigned for the present handle are remembered: one that comes back stays its
    /// receiver's, because no other receiver may get it.
    pub(super) fn reset(&mut self, generation: u64) {
        self.places.clear();
        self.assigned.clear();
        self.held_bytes = 0;
        for held in std::mem::take(&mut self.held).into_values().filter(|held| held.generation == generation)
        {
            let StoredPackage { package, receiver, .. } = held;
            if let Some(receiver) = receiver {
                let not_after = package.not_after;
                self.removed.insert(package.reference, Removed { receiver, not_after });
            }
        }
    }

    /// Adds uploaded packages, each with the receiver that it had before.
    pub(super) fn add(&mut self, packages: Vec<NewPackage>, generation: u64) {
        for mut package in packages {
            let removed = self.removed.remove(&package.reference);
            let known = package.receiver.take();
            self.insert(package, generation, known.or(removed.map(|removed| removed.receiver)));
        }
        while self.removed.len() > REMOVED_MAX {
            let first = self.removed.iter().min_by_key(|(_, removed)| removed.not_after);
            let Some(first) = first.map(|(reference, _)| reference.clone()) else { break };
            self.removed.remove(&first);
        }
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

    /// Gives a package to a receiver. A receiver gets another package only when its own is gone: used, expired, of an older
    /// handle, or not used in time.
    pub(super) fn assign(&mut self, reference: &KeyPackageRef, receiver: Receiver) {
        let had = self.of_receiver(&receiver).map(|held| held.package.reference.clone());
        if let Some(old) = had.filter(|old| old != reference) {
            self.advance(&old);
        }
        if let Some(place) = self.places.get(reference)
            && let Some(held) = self.held.get_mut(place)
        {
            held.receiver = Some(receiver.clone());
            let place = *place;
            self.point(receiver, place);
        }
    }
}
