//! Entity tags of groups and pages (RFC 9110 §8.8.3): what a caller has already is not sent again.

use actix_web::http::header::{EntityTag, IfNoneMatch};
use actors::GroupView;
use sha2::{Digest as _, Sha256};

/// The bytes of a digest in a tag.
const DIGEST_BYTES: usize = 12;

/// The tag of what depends on the group's epoch alone.
pub(super) fn of_epoch(view: &GroupView) -> EntityTag {
    of_messages(view, std::iter::empty())
}

/// The tag of a list of messages in the group's epoch.
pub(super) fn of_messages<'a>(view: &GroupView, messages: impl Iterator<Item = &'a [u8]>) -> EntityTag {
    let mut digest = Sha256::new();
    digest.update(view.epoch_digest());
    for message in messages {
        digest.update((message.len() as u64).to_be_bytes());
        digest.update(message);
    }
    of_digest(digest)
}

/// The tag of a page. It is weak, because the page may be compressed on its way.
pub(super) fn of_bytes(bytes: &[u8]) -> EntityTag {
    of_digest(Sha256::new_with_prefix(bytes))
}

fn of_digest(digest: Sha256) -> EntityTag {
    let hex = digest.finalize().iter().take(DIGEST_BYTES).map(|byte| format!("{byte:02x}")).collect();
    EntityTag::new_weak(hex)
}

/// Whether a caller with this `If-None-Match` has what the tag is of (RFC 9110 §13.1.2).
pub(super) fn is_known(tag: &EntityTag, if_none_match: Option<&IfNoneMatch>) -> bool {
    match if_none_match {
        None => false,
        Some(IfNoneMatch::Any) => true,
        Some(IfNoneMatch::Items(known)) => known.iter().any(|known| known.weak_eq(tag)),
    }
}
