//! Validation of a certificate chain at a given time: RFC 5280 §6, on rustls-webpki and with the checks that it leaves
//! out.

mod error;
#[cfg(test)]
mod tests;

use std::time::Duration;

use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm, TrustAnchor, UnixTime};
use snapshots::Timestamp;
use webpki::{
    EndEntityCert, ExpirationPolicy, ExtendedKeyUsageValidator, KeyPurposeIdIter, RevocationCheckDepth,
    RevocationOptionsBuilder, UnknownStatusPolicy, VerifiedPath, ring,
};
use x509_parser::{
    certificate::X509Certificate,
    extensions::KeyUsage,
    oid_registry::{
        OID_X509_EXT_CRL_DISTRIBUTION_POINTS, OID_X509_EXT_INHIBIT_ANY_POLICY,
        OID_X509_EXT_POLICY_CONSTRAINTS, OID_X509_EXT_POLICY_MAPPINGS, Oid,
    },
    prelude::FromDer,
};

pub use self::error::{CertificateRule, ChainError};
use super::{
    signed::{PublicKey, Signed, remembering},
    trust::{Crl, TrustRoot, TrustStore},
};
use crate::limits::MAX_CERTIFICATES;

/// The most certificates in a chain without its root.
const MAX_PATH: usize = MAX_CERTIFICATES - 1;

