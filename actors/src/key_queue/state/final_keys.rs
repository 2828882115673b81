//! The final key of a queue (*Key Queue Update*), and the one before it.

use serde::{Deserialize, Serialize};
use snapshots::Timestamp;

use super::super::package::NewPackage;

/// A queue's final key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FinalKey {
    pub(crate) package: NewPackage,
    generation: u64,
}

/// The final keys of a queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct FinalKeys {
    pub(super) latest: Option<FinalKey>,
    /// The final key before the latest one. It stays in use until the lifetime of the latest one begins.
    pub(super) earlier: Option<FinalKey>,
}

impl FinalKeys {
    pub(super) fn iter(&self) -> impl Iterator<Item = &NewPackage> {
        [&self.latest, &self.earlier].into_iter().flatten().map(|key| &key.package)
    }

    /// Drops those that have expired at `now` or were uploaded for an older handle.
    pub(super) fn retire(&mut self, now: Timestamp, generation: u64) {
        let stale = |key: &FinalKey| key.package.not_after <= now || key.generation != generation;
        if self.latest.as_ref().is_some_and(stale) {
            self.latest = None;
        }
        // Without a later final key, there is no earlier one to keep.
        if self.latest.is_none() || self.earlier.as_ref().is_some_and(stale) {
            self.earlier = None;
        }
    }

    /// The final key in use at this time.
    pub(super) fn at(&self, at: Timestamp) -> Option<&FinalKey> {
        match &self.latest {
            Some(key) if at < key.package.not_before => self.earlier.as_ref(),
            latest => latest.as_ref(),
        }
    }

    /// The final key that stays in use until the lifetime of a new one begins.
    pub(super) fn kept_beside(&self, new: &NewPackage, generation: u64, at: Timestamp) -> Option<&FinalKey> {
        if new.not_before <= at {
            return None;
        }
        let is_repeated = |key: &FinalKey| key.package.reference == new.reference;
        let kept = match &self.latest {
            Some(key) if is_repeated(key) => self.earlier.as_ref(),
            _ => self.at(at),
        };
        kept.filter(|key| key.generation == generation && !is_repeated(key))
    }

    /// Those that a new one replaces.
    pub(super) fn replaced_by<'a>(
        &'a self,
        new: &'a NewPackage,
        generation: u64,
        at: Timestamp,
    ) -> impl Iterator<Item = &'a NewPackage> {
        let kept = self.kept_beside(new, generation, at).map(|key| &key.package.reference);
        self.iter().filter(move |key| key.reference != new.reference && Some(&key.reference) != kept)
    }

    /// Takes a new one.
    pub(super) fn put(&mut self, package: NewPackage, generation: u64, at: Timestamp) {
        self.earlier = self.kept_beside(&package, generation, at).cloned();
        self.latest = Some(FinalKey { package, generation });
    }

    /// Drops those that do not pass a check.
    pub(super) fn retain(&mut self, mut is_kept: impl FnMut(&NewPackage) -> bool) {
        self.latest = self.latest.take().filter(|key| is_kept(&key.package));
        self.earlier = self.earlier.take().filter(|key| is_kept(&key.package));
    }
}
