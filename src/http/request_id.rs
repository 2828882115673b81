//! Ids of requests: in every answer, in problem documents and in the log, so that a caller and an operator can speak of the same
//! request.

use std::{
    fmt,
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
};

use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};

/// The header field, in requests and answers.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The longest id that is taken from a request, in bytes.
const BYTES_MAX: usize = 128;

/// The id of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RequestId(String);

impl RequestId {
    /// The id that the request carries, if it is a plain one: letters, digits and `-._~:/+=`. Otherwise a new one.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let mut given = headers.get_all(REQUEST_ID);
        let plain = |value: &&str| {
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:/+=".contains(&byte);
            (1..=BYTES_MAX).contains(&value.len()) && value.bytes().all(is_plain)
        };
        match (given.next().and_then(|value| value.to_str().ok()).filter(plain), given.next()) {
            (Some(id), None) => Self(id.to_owned()),
            _ => Self::new(),
        }
    }

    /// A new id: the run of the gateway, and a number in it.
    pub(super) fn new() -> Self {
        static RUN: LazyLock<String> = LazyLock::new(|| {
            let (run, _, _, _) = uuid::Uuid::new_v4().as_fields();
            format!("{run:08x}")
        });
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(format!("{}-{}", *RUN, NEXT.fetch_add(1, Ordering::Relaxed)))
    }

    /// The value of the header field.
    pub(super) fn header(&self) -> Option<HeaderValue> {
        HeaderValue::from_str(&self.0).ok()
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[&[u8]]) -> String {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(REQUEST_ID, HeaderValue::from_bytes(value).unwrap());
        }
        RequestId::of(&headers).to_string()
    }

    #[test]
    fn plain_ids_are_taken_and_others_replaced() {
        let long = [b'a'; BYTES_MAX];
        for id in ["a", "0f9c-4b.~_:/+=", std::str::from_utf8(&long).unwrap()] {
            assert_eq!(of(&[id.as_bytes()]), id);
        }
        let too_long = [b'a'; BYTES_MAX + 1];
        let replaced: [&[&[u8]]; 7] =
            [&[], &[b""], &[b"a b"], &[b"a\"b"], &[b"\xff"], &[&too_long], &[b"a", b"b"]];
        for values in replaced {
            let (one, two) = (of(values), of(values));
            assert_ne!(one, two);
            assert!(one.split_once('-').is_some_and(|(run, _)| run.len() == 8), "{one}");
        }
    }
}