/// The accepted signature algorithms of certificates and CRLs: ECDSA on P-256 and P-384, Ed25519, RSA with 2048 to 8192 bits.
pub(super) const ALGORITHMS: &[&dyn SignatureVerificationAlgorithm] = &[
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

/// Extensions that restrict policies.
const POLICY_EXTENSIONS: [(Oid<'static>, &str); 3] = [
    (OID_X509_EXT_POLICY_MAPPINGS, "policyMappings"),
    (OID_X509_EXT_POLICY_CONSTRAINTS, "policyConstraints"),
    (OID_X509_EXT_INHIBIT_ANY_POLICY, "inhibitAnyPolicy"),
];

impl TrustStore {
    /// Validates a chain at a time, in Unix milliseconds, by RFC 5280 §6.1 with no initial policies.
    ///
    /// `chain[0]` is the leaf, each certificate is DER, and each is followed by its issuer's. The chain is the verified path:
    /// no certificate is searched, skipped or added. The last may be a trust root; including or omitting it makes no
    /// difference.
    ///
    /// A key usage must allow the use of its certificate (the leaf: digitalSignature; issuers: keyCertSign); a certificate
    /// without a key usage is not restricted (RFC 5280 §6.1.4 (n)). Any extended key usage is accepted, since none is defined
    /// for MLS. The trust roots must be valid at that time, too.
    ///
    /// Stricter than RFC 5280: names are compared byte by byte; self-issued certificates count for the path length;
    /// constraints on directory names, and extensions that restrict policies, are refused.
    ///
    /// # Errors
    /// The broken rule and the certificate that breaks it.
    pub fn validate(&self, chain: &[&[u8]], at: Timestamp) -> Result<(), ChainError> {
        if chain.len() > MAX_CERTIFICATES {
            return Err(ChainError::TooLong { found: chain.len() });
        }
        let (root, path) = self.split_root(chain)?;
        if path.len() > MAX_PATH {
            return Err(ChainError::TooLong { found: chain.len() });
        }
        let at = UnixTime::since_unix_epoch(Duration::from_millis(at.0));
        let path = path
            .iter()
            .enumerate()
            .map(|(index, der)| Certificate::new(der).map_err(|rule| broken(index, rule)))
            .collect::<Result<Vec<_>, _>>()?;
        for (index, certificate) in path.iter().enumerate() {
            check_alone(certificate, index, at).map_err(|rule| broken(index, rule))?;
            if path.iter().take(index).any(|before| before.der == certificate.der) {
                return Err(broken(index, CertificateRule::Repeated));
            }
        }
        for (index, (certificate, issuer)) in path.iter().zip(path.iter().skip(1)).enumerate() {
            if certificate.issuer() != issuer.subject() {
                return Err(broken(index, CertificateRule::Order));
            }
        }
        let roots = self.roots_for(&path, root, at)?;
        let roots = check_signatures(&path, roots)?;
        let crls = self.crls_by_issuers_of(&path, &roots);
        check_revocability(&path, &crls)?;
        verify_path(&path, &roots, &crls, at)
    }

    /// The certificates of a chain before the trust root that ends it, if one does.
    pub(super) fn without_root<'a>(&self, chain: &'a [&'a [u8]]) -> &'a [&'a [u8]] {
        match chain.split_last() {
            Some((last, before)) if self.roots.iter().any(|root| root.der.as_ref() == *last) => before,
            Some(_) | None => chain,
        }
    }

    /// The trust root that ends the chain, if one does, and the certificates before it.
    fn split_root<'a>(
        &self,
        chain: &'a [&'a [u8]],
    ) -> Result<(Option<&TrustRoot>, &'a [&'a [u8]]), ChainError> {
        let (last, before) = chain.split_last().ok_or(ChainError::Empty)?;
        if let Some(index) =
            before.iter().position(|der| self.roots.iter().any(|root| root.der.as_ref() == *der))
        {
            return Err(broken(index, CertificateRule::RootInside));
        }
        match self.roots.iter().find(|root| root.der.as_ref() == *last) {
            None => Ok((None, chain)),
            Some(_) if before.is_empty() => Err(ChainError::OnlyRoot),
            Some(root) => Ok((Some(root), before)),
        }
    }

    /// The roots that may have issued the last certificate: valid ones of the right name, and if the chain ends with
    /// a root, only that.
    fn roots_for(
        &self,
        path: &[Certificate<'_>],
        root: Option<&TrustRoot>,
        at: UnixTime,
    ) -> Result<Vec<&TrustRoot>, ChainError> {
        let Some(last) = path.last() else { return Err(ChainError::Empty) };
        let cas = path.len() - 1;
        let mut rule = if root.is_some() { CertificateRule::Order } else { CertificateRule::UnknownIssuer };
        let mut found = Vec::new();
        for candidate in self.roots.iter().filter(|candidate| candidate.subject == last.issuer()) {
            if root.is_some_and(|root| root.der != candidate.der) {
                continue;
            }
            match candidate.path_len {
                _ if validity(candidate.not_before, candidate.not_after, at).is_err() => {
                    rule = CertificateRule::RootValidity;
                }
                Some(limit) if cas > usize::try_from(limit).unwrap_or(usize::MAX) => {
                    rule = CertificateRule::RootPathLength { limit, found: cas };
                }
                _ if !self.crls.is_empty() && !candidate.signs_crls => rule = CertificateRule::CrlSign,
                _ => found.push(candidate),
            }
        }
        if found.is_empty() { Err(broken(cas, rule)) } else { Ok(found) }
    }

    /// The revocation lists, for a path that ends at one of these roots.
    fn crls_by_issuers_of(&self, path: &[Certificate<'_>], roots: &[&TrustRoot]) -> Vec<&Crl> {
        let below = path.iter().skip(1);
        let below =
            below.map(|issuer| (issuer.subject(), &*issuer.fields.public_key().subject_public_key.data));
        let above = roots.iter().map(|root| (&*root.subject, &*root.public_key.bits));
        self.crls_of(&below.chain(above).collect::<Vec<_>>())
    }
}

/// Checks that each certificate is signed with the key of the one after it, and the last with that of a root, before any other
/// work is done for a chain that anybody can make. Returns the roots that have signed the last.
fn check_signatures<'a>(
    path: &[Certificate<'_>],
    roots: Vec<&'a TrustRoot>,
) -> Result<Vec<&'a TrustRoot>, ChainError> {
    for (index, (certificate, issuer)) in path.iter().zip(path.iter().skip(1)).enumerate() {
        let key = PublicKey::of_info(issuer.fields.public_key().raw)
            .ok_or_else(|| broken(index + 1, CertificateRule::Malformed("its public key".into())))?;
        certificate.signed.verify(&key).map_err(|rule| broken(index, rule))?;
    }
    let Some(last) = path.last() else { return Err(ChainError::Empty) };
    let (mut signers, mut refusal) = (Vec::new(), CertificateRule::UnknownIssuer);
    for root in roots {
        match last.signed.verify(&root.public_key) {
            Ok(()) => signers.push(root),
            // If several roots have one name, the error of the one whose key could have signed is more specific.
            Err(rule) if refusal != CertificateRule::Signature => refusal = rule,
            Err(_) => {}
        }
    }
    if signers.is_empty() { Err(broken(path.len() - 1, refusal)) } else { Ok(signers) }
}

/// Checks of revocation that the library omits: a certificate without a distribution point must not be validated by a CRL for
/// one, which the library would accept; and issuers must be allowed to sign CRLs, checked here so that the error can name the
/// certificate.
fn check_revocability(path: &[Certificate<'_>], crls: &[&Crl]) -> Result<(), ChainError> {
    if crls.is_empty() {
        return Ok(());
    }
    for (index, certificate) in path.iter().enumerate() {
        let sharded = crls.iter().any(|crl| crl.sharded && crl.issuer == certificate.issuer());
        if sharded && !certificate.has_extension(&OID_X509_EXT_CRL_DISTRIBUTION_POINTS) {
            return Err(broken(index, CertificateRule::StatusUnknown));
        }
        let Some(issuer) = path.get(index + 1) else { continue };
        if !issuer.allows(KeyUsage::crl_sign).map_err(|rule| broken(index + 1, rule))? {
            return Err(broken(index, CertificateRule::CrlSign));
        }
    }
    Ok(())
}

/// Signatures, name constraints and revocation.
fn verify_path(
    path: &[Certificate<'_>],
    roots: &[&TrustRoot],
    crls: &[&Crl],
    at: UnixTime,
) -> Result<(), ChainError> {
    let ders: Vec<_> = path.iter().map(|certificate| certificate.der.clone()).collect();
    let last = ders.len().saturating_sub(1);
    let anchors = roots
        .iter()
        .map(|root| webpki::anchor_from_trusted_cert(&root.der))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| broken(last, error.into()))?;
    let Err(error) = verify(&ders, &anchors, crls, at) else { return Ok(()) };

    // The library does not name the certificate at fault. It is the last one of the shortest part of the chain that fails when
    // the certificate after that part is trusted.
    for (index, issuer) in ders.iter().skip(1).enumerate() {
        let (part, _) = ders.split_at(index + 1);
        let verified =
            webpki::anchor_from_trusted_cert(issuer).and_then(|anchor| verify(part, &[anchor], crls, at));
        if let Err(error) = verified {
            return Err(broken(index, error.into()));
        }
    }
    Err(broken(last, error.into()))
}

/// Makes the library verify that exactly this path leads to an anchor.
fn verify(
    path: &[CertificateDer<'_>],
    anchors: &[TrustAnchor<'_>],
    crls: &[&Crl],
    at: UnixTime,
) -> Result<(), webpki::Error> {
    let Some((leaf, issuers)) = path.split_first() else { return Err(webpki::Error::UnknownIssuer) };
    let ways = remembering(crls);
    let ways: Vec<&dyn SignatureVerificationAlgorithm> =
        ways.iter().map(|way| way as &dyn SignatureVerificationAlgorithm).collect();
    let lists: Vec<_> = crls.iter().map(|crl| &crl.list).collect();
    let revocation = RevocationOptionsBuilder::new(&lists).ok().map(|options| {
        options
            .with_depth(RevocationCheckDepth::Chain)
            .with_status_policy(UnknownStatusPolicy::Deny)
            .with_expiration_policy(ExpirationPolicy::Enforce)
            .build()
    });
    // The library treats the issuers as a set; a path that omits one would shift the offsets of the names.
    let whole = |verified: &VerifiedPath<'_>| {
        let used = verified.intermediate_certificates().map(|issuer| issuer.der());
        if used.eq(issuers.iter().cloned()) { Ok(()) } else { Err(webpki::Error::UnknownIssuer) }
    };
    EndEntityCert::try_from(leaf)?
        .verify_for_usage(&ways, anchors, issuers, at, AnyUsage, revocation, Some(&whole))
        .map(drop)
}

/// Accepts any extended key usage.
struct AnyUsage;

impl ExtendedKeyUsageValidator for AnyUsage {
    fn validate(&self, _: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        Ok(())
    }
}

/// A certificate that both parsers can read.
struct Certificate<'a> {
    der: CertificateDer<'a>,
    fields: X509Certificate<'a>,
    signed: Signed<'a>,
}

impl<'a> Certificate<'a> {
    fn new(der: &'a [u8]) -> Result<Self, CertificateRule> {
        let malformed = |error: &dyn std::fmt::Display| CertificateRule::Malformed(error.to_string());
        let signed = Signed::of_certificate(der);
        let (rest, fields) = X509Certificate::from_der(der).map_err(|error| malformed(&error))?;
        if !rest.is_empty() {
            return Err(malformed(&"there are bytes after its end"));
        }
        let restricts =
            |(oid, _): &&(Oid<'_>, _)| fields.iter_extensions().any(|extension| extension.oid == *oid);
        if let Some((_, name)) = POLICY_EXTENSIONS.iter().find(restricts) {
            return Err(CertificateRule::PolicyExtension(name));
        }
        let der = CertificateDer::from(der);
        EndEntityCert::try_from(&der).map(drop)?;
        let signed = signed.ok_or_else(|| malformed(&"its signature cannot be read"))?;
        Ok(Self { der, fields, signed })
    }

    fn subject(&self) -> &[u8] {
        self.fields.subject().as_raw()
    }

    fn issuer(&self) -> &[u8] {
        self.fields.issuer().as_raw()
    }

    /// Whether its key usage allows a use, or it has none.
    fn allows(&self, usage: impl Fn(&KeyUsage) -> bool) -> Result<bool, CertificateRule> {
        let found = self.fields.key_usage().map_err(|error| CertificateRule::Malformed(error.to_string()))?;
        Ok(found.is_none_or(|found| usage(found.value)))
    }

    fn has_extension(&self, oid: &Oid<'_>) -> bool {
        self.fields.iter_extensions().any(|extension| extension.oid == *oid)
    }
}

/// The checks that need no other certificate.
fn check_alone(certificate: &Certificate<'_>, index: usize, at: UnixTime) -> Result<(), CertificateRule> {
    let fields = &certificate.fields;
    let dates = fields.validity();
    validity(dates.not_before.timestamp(), dates.not_after.timestamp(), at)?;

    let constraints =
        fields.basic_constraints().map_err(|error| CertificateRule::Malformed(error.to_string()))?;
    let ca = constraints.as_ref().is_some_and(|constraints| constraints.value.ca);
    let Some(below) = index.checked_sub(1) else {
        if ca {
            return Err(CertificateRule::CaAsLeaf);
        }
        let signs = certificate.allows(KeyUsage::digital_signature)?;
        return if signs { Ok(()) } else { Err(CertificateRule::DigitalSignature) };
    };
    if !ca {
        return Err(CertificateRule::NotCa);
    }
    if !certificate.allows(KeyUsage::key_cert_sign)? {
        return Err(CertificateRule::KeyCertSign);
    }
    match constraints.and_then(|constraints| constraints.value.path_len_constraint) {
        Some(limit) if below > usize::try_from(limit).unwrap_or(usize::MAX) => {
            Err(CertificateRule::PathLength { limit, found: below })
        }
        _ => Ok(()),
    }
}

/// Whether a time, in Unix seconds, is within a validity, both ends included (RFC 5280 §4.1.2.5).
fn validity(not_before: i64, not_after: i64, at: UnixTime) -> Result<(), CertificateRule> {
    let at = i64::try_from(at.as_secs()).unwrap_or(i64::MAX);
    if at < not_before {
        Err(CertificateRule::NotValidYet)
    } else if at > not_after {
        Err(CertificateRule::Expired)
    } else {
        Ok(())
    }
}

fn broken(index: usize, rule: CertificateRule) -> ChainError {
    ChainError::Certificate { index, rule }
}
