//! Text forms of bytes: Base64 for MLS messages, base64url for group ids, and the canonical form of a client handle.

use std::{fmt, str::FromStr};

use actors::{ClientHandle, GroupId, events::EventId};
use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig, general_purpose::URL_SAFE_NO_PAD},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ObjectBuilder, RefOr, Schema, schema::Type},
};

/// RFC 4648 §4, padding optional when read. Unused bits must be zero.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The prefix of a handle that is written as bytes.
const BYTES_PREFIX: &str = "b64:";

/// The text forms of group ids, as a regular expression (ECMA-262): the last character of an incomplete quantum has no
/// spare bits.
pub(crate) const GROUP_ID_PATTERN: &str = "^(?:[A-Za-z0-9_-]{4})*(?:[A-Za-z0-9_-][AQgw]|\
    [A-Za-z0-9_-]{2}[AEIMQUYcgkosw048]|[A-Za-z0-9_-]{4})$";

/// The text forms of ids of events, likewise.
pub(crate) const EVENT_ID_PATTERN: &str = "^(?:A[Q-Za-f][A-Za-z0-9_-]{23}[AQgw])?$";

/// The texts that are Base64, likewise: padded, or without padding.
const BASE64_PATTERN: &str =
    "^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/][AQgw](?:==)?|[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=?)?$";

/// Appends the Base64 text of bytes.
pub(crate) fn push_base64(bytes: &[u8], text: &mut Vec<u8>) {
    let start = text.len();
    text.resize(start + bytes.len().div_ceil(3) * 4, 0);
    // The buffer is as long as the text, so the text always fits.
    let written = text.get_mut(start..).and_then(|room| BASE64.encode_slice(bytes, room).ok());
    text.truncate(start + written.unwrap_or_default());
}

/// `Base64(…)` of the draft: bytes that are Base64 in JSON (*Conventions*).
#[derive(Clone, PartialEq, Eq)]
pub struct Base64(pub Vec<u8>);

impl fmt::Debug for Base64 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Base64({} bytes)", self.0.len())
    }
}

impl From<Vec<u8>> for Base64 {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl Serialize for Base64 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Base64Visitor)
    }
}

/// Decodes from the borrowed text, so that a packet is not copied as text first.
struct Base64Visitor;

impl de::Visitor<'_> for Base64Visitor {
    type Value = Base64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Base64 text (RFC 4648 §4)")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Base64, E> {
        if text.ends_with('=') && !text.len().is_multiple_of(4) {
            return Err(E::custom("not Base64 (RFC 4648 §4): the padding is incomplete"));
        }
        BASE64
            .decode(text)
            .map(Base64)
            .map_err(|error| E::custom(format_args!("not Base64 (RFC 4648 §4): {error}")))
    }
}

impl PartialSchema for Base64 {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .content_encoding("base64")
            .pattern(Some(BASE64_PATTERN))
            .description(Some("Base64 (RFC 4648 §4); padding may be left out of a request"))
            .into()
    }
}

impl ToSchema for Base64 {}

/// The schema of a tag in a request.
pub(super) struct TagText;

impl PartialSchema for TagText {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .min_length(Some(1))
            .description(Some("not empty"))
            .into()
    }
}

impl ToSchema for TagText {}

/// A client handle in its only text form: the UTF-8 string itself, or `b64:` and base64url of bytes that are not UTF-8, that
/// begin with `b64:` themselves, or that are `.` or `..` (*Conventions*). URL libraries remove a path segment that is a dot or
/// two (RFC 3986 §5.2.4), even percent-encoded, so such a handle would be unreachable.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HandleText(pub ClientHandle);

/// An MLS `group_id` as base64url without padding (*Conventions*).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupIdText(pub GroupId);

/// The id of an event of a stream, opaque.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventIdText(pub EventId);

/// A text that is not a valid text form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TextError(String);

/// Whether a handle with this text is written as the text itself.
fn is_written_as_it_is(text: &str) -> bool {
    !text.starts_with(BYTES_PREFIX) && text != "." && text != ".."
}

impl fmt::Display for HandleText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match std::str::from_utf8(self.0.as_bytes()) {
            Ok(text) if is_written_as_it_is(text) => f.write_str(text),
            Ok(_) | Err(_) => write!(f, "{BYTES_PREFIX}{}", URL_SAFE_NO_PAD.encode(self.0.as_bytes())),
        }
    }
}

impl FromStr for HandleText {
    type Err = TextError;

    fn from_str(text: &str) -> Result<Self, TextError> {
        let bytes = match text.strip_prefix(BYTES_PREFIX) {
            None if is_written_as_it_is(text) => text.as_bytes().to_vec(),
            None => {
                let written = URL_SAFE_NO_PAD.encode(text);
                return Err(TextError(format!(
                    "URL libraries remove a segment `{text}` from a path: write this handle as `{BYTES_PREFIX}{written}`"
                )));
            }
            Some(encoded) => {
                let bytes = URL_SAFE_NO_PAD.decode(encoded).map_err(|error| {
                    TextError(format!("after `b64:`, a handle is base64url without padding: {error}"))
                })?;
                if std::str::from_utf8(&bytes).is_ok_and(is_written_as_it_is) {
                    return Err(TextError("this handle is UTF-8: write it as it is, not as `b64:`".into()));
                }
                bytes
            }
        };
        ClientHandle::new(bytes).map(Self).map_err(|error| TextError(error.to_string()))
    }
}

impl fmt::Display for GroupIdText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0.as_bytes()))
    }
}

impl FromStr for GroupIdText {
    type Err = TextError;

