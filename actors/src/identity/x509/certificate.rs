//! Certificates (RFC 5280 §4.1).

mod distribution_point;
mod extensions;
mod folding;
mod general_name;
mod name;

pub use self::general_name::NameForm;
pub(super) use self::{
    distribution_point::{ALL_REASONS, DistributionPoint, point_names, reasons},
    extensions::{Extensions, Oid, each_extension},
    general_name::{FoldedGeneralName, GeneralName},
    name::{FoldedName, FoldingBudget, Name},
};
use super::{
    der::{self, DerFault, DerReader},
    signed::{KeyInfo, Signed},
};

/// Bits of a key usage (RFC 5280 §4.2.1.3).
pub(super) const DIGITAL_SIGNATURE: u16 = 1;
/// Bit 5: signs certificates.
pub(super) const KEY_CERT_SIGN: u16 = 1 << 5;
/// Bit 6: signs CRLs.
pub(super) const CRL_SIGN: u16 = 1 << 6;

/// A certificate of version 3. Its extensions are read, its signature is not verified.
#[derive(Debug)]
pub(super) struct Certificate<'a> {
    pub(super) der: &'a [u8],
    pub(super) signed: Signed<'a>,
    /// The bytes of the INTEGER.
    pub(super) serial: &'a [u8],
    pub(super) issuer: Name<'a>,
    pub(super) subject: Name<'a>,
    pub(super) validity: Validity,
    pub(super) key: KeyInfo<'a>,
    pub(super) extensions: Extensions<'a>,
    is_self_issued: std::cell::OnceCell<bool>,
}

/// A period with both its ends (RFC 5280 §4.1.2.5), in Unix seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Validity {
    pub(super) not_before: i64,
    pub(super) not_after: i64,
}

impl Validity {
    pub(super) fn contains(&self, at: i64) -> bool {
        (self.not_before..=self.not_after).contains(&at)
    }
}

impl<'a> Certificate<'a> {
    /// Reads a certificate in DER.
    ///
    /// # Errors
    /// The fault, also of an extension that is malformed.
    pub(super) fn new(bytes: &'a [u8]) -> Result<Self, DerFault> {
        let signed = Signed::new(bytes)?;
        let mut fields = der::whole_sequence(signed.message)?;
        const VERSION: DerFault = "it is not of version 3";
        let version = fields.optional(der::constructed(0))?.ok_or(VERSION)?;
        if version.body != [der::INTEGER, 1, 2] {
            return Err(VERSION);
        }
        let serial = der::integer(fields.expect(der::INTEGER)?.body)?;
        if fields.expect(der::SEQUENCE)?.body != signed.algorithm {
            return Err("it names two signature algorithms");
        }
        let issuer = Name::new(fields.any()?)?;
        if issuer.is_empty() {
            return Err("its issuer has no name");
        }
        let mut dates = fields.sequence()?;
        let validity = Validity { not_before: der::time(dates.any()?)?, not_after: der::time(dates.any()?)? };
        dates.end()?;
        let subject = Name::new(fields.any()?)?;
        let key = KeyInfo::new(fields.sequence()?)?;
        // Unique identifiers mean nothing (RFC 5280 §4.1.2.8).
        fields.optional(der::primitive(1))?;
        fields.optional(der::primitive(2))?;
        let extensions = match fields.optional(der::constructed(3))? {
            Some(list) => Extensions::new(list.body)?,
            None => Extensions::default(),
        };
        fields.end()?;
        Ok(Self {
            der: bytes,
            signed,
            serial,
            issuer,
            subject,
            validity,
            key,
            extensions,
            is_self_issued: std::cell::OnceCell::new(),
        })
    }

    /// The issuer, a Name in DER, and the serial number of a certificate, which is read no further.
    ///
    /// # Errors
    /// The fault of what stands before them.
    pub(super) fn issuer_and_serial(bytes: &'a [u8]) -> Result<(&'a [u8], &'a [u8]), DerFault> {
        let mut fields = der::whole_sequence(bytes)?.sequence()?;
        fields.optional(der::constructed(0))?;
        let serial = der::integer(fields.expect(der::INTEGER)?.body)?;
        fields.expect(der::SEQUENCE)?;
        Ok((fields.expect(der::SEQUENCE)?.raw, serial))
    }

    /// Compares issuer and subject.
    ///
    /// # Errors
    /// There is more to fold than the budget allows.
    pub(super) fn compare_names(&self, budget: &FoldingBudget) -> Result<(), DerFault> {
        let is_self_issued = self.issuer.matches(&self.subject, budget)?;
        // It may have been compared before, with the same result.
        self.is_self_issued.get_or_init(|| is_self_issued);
        Ok(())
    }

    /// Whether issuer and subject are one name (RFC 5280 §3.2).
    pub(super) fn is_self_issued(&self) -> bool {
        *self.is_self_issued.get_or_init(|| self.issuer.folded() == self.subject.folded())
    }

    /// Whether its key usage allows this, or it has none.
    pub(super) fn allows(&self, usage: u16) -> bool {
        self.extensions.key_usage.is_none_or(|found| found & usage != 0)
    }
}

impl<'a> KeyInfo<'a> {
    /// Reads the fields of a SubjectPublicKeyInfo.
    fn new(mut fields: DerReader<'a>) -> Result<Self, DerFault> {
        let algorithm = fields.expect(der::SEQUENCE)?.body;
        let bits = der::bit_string(fields.expect(der::BIT_STRING)?.body)?;
        fields.end()?;
        Ok(Self { algorithm, bits })
    }
}
