//! Trust anchors of an application: its roots and revocation lists.

use std::{
    cmp::Reverse,
    collections::{HashMap, HashSet},
};

use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, pem::PemObject};
use snapshots::Timestamp;
use webpki::{CertRevocationList, OwnedCertRevocationList};
use x509_parser::{
    certificate::X509Certificate, extensions::ParsedExtension,
    oid_registry::OID_X509_EXT_ISSUER_DISTRIBUTION_POINT, prelude::FromDer,
    revocation_list::CertificateRevocationList,
};

use super::signed::{ListSigner, PublicKey};
use crate::identity::TrustEnds;

/// The most trust roots that one application can have.
const MAX_ROOTS: usize = 256;

/// The most revocation lists that one application can have.
const MAX_CRLS: usize = 1024;

/// The trust anchors of one application: its trust roots and any certificate revocation lists (CRLs).
///
/// Without CRLs nothing is revoked. With one, revocation fails closed: every certificate of a chain except the root must be
/// covered by a CRL that its issuer signed with its certificate-signing key and that is not past its next update at the time of
/// validation. If several CRLs cover a certificate, the newest counts.
#[derive(Debug)]
pub struct TrustStore {
    pub(super) roots: Vec<TrustRoot>,
    /// Newest first.
    pub(super) crls: Vec<Crl>,
    /// The times at which a root's validity or a CRL's currency begins or ends: Unix seconds, ascending.
    turns: Vec<i64>,
}

/// The reason why an application's trust roots or revocation lists cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    /// There is no certificate in the PEM bundle.
    #[error("there is no trust root: the PEM bundle must hold at least one CERTIFICATE section")]
    NoRoots,
    /// There are more roots than one application can have.
    #[error("there are more than {MAX_ROOTS} trust roots")]
    TooManyRoots,
    /// A root cannot be used; roots are counted from 1, in the order of the bundle.
    #[error("trust root {number} cannot be used: {reason}")]
    Root {
        /// The number of the root.
        number: usize,
        /// The fault.
        reason: String,
    },
    /// There are more CRLs than one application can have.
    #[error("there are more than {MAX_CRLS} revocation lists")]
    TooManyCrls,
    /// A CRL cannot be used; CRLs are counted from 1, in the order they were given.
    #[error("revocation list {number} cannot be used: {reason}")]
    Crl {
        /// The number of the CRL.
        number: usize,
        /// The fault.
        reason: String,
    },
}

impl TrustStore {
    /// A store of the roots in a PEM bundle and of CRLs, each in PEM or DER.
    ///
    /// Roots must be CA certificates of version 3. Delta CRLs, indirect CRLs, and CRLs for some reasons of revocation only are
    /// not supported (RFC 5280 §5.2).
    ///
    /// # Errors
    /// The root or CRL that cannot be used, and the reason.
    pub fn new(roots_pem: &[u8], crls: &[Vec<u8>]) -> Result<Self, TrustError> {
        let mut roots = Vec::new();
        for (root, number) in CertificateDer::pem_slice_iter(roots_pem).zip(1..) {
            if number > MAX_ROOTS {
                return Err(TrustError::TooManyRoots);
            }
            let root = root.map_err(|error| error.to_string()).and_then(TrustRoot::new);
            roots.push(root.map_err(|reason| TrustError::Root { number, reason })?);
        }
        if roots.is_empty() {
            return Err(TrustError::NoRoots);
        }
        if crls.len() > MAX_CRLS {
            return Err(TrustError::TooManyCrls);
        }
        let mut crls = crls
            .iter()
            .zip(1..)
            .map(|(crl, number)| Crl::new(crl).map_err(|reason| TrustError::Crl { number, reason }))
            .collect::<Result<Vec<_>, _>>()?;
        crls.sort_by_key(|crl| Reverse(crl.this_update));
        let mut names: HashMap<Vec<u8>, usize> = HashMap::new();
        for crl in &crls {
            *names.entry(crl.issuer.clone()).or_default() += 1;
        }
        for crl in &mut crls {
            crl.shares_name = names.get(&crl.issuer).is_some_and(|lists| *lists > 1);
        }
        // The end of a validity is part of it; a CRL is validated with the second of its next update on either side.
        let of_roots = roots.iter().flat_map(|root| [root.not_before, root.not_after.saturating_add(1)]);
        let of_crls = crls.iter().filter_map(|crl| crl.next_update);
        let of_crls = of_crls.flat_map(|end| [end, end.saturating_add(1)]);
        let mut turns: Vec<i64> = of_roots.chain(of_crls).collect();
        turns.sort_unstable();
        Ok(Self { roots, crls, turns })
    }

