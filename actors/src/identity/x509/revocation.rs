//! Revocation of the certificates of one path (RFC 5280 §6.3).

use std::cell::Cell;

use super::{
    certificate::{ALL_REASONS, CRL_SIGN, Certificate, FoldedName},
    chain::{self, CertificateRule, ChainError, Path, broken, check_names_and_policies},
    crl::{Crl, ListedAs},
    signed::KeyInfo,
    trust::{TrustRoot, TrustStore},
};

/// The most signatures of lists, and of the certificates of their signers, that one path may cost. Signatures that are
/// remembered count, so that a verdict does not depend on what was validated before.
const MAX_SIGNATURES: u32 = 64;
/// The most comparisons of a distribution point with a list that one path may cost.
const MAX_COMPARISONS: u32 = 8192;
/// The most certificates of [`TrustStore`]'s CRL issuers that may stand between a list and the path.
const MAX_SIGNERS: usize = 3;

/// The check of one path, whose certificates are valid apart from revocation.
pub(super) struct RevocationCheck<'s> {
    store: &'s TrustStore,
    root: &'s TrustRoot,
    /// Unix seconds.
    at: i64,
    late: LateLists,
    signatures: Cell<u32>,
    comparisons: Cell<u32>,
}

/// The meaning of lists that are past their next update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LateLists {
    /// Nobody knows whether what they cover is revoked by now.
    Unknown,
    /// What they list is revoked still, also if their signer has expired since.
    Count,
}

/// Which signers of lists are considered.
#[derive(Clone, Copy, Debug)]
enum Signers {
    /// The key that signed the certificate in question.
    SameKey,
    /// Everyone who may sign its lists.
    Any,
}

/// The CRL issuers, by their numbers in the store, whose own status depends on the current question.
type Visiting<'v> = &'v [usize];

impl<'s> RevocationCheck<'s> {
    pub(super) fn new(store: &'s TrustStore, root: &'s TrustRoot, at: i64) -> Self {
        let (signatures, comparisons) = (Cell::new(MAX_SIGNATURES), Cell::new(MAX_COMPARISONS));
        Self { store, root, at, late: LateLists::Unknown, signatures, comparisons }
    }

    /// Whether a certificate of the path is revoked for those who are members already. What was revoked is not valid again because a
    /// list was not renewed: unless current lists settle it, late lists count, and those of signers that have expired since.
    ///
    /// Only certificates with an entry in some list are checked, each with a budget of its own. One for which it cannot be found out
    /// which lists cover it counts as revoked: too many would have to be tried, or its distribution points cannot be read.
    pub(super) fn finds_revoked(
        store: &'s TrustStore,
        root: &'s TrustRoot,
        at: i64,
        path: &Path<'_>,
    ) -> bool {
        use CertificateRule::{
            CrlSign, CrlSignature, Malformed, Revoked, StaleCrl, StatusUnknown, TooManyLists,
        };
        let check = |index, late| Self { late, ..Self::new(store, root, at) }.check_at(path, index, &[]);
        let is_revoked = |index| {
            let verdict = match check(index, LateLists::Unknown) {
                Err(StaleCrl | StatusUnknown | CrlSignature | CrlSign) => check(index, LateLists::Count),
                settled => settled,
            };
            matches!(verdict, Err(Revoked | TooManyLists | Malformed(_)))
        };
        let listed =
            path.iter().enumerate().filter(|(_, certificate)| store.has_entry_of(&[certificate.der]));
        listed.map(|(index, _)| index).any(is_revoked)
    }

    /// Checks that no certificate of the path is revoked, and that current lists cover each for all reasons. Without any list,
    /// nothing is revoked.
    pub(super) fn check(&self, path: &Path<'_>) -> Result<(), ChainError> {
        if self.store.has_no_lists() {
            return Ok(());
        }
        let mut indices = 0..path.len();
        indices.try_for_each(|index| self.check_at(path, index, &[]).map_err(|rule| broken(index, rule)))
    }

