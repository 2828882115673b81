//! Distinguished names (RFC 5280 §4.1.2.4) and their comparison (§7.1).

use std::cell::{Cell, OnceCell};

use super::folding::folded;
use crate::identity::x509::der::{self, DerElement, DerFault, DerReader};

/// PKCS #9 emailAddress, 1.2.840.113549.1.9.1.
const EMAIL_ADDRESS: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 1];

/// The longest Name that is read, in bytes. Attributes have upper bounds of about 64 characters (RFC 5280, appendix A.1).
const MAX_NAME_BYTES: usize = 1024;

/// A Name as it is encoded. It is folded when that is first needed.
#[derive(Clone, Debug)]
pub(in crate::identity::x509) struct Name<'a> {
    pub(in crate::identity::x509) raw: &'a [u8],
    folded: OnceCell<FoldedName>,
}

/// A name in a form in which names that match are equal, and names in the subtree of another begin with it: the relative
/// distinguished names one after the other, each with its length in front.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::identity::x509) struct FoldedName(Vec<u8>);

impl<'a> Name<'a> {
    /// Reads a Name; the element is its SEQUENCE.
    pub(in crate::identity::x509) fn new(element: DerElement<'a>) -> Result<Self, DerFault> {
        if element.tag != der::SEQUENCE {
            return Err("a name is malformed");
        }
        if element.raw.len() > MAX_NAME_BYTES {
            return Err("a name is too long");
        }
        let mut names = DerReader::new(element.body);
        while !names.is_empty() {
            for_each_attribute(names.expect(der::SET)?.body, |_, _| Ok(()))?;
        }
        Ok(Self { raw: element.raw, folded: OnceCell::new() })
    }

    /// Whether it has no relative distinguished name.
    pub(in crate::identity::x509) fn is_empty(&self) -> bool {
        matches!(self.raw, [_, 0])
    }

    /// Whether two names are one by RFC 5280 §7.1. Only what differs is folded, up to the first difference that remains.
    ///
    /// # Errors
    /// There is more to fold than the budget allows.
    pub(in crate::identity::x509) fn matches(
        &self,
        other: &Name<'_>,
        budget: &FoldingBudget,
    ) -> Result<bool, DerFault> {
        if self.raw == other.raw {
            return Ok(true);
        }
        let (mut one, mut other) = (der::whole_sequence(self.raw)?, der::whole_sequence(other.raw)?);
        while !one.is_empty() && !other.is_empty() {
            let (one, other) = (one.expect(der::SET)?.body, other.expect(der::SET)?.body);
            if one == other {
                continue;
            }
            budget.spend(one)?;
            budget.spend(other)?;
            if folded_set(one)? != folded_set(other)? {
                return Ok(false);
            }
        }
        Ok(one.is_empty() && other.is_empty())
    }

    pub(in crate::identity::x509) fn folded(&self) -> &FoldedName {
        self.folded.get_or_init(|| FoldedName::new(self.raw).unwrap_or_default())
    }

    /// The values of its emailAddress attributes, which name constraints apply to (RFC 5280 §4.2.1.10).
    pub(in crate::identity::x509) fn emails(&self) -> Result<Vec<&'a str>, DerFault> {
        let mut emails = Vec::new();
        let mut names = der::whole_sequence(self.raw)?;
        while !names.is_empty() {
            for_each_attribute(names.expect(der::SET)?.body, |oid, value| {
                if oid == EMAIL_ADDRESS {
                    emails.push(std::str::from_utf8(value.body).map_err(|_| "an email address is not text")?);
                }
                Ok(())
            })?;
        }
        Ok(emails)
    }
}

impl FoldedName {
    /// Folds a Name in DER.
    pub(in crate::identity::x509) fn new(raw: &[u8]) -> Result<Self, DerFault> {
        let mut names = der::whole_sequence(raw)?;
        let mut folded = Self::default();
        while !names.is_empty() {
            folded.push(names.expect(der::SET)?.body)?;
        }
        Ok(folded)
    }

    /// The name with one more relative distinguished name at its end; `set` is the content of that SET.
    pub(in crate::identity::x509) fn with(&self, set: &[u8]) -> Result<Self, DerFault> {
        let mut longer = self.clone();
        longer.push(set)?;
        Ok(longer)
    }

