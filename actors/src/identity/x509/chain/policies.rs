//! Certificate policies (RFC 5280 §6.1, computed as RFC 9618 does).
//!
//! Paths are validated with the initial policy set {anyPolicy}, so the only question about the policy graph is whether its
//! last level is empty (RFC 5280 §6.1.5 (g)). Only the set of policies of that level is kept.

use std::collections::BTreeSet;

use super::CertificateRule;
use crate::identity::x509::{
    certificate::{Certificate, Oid},
    der::{self, DerFault},
};

const ANY_POLICY: Oid<'static> = &[0x55, 0x1d, 0x20, 0];

/// The most policies of one certificate; its mappings may be twice as many.
const MAX_POLICIES: usize = 256;

/// The state variables of RFC 5280 §6.1.2 (a), (d), (e) and (f) above the next certificate of a path.
#[derive(Debug)]
pub(super) struct Policies<'a> {
    /// The expected policies of the last level, without anyPolicy.
    valid: BTreeSet<Oid<'a>>,
    /// Whether anyPolicy is one of them.
    has_any: bool,
    explicit_policy: u32,
    policy_mapping: u32,
    inhibit_any_policy: u32,
}

impl<'a> Policies<'a> {
    /// The state above a path with this number of certificates.
    pub(super) fn new(length: usize) -> Self {
        let all = u32::try_from(length).unwrap_or(u32::MAX).saturating_add(1);
        let (valid, has_any) = (BTreeSet::new(), true);
        Self { valid, has_any, explicit_policy: all, policy_mapping: all, inhibit_any_policy: all }
    }

    /// §6.1.3 (d) to (f).
    pub(super) fn enter(
        &mut self,
        certificate: &Certificate<'a>,
        is_last: bool,
    ) -> Result<(), CertificateRule> {
        match certificate.extensions.policies {
            None => {
                self.valid.clear();
                self.has_any = false;
            }
            Some(policies) => {
                let found = read_policies(policies).map_err(CertificateRule::Malformed)?;
                let counts_any = found.contains(ANY_POLICY)
                    && (self.inhibit_any_policy > 0 || (!is_last && certificate.is_self_issued()));
                if !counts_any {
                    self.valid.retain(|policy| found.contains(policy));
                }
                if self.has_any {
                    self.valid.extend(found.into_iter().filter(|policy| *policy != ANY_POLICY));
                }
                self.has_any &= counts_any;
            }
        }
        self.check()
    }

    /// §6.1.4 (a), (b), (h) to (j), for a certificate that is not the last.
    pub(super) fn descend(&mut self, certificate: &Certificate<'a>) -> Result<(), CertificateRule> {
        let extensions = &certificate.extensions;
        if let Some(mappings) = extensions.policy_mappings {
            self.map(&read_mappings(mappings).map_err(CertificateRule::Malformed)?)?;
        }
        if !certificate.is_self_issued() {
            for counter in [&mut self.explicit_policy, &mut self.policy_mapping, &mut self.inhibit_any_policy]
            {
                *counter = counter.saturating_sub(1);
            }
        }
        for (counter, limit) in [
            (&mut self.explicit_policy, extensions.require_explicit_policy),
            (&mut self.policy_mapping, extensions.inhibit_policy_mapping),
            (&mut self.inhibit_any_policy, extensions.inhibit_any_policy),
        ] {
            *counter = limit.map_or(*counter, |limit| limit.min(*counter));
        }
        Ok(())
    }

    /// §6.1.5 (a), (b) and (g), after the last certificate.
    pub(super) fn finish(&mut self, last: &Certificate<'a>) -> Result<(), CertificateRule> {
        self.explicit_policy = self.explicit_policy.saturating_sub(1);
        if last.extensions.require_explicit_policy == Some(0) {
            self.explicit_policy = 0;
        }
        self.check()
    }

    /// §6.1.4 (a) and (b).
    fn map(&mut self, mappings: &[(Oid<'a>, Oid<'a>)]) -> Result<(), CertificateRule> {
        if mappings.iter().any(|(from, to)| *from == ANY_POLICY || *to == ANY_POLICY) {
            return Err(CertificateRule::PolicyMapping);
        }
        let mapped: BTreeSet<Oid<'_>> = mappings.iter().map(|(from, _)| *from).collect();
        let mut next: BTreeSet<Oid<'_>> = self.valid.difference(&mapped).copied().collect();
        if self.policy_mapping > 0 {
            let into = mappings.iter().filter(|(from, _)| self.has_any || self.valid.contains(from));
            next.extend(into.map(|(_, to)| *to));
        }
        self.valid = next;
        Ok(())
    }

    /// §6.1.3 (f): a policy is left where one is required.
    fn check(&self) -> Result<(), CertificateRule> {
        if self.explicit_policy > 0 || self.has_any || !self.valid.is_empty() {
            Ok(())
        } else {
            Err(CertificateRule::Policy)
        }
    }
}

/// Reads a CertificatePolicies. Qualifiers mean nothing to a validator.
fn read_policies(value: &[u8]) -> Result<BTreeSet<Oid<'_>>, DerFault> {
    let mut list = der::whole_sequence(value)?;
    let mut policies = BTreeSet::new();
    while !list.is_empty() {
        if policies.len() == MAX_POLICIES {
            return Err("it has too many policies");
        }
        if !policies.insert(list.sequence()?.expect(der::OID)?.body) {
            return Err("it has a policy twice");
        }
    }
    if policies.is_empty() { Err("its policies are empty") } else { Ok(policies) }
}

/// Reads a PolicyMappings: pairs of the issuer's and the subject's policy.
fn read_mappings(value: &[u8]) -> Result<Vec<(Oid<'_>, Oid<'_>)>, DerFault> {
    let mut list = der::whole_sequence(value)?;
    let mut mappings = Vec::new();
    while !list.is_empty() {
        if mappings.len() == 2 * MAX_POLICIES {
            return Err("it has too many policy mappings");
        }
        let mut pair = list.sequence()?;
        mappings.push((pair.expect(der::OID)?.body, pair.expect(der::OID)?.body));
        pair.end()?;
    }
    if mappings.is_empty() { Err("its policy mappings are empty") } else { Ok(mappings) }
}