    /// §6.3.3, for one certificate of a path.
    ///
    /// An issuer that changed its key may have a list for each key, of the certificates that it signed with that key. So the
    /// lists that are signed with the key that signed the certificate come first, and others only if those leave reasons.
    fn check_at(&self, path: &Path<'_>, index: usize, visiting: Visiting<'_>) -> Result<(), CertificateRule> {
        let Some((certificate, above)) = path.get(index..).and_then(<[_]>::split_first) else {
            return Ok(());
        };
        let issuer = certificate.issuer.folded();
        let points = certificate.distribution_points().map_err(CertificateRule::Malformed)?;
        let (mut covered, mut has_unsigned) = (0, false);
        for (point, signers) in points
            .iter()
            .map(|point| (point, Signers::SameKey))
            .chain(points.iter().map(|point| (point, Signers::Any)))
        {
            let list_issuers =
                if point.crl_issuers.is_empty() { std::slice::from_ref(issuer) } else { &point.crl_issuers };
            // Newest first: of several lists for the same reasons, the newest counts.
            for list in list_issuers.iter().flat_map(|name| self.store.complete_lists_of(name)) {
                spend(&self.comparisons)?;
                let reasons = list.covers(certificate.extensions.is_ca, issuer, point);
                if reasons & !covered == 0 {
                    continue;
                }
                let signer = match signers {
                    Signers::SameKey => self.issuer_as_signer(list, above)?,
                    Signers::Any => self.signer(list, above, visiting)?,
                };
                let Some(key) = signer else {
                    has_unsigned = true;
                    continue;
                };
                self.check_list(list, key, issuer, certificate.serial)?;
                covered |= reasons;
                if covered == ALL_REASONS {
                    return Ok(());
                }
            }
        }
        Err(self.not_covered(above, has_unsigned))
    }

    /// Looks a certificate up in a list that covers it, and in its delta.
    fn check_list(
        &self,
        list: &Crl,
        key: KeyInfo<'_>,
        issuer: &FoldedName,
        serial: &[u8],
    ) -> Result<(), CertificateRule> {
        if !self.counts(list) {
            return Err(CertificateRule::StaleCrl);
        }
        let by_delta = match self.delta(list, key)? {
            Some(delta) if !self.counts(delta) => return Err(CertificateRule::StaleCrl),
            Some(delta) => delta.lists(issuer, serial),
            None => ListedAs::Absent,
        };
        let found = if by_delta == ListedAs::Absent { list.lists(issuer, serial) } else { by_delta };
        if found == ListedAs::Revoked { Err(CertificateRule::Revoked) } else { Ok(()) }
    }

    fn counts(&self, list: &Crl) -> bool {
        self.late == LateLists::Count || self.at < list.next_update
    }

    /// The rule that a certificate breaks that no list covers for all reasons.
    fn not_covered(&self, above: &Path<'_>, has_unsigned: bool) -> CertificateRule {
        let issuer_signs_lists = above.first().map_or(self.root.signs_crls, |issuer| issuer.allows(CRL_SIGN));
        let is_signed_elsewhere = has_unsigned && !self.store.crl_issuers.is_empty();
        match has_unsigned {
            _ if !issuer_signs_lists && !is_signed_elsewhere => CertificateRule::CrlSign,
            true => CertificateRule::CrlSignature,
            false => CertificateRule::StatusUnknown,
        }
    }

