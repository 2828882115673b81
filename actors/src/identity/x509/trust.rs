//! Trust anchors of an application: its roots, revocation lists and CRL issuers.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashMap},
};

use rustls_pki_types::{CertificateDer, pem::PemObject};
use sha2::{Digest as _, Sha256};
use snapshots::Timestamp;

use super::{
    certificate::{CRL_SIGN, Certificate, FoldedName, KEY_CERT_SIGN, Validity},
    chain::NameConstraints,
    crl::{Crl, ListedAs},
    der::DerFault,
    signed::PublicKey,
};
use crate::identity::{TrustEnds, TrustMember};

/// The most trust roots that one application can have.
const MAX_ROOTS: usize = 256;

/// The most revocation lists that one application can have.
const MAX_CRLS: usize = 1024;

/// The most CRL issuers that one application can have.
const MAX_CRL_ISSUERS: usize = 256;

/// The trust anchors of one application: its trust roots, any certificate revocation lists (CRLs), and certificates of CRL
/// issuers.
///
/// Without CRLs nothing is revoked. With one, revocation fails closed: every certificate of a chain except the root must be
/// covered for all reasons by CRLs that are not past their next update at the time of validation. A CRL is signed by a
/// certificate of the chain above the one in question, by its root, or by one of the CRL issuers; these have to be valid below
/// the same root (RFC 5280 §6.3.3 (f)). If several CRLs cover a certificate for a reason, the newest counts, and with it the
/// newest delta CRL that continues it.
#[derive(Debug)]
pub struct TrustStore {
    pub(super) roots: Vec<TrustRoot>,
    /// Complete lists, newest first, and then deltas, by falling number.
    pub(super) crls: Vec<Crl>,
    /// The places in `crls` of each issuer's complete lists and deltas.
    crls_by_issuer: HashMap<FoldedName, OfIssuer>,
    /// The places in `crls` of all lists with entries of certificates of an issuer.
    crls_by_listed: HashMap<FoldedName, Vec<usize>>,
    pub(super) crl_issuers: Vec<CrlIssuer>,
    /// The times at which the validity of a root or CRL issuer, or a CRL's currency, begins or ends: Unix seconds, ascending.
    turns: Vec<i64>,
}

/// Places in [`TrustStore::crls`].
#[derive(Debug, Default)]
struct OfIssuer {
    complete: Vec<usize>,
    deltas: Vec<usize>,
}

/// The reason why an application's trust roots, CRL issuers or revocation lists cannot be used.
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
    /// There are no CRL issuers in their bundle, or more than one application can have.
    #[error("there must be 1 to {MAX_CRL_ISSUERS} CRL issuers, and there are {found}")]
    CrlIssuers {
        /// The number found; one more than allowed may stand for more.
        found: usize,
    },
    /// A CRL issuer cannot be used; they are counted from 1, in the order of the bundle.
    #[error("CRL issuer {number} cannot be used: {reason}")]
    CrlIssuer {
        /// The number of the CRL issuer.
        number: usize,
        /// The fault.
        reason: String,
    },
}

