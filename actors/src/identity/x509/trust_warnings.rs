//! Warnings about trust roots and revocation lists that do not work, or will not for long.

use snapshots::Timestamp;

use super::{
    crl::Crl,
    trust::{TrustRoot, TrustStore, unix_seconds},
};
use crate::identity::{ListCounts, TrustMember, TrustWarning};

/// A root is warned of from this time before its end, in seconds: 30 days.
const ROOT_DUE_S: i64 = 30 * 24 * 60 * 60;

impl TrustStore {
    /// Everything that refuses certificates at this time, or soon will.
    pub(super) fn warnings(&self, at: Timestamp) -> Vec<TrustWarning> {
        let at = unix_seconds(at);
        let roots =
            self.roots.iter().enumerate().filter_map(|(place, root)| self.warning_of_root(place, root, at));
        let lists = self.crls.iter().flat_map(|list| self.warnings_of_list(list, at));
        let issuers = self.crl_issuers.iter().enumerate().filter(|(_, issuer)| !issuer.validity.contains(at));
        let issuers = issuers.map(|(place, _)| {
            warning(
                TrustMember::CrlIssuer(place),
                "it is outside of its validity, so the certificates that its lists cover are refused",
            )
        });
        let mut found: Vec<TrustWarning> = roots.chain(lists).chain(issuers).collect();
        found.sort_by_key(|warning| warning.member);
        found
    }

    /// The lists by their state.
    pub(super) fn list_counts(&self, at: Timestamp) -> ListCounts {
        let at = unix_seconds(at);
        let count = |is: &dyn Fn(&Crl) -> bool| self.crls.iter().filter(|list| is(list)).count();
        let late = count(&|list| at >= list.next_update);
        let due = count(&|list| is_due(list, at));
        ListCounts {
            late,
            due,
            current: self.crls.len() - late - due,
            without_signer: count(&|list| !list.has_known_signer() && !self.find_signer(list)),
        }
    }

    fn warning_of_root(&self, place: usize, root: &TrustRoot, at: i64) -> Option<TrustWarning> {
        let same_key = self
            .roots
            .iter()
            .take(place)
            .position(|other| other.key == root.key && other.subject == root.subject);
        let text = if at > root.validity.not_after {
            "it has expired, so every chain below it is refused".to_owned()
        } else if at < root.validity.not_before {
            "it is not valid yet, so every chain below it is refused".to_owned()
        } else if root.validity.not_after - at < ROOT_DUE_S {
            "it expires within 30 days; then every chain below it is refused".to_owned()
        } else {
            format!("it has the name and the key of root {}", same_key? + 1)
        };
        Some(TrustWarning { member: TrustMember::Root(place), text })
    }

    fn warnings_of_list(&self, list: &Crl, at: i64) -> Vec<TrustWarning> {
        let member = TrustMember::Crl(list.place);
        let mut found = Vec::new();
        if at >= list.next_update {
            found.push(warning(
                member,
                "it is past its next update, so the certificates that it covers are refused",
            ));
        } else if is_due(list, at) {
            let left = list.next_update - at;
            let text = format!(
                "its next update is due in {left} s; then the certificates that it covers are refused"
            );
            found.push(TrustWarning { member, text });
        }
        if self.has_issuer_named(list) && !self.find_signer(list) {
            found.push(warning(
                member,
                "none of the trust roots and CRL issuers with its issuer's name signed it, so it covers nothing below them",
            ));
        }
        if list.is_delta() && !self.complete_lists_of(&list.issuer).any(|complete| list.continues(complete)) {
            found.push(warning(member, "it is a delta CRL, and continues none of the complete lists"));
        }
        found
    }

    /// Whether a trust root or CRL issuer has the name of a list's issuer. Others may sign lists too: the issuers in chains.
    fn has_issuer_named(&self, list: &Crl) -> bool {
        self.roots.iter().any(|root| root.subject == list.issuer)
            || self.crl_issuers.iter().any(|issuer| issuer.subject == list.issuer)
    }

    /// Whether a trust root or CRL issuer signed a list. What is found is remembered.
    fn find_signer(&self, list: &Crl) -> bool {
        let is_signer = |(subject, key): (&_, &super::signed::PublicKey)| {
            *subject == list.issuer && list.is_signed_with(key.info())
        };
        let roots = self.roots.iter().filter(|root| root.signs_crls).map(|root| (&root.subject, &root.key));
        let issuers = self.crl_issuers.iter().filter(|issuer| issuer.signs_crls);
        roots.chain(issuers.map(|issuer| (&issuer.subject, &issuer.key))).any(is_signer)
    }
}

/// Whether the last quarter of a list's term has begun.
fn is_due(list: &Crl, at: i64) -> bool {
    let term = list.next_update - list.this_update;
    at < list.next_update && list.next_update - at <= term / 4
}

fn warning(member: TrustMember, text: &str) -> TrustWarning {
    TrustWarning { member, text: text.to_owned() }
}