    fn from_str(text: &str) -> Result<Self, TextError> {
        let bytes = URL_SAFE_NO_PAD
            .decode(text)
            .map_err(|error| TextError(format!("a group id is base64url without padding: {error}")))?;
        GroupId::new(bytes).map(Self).map_err(|error| TextError(error.to_string()))
    }
}

impl fmt::Display for EventIdText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0.to_bytes()))
    }
}

impl FromStr for EventIdText {
    type Err = TextError;

    fn from_str(text: &str) -> Result<Self, TextError> {
        let id = URL_SAFE_NO_PAD.decode(text).ok().and_then(|bytes| EventId::from_bytes(&bytes));
        id.map(Self).ok_or_else(|| TextError("this is not the id of an event".into()))
    }
}

macro_rules! json_text {
    ($name:ident, $expecting:literal, $description:literal) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Visitor;
                impl de::Visitor<'_> for Visitor {
                    type Value = $name;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($expecting)
                    }

                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$name, E> {
                        text.parse().map_err(E::custom)
                    }
                }
                deserializer.deserialize_str(Visitor)
            }
        }

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                ObjectBuilder::new()
                    .schema_type(Type::String)
                    .min_length(Some(1))
                    .description(Some($description))
                    .into()
            }
        }

        impl ToSchema for $name {}
    };
}

json_text!(EventIdText, "the id of an event", "The id of an event, opaque.");

json_text!(
    HandleText,
    "a client handle",
    "The UTF-8 text of the handle. Bytes that are not UTF-8, a handle that itself begins with `b64:`, and the handles \
     `.` and `..` are written `b64:` and base64url without padding of the bytes."
);
json_text!(GroupIdText, "a group id", "base64url without padding (RFC 4648 §5) of the MLS group_id");

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check<T: de::DeserializeOwned>(json: &str, refusal: Option<&str>) {
        let outcome = serde_json::from_str::<T>(json).map(|_| ()).map_err(|error| error.to_string());
        match (outcome, refusal) {
            (Ok(()), None) => {}
            (Err(message), Some(part)) => assert!(message.contains(part), "{json}: {message}"),
            (outcome, refusal) => panic!("{json}: {outcome:?}, expected {refusal:?}"),
        }
    }

    #[test]
    fn base64_is_canonical_and_padding_is_optional() {
        for (json, refusal) in [
            (r#""""#, None),
            (r#""YQ==""#, None),
            (r#""YQ""#, None),
            (r#""+/+/""#, None),
            (r#""YQ=""#, Some("padding is incomplete")),
            (r#""YR==""#, Some("not Base64")),
            (r#""YR""#, Some("not Base64")),
            (r#""Y""#, Some("not Base64")),
            (r#""-_-_""#, Some("not Base64")),
            (r#""YWJj=""#, Some("padding is incomplete")),
            (r#""YW Jj""#, Some("not Base64")),
            (r#""YWJj\n""#, Some("not Base64")),
            ("7", Some("expected Base64 text")),
        ] {
            check::<Base64>(json, refusal);
        }
    }

    #[test]
    fn a_handle_has_one_text_form() {
        for (json, refusal) in [
            (r#""alice""#, None),
            (r#""alice/phone""#, None),
            (r#""ålice%2F""#, None),
            (r#""b64""#, None),
            (r#""B64:YWxpY2U""#, None),
            (r#""b64:_w""#, None),
            (r#""b64:YjY0Og""#, None),
            (r#""b64:Lg""#, None),
            (r#""b64:Li4""#, None),
            (r#""...""#, None),
            (r#""./""#, None),
            (r#"".""#, Some("write this handle as `b64:Lg`")),
            (r#""..""#, Some("write this handle as `b64:Li4`")),
            (r#""b64:Li4u""#, Some("is UTF-8: write it as it is")),
            (r#""""#, Some("1 to")),
            (r#""b64:""#, Some("UTF-8")),
            (r#""b64:YWxpY2U""#, Some("is UTF-8: write it as it is")),
            (r#""b64:_w==""#, Some("base64url")),
            (r#""b64:/w""#, Some("base64url")),
            (r#""b64:_x""#, Some("base64url")),
            ("null", Some("expected a client handle")),
        ] {
            check::<HandleText>(json, refusal);
        }
    }

    #[test]
    fn a_group_id_is_base64url_without_padding() {
        for (json, refusal) in [
            (r#""AAEC""#, None),
            (r#""_-8""#, None),
            (r#""""#, Some("1 to 255")),
            (r#""_-8=""#, Some("base64url")),
            (r#""/+8""#, Some("base64url")),
            (r#""_-9""#, Some("base64url")),
        ] {
            check::<GroupIdText>(json, refusal);
        }
    }

    proptest! {
        #[test]
        fn every_handle_comes_back_from_its_text(
            bytes in prop_oneof![
                prop::collection::vec(any::<u8>(), 1..64),
                ".{1,20}".prop_map(String::into_bytes),
                "b64:[A-Za-z0-9_-]{0,12}".prop_map(String::into_bytes),
                "\\.{1,3}".prop_map(String::into_bytes),
            ],
        ) {
            let handle = HandleText(ClientHandle::new(bytes).unwrap());
            prop_assert!(![".", ".."].contains(&handle.to_string().as_str()));
            prop_assert_eq!(handle.to_string().parse::<HandleText>().unwrap(), handle);
        }

        #[test]
        fn no_two_texts_are_one_handle(text in prop_oneof![".{1,12}", "b64:[A-Za-z0-9_-]{0,12}", "\\.{1,3}", "b64:L[gi][4]?[u]?"]) {
            if let Ok(handle) = text.parse::<HandleText>() {
                prop_assert_eq!(handle.to_string(), text);
            }
        }
    }
}
