//! The chains that were looked at last, so that a chain that comes again costs a hash and not a path validation.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use sha2::{Digest as _, Sha256};

use super::credential::Claims;

/// How many chains are remembered.
const CHAINS_MAX: usize = 4096;

/// The SHA-256 of a credential's content.
pub(super) type ChainDigest = [u8; 32];

pub(super) fn digest(content: &[u8]) -> ChainDigest {
    Sha256::digest(content).into()
}

/// What is known of the last chains. It is shared by the threads of all groups; nothing is computed under its lock.
#[derive(Debug, Default)]
pub(super) struct JudgedChains(Mutex<Chains>);

#[derive(Debug, Default)]
struct Chains {
    known: HashMap<ChainDigest, Judged>,
    /// The oldest first.
    order: VecDeque<ChainDigest>,
}

#[derive(Debug)]
struct Judged {
    claims: Arc<Claims>,
    /// The last period of the trust store in which the chain was found valid.
    valid_in: Option<usize>,
}

impl JudgedChains {
    pub(super) fn claims(&self, digest: &ChainDigest) -> Option<Arc<Claims>> {
        self.with(|chains| chains.known.get(digest).map(|judged| Arc::clone(&judged.claims)))
    }

    pub(super) fn remember(&self, digest: ChainDigest, claims: Arc<Claims>) {
        self.with(|chains| {
            if chains.known.insert(digest, Judged { claims, valid_in: None }).is_some() {
                return;
            }
            chains.order.push_back(digest);
            if chains.order.len() > CHAINS_MAX
                && let Some(oldest) = chains.order.pop_front()
            {
                chains.known.remove(&oldest);
            }
        });
    }

    pub(super) fn is_valid_in(&self, digest: &ChainDigest, period: usize) -> bool {
        self.with(|chains| chains.known.get(digest).is_some_and(|judged| judged.valid_in == Some(period)))
    }

    pub(super) fn valid_in(&self, digest: &ChainDigest, period: usize) {
        self.with(|chains| {
            if let Some(judged) = chains.known.get_mut(digest) {
                judged.valid_in = Some(period);
            }
        });
    }

    /// A panic elsewhere cannot leave the map half changed in a way that matters: every entry is true by itself.
    fn with<T>(&self, use_chains: impl FnOnce(&mut Chains) -> T) -> T {
        use_chains(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