    /// Whether it is in the subtree of a name (RFC 5280 §7.1, last paragraph).
    pub(in crate::identity::x509) fn is_within(&self, subtree: &Self) -> bool {
        self.0.starts_with(&subtree.0)
    }

    /// Appends a relative distinguished name.
    fn push(&mut self, set: &[u8]) -> Result<(), DerFault> {
        push_part(&mut self.0, &folded_set(set)?);
        Ok(())
    }
}

/// The work of folding that the names of one chain may cost before anybody is known to have signed it.
#[derive(Debug)]
pub(in crate::identity::x509) struct FoldingBudget(Cell<usize>);

impl FoldingBudget {
    /// Bytes of ASCII. Others cost more: they are mapped, folded and normalised.
    const BYTES: usize = 1 << 15;
    const PER_OTHER_BYTE: usize = 8;

    pub(in crate::identity::x509) fn new() -> Self {
        Self(Cell::new(Self::BYTES))
    }

    fn spend(&self, part: &[u8]) -> Result<(), DerFault> {
        let each = if part.is_ascii() { 1 } else { Self::PER_OTHER_BYTE };
        let left = self.0.get().checked_sub(each * part.len());
        self.0.set(left.ok_or("the names up to here are too long to be compared")?);
        Ok(())
    }
}

/// The attributes of a relative distinguished name, sorted, each as its type and its folded text or its bytes.
fn folded_set(set: &[u8]) -> Result<Vec<u8>, DerFault> {
    let mut attributes = Vec::with_capacity(1);
    for_each_attribute(set, |oid, value| {
        let mut attribute = Vec::with_capacity(oid.len() + value.body.len() + 9);
        push_part(&mut attribute, oid);
        match text(value) {
            Some(text) => {
                attribute.push(0);
                push_part(&mut attribute, folded(&text).as_bytes());
            }
            None => {
                attribute.push(value.tag);
                push_part(&mut attribute, value.body);
            }
        }
        attributes.push(attribute);
        Ok(())
    })?;
    attributes.sort_unstable();
    Ok(attributes.concat())
}

fn push_part(to: &mut Vec<u8>, part: &[u8]) {
    // The length of DER fits into four bytes.
    to.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
    to.extend_from_slice(part);
}

/// The types and values of the attributes in the content of a RelativeDistinguishedName.
fn for_each_attribute<'a>(
    set: &'a [u8],
    mut use_attribute: impl FnMut(&'a [u8], DerElement<'a>) -> Result<(), DerFault>,
) -> Result<(), DerFault> {
    let mut attributes = DerReader::new(set);
    if attributes.is_empty() {
        return Err("a name is malformed");
    }
    while !attributes.is_empty() {
        let mut attribute = attributes.sequence()?;
        let oid = attribute.expect(der::OID)?.body;
        let value = attribute.any()?;
        attribute.end()?;
        use_attribute(oid, value)?;
    }
    Ok(())
}

/// The text of a string whose encoding is known; `None` for a TeletexString and for what is no string.
fn text(value: DerElement<'_>) -> Option<std::borrow::Cow<'_, str>> {
    let body = value.body;
    match value.tag {
        // UTF8String
        0x0c => std::str::from_utf8(body).ok().map(Into::into),
        // NumericString, PrintableString, IA5String, VisibleString
        0x12 | 0x13 | 0x16 | 0x1a if body.is_ascii() => std::str::from_utf8(body).ok().map(Into::into),
        // UniversalString
        0x1c if body.len().is_multiple_of(4) => wide_text(body, 4).map(Into::into),
        // BMPString, in which surrogates are no characters
        0x1e if body.len().is_multiple_of(2) => wide_text(body, 2).map(Into::into),
        _ => None,
    }
}

fn wide_text(body: &[u8], width: usize) -> Option<String> {
    let unit = |bytes: &[u8]| bytes.iter().fold(0, |unit, byte| unit << 8 | u32::from(*byte));
    body.chunks_exact(width).map(|bytes| char::from_u32(unit(bytes))).collect()
}
