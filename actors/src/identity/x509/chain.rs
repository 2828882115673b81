//! Validation of a certificate chain at a given time (RFC 5280 §6).

mod error;
mod name_constraints;
mod name_forms;
mod policies;
#[cfg(test)]
mod tests;

use snapshots::Timestamp;

pub use self::error::{CertificateRule, ChainError};
pub(super) use self::name_constraints::NameConstraints;
use self::{name_constraints::ConstraintsAbove, policies::Policies};
use super::{
    certificate::{Certificate, DIGITAL_SIGNATURE, FoldingBudget, KEY_CERT_SIGN},
    revocation::RevocationCheck,
    trust::{TrustRoot, TrustStore, unix_seconds},
};
use crate::limits::MAX_CERTIFICATES;

/// The most certificates in a chain without its root.
const MAX_PATH: usize = MAX_CERTIFICATES - 1;

/// Certificates below a trust root: each is followed by its issuer's, and the root issued the last.
pub(super) type Path<'p> = [&'p Certificate<'p>];

/// A valid chain, as the revocation lists have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// None of its certificates is revoked.
    Good,
    /// It is valid apart from revocation: by the lists one of its certificates is revoked, or may be, or it cannot be found out.
    Disputed(ChainError),
}

impl TrustStore {
    /// Validates a chain at a time, in Unix milliseconds, by RFC 5280 §6.1 with the initial policy set {anyPolicy}, and by
    /// §6.3 if there are revocation lists.
    ///
    /// `chain[0]` is the leaf, each certificate is DER, and each is followed by its issuer's. The chain is the verified path:
    /// no certificate is searched, skipped or added. The last may be a trust root; including or omitting it makes no
    /// difference.
    ///
    /// Stricter than RFC 5280: the trust roots must be valid at that time, and their path lengths and name constraints count;
    /// the leaf is no CA certificate, and its key usage, if it has one, includes digitalSignature; constraints on email
    /// addresses apply to those in a subject also if there are alternative names. Any extended key usage is accepted, since
    /// none is defined for MLS.
    ///
    /// Checks that cost little come first; then the signatures from the root down, so that nothing more is done for a chain
    /// that nobody signed; and last the revocation lists.
    ///
    /// # Errors
    /// The broken rule and the certificate that breaks it.
    pub fn validate(&self, chain: &[&[u8]], at: Timestamp) -> Result<(), ChainError> {
        match self.validate_naming(chain, at, 0)? {
            Standing::Good => Ok(()),
            Standing::Disputed(refusal) => Err(refusal),
        }
    }

    /// Whether a certificate of a chain that was valid once has been revoked since, by lists that may be late. Costs a look into
    /// the lists unless one of them has an entry of such a certificate; only then is the chain validated again.
    pub(crate) fn revokes(&self, chain: &[&[u8]], at: Timestamp) -> bool {
        let is_revoked = || {
            self.with_roots(chain, at, 0, |path, roots| {
                let mut found = roots
                    .iter()
                    .filter(|root| check_names_and_policies(path, root).is_ok())
                    .map(|root| RevocationCheck::finds_revoked(self, root, unix_seconds(at), path))
                    .peekable();
                // As in `validate`, one root below which the chain is good is enough.
                Ok(found.peek().is_some() && found.all(|is_revoked| is_revoked))
            })
        };
        self.has_entry_of(self.without_root(chain)) && is_revoked() == Ok(true)
    }

    /// Validates a chain as [`Self::validate`] does, of whose certificates the first `names` are not self-issued, and says what the
    /// revocation lists make of it.
    ///
    /// Self-issued certificates do not count for path lengths. An account could otherwise issue a certificate of its own name
    /// to itself, and so move the certificate that names it to the offset that names a domain.
    ///
    /// # Errors
    /// The broken rule and the certificate that breaks it. If only the lists refuse a chain, this is no error.
    pub(super) fn validate_naming(
        &self,
        chain: &[&[u8]],
        at: Timestamp,
        names: usize,
    ) -> Result<Standing, ChainError> {
        self.with_roots(chain, at, names, |path, roots| {
            let (mut refusal, mut disputed) = (None, None);
            for root in roots {
                if let Err(error) = check_names_and_policies(path, root) {
                    refusal = refusal.or(Some(error));
                    continue;
                }
                // Every error of this check is about revocation, also that distribution points cannot be read: nothing else reads them.
                match RevocationCheck::new(self, root, unix_seconds(at)).check(path) {
                    Ok(()) => return check_leaf(path).map(|()| Standing::Good),
                    Err(error) => disputed = disputed.or(Some(error)),
                }
            }
            match disputed {
                Some(error) if check_leaf(path).is_ok() => Ok(Standing::Disputed(error)),
                // Rules beyond RFC 5280 come after it.
                disputed => Err(disputed.or(refusal).unwrap_or(ChainError::Empty)),
            }
        })
    }

