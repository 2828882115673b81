//! The X.509 credential as MLS carries it: `Certificate certificates<V>` (RFC 9420 §5.3).

use snapshots::Timestamp;
use x509_parser::{
    certificate::X509Certificate,
    oid_registry::{
        OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_NIST_EC_P521, OID_SIG_ED25519,
    },
    prelude::FromDer as _,
};

use super::{names::Names, parameters::NameOffsets, trust::TrustStore};
use crate::{identity::IdentityError, presentation::Reader};

/// Limits on certificate chains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChainLimits {
    /// Certificates in one chain.
    pub certificates_max: usize,
    /// Bytes of all certificates of one chain together.
    pub bytes_max: usize,
    /// Certificates above the highest one that names the client, without the root; `None` sets no bound. Offsets count from the
    /// leaf, so without a bound a client or account that may issue certificates could take any name by means of a longer chain.
    pub above_names_max: Option<usize>,
    /// The number of valid chains that are remembered. New GroupContext extensions make the gateway validate every member
    /// again, so it should be the largest number of members of a group.
    pub remembered_max: usize,
}

/// The claims of a chain, trusted or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Claims {
    pub(super) names: Names,
    /// The leaf's public key in the form of MLS (RFC 9420 §5.1.1).
    pub(super) signature_key: Vec<u8>,
    /// The first millisecond in which every certificate below the root is within its validity.
    valid_from: Timestamp,
    /// The last such millisecond in which one of the roots that may have issued the last certificate is also valid.
    pub(super) valid_until: Timestamp,
}

/// Splits the content of a credential into its certificates, the leaf first: DER each.
///
/// # Errors
/// The fault of a malformed credential, or the limit that it exceeds.
pub(super) fn certificates(content: &[u8], limits: ChainLimits) -> Result<Vec<&[u8]>, IdentityError> {
    if content.len() > limits.bytes_max {
        return Err(IdentityError(format!("the certificate chain has more than {} bytes", limits.bytes_max)));
    }
    let mut reader = Reader::new(content);
    let mut chain = Vec::new();
    while !reader.is_empty() {
        if chain.len() == limits.certificates_max {
            return Err(IdentityError(format!(
                "the chain has more than {} certificates",
                limits.certificates_max
            )));
        }
        let certificate = reader
            .vector("certificates")
            .map_err(|_| IdentityError("the X.509 credential is malformed (RFC 9420 section 5.3)".into()))?;
        chain.push(certificate);
    }
    if chain.is_empty() {
        return Err(IdentityError("the X.509 credential holds no certificate".into()));
    }
    Ok(chain)
}

impl Claims {
    /// Extracts the claims of a chain; a trailing trust root is not counted.
    ///
    /// # Errors
    /// The certificate that is malformed or lacks a name.
    pub(super) fn of_chain(
        chain: &[&[u8]],
        offsets: &NameOffsets,
        trust: &TrustStore,
    ) -> Result<Self, IdentityError> {
        let mut certificates = Vec::with_capacity(chain.len());
        for (offset, der) in chain.iter().enumerate() {
            match X509Certificate::from_der(der) {
                Ok(([], certificate)) => certificates.push(certificate),
                Ok(_) => {
                    return Err(IdentityError(format!("bytes follow certificate {offset} of the chain")));
                }
                Err(_) => {
                    return Err(IdentityError(format!(
                        "certificate {offset} of the chain is not X.509 in DER"
                    )));
                }
            }
        }
        let leaf = certificates
            .first()
            .ok_or_else(|| IdentityError("the X.509 credential holds no certificate".into()))?;
        let signature_key = signature_key(leaf)?;
        // Including or omitting the root makes no difference.
        let below_root = certificates.get(..trust.without_root(chain).len()).unwrap_or(&certificates);
        let from = below_root.iter().map(|certificate| certificate.validity().not_before.timestamp()).max();
        let until = below_root.iter().map(|certificate| certificate.validity().not_after.timestamp());
        let roots_end = below_root.last().and_then(|last| trust.roots_end(last.issuer().as_raw()));
        let until = until.chain(roots_end).min();
        Ok(Self {
            names: Names::of_chain(&certificates, offsets)?,
            signature_key,
            valid_from: Timestamp(first_ms(from.unwrap_or_default())),
            valid_until: Timestamp(last_ms(until.unwrap_or_default())),
        })
    }

    /// Whether every certificate is within its validity, the root not considered.
    pub(super) fn is_within_validity(&self, at: Timestamp) -> bool {
        (self.valid_from..=self.valid_until).contains(&at)
    }
}

/// A certificate is valid from the beginning of its `notBefore` …
fn first_ms(seconds: i64) -> u64 {
    u64::try_from(seconds).unwrap_or_default().saturating_mul(1000)
}

/// … to the end of its `notAfter` (RFC 5280 §4.1.2.5: both included).
fn last_ms(seconds: i64) -> u64 {
    u64::try_from(seconds).map_or(0, |seconds| seconds.saturating_mul(1000).saturating_add(999))
}

/// The public key of a certificate, if MLS can sign with such a key: the 32 bytes of Ed25519, or an uncompressed point of
/// a NIST curve (RFC 9420 §5.1.1).
fn signature_key(leaf: &X509Certificate<'_>) -> Result<Vec<u8>, IdentityError> {
    let info = leaf.public_key();
    let algorithm = &info.algorithm;
    let curve = || algorithm.parameters.as_ref().and_then(|curve| curve.as_oid().ok());
    let length = if algorithm.algorithm == OID_SIG_ED25519 {
        32
    } else if algorithm.algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY {
        match curve() {
            Some(curve) if curve == OID_EC_P256 => 1 + 2 * 32,
            Some(curve) if curve == OID_NIST_EC_P384 => 1 + 2 * 48,
            Some(curve) if curve == OID_NIST_EC_P521 => 1 + 2 * 66,
            Some(_) | None => 0,
        }
    } else {
        0
    };
    let key = info.subject_public_key.data.as_ref();
    match length {
        0 => Err(IdentityError(
            "the leaf certificate's key is none that MLS signs with: Ed25519, or ECDSA on P-256, P-384 or P-521".into(),
        )),
        _ if key.len() != length || info.subject_public_key.unused_bits != 0 => Err(IdentityError(
            "the leaf certificate's key has another form than MLS gives it; a point is to be uncompressed".into(),
        )),
        _ => Ok(key.to_vec()),
    }
}
