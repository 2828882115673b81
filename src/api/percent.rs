//! Percent-encoding (RFC 3986 §2.1), strict and on bytes: routers that decode for their handlers lose bytes that are
//! not UTF-8 and the difference between `/` and `%2F`.

use std::fmt::Write as _;

/// Decodes one segment of a path, or one name or value of a query. `None` when a `%` is not followed by two
/// hexadecimal digits.
pub fn decode(text: &str) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => hex_digit(bytes.next()?)? << 4 | hex_digit(bytes.next()?)?,
            plain => plain,
        });
    }
    Some(decoded)
}

/// Encodes one segment of a path: everything but the unreserved characters (RFC 3986 §2.3).
pub fn encode(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
        encoded
    })
}

fn hex_digit(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn decoding_is_exact() {
        let cases: [(&str, Option<&[u8]>); 10] = [
            ("", Some(b"")),
            ("alice", Some(b"alice")),
            ("alice%2Fphone", Some(b"alice/phone")),
            ("alice%2fphone", Some(b"alice/phone")),
            ("%FF%00", Some(b"\xff\0")),
            ("a+b", Some(b"a+b")),
            ("%2525", Some(b"%25")),
            ("%", None),
            ("%2", None),
            ("%+1", None),
        ];
        for (text, expected) in cases {
            assert_eq!(decode(text).as_deref(), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes(text in ".*") {
            let encoded = encode(&text);
            prop_assert!(encoded.bytes().all(|byte| byte.is_ascii_graphic() && !b"/?#".contains(&byte)));
            prop_assert_eq!(decode(&encoded), Some(text.into_bytes()));
        }
    }
}
