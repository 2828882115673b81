//! List cursors: opaque, and refused unless this gateway made them for the same list (*Conventions*).

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, Mac as _};
use sha2::Sha256;

use super::problem::Problem;

/// The length of the authentication code in a cursor, in bytes.
const CODE_BYTES: usize = 16;

/// Makes cursors and validates them.
pub(crate) struct Cursors {
    key: Hmac<Sha256>,
}

impl Cursors {
    /// Cursors under a key. With the same key, cursors stay valid over a restart.
    pub(crate) fn new(key: &[u8]) -> Result<Self, hmac::digest::InvalidLength> {
        Hmac::new_from_slice(key).map(|key| Self { key })
    }

    /// The cursor that continues after `last` in the list that `list` names: its kind and everything that selects it.
    pub(crate) fn give(&self, list: &[&[u8]], last: &[u8]) -> String {
        let code = self.code(list, last).finalize().into_bytes();
        let code = code.get(..CODE_BYTES).unwrap_or_default();
        URL_SAFE_NO_PAD.encode([code, last].concat())
    }

    /// The `last` of [`Cursors::give`], after which the list continues; 400 for a cursor that this gateway did not make.
    pub(crate) fn take<T>(
        &self,
        list: &[&[u8]],
        cursor: Option<&str>,
        read: impl FnOnce(&[u8]) -> Option<T>,
    ) -> Result<Option<T>, Problem> {
        let Some(cursor) = cursor else { return Ok(None) };
        let bytes = URL_SAFE_NO_PAD.decode(cursor).ok();
        let last = bytes
            .as_deref()
            .and_then(|bytes| bytes.split_at_checked(CODE_BYTES))
            .filter(|(code, last)| self.code(list, last).verify_truncated_left(code).is_ok())
            .and_then(|(_, last)| read(last));
        last.map(Some).ok_or_else(|| {
            Problem::malformed(
                "`cursor`: this gateway did not give this cursor for this list; take it from `nextCursor` as it is",
            )
        })
    }

    /// Cuts what was read, one more than the page, to the page; returns the cursor for the next page, if there is one.
    pub(crate) fn cut<T>(
        &self,
        list: &[&[u8]],
        rows: &mut Vec<T>,
        page: usize,
        name: impl Fn(&T) -> &[u8],
    ) -> Option<String> {
        let has_more = rows.len() > page;
        rows.truncate(page);
        rows.last().filter(|_| has_more).map(|last| self.give(list, name(last)))
    }

    fn code(&self, list: &[&[u8]], last: &[u8]) -> Hmac<Sha256> {
        let mut code = self.key.clone();
        let length = |length: usize| u64::try_from(length).unwrap_or(u64::MAX).to_be_bytes();
        // The lengths keep the parts apart.
        code.update(&length(list.len()));
        for part in list {
            code.update(&length(part.len()));
            code.update(part);
        }
        code.update(last);
        code
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn whole(last: &[u8]) -> Option<Vec<u8>> {
        Some(last.to_vec())
    }

    proptest! {
        #[test]
        fn a_cursor_is_taken_back_for_its_own_list_only(
            parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..4), 1..4),
            others in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..4), 1..4),
            last in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let cursors = Cursors::new(b"key").unwrap();
            let list: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
            let other: Vec<&[u8]> = others.iter().map(Vec::as_slice).collect();
            let cursor = cursors.give(&list, &last);
            prop_assert_eq!(cursors.take(&list, Some(&cursor), whole).unwrap(), Some(last));
            prop_assert_eq!(cursors.take(&other, Some(&cursor), whole).is_ok(), list == other);
            prop_assert!(Cursors::new(b"yek").unwrap().take(&list, Some(&cursor), whole).is_err());
        }

        #[test]
        fn no_other_text_is_a_cursor(text in ".{0,60}") {
            prop_assert!(Cursors::new(b"key").unwrap().take(&[b"list"], Some(&text), whole).is_err());
        }
    }
}
