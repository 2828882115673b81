//! Key encoding: fixed-width parts in big-endian order, and a length before every variable part that is followed by
//! another. The key order is therefore the order of the parts, and no prefix of one key space is a prefix of another.

use std::ops::Bound;

use uuid::Uuid;

use super::Slice;
use crate::errors::ReadError;

/// The longest key that is written, in bytes. The engine takes 65535.
pub(crate) const KEY_BYTES_MAX: usize = 8 * 1024;

/// A key, or the beginning that many keys share.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key(Vec<u8>);

impl Key {
    pub(crate) fn new() -> Self {
        Self(Vec::with_capacity(96))
    }

    pub(crate) fn byte(mut self, byte: u8) -> Self {
        self.0.push(byte);
        self
    }

    pub(crate) fn u16(mut self, number: u16) -> Self {
        self.0.extend_from_slice(&number.to_be_bytes());
        self
    }

    pub(crate) fn u64(mut self, number: u64) -> Self {
        self.0.extend_from_slice(&number.to_be_bytes());
        self
    }

    pub(crate) fn uuid(mut self, uuid: &Uuid) -> Self {
        self.0.extend_from_slice(uuid.as_bytes());
        self
    }

    /// A variable part with its length in front. One that is too long for its length makes the whole key too long,
    /// and such a key is neither written nor found.
    pub(crate) fn part(mut self, bytes: &[u8]) -> Self {
        let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
        self.0.extend_from_slice(&length.to_be_bytes());
        self.0.extend_from_slice(bytes);
        self
    }

    /// The last part of a key: nothing follows, so it has no length in front.
    pub(crate) fn last(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn is_too_long(&self) -> bool {
        self.0.len() > KEY_BYTES_MAX
    }

    pub(crate) fn to_slice(&self) -> Slice {
        Slice::from(self.as_bytes())
    }

    /// Every key that begins with this one.
    pub(crate) fn prefix(self) -> KeyRange {
        let end = self.end();
        KeyRange { start: Bound::Included(self.0), end }
    }

    /// Every key after `key` that begins with this one; `key` begins with it too.
    pub(crate) fn prefix_after(self, key: Self) -> KeyRange {
        let end = self.end();
        KeyRange { start: Bound::Excluded(key.0), end }
    }

    /// Every key that begins with this one, or those of them after a key.
    pub(crate) fn prefix_from(self, after: Option<Self>) -> KeyRange {
        match after {
            Some(key) => self.prefix_after(key),
            None => self.prefix(),
        }
    }

    /// Every key from this one to `last`, both included.
    pub(crate) fn through(self, last: Self) -> KeyRange {
        KeyRange { start: Bound::Included(self.0), end: Bound::Included(last.0) }
    }

    /// Every key from this one to `end`, which is not included.
    pub(crate) fn until(self, end: Self) -> KeyRange {
        KeyRange { start: Bound::Included(self.0), end: Bound::Excluded(end.0) }
    }

    /// Every key before this one.
    pub(crate) fn before(self) -> KeyRange {
        KeyRange { start: Bound::Unbounded, end: Bound::Excluded(self.0) }
    }

    /// The first key after all that begin with this one.
    fn end(&self) -> Bound<Vec<u8>> {
        let mut end = self.0.clone();
        while let Some(last) = end.pop() {
            if let Some(next) = last.checked_add(1) {
                end.push(next);
                return Bound::Excluded(end);
            }
        }
        Bound::Unbounded
    }
}

/// A range of keys in one table.
#[derive(Clone, Debug)]
pub(crate) struct KeyRange {
    pub(crate) start: Bound<Vec<u8>>,
    pub(crate) end: Bound<Vec<u8>>,
}

impl KeyRange {
    pub(crate) fn all() -> Self {
        Self { start: Bound::Unbounded, end: Bound::Unbounded }
    }

    /// Every key after this one.
    pub(crate) fn after(key: &[u8]) -> Self {
        Self { start: Bound::Excluded(key.to_vec()), end: Bound::Unbounded }
    }

    /// Whether no key can be in it.
    pub(crate) fn is_empty(&self) -> bool {
        match (&self.start, &self.end) {
            (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
            (Bound::Included(start), Bound::Included(end)) => start > end,
            (
                Bound::Included(start) | Bound::Excluded(start),
                Bound::Included(end) | Bound::Excluded(end),
            ) => start >= end,
        }
    }
}

/// Splits a key into its parts, in the order in which they were written.
pub(crate) struct KeyReader<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> KeyReader<'a> {
    /// `what` names the kind of row, for the error.
    pub(crate) fn new(key: &'a [u8], what: &'static str) -> Self {
        Self { rest: key, what }
    }

    pub(crate) fn byte(&mut self) -> Result<u8, ReadError> {
        self.array::<1>().map(u8::from_be_bytes)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, ReadError> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, ReadError> {
        self.array().map(u64::from_be_bytes)
    }

    pub(crate) fn uuid(&mut self) -> Result<Uuid, ReadError> {
        self.array().map(Uuid::from_bytes)
    }

    pub(crate) fn part(&mut self) -> Result<&'a [u8], ReadError> {
        let length = self.array().map(u16::from_be_bytes)?;
        self.take(usize::from(length))
    }