    /// Makes the checks of a chain up to its signatures, and then judges its path and the roots that signed it.
    fn with_roots<T>(
        &self,
        chain: &[&[u8]],
        at: Timestamp,
        names: usize,
        judge: impl FnOnce(&Path<'_>, &[&TrustRoot]) -> Result<T, ChainError>,
    ) -> Result<T, ChainError> {
        if chain.len() > MAX_CERTIFICATES {
            return Err(ChainError::TooLong { found: chain.len() });
        }
        let (root, below_root) = self.split_root(chain)?;
        if below_root.len() > MAX_PATH {
            return Err(ChainError::TooLong { found: chain.len() });
        }
        let at = unix_seconds(at);
        let certificates = below_root
            .iter()
            .enumerate()
            .map(|(index, der)| {
                Certificate::new(der).map_err(|fault| broken(index, CertificateRule::Malformed(fault)))
            })
            .collect::<Result<Vec<_>, _>>()?;
        let path: Vec<&Certificate<'_>> = certificates.iter().collect();
        check_fields(&path, |_| at)?;
        if let Some(index) = path.iter().take(names).position(|certificate| certificate.is_self_issued()) {
            return Err(broken(index, CertificateRule::SelfIssued));
        }
        let roots = self.roots_for(&path, root, at)?;
        let roots = check_signatures(&path, &roots)?;
        judge(&path, &roots)
    }

    /// The certificates of a chain before the trust root that ends it, if one does.
    pub(super) fn without_root<'a>(&self, chain: &'a [&'a [u8]]) -> &'a [&'a [u8]] {
        match chain.split_last() {
            Some((last, before)) if self.roots.iter().any(|root| root.der == *last) => before,
            Some(_) | None => chain,
        }
    }

    /// The trust root that ends the chain, if one does, and the certificates before it.
    fn split_root<'a>(
        &self,
        chain: &'a [&'a [u8]],
    ) -> Result<(Option<&TrustRoot>, &'a [&'a [u8]]), ChainError> {
        let (last, before) = chain.split_last().ok_or(ChainError::Empty)?;
        if let Some(index) = before.iter().position(|der| self.roots.iter().any(|root| root.der == *der)) {
            return Err(broken(index, CertificateRule::RootInside));
        }
        match self.roots.iter().find(|root| root.der == *last) {
            None => Ok((None, chain)),
            Some(_) if before.is_empty() => Err(ChainError::OnlyRoot),
            Some(root) => Ok((Some(root), before)),
        }
    }

    /// The roots that may have issued the last certificate: valid ones of the right name, and if the chain ends with
    /// a root, only that.
    fn roots_for(
        &self,
        path: &Path<'_>,
        named: Option<&TrustRoot>,
        at: i64,
    ) -> Result<Vec<&TrustRoot>, ChainError> {
        let Some(last) = path.last() else { return Err(ChainError::Empty) };
        let mut rule = if named.is_some() { CertificateRule::Order } else { CertificateRule::UnknownIssuer };
        let mut found = Vec::new();
        for root in self.roots.iter().filter(|root| root.is_issuer_of(last)) {
            if named.is_some_and(|named| named.der != root.der) {
                continue;
            }
            match check_root(root, path, at) {
                Ok(()) => found.push(root),
                Err(broken) => rule = broken,
            }
        }
        if found.is_empty() { Err(broken(path.len() - 1, rule)) } else { Ok(found) }
    }
}

/// The checks of §6.1 that cost no signature: each certificate by itself (§6.1.3 (a)(2), §6.1.4 (k), (n), (o)), the path
/// lengths (§6.1.4 (l), (m)), and that each was issued by the next (§6.1.3 (a)(4)). Each has to be valid at a time of its own.
pub(super) fn check_fields(path: &Path<'_>, at: impl Fn(&Certificate<'_>) -> i64) -> Result<(), ChainError> {
    for (index, certificate) in path.iter().enumerate() {
        check_alone(certificate, index > 0, at(certificate)).map_err(|rule| broken(index, rule))?;
        if path.iter().take(index).any(|before| before.der == certificate.der) {
            return Err(broken(index, CertificateRule::Repeated));
        }
    }
    let budget = FoldingBudget::new();
    let malformed = |index| move |fault| broken(index, CertificateRule::Malformed(fault));
    for (index, certificate) in path.iter().enumerate() {
        certificate.compare_names(&budget).map_err(malformed(index))?;
    }
    let mut found = 0;
    for (index, issuer) in path.iter().enumerate().skip(1) {
        if let Some(limit) = issuer.extensions.path_len
            && found > limit as usize
        {
            return Err(broken(index, CertificateRule::PathLength { limit, found }));
        }
        found += usize::from(!issuer.is_self_issued());
    }
    for (index, (certificate, issuer)) in path.iter().zip(path.iter().skip(1)).enumerate() {
        if !certificate.issuer.matches(&issuer.subject, &budget).map_err(malformed(index))? {
            return Err(broken(index, CertificateRule::Order));
        }
    }
    Ok(())
}

