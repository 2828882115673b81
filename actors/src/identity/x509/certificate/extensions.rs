//! Extensions of certificates (RFC 5280 §4.2).

use crate::identity::x509::der::{self, DerFault, DerReader};

/// The most extensions of one certificate, list or entry.
const MAX_EXTENSIONS: usize = 64;

/// An object identifier: the content of its encoding.
pub(in crate::identity::x509) type Oid<'a> = &'a [u8];

/// The extensions of a certificate that validation uses. Those that cost something to read, and only matter once the
/// signatures are verified, are kept as they are.
#[derive(Debug, Default)]
pub(in crate::identity::x509) struct Extensions<'a> {
    /// Whether there is a critical one that is not processed.
    pub(in crate::identity::x509) has_unknown_critical: bool,
    pub(in crate::identity::x509) is_ca: bool,
    /// The most CA certificates that may follow below it.
    pub(in crate::identity::x509) path_len: Option<u32>,
    pub(in crate::identity::x509) key_usage: Option<u16>,
    pub(in crate::identity::x509) key_identifier: Option<&'a [u8]>,
    pub(in crate::identity::x509) require_explicit_policy: Option<u32>,
    pub(in crate::identity::x509) inhibit_policy_mapping: Option<u32>,
    pub(in crate::identity::x509) inhibit_any_policy: Option<u32>,
    /// The values of extensions that are read when they are used.
    pub(in crate::identity::x509) alternative_names: Option<&'a [u8]>,
    pub(in crate::identity::x509) name_constraints: Option<&'a [u8]>,
    pub(in crate::identity::x509) distribution_points: Option<&'a [u8]>,
    pub(in crate::identity::x509) policies: Option<&'a [u8]>,
    pub(in crate::identity::x509) policy_mappings: Option<&'a [u8]>,
}

impl<'a> Extensions<'a> {
    pub(super) fn new(list: &'a [u8]) -> Result<Self, DerFault> {
        let mut found = Self::default();
        found.has_unknown_critical =
            each_extension(list, |number, is_critical, value| found.read(number, is_critical, value))?;
        Ok(found)
    }

    /// Reads the extension 2.5.29.`number`. Returns whether it is processed.
    fn read(&mut self, number: u8, is_critical: bool, value: &'a [u8]) -> Result<bool, DerFault> {
        match number {
            // subjectKeyIdentifier, which is never critical
            14 => {
                self.key_identifier = Some(der::whole(value, der::OCTET_STRING)?);
                return Ok(!is_critical);
            }
            // keyUsage
            15 => self.key_usage = Some(der::named_bits(der::whole(value, der::BIT_STRING)?)?),
            // subjectAltName
            17 => self.alternative_names = Some(value),
            // basicConstraints
            19 => {
                let mut fields = der::whole_sequence(value)?;
                self.is_ca = fields.flag(der::BOOLEAN)?;
                self.path_len =
                    fields.optional(der::INTEGER)?.map(|limit| der::count(limit.body)).transpose()?;
                fields.end()?;
            }
            // nameConstraints
            30 => self.name_constraints = Some(value),
            // cRLDistributionPoints
            31 => self.distribution_points = Some(value),
            // certificatePolicies
            32 => self.policies = Some(value),
            // policyMappings
            33 => self.policy_mappings = Some(value),
            // policyConstraints
            36 => {
                let mut fields = der::whole_sequence(value)?;
                let mut skipped =
                    |tag| fields.optional(tag)?.map(|skipped| der::count(skipped.body)).transpose();
                self.require_explicit_policy = skipped(der::primitive(0))?;
                self.inhibit_policy_mapping = skipped(der::primitive(1))?;
                fields.end()?;
                if self.require_explicit_policy.is_none() && self.inhibit_policy_mapping.is_none() {
                    return Err("its policy constraints are empty");
                }
            }
            // extKeyUsage: no purpose is defined for MLS, and any will do
            37 => {}
            // inhibitAnyPolicy
            54 => self.inhibit_any_policy = Some(der::count(der::whole(value, der::INTEGER)?)?),
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// Reads an Extensions. `read` gets the last arc of those below 2.5.29 (`id-ce`), criticality and value, and returns whether
/// the extension is processed. Returns whether there is a critical one that is not.
pub(in crate::identity::x509) fn each_extension<'a>(
    list: &'a [u8],
    mut read: impl FnMut(u8, bool, &'a [u8]) -> Result<bool, DerFault>,
) -> Result<bool, DerFault> {
    let mut list: DerReader<'a> = der::whole_sequence(list)?;
    let (mut has_unknown_critical, mut seen) = (false, Vec::<Oid<'_>>::new());
    while !list.is_empty() {
        let mut extension = list.sequence()?;
        let oid = extension.expect(der::OID)?.body;
        let is_critical = extension.flag(der::BOOLEAN)?;
        let value = extension.expect(der::OCTET_STRING)?.body;
        extension.end()?;
        if seen.contains(&oid) {
            return Err("an extension is there twice");
        }
        if seen.len() == MAX_EXTENSIONS {
            return Err("it has too many extensions");
        }
        seen.push(oid);
        let is_processed = match oid {
            [0x55, 0x1d, number] => read(*number, is_critical, value)?,
            _ => false,
        };
        has_unknown_critical |= is_critical && !is_processed;
    }
    Ok(has_unknown_critical)
}