    /// The rest of the key.
    pub(crate) fn last(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// Checks that nothing is left.
    pub(crate) fn end(self) -> Result<(), ReadError> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.damaged()) }
    }

    pub(crate) fn damaged(&self) -> ReadError {
        ReadError::damaged(format!("a key of {} cannot be read", self.what))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ReadError> {
        self.take(N)?.try_into().map_err(|_| self.damaged())
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], ReadError> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or_else(|| self.damaged())?;
        self.rest = rest;
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn contains(range: &KeyRange, key: &Key) -> bool {
        let after_start = match &range.start {
            Bound::Included(start) => key.0 >= *start,
            Bound::Excluded(start) => key.0 > *start,
            Bound::Unbounded => true,
        };
        let before_end = match &range.end {
            Bound::Included(end) => key.0 <= *end,
            Bound::Excluded(end) => key.0 < *end,
            Bound::Unbounded => true,
        };
        after_start && before_end
    }

    /// Parts that are likely to be prefixes of each other and to hold what a length or an end could be taken for.
    fn part() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(prop::sample::select(vec![0, 1, 2, 255]), 0..4)
    }

    proptest! {
        #[test]
        fn the_keys_of_one_part_are_never_those_of_another(
            mine in part(),
            other in part(),
            tail in part(),
            number: u64,
        ) {
            let range = Key::new().part(&mine).prefix();
            let keys = [Key::new().part(&other).last(&tail), Key::new().part(&other).part(&tail).u64(number)];
            for key in keys {
                prop_assert_eq!(contains(&range, &key), mine == other, "{:?} in {:?}", key, range);
            }
        }

        #[test]
        fn a_prefix_range_holds_what_begins_with_it_and_nothing_else(prefix in part(), key in part()) {
            let range = Key(prefix.clone()).prefix();
            prop_assert_eq!(contains(&range, &Key(key.clone())), key.starts_with(&prefix));
        }

        #[test]
        fn after_a_key_come_the_larger_ones_of_its_prefix(prefix in part(), after in part(), key in part()) {
            let at = |last: &[u8]| Key(prefix.clone()).last(last);
            let range = Key(prefix.clone()).prefix_after(at(&after));
            prop_assert_eq!(contains(&range, &at(&key)), key > after);
        }

        #[test]
        fn numbers_are_in_their_order(one: u64, other: u64) {
            prop_assert_eq!(Key::new().u64(one).cmp(&Key::new().u64(other)), one.cmp(&other));
        }

        #[test]
        fn an_empty_range_holds_no_key(
            (start, end, key) in (part(), part(), part()),
            (open_start, open_end) in any::<(bool, bool)>(),
        ) {
            let bound = |bytes: Vec<u8>, open| if open { Bound::Excluded(bytes) } else { Bound::Included(bytes) };
            let range = KeyRange { start: bound(start, open_start), end: bound(end, open_end) };
            prop_assert!(!(range.is_empty() && contains(&range, &Key(key))));
        }

        #[test]
        fn what_is_put_together_is_taken_apart_again(
            (byte, number, uuid) in (any::<u8>(), any::<u64>(), any::<u128>()),
            (first, last) in (part(), part()),
        ) {
            let uuid = Uuid::from_u128(uuid);
            let key = Key::new().byte(byte).part(&first).uuid(&uuid).u64(number).last(&last);
            let mut reader = KeyReader::new(key.as_bytes(), "test");
            prop_assert_eq!(reader.byte(), Ok(byte));
            prop_assert_eq!(reader.part(), Ok(&first[..]));
            prop_assert_eq!(reader.uuid(), Ok(uuid));
            prop_assert_eq!(reader.u64(), Ok(number));
            prop_assert_eq!(reader.last(), &last[..]);
            prop_assert_eq!(reader.end(), Ok(()));
        }

        #[test]
        fn damaged_keys_are_errors(length in 0_u16..4, rest in prop::collection::vec(any::<u8>(), 20..32)) {
            let bytes = [&[7][..], &length.to_be_bytes(), &rest].concat();
            let mut reader = KeyReader::new(&bytes, "test");
            let read = (|| -> Result<(), ReadError> {
                reader.byte()?;
                reader.part()?;
                reader.uuid()?;
                reader.u64()?;
                reader.end()
            })();
            // An id has 16 bytes and a number 8.
            prop_assert_eq!(read.is_ok(), rest.len() == usize::from(length) + 16 + 8);
        }
    }

    #[test]
    fn a_part_that_is_too_long_for_its_length_spoils_the_key() {
        assert!(Key::new().part(&vec![0; usize::from(u16::MAX) + 1]).is_too_long());
        assert!(!Key::new().part(&[0; 4096]).is_too_long());
    }
}