/// The checks that need no other certificate.
fn check_alone(certificate: &Certificate<'_>, is_issuer: bool, at: i64) -> Result<(), CertificateRule> {
    if certificate.extensions.has_unknown_critical {
        return Err(CertificateRule::CriticalExtension);
    }
    if at < certificate.validity.not_before {
        return Err(CertificateRule::NotValidYet);
    }
    if at > certificate.validity.not_after {
        return Err(CertificateRule::Expired);
    }
    if is_issuer && !certificate.extensions.is_ca {
        return Err(CertificateRule::NotCa);
    }
    if is_issuer && !certificate.allows(KEY_CERT_SIGN) {
        return Err(CertificateRule::KeyCertSign);
    }
    Ok(())
}

/// The checks of the root of a path, beyond its name and key.
pub(super) fn check_root(root: &TrustRoot, path: &Path<'_>, at: i64) -> Result<(), CertificateRule> {
    if !root.validity.contains(at) {
        return Err(CertificateRule::RootValidity);
    }
    let found = path.iter().skip(1).filter(|issuer| !issuer.is_self_issued()).count();
    match root.path_len {
        Some(limit) if found > limit as usize => Err(CertificateRule::RootPathLength { limit, found }),
        _ => Ok(()),
    }
}

/// Verifies the signatures of a path from its root down, and returns the roots that signed its last certificate.
fn check_signatures<'r>(path: &Path<'_>, roots: &[&'r TrustRoot]) -> Result<Vec<&'r TrustRoot>, ChainError> {
    let Some((last, index)) = path.last().zip(path.len().checked_sub(1)) else {
        return Err(ChainError::Empty);
    };
    let (mut signers, mut refusal) = (Vec::new(), CertificateRule::Signature);
    for root in roots {
        match last.signed.verify(root.key.info()) {
            Ok(()) => signers.push(*root),
            Err(rule) => refusal = rule,
        }
    }
    if signers.is_empty() {
        return Err(broken(index, refusal));
    }
    for (index, (certificate, issuer)) in path.iter().zip(path.iter().skip(1)).enumerate().rev() {
        certificate.signed.verify(issuer.key).map_err(|rule| broken(index, rule))?;
    }
    Ok(signers)
}

/// Name constraints and policies (§6.1.3 (b) to (f), §6.1.4 (a), (b), (g) to (j), §6.1.5), from the root down.
pub(super) fn check_names_and_policies(path: &Path<'_>, root: &TrustRoot) -> Result<(), ChainError> {
    let mut constraints = ConstraintsAbove::new(root.name_constraints.as_ref());
    let mut policies = Policies::new(path.len());
    for (index, certificate) in path.iter().enumerate().rev() {
        let at_index = |rule| broken(index, rule);
        let is_last = index == 0;
        if is_last || !certificate.is_self_issued() {
            constraints.check(certificate).map_err(at_index)?;
        }
        policies.enter(certificate, is_last).map_err(at_index)?;
        if is_last {
            policies.finish(certificate).map_err(at_index)?;
        } else {
            constraints.descend(certificate).map_err(at_index)?;
            policies.descend(certificate).map_err(at_index)?;
        }
    }
    Ok(())
}

/// The rules for a leaf beyond RFC 5280: it is a client's, and signs messages.
fn check_leaf(path: &Path<'_>) -> Result<(), ChainError> {
    match path.first() {
        Some(leaf) if leaf.extensions.is_ca => Err(broken(0, CertificateRule::CaAsLeaf)),
        Some(leaf) if !leaf.allows(DIGITAL_SIGNATURE) => Err(broken(0, CertificateRule::DigitalSignature)),
        Some(_) => Ok(()),
        None => Err(ChainError::Empty),
    }
}

pub(super) fn broken(index: usize, rule: CertificateRule) -> ChainError {
    ChainError::Certificate { index, rule }
}