impl TrustStore {
    /// A store of the roots in a PEM bundle and of CRLs, each in PEM or DER.
    ///
    /// Roots must be CA certificates of version 3.
    ///
    /// # Errors
    /// The root or CRL that cannot be used, and the reason.
    pub fn new(roots_pem: &[u8], crls: &[Vec<u8>]) -> Result<Self, TrustError> {
        let mut roots = Vec::new();
        for (root, number) in CertificateDer::pem_slice_iter(roots_pem).zip(1..) {
            if number > MAX_ROOTS {
                return Err(TrustError::TooManyRoots);
            }
            let root = root.map_err(|error| error.to_string()).and_then(|der| TrustRoot::new(der.to_vec()));
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
            .map(|(crl, number)| {
                Crl::new(crl, number - 1).map_err(|reason| TrustError::Crl { number, reason })
            })
            .collect::<Result<Vec<_>, _>>()?;
        crls.sort_by(|one, other| {
            let key = |crl: &Crl| (crl.is_delta(), Reverse(crl.this_update));
            key(one).cmp(&key(other)).then_with(|| other.number().cmp(&one.number()))
        });
        let mut crls_by_issuer: HashMap<FoldedName, OfIssuer> = HashMap::new();
        for (place, crl) in crls.iter().enumerate() {
            let of_issuer = crls_by_issuer.entry(crl.issuer.clone()).or_default();
            if crl.is_delta() { of_issuer.deltas.push(place) } else { of_issuer.complete.push(place) }
        }
        let mut crls_by_listed: HashMap<FoldedName, Vec<usize>> = HashMap::new();
        for (place, crl) in crls.iter().enumerate() {
            for issuer in crl.issuers_of_entries() {
                crls_by_listed.entry(issuer.clone()).or_default().push(place);
            }
        }
        let (crl_issuers, turns) = (Vec::new(), Vec::new());
        let mut store = Self { roots, crls, crls_by_issuer, crls_by_listed, crl_issuers, turns };
        store.find_turns();
        Ok(store)
    }

    /// The store with the certificates of a PEM bundle as CRL issuers: of those who sign CRLs but are not in the chains. Each
    /// must be issued by a root, by a certificate of the chain in question, or by another one of the bundle.
    ///
    /// # Errors
    /// The certificate that cannot be used, and the reason.
    pub fn with_crl_issuers(mut self, pem: &[u8]) -> Result<Self, TrustError> {
        for (issuer, number) in CertificateDer::pem_slice_iter(pem).zip(1..) {
            if number > MAX_CRL_ISSUERS {
                return Err(TrustError::CrlIssuers { found: number });
            }
            let issuer =
                issuer.map_err(|error| error.to_string()).and_then(|der| CrlIssuer::new(der.to_vec()));
            self.crl_issuers.push(issuer.map_err(|reason| TrustError::CrlIssuer { number, reason })?);
        }
        if self.crl_issuers.is_empty() {
            return Err(TrustError::CrlIssuers { found: 0 });
        }
        self.find_turns();
        Ok(self)
    }

    /// The end of a validity is part of it; a CRL counts up to the second before its next update.
    fn find_turns(&mut self) {
        let of_roots = self.roots.iter().map(|root| root.validity);
        let of_issuers = self.crl_issuers.iter().map(|issuer| issuer.validity);
        let of_certificates = of_roots
            .chain(of_issuers)
            .flat_map(|validity| [validity.not_before, validity.not_after.saturating_add(1)]);
        let of_crls = self.crls.iter().map(|crl| crl.next_update);
        self.turns = of_certificates.chain(of_crls).collect();
        self.turns.sort_unstable();
    }

    /// The first ends of a root and of a list.
    pub(super) fn ends(&self) -> TrustEnds {
        TrustEnds {
            root: self.roots.iter().map(|root| root.validity.not_after).min(),
            list: self.crls.iter().map(|crl| crl.next_update).min(),
        }
    }

    /// The end of the validity of the last root with this name (a subject's DER), in Unix seconds.
    pub(super) fn roots_end(&self, name: &[u8]) -> Option<i64> {
        let name = FoldedName::new(name).ok()?;
        let of_name = self.roots.iter().filter(|root| root.subject == name);
        of_name.map(|root| root.validity.not_after).max()
    }

    /// Whether there is no revocation list at all.
    pub(super) fn has_no_lists(&self) -> bool {
        self.crls.is_empty()
    }

    /// Whether any list has an entry of one of these certificates. It costs a look into the lists with entries of their issuers,
    /// and verifies nothing. A certificate that cannot be read is on no list.
    pub(super) fn has_entry_of(&self, chain: &[&[u8]]) -> bool {
        if self.crls_by_listed.is_empty() {
            return false;
        }
        chain.iter().any(|der| {
            let Ok((issuer, serial)) = Certificate::issuer_and_serial(der) else { return false };
            let Ok(issuer) = FoldedName::new(issuer) else { return false };
            let places = self.crls_by_listed.get(&issuer).map(|places| &**places);
            self.lists(places).any(|list| list.lists(&issuer, serial) != ListedAs::Absent)
        })
    }

    /// Whether another store has the same roots, CRL issuers and lists at the same places.
    pub(super) fn equals(&self, other: &Self) -> bool {
        self.parts().eq(other.parts())
    }

    /// The DER of its roots, CRL issuers and lists.
    fn parts(&self) -> impl Iterator<Item = (TrustMember, &[u8])> {
        let roots = self.roots.iter().enumerate().map(|(place, root)| (TrustMember::Root(place), &*root.der));
        let issuers = self.crl_issuers.iter().enumerate();
        let issuers = issuers.map(|(place, issuer)| (TrustMember::CrlIssuer(place), &*issuer.der));
        let lists = self.crls.iter().map(|list| (TrustMember::Crl(list.place), list.der()));
        roots.chain(issuers).chain(lists)
    }

    /// A digest of the set of roots.
    pub(super) fn roots_digest(&self) -> [u8; 32] {
        digest_of_set(self.roots.iter().map(|root| &*root.der))
    }

    /// A digest of everything by which revocation is judged: the roots, the lists and their issuers.
    pub(super) fn revocation_digest(&self) -> [u8; 32] {
        digest_of_set(self.parts().map(|(_, der)| der))
    }

    /// The complete lists of an issuer, newest first.
    pub(super) fn complete_lists_of(&self, issuer: &FoldedName) -> impl Iterator<Item = &Crl> {
        self.lists(self.crls_by_issuer.get(issuer).map(|of_issuer| &*of_issuer.complete))
    }

    /// The deltas of an issuer, the newest first.
    pub(super) fn deltas_of(&self, issuer: &FoldedName) -> impl Iterator<Item = &Crl> {
        self.lists(self.crls_by_issuer.get(issuer).map(|of_issuer| &*of_issuer.deltas))
    }

    fn lists(&self, places: Option<&[usize]>) -> impl Iterator<Item = &Crl> {
        places.unwrap_or_default().iter().filter_map(|place| self.crls.get(*place))
    }

    /// The number of the period that contains a time. Periods are separated by the times at which a root or CRL begins or ends
    /// to be valid; within one period, and within the validity of its certificates, a chain is always valid or never.
    pub(super) fn period(&self, at: Timestamp) -> usize {
        let at = unix_seconds(at);
        self.turns.partition_point(|turn| *turn <= at)
    }
}

/// The SHA-256 of the digests of these parts, sorted and each once.
fn digest_of_set<'a>(parts: impl Iterator<Item = &'a [u8]>) -> [u8; 32] {
    let each: BTreeSet<[u8; 32]> = parts.map(|part| Sha256::digest(part).into()).collect();
    let mut whole = Sha256::new();
    each.iter().for_each(|digest| whole.update(digest));
    whole.finalize().into()
}

