//! The scope of a revocation list: IssuingDistributionPoint (RFC 5280 §5.2.5).

use crate::identity::x509::{
    certificate::{ALL_REASONS, DistributionPoint, FoldedGeneralName, FoldedName, point_names, reasons},
    der::{self, DerFault},
};

/// The certificates and reasons that a list covers.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Scope {
    /// The names of its distribution point; without any, it covers those of all points.
    names: Vec<FoldedGeneralName>,
    reasons: u16,
    only: Option<Only>,
    pub(super) is_indirect: bool,
}

/// The only certificates of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Only {
    User,
    Ca,
    Attribute,
}

impl Default for Scope {
    /// All certificates of its issuer, for all reasons.
    fn default() -> Self {
        Self { names: Vec::new(), reasons: ALL_REASONS, only: None, is_indirect: false }
    }
}

impl Scope {
    pub(super) fn new(value: &[u8], issuer: &FoldedName) -> Result<Self, DerFault> {
        let mut fields = der::whole_sequence(value)?;
        let names = match fields.optional(der::constructed(0))? {
            Some(name) => point_names(name.body, std::slice::from_ref(issuer))?,
            None => Vec::new(),
        };
        let (user, ca) = (fields.flag(der::primitive(1))?, fields.flag(der::primitive(2))?);
        let reasons = reasons(&mut fields, der::primitive(3))?;
        let (is_indirect, attribute) = (fields.flag(der::primitive(4))?, fields.flag(der::primitive(5))?);
        fields.end()?;
        let only = match (user, ca, attribute) {
            (false, false, false) => None,
            (true, false, false) => Some(Only::User),
            (false, true, false) => Some(Only::Ca),
            (false, false, true) => Some(Only::Attribute),
            _ => {
                return Err(
                    "it is only for users, only for CAs, or only for attributes, but not several of these",
                );
            }
        };
        Ok(Self { names, reasons, only, is_indirect })
    }

    /// The reasons for which it covers a certificate at one of its points.
    pub(super) fn covers(&self, is_ca: bool, point: &DistributionPoint) -> u16 {
        let is_kind = match self.only {
            None => true,
            Some(Only::User) => !is_ca,
            Some(Only::Ca) => is_ca,
            Some(Only::Attribute) => false,
        };
        let is_named = |name: &FoldedGeneralName| self.names.contains(name);
        let is_at_point = self.names.is_empty()
            || if point.names.is_empty() {
                let issuers = point.crl_issuers.iter().cloned().map(FoldedGeneralName::Directory);
                issuers.into_iter().any(|issuer| is_named(&issuer))
            } else {
                point.names.iter().any(is_named)
            };
        if is_kind && is_at_point { point.reasons & self.reasons } else { 0 }
    }
}