    /// The first ends of a root and of a list.
    pub(super) fn ends(&self) -> TrustEnds {
        TrustEnds {
            root: self.roots.iter().map(|root| root.not_after).min(),
            list: self.crls.iter().filter_map(|crl| crl.next_update).min(),
        }
    }

    /// The end of the validity of the last root with this name (a subject's DER), in Unix seconds.
    pub(super) fn roots_end(&self, name: &[u8]) -> Option<i64> {
        self.roots.iter().filter(|root| root.subject == name).map(|root| root.not_after).max()
    }

    /// The revocation lists, newest first, without those of another issuer with the same name. `issuers` are the names (DER)
    /// and keys of the issuers in a path; a name may have several keys if several roots have it.
    ///
    /// Names need to be unique only below one issuer: two domains may each have an account *alice*, with a list of its
    /// own. If no key in the path signed a list of a name, all its lists are returned, and the library reports the fault.
    pub(super) fn crls_of(&self, issuers: &[(&[u8], &[u8])]) -> Vec<&Crl> {
        let signed = |crl: &Crl| {
            let mut keys =
                issuers.iter().filter(|(name, _)| *name == crl.issuer).map(|(_, key)| key).peekable();
            (crl.shares_name && keys.peek().is_some()).then(|| keys.any(|key| crl.is_signed_with(key)))
        };
        let crls: Vec<(&Crl, Option<bool>)> = self.crls.iter().map(|crl| (crl, signed(crl))).collect();
        let own: HashSet<&[u8]> =
            crls.iter().filter(|(_, own)| *own == Some(true)).map(|(crl, _)| &*crl.issuer).collect();
        let is_kept =
            |(crl, is_own): &(&Crl, Option<bool>)| *is_own != Some(false) || !own.contains(&*crl.issuer);
        crls.into_iter().filter(is_kept).map(|(crl, _)| crl).collect()
    }

    /// The number of the period that contains a time. Periods are separated by the times at which a root or CRL begins or ends
    /// to be valid; within one period, and within the validity of its certificates, a chain is always valid or never.
    pub(super) fn period(&self, at: Timestamp) -> usize {
        let at = i64::try_from(at.0 / 1000).unwrap_or(i64::MAX);
        self.turns.partition_point(|turn| *turn <= at)
    }
}

/// A trust anchor (RFC 5280 §6.1.1), with other data of its certificate.
#[derive(Debug)]
pub(super) struct TrustRoot {
    pub(super) der: CertificateDer<'static>,
    /// The subject's DER.
    pub(super) subject: Vec<u8>,
    pub(super) public_key: PublicKey,
    /// In Unix seconds.
    pub(super) not_before: i64,
    /// In Unix seconds.
    pub(super) not_after: i64,
    /// The number of CA certificates that may follow below it.
    pub(super) path_len: Option<u32>,
    /// Whether its key usage, if it has one, includes signing CRLs.
    pub(super) signs_crls: bool,
}

