//! Lists in request bodies, counted while they are read.
//!
//! Each has a limit of the configuration, which is checked where it is known. The bounds here are the largest values
//! that those limits may have: they keep a body of millions of members from being built in memory before anybody
//! counts.

use std::{fmt, marker::PhantomData};

use actors::Limits;
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, SeqAccess, Visitor},
};

/// How the message begins that says that a list is too long.
pub(crate) const TOO_LONG: &str = "a list with more than ";

/// Tags that one request may name.
pub(crate) const TAGS_MAX: usize = Limits::LIST_MAX;
/// Key packages that one request may upload.
pub(crate) const KEY_PACKAGES_MAX: usize = Limits::LIST_MAX;
/// Proposals that may wait in one epoch of a group.
pub(crate) const PROPOSALS_MAX: usize = Limits::LIST_MAX;
/// Log entries in one delivery.
pub(crate) const ENTRIES_MAX: usize = 1024;
/// Key packages that were used in entries which a follower has not seen.
pub(crate) const USED_KEY_PACKAGES_MAX: usize = 1 << 20;

/// Reads a list of at most `MAX` members, and stops at the first that is too many.
///
/// # Errors
/// Of the members; and a message that begins with [`TOO_LONG`].
pub(crate) fn at_most<'de, const MAX: usize, T, D>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    deserializer.deserialize_seq(Bounded::<MAX, T>(PhantomData))
}

struct Bounded<const MAX: usize, T>(PhantomData<T>);

impl<'de, const MAX: usize, T: Deserialize<'de>> Visitor<'de> for Bounded<MAX, T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a sequence")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut members: A) -> Result<Vec<T>, A::Error> {
        let mut list = Vec::new();
        while let Some(member) = members.next_element()? {
            if list.len() >= MAX {
                return Err(A::Error::custom(format_args!("{TOO_LONG}{MAX} members is not read")));
            }
            list.push(member);
        }
        Ok(list)
    }
}