/// A time in Unix seconds.
pub(super) fn unix_seconds(at: Timestamp) -> i64 {
    i64::try_from(at.0 / 1000).unwrap_or(i64::MAX)
}

/// A trust anchor (RFC 5280 §6.1.1 (d)), with other data of its certificate.
#[derive(Debug)]
pub(super) struct TrustRoot {
    pub(super) der: Vec<u8>,
    pub(super) subject: FoldedName,
    pub(super) key: PublicKey,
    pub(super) key_identifier: Option<Vec<u8>>,
    pub(super) validity: Validity,
    /// The number of CA certificates that may follow below it.
    pub(super) path_len: Option<u32>,
    pub(super) name_constraints: Option<NameConstraints>,
    /// Whether its key usage, if it has one, includes signing CRLs.
    pub(super) signs_crls: bool,
}

/// Reads a certificate of the configuration.
fn configured(der: &[u8]) -> Result<Certificate<'_>, String> {
    let malformed = |fault: DerFault| format!("it cannot be read: {fault}");
    let certificate = Certificate::new(der).map_err(malformed)?;
    if certificate.extensions.has_unknown_critical {
        return Err("it has a critical extension that is not supported".into());
    }
    Ok(certificate)
}

impl TrustRoot {
    fn new(der: Vec<u8>) -> Result<Self, String> {
        let certificate = configured(&der)?;
        let extensions = &certificate.extensions;
        if !extensions.is_ca {
            return Err("it is not a CA certificate (basicConstraints with cA, RFC 5280 §4.2.1.9)".into());
        }
        if !certificate.allows(KEY_CERT_SIGN) {
            return Err("its key usage does not include keyCertSign (RFC 5280 §4.2.1.3)".into());
        }
        let name_constraints = extensions.name_constraints.map(NameConstraints::new).transpose()?;
        Ok(Self {
            subject: certificate.subject.folded().clone(),
            key: certificate.key.into(),
            key_identifier: extensions.key_identifier.map(<[u8]>::to_vec),
            validity: certificate.validity,
            path_len: extensions.path_len,
            name_constraints,
            signs_crls: certificate.allows(CRL_SIGN),
            der,
        })
    }

    /// Whether a certificate names it as its issuer.
    pub(super) fn is_issuer_of(&self, certificate: &Certificate<'_>) -> bool {
        *certificate.issuer.folded() == self.subject
    }
}

/// A certificate that is in no chain, of somebody who signs CRLs or issued such a certificate.
#[derive(Debug)]
pub(super) struct CrlIssuer {
    der: Vec<u8>,
    pub(super) subject: FoldedName,
    pub(super) key: PublicKey,
    pub(super) key_identifier: Option<Vec<u8>>,
    pub(super) validity: Validity,
    /// Whether its key usage, if it has one, includes signing CRLs.
    pub(super) signs_crls: bool,
}

impl CrlIssuer {
    fn new(der: Vec<u8>) -> Result<Self, String> {
        let certificate = configured(&der)?;
        Ok(Self {
            subject: certificate.subject.folded().clone(),
            key: certificate.key.into(),
            key_identifier: certificate.extensions.key_identifier.map(<[u8]>::to_vec),
            validity: certificate.validity,
            signs_crls: certificate.allows(CRL_SIGN),
            der,
        })
    }

    /// The certificate itself.
    pub(super) fn certificate(&self) -> Option<Certificate<'_>> {
        Certificate::new(&self.der).ok()
    }
}
