//! Lists in request bodies, counted while they are parsed.
//!
//! Each list has a limit in the configuration, which is checked later. The bounds here are the largest values of those limits,
//! so that a body of millions of members is never built in memory.

use std::{fmt, marker::PhantomData};

use actors::Limits;
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, IgnoredAny, SeqAccess, Visitor},
};

/// The beginning of the message about a list that is too long.
pub(crate) const TOO_LONG: &str = "a list with more than ";

/// The most tags in one request.
pub(crate) const TAGS_MAX: usize = Limits::LIST_MAX;
/// The most key packages in one request.
pub(crate) const KEY_PACKAGES_MAX: usize = Limits::LIST_MAX;
/// The most proposals that may wait in one epoch of a group, including those that can no longer be committed.
pub(crate) const PROPOSALS_MAX: usize = 2 * Limits::LIST_MAX;
/// The most log entries in one delivery.
pub(crate) const ENTRIES_MAX: usize = 1024;
/// Parses a list of at most `MAX` members, and stops at the first beyond it.
///
/// # Errors
/// Those of the members; for a longer list, a message that begins with [`TOO_LONG`].
pub(crate) fn at_most<'de, const MAX: usize, T, D>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    deserializer.deserialize_seq(Members::<MAX, T> { refuses_more: true, of: PhantomData })
}

/// Parses the first `MAX` members of a list, and ignores the others.
///
/// # Errors
/// Those of the parsed members.
pub(crate) fn first<'de, const MAX: usize, T, D>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    deserializer.deserialize_seq(Members::<MAX, T> { refuses_more: false, of: PhantomData })
}

/// Reads the first `MAX` members, and refuses or ignores the others.
struct Members<const MAX: usize, T> {
    refuses_more: bool,
    of: PhantomData<T>,
}

impl<'de, const MAX: usize, T: Deserialize<'de>> Visitor<'de> for Members<MAX, T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a sequence")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut members: A) -> Result<Vec<T>, A::Error> {
        let mut list = Vec::new();
        while list.len() < MAX {
            match members.next_element()? {
                Some(member) => list.push(member),
                None => return Ok(list),
            }
        }
        while members.next_element::<IgnoredAny>()?.is_some() {
            if self.refuses_more {
                return Err(A::Error::custom(format_args!("{TOO_LONG}{MAX} members is not read")));
            }
        }
        Ok(list)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    struct Lists {
        #[serde(default, deserialize_with = "at_most::<2, _, _>")]
        bounded: Vec<u8>,
        #[serde(default, deserialize_with = "first::<2, _, _>")]
        first: Vec<u8>,
    }

    #[test]
    fn a_list_stops_at_its_bound_and_a_first_part_passes_over_the_rest() {
        let read = |text: &str| serde_json::from_str::<Lists>(text);
        assert_eq!(read(r#"{"bounded":[1,2]}"#).unwrap().bounded, [1, 2]);
        let error = read(r#"{"bounded":[1,2,3]}"#).unwrap_err().to_string();
        assert!(error.starts_with(TOO_LONG), "{error}");
        for (text, expected) in [
            (r#"{"first":[]}"#, [].as_slice()),
            (r#"{"first":[1]}"#, &[1]),
            (r#"{"first":[1,2]}"#, &[1, 2]),
            (r#"{"first":[1,2,3,"four",{"five":[]}]}"#, &[1, 2]),
        ] {
            assert_eq!(read(text).unwrap().first, expected, "{text}");
        }
        assert!(read(r#"{"first":["one"]}"#).is_err());
        assert!(read(r#"{"first":[1,2,3"#).is_err());
    }
}
