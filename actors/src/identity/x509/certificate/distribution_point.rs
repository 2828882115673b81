//! CRL distribution points (RFC 5280 §4.2.1.13).

use super::{FoldedGeneralName, FoldedName, GeneralName};
use crate::identity::x509::der::{self, DerFault, DerReader};

/// The bits of all reasons that a ReasonFlags can name: bit 0 is unused.
pub(in crate::identity::x509) const ALL_REASONS: u16 = 0b1_1111_1110;

/// The most distribution points of one certificate.
const MAX_POINTS: usize = 64;

/// A DistributionPoint in a form in which it can be compared with the scope of a CRL.
#[derive(Clone, Debug)]
pub(in crate::identity::x509) struct DistributionPoint {
    /// Without any, it is the whole list of each of `crl_issuers`.
    pub(in crate::identity::x509) names: Vec<FoldedGeneralName>,
    /// The reasons that its CRL covers.
    pub(in crate::identity::x509) reasons: u16,
    /// Empty if the certificate's issuer signs the CRL.
    pub(in crate::identity::x509) crl_issuers: Vec<FoldedName>,
}

impl DistributionPoint {
    /// Reads the CRLDistributionPoints of a certificate with this issuer.
    pub(in crate::identity::x509) fn all(value: &[u8], issuer: &FoldedName) -> Result<Vec<Self>, DerFault> {
        let mut list = der::whole_sequence(value)?;
        let mut points = Vec::new();
        while !list.is_empty() {
            if points.len() == MAX_POINTS {
                return Err("it has too many distribution points");
            }
            points.push(Self::new(list.sequence()?, issuer)?);
        }
        Ok(points)
    }

    fn new(mut fields: DerReader<'_>, issuer: &FoldedName) -> Result<Self, DerFault> {
        let name = fields.optional(der::constructed(0))?;
        let reasons = reasons(&mut fields, der::primitive(1))?;
        let crl_issuers = match fields.optional(der::constructed(2))? {
            None => Vec::new(),
            Some(names) => GeneralName::directory_names(names.body)?,
        };
        fields.end()?;
        let above = if crl_issuers.is_empty() { std::slice::from_ref(issuer) } else { &crl_issuers };
        let names = name.map(|name| point_names(name.body, above)).transpose()?.unwrap_or_default();
        if names.is_empty() && crl_issuers.is_empty() {
            return Err("a distribution point has neither a name nor an issuer");
        }
        Ok(Self { names, reasons, crl_issuers })
    }

    /// The point that stands for any list of an issuer (RFC 5280 §6.3.3, last paragraph).
    pub(in crate::identity::x509) fn any_of(issuer: &FoldedName) -> Self {
        Self {
            names: vec![FoldedGeneralName::Directory(issuer.clone())],
            reasons: ALL_REASONS,
            crl_issuers: Vec::new(),
        }
    }
}

/// Reads an optional ReasonFlags; without it, all reasons.
pub(in crate::identity::x509) fn reasons(fields: &mut DerReader<'_>, tag: u8) -> Result<u16, DerFault> {
    match fields.optional(tag)? {
        Some(flags) => Ok(der::named_bits(flags.body)? & ALL_REASONS),
        None => Ok(ALL_REASONS),
    }
}

/// Reads the content of a DistributionPointName. A name that is relative to that of the CRL's issuer stands for one below
/// each of `issuers`.
pub(in crate::identity::x509) fn point_names(
    body: &[u8],
    issuers: &[FoldedName],
) -> Result<Vec<FoldedGeneralName>, DerFault> {
    let mut reader = DerReader::new(body);
    let name = reader.any()?;
    reader.end()?;
    match name.tag {
        tag if tag == der::constructed(0) => {
            Ok(GeneralName::all(name.body)?.iter().map(GeneralName::folded).collect())
        }
        tag if tag == der::constructed(1) => {
            let below = |issuer: &FoldedName| issuer.with(name.body).map(FoldedGeneralName::Directory);
            issuers.iter().map(below).collect()
        }
        _ => Err("the name of a distribution point is malformed"),
    }
}
