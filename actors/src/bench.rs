//! Entry points for benchmarks, fuzzing and tests against other libraries: the check of a key package, a key queue, revocation and
//! ratchet trees, without actors and disk.
//!
//! It exists only with the feature `bench` and is not a stable interface.

use snapshots::{AppId, KeyPackageRef, Timestamp};

use crate::{
    application::Application,
    identity::x509::TrustStore,
    key_queue::{Choice, KeyQueueState, NewPackage, QueueRecord, Receiver, Requester},
    limits::Limits,
    mls::{CipherSuite, KeyPackageChecks, KeyPackageValidator, LeafChecks, RatchetTree},
};

/// Checks a key package, an MLSMessage, as at an upload.
///
/// # Errors
/// The reason why it is refused.
pub fn check_key_package(cipher_suite: u16, message: &[u8], now: Timestamp) -> Result<(), String> {
    let limits = Limits::default();
    let application = Application::basic(AppId::random());
    let cipher_suite = CipherSuite::from_number(cipher_suite).ok_or("an unknown cipher suite")?;
    let lifetime_s_max = limits.lifetime_s_max();
    let checks = KeyPackageChecks {
        leaf: LeafChecks { cipher_suite, lifetime_s_max },
        handle: None,
        domain: None,
        now,
        clock_skew_s_max: limits.clock_skew_s_max,
    };
    let mut packages = KeyPackageValidator::new(checks, &*application.identity);
    packages.check(message).map(drop)
}

/// Whether a member with this certificate chain is revoked.
pub fn is_revoked(store: &TrustStore, chain: &[&[u8]], at: Timestamp) -> bool {
    store.revokes(chain, at)
}

/// Reads and validates a ratchet tree; returns it as it is written again, and its hash. `None` if it is not one.
pub fn read_tree(cipher_suite: u16, tree: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    RatchetTree::read_anonymous(CipherSuite::from_number(cipher_suite)?, tree)
        .map(|(tree, hash)| (tree.to_bytes(), hash.as_ref().to_vec()))
}

/// A key queue.
#[derive(Clone, Debug, Default)]
pub struct BenchQueue(KeyQueueState);

impl BenchQueue {
    /// A queue that holds this many packages.
    ///
    /// # Errors
    /// None for a number that fits into 32 bits.
    pub fn holding(packages: u32, message: &[u8]) -> Result<Self, String> {
        let package = |number: u32| {
            let reference = [number.to_be_bytes(); 8].concat();
            let reference = KeyPackageRef::new(reference).map_err(|error| error.to_string())?;
            Ok(NewPackage {
                reference,
                not_before: Timestamp(0),
                not_after: Timestamp(u64::MAX),
                message: message.to_vec(),
                signer: None,
                receiver: None,
            })
        };
        let packages = (0..packages).map(package).collect::<Result<_, String>>()?;
        let mut queue = Self::default();
        let at = Timestamp(0);
        queue.0.apply(QueueRecord::Uploaded {
            is_reset: false,
            packages,
            final_key: None,
            generation: 0,
            at,
        });
        Ok(queue)
    }

    /// Assigns the next package to a receiver; returns the length of its message.
    pub fn assign(&mut self, receiver: &str) -> usize {
        let receiver = Receiver { caller: Requester::Application, id: receiver.to_owned() };
        match self.0.choose(&receiver, Timestamp(0), usize::MAX, |_| true) {
            Choice::Assignable(package) => {
                let reference = package.reference.clone();
                self.0.apply(QueueRecord::Assigned { reference, receiver, is_low: false });
                package.message.len()
            }
            Choice::Assigned(package) | Choice::Final(package) => package.message.len(),
            Choice::Nothing => 0,
        }
    }
}
