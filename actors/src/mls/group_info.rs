//! The GroupInfo of a commit (*Commits*): whether it describes the epoch that the commit creates.

use super::{
    Refusal, RequestMember, StagedEpoch,
    extensions::ContextExtensions,
    group::read_group_info,
    group_context::GroupContext,
    wire::{self, WireFormat},
};

/// Checks, without cryptography, that a GroupInfo can be read and carries the commit's confirmation tag.
pub(super) fn check_group_info_head(group_info: &[u8], confirmation_tag: &[u8]) -> Result<(), Refusal> {
    let outline = read_group_info(group_info).map_err(of_commit)?;
    if outline.confirmation_tag != confirmation_tag {
        return Err(Refusal::GroupInfo("groupInfo has another confirmation tag than the commit".into()));
    }
    Ok(())
}

/// The GroupContext extensions that a GroupInfo tells of; nothing else of it is checked.
pub(super) fn told_extensions(group_info: &[u8]) -> Result<ContextExtensions, Refusal> {
    let outline = read_group_info(group_info).map_err(of_commit)?;
    let unreadable = |_| Refusal::unreadable(RequestMember::GroupInfo, group_info);
    let context = GroupContext::read(outline.group_context).map_err(unreadable)?;
    Ok(context.map_err(Refusal::GroupInfo)?.extensions)
}

/// Checks that a GroupInfo describes the epoch that the commit creates: its context and tree are those computed here, its
/// confirmation tag is the commit's, and the committer signed it (RFC 9420 §12.4.3).
pub(super) fn check_group_info(
    group_info: &[u8],
    epoch: &StagedEpoch,
    confirmation_tag: &[u8],
    committer: u32,
) -> Result<(), Refusal> {
    let outline = read_group_info(group_info).map_err(of_commit)?;
    let mismatch = |detail: &str| Err(Refusal::GroupInfo(detail.to_owned()));
    if epoch.context.to_bytes() != outline.group_context {
        return mismatch("groupInfo has another group context than the epoch that the commit creates");
    }
    if outline.confirmation_tag != confirmation_tag {
        return mismatch("groupInfo has another confirmation tag than the commit");
    }
    if outline.signer != committer {
        return mismatch("groupInfo is not signed by the committer");
    }
    let is_tree = |carried: &[u8]| carried.len() == epoch.tree.length() && carried == epoch.tree.to_bytes();
    if !outline.ratchet_tree.is_none_or(is_tree) {
        return mismatch("groupInfo carries another ratchet tree than the epoch that the commit creates");
    }
    let signer = epoch.tree.leaf(committer).and_then(|leaf| leaf.node());
    if signer.is_some_and(|signer| outline.is_signed_by(epoch.context.suite, signer.signature_key)) {
        Ok(())
    } else {
        mismatch("the signature of groupInfo is not the committer's")
    }
}

/// The refusal of a GroupInfo as part of a commit: one that cannot open a group does not describe the epoch, either.
fn of_commit(refusal: Refusal) -> Refusal {
    if let Refusal::OpenedWith(detail) = refusal { Refusal::GroupInfo(detail) } else { refusal }
}

/// The leaf whose member signed a GroupInfo message (RFC 9420 §12.4.3).
pub(crate) fn group_info_signer(message: &[u8]) -> Option<u32> {
    let (format, body) = wire::message_body(message).ok()?;
    if format != WireFormat::GroupInfo {
        return None;
    }
    Some(wire::group_info_outline(body).ok()?.signer)
}
