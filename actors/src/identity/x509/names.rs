//! Handles and domain names from the subject Common Names of a chain (*X.509 Identifiers* and the sections after it).

use snapshots::{ClientHandle, DomainName};
use x509_parser::{
    asn1_rs::{Any, Tag},
    certificate::X509Certificate,
};

use super::parameters::NameOffsets;
use crate::identity::IdentityError;

/// What no Common Name that becomes part of a handle may hold, so that URIs made of handles are unambiguous.
const FORBIDDEN: [char; 5] = ['@', '/', '#', '$', ':'];

/// Who a chain says that a client is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Names {
    pub(super) handle: ClientHandle,
    pub(super) domain: Option<DomainName>,
}

impl Names {
    /// Reads the names of a chain, the leaf first.
    ///
    /// # Errors
    /// Says which certificate lacks the name that it must have, or what is wrong with it.
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

/// The one Common Name of the certificate at an offset.
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
