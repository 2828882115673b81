//! Signatures of certificates and revocation lists. The issuer is determined first, and verified signatures of lists
//! are remembered.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
};

use rustls_pki_types::{AlgorithmIdentifier, InvalidSignature, SignatureVerificationAlgorithm};
use x509_parser::asn1_rs::{Any, BitString, FromDer as _, Sequence};

use super::{
    chain::{ALGORITHMS, CertificateRule},
    trust::Crl,
};

/// A public key as certificates carry it (RFC 5280 §4.1.2.7).
#[derive(Clone, Debug)]
pub(super) struct PublicKey {
    /// The content of its AlgorithmIdentifier.
    algorithm: Vec<u8>,
    /// The content of its bit string.
    pub(super) bits: Vec<u8>,
}

impl PublicKey {
    /// Reads a SubjectPublicKeyInfo; `None` if it is malformed.
    pub(super) fn of_info(der: &[u8]) -> Option<Self> {
        let (_, info) = Sequence::from_der(der).ok()?;
        let (rest, algorithm) = Any::from_der(&info.content).ok()?;
        let (_, key) = BitString::from_der(rest).ok()?;
        Some(Self { algorithm: algorithm.data.to_vec(), bits: key.data.to_vec() })
    }
}

/// The signed part of a certificate, and its signature (RFC 5280 §4.1.1).
#[derive(Clone, Copy, Debug)]
pub(super) struct Signed<'a> {
    message: &'a [u8],
    /// The content of the AlgorithmIdentifier.
    algorithm: &'a [u8],
    signature: &'a [u8],
}

impl<'a> Signed<'a> {
    /// The signed part of a certificate; `None` if it is malformed.
    pub(super) fn of_certificate(der: &'a [u8]) -> Option<Self> {
        let (_, certificate) = Any::from_der(der).ok()?;
        let content = certificate.data;
        let (after_message, _) = Any::from_der(content).ok()?;
        let (after_algorithm, algorithm) = Any::from_der(after_message).ok()?;
        let (_, signature) = Any::from_der(after_algorithm).ok()?;
        let message = content.get(..content.len().checked_sub(after_message.len())?)?;
        // A bit string begins with the number of its unused bits.
        let (0, signature) = signature.data.split_first().map(|(unused, bits)| (*unused, bits))? else {
            return None;
        };
        Some(Self { message, algorithm: algorithm.data, signature })
    }

    /// Verifies the signature with this key; only accepted algorithms count.
    ///
    /// # Errors
    /// [`CertificateRule::Signature`] or [`CertificateRule::Algorithm`].
    pub(super) fn verify(&self, key: &PublicKey) -> Result<(), CertificateRule> {
        let way = ALGORITHMS.iter().find(|way| {
            *way.signature_alg_id() == *self.algorithm && *way.public_key_alg_id() == *key.algorithm
        });
        let way = way.ok_or(CertificateRule::Algorithm)?;
        way.verify_signature(&key.bits, self.message, self.signature).map_err(|_| CertificateRule::Signature)
    }
}

/// The number of remembered keys that did not sign a list.
const OTHERS_MAX: usize = 64;

/// The signer of one list, as far as it is known. A list has one signer, which may become known only with the first chain of
/// that issuer.
#[derive(Debug, Default)]
pub(super) struct ListSigner {
    /// The algorithm, of [`ALGORITHMS`], and the key.
    signer: OnceLock<(usize, Vec<u8>)>,
    /// Keys that did not sign it, the latest.
    others: Mutex<VecDeque<Vec<u8>>>,
    /// The address at which the library keeps the signed content. It does not move as long as the list exists.
    kept_at: OnceLock<usize>,
    /// The number of verifications of the signature.
    #[cfg(test)]
    pub(super) verified: std::sync::atomic::AtomicUsize,
}

impl ListSigner {
    /// Whether a list is signed with this key, by any algorithm.
    pub(super) fn is(&self, public_key: &[u8], (message, signature): (&[u8], &[u8])) -> bool {
        if let Some((_, signer)) = self.signer.get()
            && signer == public_key
        {
            return true;
        }
        if self.others().iter().any(|other| other == public_key) {
            return false;
        }
        // No lock is held, so another thread that needs the same key meanwhile computes it too.
        let found = (0..ALGORITHMS.len()).any(|way| self.verify(way, public_key, message, signature).is_ok());
        if !found {
            let mut others = self.others();
            if !others.iter().any(|other| other == public_key) {
                others.truncate(OTHERS_MAX - 1);
                others.push_front(public_key.to_vec());
            }
        }
        found
    }

    fn others(&self) -> MutexGuard<'_, VecDeque<Vec<u8>>> {
        self.others.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn verify(
        &self,
        way: usize,
        public_key: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), InvalidSignature> {
        if let Some((known, signer)) = self.signer.get()
            && *known == way
            && signer == public_key
        {
            return Ok(());
        }
        #[cfg(test)]
        self.verified.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let algorithm = ALGORITHMS.get(way).ok_or(InvalidSignature)?;
        algorithm.verify_signature(public_key, message, signature)?;
        // Another thread may have set it already, to the same value.
        let _ = self.signer.set((way, public_key.to_vec()));
        Ok(())
    }

    /// Whether these bytes are the signed part of the list, as the library keeps it: recognised by their address once they were
    /// compared.
    fn is_kept(&self, message: &[u8], signed: &[u8]) -> bool {
        if message.len() != signed.len() {
            return false;
        }
        let place = message.as_ptr().addr();
        match self.kept_at.get() {
            Some(kept_at) => *kept_at == place,
            None => {
                let is_same = message == signed;
                if is_same {
                    let _ = self.kept_at.set(place);
                }
                is_same
            }
        }
    }
}

/// One of [`ALGORITHMS`], which verifies the signature of a list once and then remembers it.
#[derive(Debug)]
pub(super) struct RememberingWay<'a> {
    way: usize,
    algorithm: &'static dyn SignatureVerificationAlgorithm,
    lists: &'a [&'a Crl],
}

/// All of [`ALGORITHMS`], for a chain that is validated by these lists.
pub(super) fn remembering<'a>(lists: &'a [&'a Crl]) -> Vec<RememberingWay<'a>> {
    let ways = ALGORITHMS.iter().enumerate();
    ways.map(|(way, algorithm)| RememberingWay { way, algorithm: *algorithm, lists }).collect()
}

impl SignatureVerificationAlgorithm for RememberingWay<'_> {
    fn verify_signature(
        &self,
        public_key: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), InvalidSignature> {
        match self.lists.iter().find(|list| list.signer.is_kept(message, &list.signed.0)) {
            Some(list) => list.signer.verify(self.way, public_key, message, signature),
            None => self.algorithm.verify_signature(public_key, message, signature),
        }
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        self.algorithm.public_key_alg_id()
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        self.algorithm.signature_alg_id()
    }
}
