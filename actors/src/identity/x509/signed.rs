//! Signatures of certificates and revocation lists. The signer of a list is remembered.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
};

use rustls_pki_types::SignatureVerificationAlgorithm;
use webpki::ring;

use super::{
    chain::CertificateRule,
    der::{self, DerFault, DerReader},
};

/// The accepted signature algorithms of certificates and CRLs: ECDSA on P-256 and P-384, Ed25519, RSA with 2048 to 8192 bits.
const ALGORITHMS: &[&dyn SignatureVerificationAlgorithm] = &[
    ring::ECDSA_P256_SHA256,
    ring::ECDSA_P256_SHA384,
    ring::ECDSA_P384_SHA256,
    ring::ECDSA_P384_SHA384,
    ring::ED25519,
    ring::RSA_PKCS1_2048_8192_SHA256,
    ring::RSA_PKCS1_2048_8192_SHA384,
    ring::RSA_PKCS1_2048_8192_SHA512,
    ring::RSA_PSS_2048_8192_SHA256_LEGACY_KEY,
    ring::RSA_PSS_2048_8192_SHA384_LEGACY_KEY,
    ring::RSA_PSS_2048_8192_SHA512_LEGACY_KEY,
];

/// A public key as certificates carry it (RFC 5280 §4.1.2.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KeyInfo<'a> {
    /// The content of its AlgorithmIdentifier.
    pub(super) algorithm: &'a [u8],
    /// The content of its bit string.
    pub(super) bits: &'a [u8],
}

/// A public key of its own memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PublicKey {
    algorithm: Vec<u8>,
    bits: Vec<u8>,
}

impl From<KeyInfo<'_>> for PublicKey {
    fn from(key: KeyInfo<'_>) -> Self {
        Self { algorithm: key.algorithm.to_vec(), bits: key.bits.to_vec() }
    }
}

impl PublicKey {
    pub(super) fn info(&self) -> KeyInfo<'_> {
        KeyInfo { algorithm: &self.algorithm, bits: &self.bits }
    }
}

/// The signed part of a certificate or a list, and its signature (RFC 5280 §4.1.1, §5.1.1).
#[derive(Clone, Copy, Debug)]
pub(super) struct Signed<'a> {
    pub(super) message: &'a [u8],
    /// The content of the AlgorithmIdentifier.
    pub(super) algorithm: &'a [u8],
    pub(super) signature: &'a [u8],
}

impl<'a> Signed<'a> {
    /// Reads the outer SEQUENCE of a certificate or a list.
    pub(super) fn new(der: &'a [u8]) -> Result<Self, DerFault> {
        let mut fields: DerReader<'a> = der::whole_sequence(der)?;
        let message = fields.expect(der::SEQUENCE)?.raw;
        let algorithm = fields.expect(der::SEQUENCE)?.body;
        let signature = der::bit_string(fields.expect(der::BIT_STRING)?.body)?;
        fields.end()?;
        Ok(Self { message, algorithm, signature })
    }

    /// Verifies the signature with this key; only accepted algorithms count.
    ///
    /// # Errors
    /// [`CertificateRule::Signature`] or [`CertificateRule::Algorithm`].
    pub(super) fn verify(&self, key: KeyInfo<'_>) -> Result<(), CertificateRule> {
        let accepted = ALGORITHMS.iter().find(|accepted| {
            *accepted.signature_alg_id() == *self.algorithm && *accepted.public_key_alg_id() == *key.algorithm
        });
        let accepted = accepted.ok_or(CertificateRule::Algorithm)?;
        accepted
            .verify_signature(key.bits, self.message, self.signature)
            .map_err(|_| CertificateRule::Signature)
    }
}

/// The number of remembered keys that did not sign a list.
const OTHERS_MAX: usize = 64;

/// The signer of one list, as far as it is known. A list has one signer, which may become known only with the first chain of
/// that issuer.
#[derive(Debug, Default)]
pub(super) struct ListSigner {
    signer: OnceLock<PublicKey>,
    /// Keys that did not sign it, the latest first.
    others: Mutex<VecDeque<PublicKey>>,
    /// The number of verifications of the signature.
    #[cfg(test)]
    pub(super) verified: std::sync::atomic::AtomicUsize,
}

impl ListSigner {
    /// Whether a list is signed with this key. The first question about a key costs a verification.
    pub(super) fn is(&self, key: KeyInfo<'_>, list: Signed<'_>) -> bool {
        if let Some(signer) = self.signer.get()
            && signer.info() == key
        {
            return true;
        }
        if self.others().iter().any(|other| other.info() == key) {
            return false;
        }
        #[cfg(test)]
        self.verified.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        // No lock is held, so another thread that needs the same key meanwhile computes it too.
        let is_signer = list.verify(key).is_ok();
        if is_signer {
            // If two keys verify a signature, the first is remembered.
            self.signer.get_or_init(|| key.into());
        } else {
            let mut others = self.others();
            if !others.iter().any(|other| other.info() == key) {
                others.truncate(OTHERS_MAX - 1);
                others.push_front(key.into());
            }
        }
        is_signer
    }

    /// Whether the key that signed it has been found.
    pub(super) fn is_known(&self) -> bool {
        self.signer.get().is_some()
    }

    fn others(&self) -> MutexGuard<'_, VecDeque<PublicKey>> {
        self.others.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
