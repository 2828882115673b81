//! Verdicts on signatures that the histories of a simulation share: the same few messages are verified in many of them.

use std::{cell::RefCell, collections::HashMap};

use sha2::{Digest as _, Sha256};

use super::InvalidSignature;

/// The verdicts that a thread remembers; then it begins anew.
const MAX: usize = 1 << 17;

type Verdict = Result<(), InvalidSignature>;

thread_local! {
    static VERDICTS: RefCell<HashMap<[u8; 32], Verdict>> = RefCell::default();
}

/// The verdict on a signature, which follows from these bytes alone: `verify` is called when they are new.
pub(super) fn verdict<'a>(
    bytes: impl Iterator<Item = &'a [u8]>,
    verify: impl FnOnce() -> Verdict,
) -> Verdict {
    let mut digest = Sha256::new();
    for part in bytes {
        digest.update(part.len().to_be_bytes());
        digest.update(part);
    }
    let digest = digest.finalize().into();
    if let Some(verdict) = VERDICTS.with_borrow(|verdicts| verdicts.get(&digest).copied()) {
        return verdict;
    }
    let verdict = verify();
    VERDICTS.with_borrow_mut(|verdicts| {
        if verdicts.len() >= MAX {
            verdicts.clear();
        }
        verdicts.insert(digest, verdict);
    });
    verdict
}
