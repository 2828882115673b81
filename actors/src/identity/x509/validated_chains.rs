//! A cache of validated chains: validating a chain again costs a hash.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use sha2::{Digest as _, Sha256};

use super::credential::Claims;

/// The number of remembered chains that were not found valid, or not yet.
const UNPROVEN_MAX: usize = 1024;

/// The SHA-256 of a credential's content.
pub(super) type ChainDigest = [u8; 32];

pub(super) fn digest(content: &[u8]) -> ChainDigest {
    Sha256::digest(content).into()
}

/// A cache of the latest chains, shared by the threads of all groups. Nothing is computed under its lock.
#[derive(Debug)]
pub(super) struct ValidatedChains(Mutex<Chains>);

/// Unproven chains, which anybody can make, have a separate cache, so that they cannot evict those of members.
#[derive(Debug)]
struct Chains {
    unproven: Latest<Arc<Claims>>,
    proven: Latest<Proven>,
}

#[derive(Debug)]
struct Proven {
    claims: Arc<Claims>,
    /// The last period of the trust store in which the chain was validated.
    period: usize,
    found: Found,
}

/// The result of validating a chain that is not refused by all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Valid,
    /// Valid apart from revocation, which the hub of a group has judged otherwise.
    Disputed,
}

impl ValidatedChains {
    /// A cache of this many valid chains.
    pub(super) fn new(proven_max: usize) -> Self {
        Self(Mutex::new(Chains { unproven: Latest::new(UNPROVEN_MAX), proven: Latest::new(proven_max) }))
    }

    pub(super) fn claims(&self, digest: &ChainDigest) -> Option<Arc<Claims>> {
        self.with(|chains| {
            let proven = chains.proven.known.get(digest).map(|proven| &proven.claims);
            proven.or_else(|| chains.unproven.known.get(digest)).map(Arc::clone)
        })
    }

    pub(super) fn remember(&self, digest: ChainDigest, claims: Arc<Claims>) {
        self.with(|chains| {
            if !chains.proven.known.contains_key(&digest) {
                chains.unproven.insert(digest, claims);
            }
        });
    }

    /// What was found of a chain in this period.
    pub(super) fn found_in(&self, digest: &ChainDigest, period: usize) -> Option<Found> {
        self.with(|chains| {
            let proven = chains.proven.known.get(digest).filter(|proven| proven.period == period)?;
            Some(proven.found)
        })
    }

    pub(super) fn note(&self, digest: ChainDigest, claims: Arc<Claims>, period: usize, found: Found) {
        self.with(|chains| chains.proven.insert(digest, Proven { claims, period, found }));
    }

    /// A panic elsewhere does no harm: every entry of the map is valid by itself.
    fn with<T>(&self, use_chains: impl FnOnce(&mut Chains) -> T) -> T {
        use_chains(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The newest entries, up to a limit.
#[derive(Debug)]
struct Latest<T> {
    known: HashMap<ChainDigest, T>,
    /// The oldest first; each of `known` once.
    order: VecDeque<ChainDigest>,
    max: usize,
}

impl<T> Latest<T> {
    fn new(max: usize) -> Self {
        Self { known: HashMap::new(), order: VecDeque::new(), max }
    }

    fn insert(&mut self, digest: ChainDigest, value: T) {
        if self.known.insert(digest, value).is_some() {
            return;
        }
        self.order.push_back(digest);
        if self.order.len() > self.max
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_are_kept() {
        let mut latest = Latest::new(2);
        let holds = |latest: &Latest<u8>| [0, 1, 2, 3].map(|name| latest.known.get(&[name; 32]).copied());
        for name in [0, 1, 0] {
            latest.insert([name; 32], name);
        }
        assert_eq!(holds(&latest), [Some(0), Some(1), None, None]);
        latest.insert([2; 32], 2);
        assert_eq!(holds(&latest), [None, Some(1), Some(2), None]);
        latest.insert([1; 32], 9);
        latest.insert([3; 32], 3);
        assert_eq!(holds(&latest), [None, None, Some(2), Some(3)]);
        assert_eq!(latest.order.len(), latest.known.len());
    }
}
