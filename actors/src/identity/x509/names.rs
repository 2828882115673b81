//! Handles and domain names from the subject Common Names of a chain (*X.509 Identifiers* and the sections after it).

use std::ops::RangeInclusive;

use snapshots::{ClientHandle, DomainName};
use x509_parser::{
    asn1_rs::{Any, Tag},
    certificate::X509Certificate,
};

use super::parameters::NameOffsets;
use crate::identity::IdentityError;

/// Characters forbidden in a Common Name that becomes part of a handle, so that URIs made of handles are unambiguous.
const FORBIDDEN: [char; 5] = ['@', '/', '#', '$', ':'];

/// Characters that are invisible or change the appearance of others: Unicode's category Cf (format), the default-ignorable
/// characters, and the line and paragraph separators. [`char::is_control`] covers category Cc.
const INVISIBLE: [RangeInclusive<char>; 26] = [
    '\u{ad}'..='\u{ad}',
    '\u{34f}'..='\u{34f}',
    '\u{600}'..='\u{605}',
    '\u{61c}'..='\u{61c}',
    '\u{6dd}'..='\u{6dd}',
    '\u{70f}'..='\u{70f}',
    '\u{890}'..='\u{891}',
    '\u{8e2}'..='\u{8e2}',
    '\u{115f}'..='\u{1160}',
    '\u{17b4}'..='\u{17b5}',
    '\u{180b}'..='\u{180f}',
    '\u{200b}'..='\u{200f}',
    '\u{2028}'..='\u{202e}',
    '\u{2060}'..='\u{206f}',
    '\u{2800}'..='\u{2800}',
    '\u{3164}'..='\u{3164}',
    '\u{fe00}'..='\u{fe0f}',
    '\u{feff}'..='\u{feff}',
    '\u{ffa0}'..='\u{ffa0}',
    '\u{fff0}'..='\u{fffb}',
    '\u{110bd}'..='\u{110bd}',
    '\u{110cd}'..='\u{110cd}',
    '\u{13430}'..='\u{1343f}',
    '\u{1bca0}'..='\u{1bca3}',
    '\u{1d173}'..='\u{1d17a}',
    '\u{e0000}'..='\u{e0fff}',
];

/// The names of a client in its chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Names {
    pub(super) handle: ClientHandle,
    pub(super) domain: Option<DomainName>,
}

impl Names {
    /// Reads the names of a chain, the leaf first.
    ///
    /// # Errors
    /// The certificate that lacks a name or has a bad one.
    pub(super) fn of_chain(
        chain: &[X509Certificate<'_>],
        offsets: &NameOffsets,
    ) -> Result<Self, IdentityError> {
        let mut handle = String::new();
        if let Some(account) = offsets.account {
            handle.push_str(common_name(chain, account)?);
            handle.push('/');
        }
        for offset in offsets.device.clone() {
            if offset != *offsets.device.start() {
                handle.push(':');
            }
            handle.push_str(common_name(chain, offset)?);
        }
        let handle = ClientHandle::new(handle.as_bytes())
            .map_err(|error| IdentityError(format!("the chain's names make no client handle: {error}")))?;
        let domain = match offsets.domain {
            None => None,
            Some(offset) => Some(DomainName::new(common_name(chain, offset)?).map_err(|error| {
                IdentityError(format!(
                    "the Common Name of certificate {offset} is not a domain name: {error}"
                ))
            })?),
        };
        Ok(Self { handle, domain })
    }
}

/// The only Common Name of the certificate at an offset. Invisible characters are refused here; the CA must normalise names
/// (NFC) and avoid other confusable ones.
fn common_name<'a>(chain: &'a [X509Certificate<'_>], offset: u8) -> Result<&'a str, IdentityError> {
    let refuse = |what: &str| Err(IdentityError(format!("certificate {offset} of the chain {what}")));
    let Some(certificate) = chain.get(usize::from(offset)) else {
        return Err(IdentityError(format!(
            "the chain has {} certificates, and certificate {offset} is to name the client (the leaf is 0)",
            chain.len()
        )));
    };
    let mut names = certificate.subject().iter_common_name();
    let name = match (names.next(), names.next()) {
        (Some(name), None) => name,
        (None, _) => return refuse("has no Common Name in its subject"),
        (Some(_), Some(_)) => return refuse("has more than one Common Name in its subject"),
    };
    let Some(text) = utf8(name.attr_value()) else {
        return refuse("has a Common Name that is neither a UTF8String nor a PrintableString");
    };
    if text.is_empty() {
        return refuse("has an empty Common Name");
    }
    if let Some(found) = text.chars().find(|character| FORBIDDEN.contains(character)) {
        return refuse(&format!(
            "has a Common Name with the character {found:?}, which handles may not hold"
        ));
    }
    if text.trim() != text {
        return refuse("has a Common Name that begins or ends with white space");
    }
    let is_seen = |character: char| {
        !character.is_control() && !INVISIBLE.iter().any(|range| range.contains(&character))
    };
    if let Some(found) = text.chars().find(|character| !is_seen(*character)) {
        return refuse(&format!("has a Common Name with U+{:04X}, which is invisible", u32::from(found)));
    }
    Ok(text)
}

/// The text of a DirectoryString (RFC 5280 §4.1.2.4) whose bytes are UTF-8: a UTF8String, or a PrintableString, whose
/// few characters are ASCII. The bytes of a TeletexString, BMPString or UniversalString are not, and IA5String and
/// others are no DirectoryString at all.
fn utf8<'a>(value: &'a Any<'_>) -> Option<&'a str> {
    let text = std::str::from_utf8(value.data).ok()?;
    match value.tag() {
        Tag::Utf8String => Some(text),
        Tag::PrintableString => text.bytes().all(is_printable).then_some(text),
        _ => None,
    }
}

/// The characters of a PrintableString (X.680 §41.4).
fn is_printable(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b" '()+,-./:=?".contains(&byte)
}