    /// The newest delta that continues a list and is signed with the same key (§6.3.3 (c), (h)), late or not.
    fn delta(&self, list: &Crl, key: KeyInfo<'_>) -> Result<Option<&'s Crl>, CertificateRule> {
        for delta in self.store.deltas_of(&list.issuer) {
            spend(&self.comparisons)?;
            if delta.continues(list) {
                spend(&self.signatures)?;
                if delta.is_signed_with(key) {
                    return Ok(Some(delta));
                }
            }
        }
        Ok(None)
    }

    /// The key that signed a certificate, if it signed a list too; `above` are the certificates above it.
    fn issuer_as_signer<'p>(
        &'p self,
        list: &Crl,
        above: &'p Path<'p>,
    ) -> Result<Option<KeyInfo<'p>>, CertificateRule> {
        match above.first() {
            Some(issuer) => self.certificate_as_signer(list, issuer),
            None => self.root_as_signer(list),
        }
    }

    /// The key that signed a list (§6.3.3 (f), (g)): of a certificate above the one in question, of the root, or of a CRL
    /// issuer of the store that is valid below the same root.
    fn signer<'p>(
        &'p self,
        list: &Crl,
        above: &'p Path<'p>,
        visiting: Visiting<'_>,
    ) -> Result<Option<KeyInfo<'p>>, CertificateRule> {
        for issuer in above {
            if let Some(key) = self.certificate_as_signer(list, issuer)? {
                return Ok(Some(key));
            }
        }
        if let Some(key) = self.root_as_signer(list)? {
            return Ok(Some(key));
        }
        for (number, issuer) in self.store.crl_issuers.iter().enumerate() {
            if issuer.signs_crls
                && issuer.subject == list.issuer
                && !visiting.contains(&number)
                && list.names_key(issuer.key_identifier.as_deref())
                && self.is_signed(list, issuer.key.info())?
                && self.is_valid(number, list, above, visiting)?
            {
                return Ok(Some(issuer.key.info()));
            }
        }
        Ok(None)
    }

    fn certificate_as_signer<'p>(
        &self,
        list: &Crl,
        issuer: &Certificate<'p>,
    ) -> Result<Option<KeyInfo<'p>>, CertificateRule> {
        let is_signer = issuer.allows(CRL_SIGN)
            && *issuer.subject.folded() == list.issuer
            && list.names_key(issuer.extensions.key_identifier)
            && self.is_signed(list, issuer.key)?;
        Ok(is_signer.then_some(issuer.key))
    }

    fn root_as_signer(&self, list: &Crl) -> Result<Option<KeyInfo<'s>>, CertificateRule> {
        let root = self.root;
        let is_signer = root.signs_crls
            && root.subject == list.issuer
            && list.names_key(root.key_identifier.as_deref())
            && self.is_signed(list, root.key.info())?;
        Ok(is_signer.then(|| root.key.info()))
    }

    fn is_signed(&self, list: &Crl, key: KeyInfo<'_>) -> Result<bool, CertificateRule> {
        spend(&self.signatures)?;
        Ok(list.is_signed_with(key))
    }

    /// Whether a CRL issuer of the store that signed a list has a valid path to the same root, and is not revoked. Where late lists
    /// count, so do those of a signer that has expired since.
    fn is_valid(
        &self,
        number: usize,
        list: &Crl,
        above: &Path<'_>,
        visiting: Visiting<'_>,
    ) -> Result<bool, CertificateRule> {
        let visiting = [visiting, &[number]].concat();
        let Some((outside, joined)) = self.path_to_root(number, above, &visiting)? else { return Ok(false) };
        let path: Vec<&Certificate<'_>> = outside.iter().chain(above.iter().skip(joined).copied()).collect();
        let at = |certificate: &Certificate<'_>| match self.late {
            LateLists::Count if certificate.validity.contains(list.this_update) => list.this_update,
            LateLists::Count | LateLists::Unknown => self.at,
        };
        let is_path = chain::check_fields(&path, at).is_ok()
            && chain::check_root(self.root, &path, self.at).is_ok()
            && check_names_and_policies(&path, self.root).is_ok();
        if !is_path {
            return Ok(false);
        }
        for index in 0..outside.len() {
            match self.check_at(&path, index, &visiting) {
                Ok(()) => {}
                Err(CertificateRule::TooManyLists) => return Err(CertificateRule::TooManyLists),
                Err(_) => return Ok(false),
            }
        }
        Ok(true)
    }

    /// The certificates from a CRL issuer of the store up to the first one that a certificate of the path or the root signed,
    /// and where the path continues: at `above[joined]`, or at the root.
    fn path_to_root(
        &self,
        number: usize,
        above: &Path<'_>,
        visiting: Visiting<'_>,
    ) -> Result<Option<(Vec<Certificate<'s>>, usize)>, CertificateRule> {
        let Some(certificate) = self.store.crl_issuers.get(number).and_then(|issuer| issuer.certificate())
        else {
            return Ok(None);
        };
        for (joined, issuer) in above.iter().enumerate() {
            if certificate.issuer.folded() == issuer.subject.folded()
                && self.is_issued(&certificate, issuer.key)?
            {
                return Ok(Some((vec![certificate], joined)));
            }
        }
        if self.root.is_issuer_of(&certificate) && self.is_issued(&certificate, self.root.key.info())? {
            return Ok(Some((vec![certificate], above.len())));
        }
        if visiting.len() >= MAX_SIGNERS {
            return Ok(None);
        }
        for (next, issuer) in self.store.crl_issuers.iter().enumerate() {
            if visiting.contains(&next)
                || issuer.subject != *certificate.issuer.folded()
                || !self.is_issued(&certificate, issuer.key.info())?
            {
                continue;
            }
            let deeper = [visiting, &[next]].concat();
            if let Some((mut outside, joined)) = self.path_to_root(next, above, &deeper)? {
                outside.insert(0, certificate);
                return Ok(Some((outside, joined)));
            }
        }
        Ok(None)
    }

    fn is_issued(&self, certificate: &Certificate<'_>, key: KeyInfo<'_>) -> Result<bool, CertificateRule> {
        spend(&self.signatures)?;
        Ok(certificate.signed.verify(key).is_ok())
    }
}

/// Takes one from a budget.
fn spend(budget: &Cell<u32>) -> Result<(), CertificateRule> {
    budget.set(budget.get().checked_sub(1).ok_or(CertificateRule::TooManyLists)?);
    Ok(())
}