impl TrustRoot {
    fn new(der: CertificateDer<'static>) -> Result<Self, String> {
        webpki::anchor_from_trusted_cert(&der).map_err(|error| format!("it is malformed ({error})"))?;
        let malformed = |error: &dyn std::fmt::Display| format!("it is malformed ({error})");
        let (_, certificate) = X509Certificate::from_der(&der).map_err(|error| malformed(&error))?;
        let constraints = certificate.basic_constraints().map_err(|error| malformed(&error))?;
        let Some(constraints) = constraints.filter(|constraints| constraints.value.ca) else {
            return Err("it is not a CA certificate (basicConstraints with cA, RFC 5280 §4.2.1.9)".into());
        };
        let usage = certificate.key_usage().map_err(|error| malformed(&error))?;
        if usage.as_ref().is_some_and(|usage| !usage.value.key_cert_sign()) {
            return Err("its key usage does not include keyCertSign (RFC 5280 §4.2.1.3)".into());
        }
        let (subject, public_key, not_before, not_after, path_len, signs_crls) = (
            certificate.subject().as_raw().to_vec(),
            PublicKey::of_info(certificate.public_key().raw).ok_or("its public key is malformed")?,
            certificate.validity().not_before.timestamp(),
            certificate.validity().not_after.timestamp(),
            constraints.value.path_len_constraint,
            usage.is_none_or(|usage| usage.value.crl_sign()),
        );
        Ok(Self { der, subject, public_key, not_before, not_after, path_len, signs_crls })
    }
}

/// A certificate revocation list (RFC 5280 §5).
#[derive(Debug)]
pub(super) struct Crl {
    pub(super) list: CertRevocationList<'static>,
    /// The issuer's DER.
    pub(super) issuer: Vec<u8>,
    /// In Unix seconds.
    this_update: i64,
    /// In Unix seconds; `None` if the list has none.
    next_update: Option<i64>,
    /// Whether it holds only the certificates that name its distribution point.
    pub(super) sharded: bool,
    /// Whether another list has an issuer of the same name.
    shares_name: bool,
    /// The signed content, and the signature.
    pub(super) signed: (Vec<u8>, Vec<u8>),
    pub(super) signer: ListSigner,
}

impl Crl {
    fn new(bytes: &[u8]) -> Result<Self, String> {
        // DER begins with the tag of a SEQUENCE.
        let der = if bytes.first() == Some(&0x30) {
            CertificateRevocationListDer::from(bytes)
        } else {
            CertificateRevocationListDer::from_pem_slice(bytes).map_err(|error| error.to_string())?
        };
        let list = OwnedCertRevocationList::from_der(&der).map_err(unusable)?;
        let (_, fields) = CertificateRevocationList::from_der(&der)
            .map_err(|error| format!("it is malformed ({error})"))?;
        let sharded = fields
            .extensions()
            .iter()
            .filter(|extension| extension.oid == OID_X509_EXT_ISSUER_DISTRIBUTION_POINT)
            .any(|extension| {
                let ParsedExtension::IssuingDistributionPoint(point) = extension.parsed_extension() else {
                    return true;
                };
                point.distribution_point.is_some()
            });
        Ok(Self {
            list: list.into(),
            issuer: fields.issuer().as_raw().to_vec(),
            this_update: fields.last_update().timestamp(),
            next_update: fields.next_update().map(|update| update.timestamp()),
            sharded,
            shares_name: false,
            signed: (fields.tbs_cert_list.as_ref().to_vec(), fields.signature_value.data.to_vec()),
            signer: ListSigner::default(),
        })
    }

    /// Whether it may be signed with this key, by any algorithm. This only finds the issuer among several with one name; the
    /// library verifies the signature fully.
    fn is_signed_with(&self, public_key: &[u8]) -> bool {
        let (message, signature) = &self.signed;
        self.signer.is(public_key, (message, signature))
    }
}

/// The reason why the library refuses a CRL.
#[expect(clippy::wildcard_enum_match_arm, reason = "whatever else it is, the CRL is malformed")]
fn unusable(error: webpki::Error) -> String {
    use webpki::Error;
    match error {
        Error::UnsupportedDeltaCrl => "delta CRLs are not supported".into(),
        Error::UnsupportedIndirectCrl => "indirect CRLs are not supported".into(),
        Error::UnsupportedRevocationReasonsPartitioning => {
            "CRLs for some reasons of revocation only are not supported".into()
        }
        Error::UnsupportedCrlIssuingDistributionPoint => {
            "it is not for all certificates of its issuer, nor for a distribution point with a URI".into()
        }
        Error::UnsupportedCrlVersion => "it is not of version 2".into(),
        Error::UnsupportedCriticalExtension => "it has a critical extension that is not known".into(),
        other => format!("it is malformed ({other})"),
    }
}
