//! The GroupInfo of a commit (*Commits*): whether it describes the epoch that the commit creates.

use super::{
    Refusal, RequestMember, StagedEpoch,
    extensions::ContextExtensions,
    group::read_group_info,
    group_context::GroupContext,
    handshake::Handshake,
    wire::{self, GroupInfoOutline, WireFormat},
};

/// The GroupInfo that comes with a commit.
pub(super) struct CommitGroupInfo<'a> {
    bytes: &'a [u8],
    outline: GroupInfoOutline<'a>,
}

impl<'a> CommitGroupInfo<'a> {
    /// Reads it, and checks without cryptography that it carries the commit's confirmation tag.
    pub(super) fn read(bytes: &'a [u8], commit: &Handshake<'_>) -> Result<Self, Refusal> {
        let outline = read_group_info(bytes).map_err(of_commit)?;
        if outline.confirmation_tag != commit.confirmation_tag() {
            return mismatch("groupInfo has another confirmation tag than the commit");
        }
        Ok(Self { bytes, outline })
    }

    /// The GroupContext extensions that it tells of; nothing else of it is checked.
    pub(super) fn told_extensions(&self) -> Result<ContextExtensions, Refusal> {
        let unreadable = |_| Refusal::unreadable(RequestMember::GroupInfo, self.bytes);
        let context = GroupContext::read(self.outline.group_context).map_err(unreadable)?;
        Ok(context.map_err(Refusal::GroupInfo)?.extensions)
    }

    /// Checks that it describes the epoch that the commit creates: its context and tree are those computed here, and the
    /// committer signed it (RFC 9420 §12.4.3).
    pub(super) fn check(&self, epoch: &StagedEpoch, committer: u32) -> Result<(), Refusal> {
        let outline = &self.outline;
        if epoch.context_bytes != outline.group_context {
            return mismatch("groupInfo has another group context than the epoch that the commit creates");
        }
        if outline.signer != committer {
            return mismatch("groupInfo is not signed by the committer");
        }
        let is_tree =
            |carried: &[u8]| carried.len() == epoch.tree.length() && carried == epoch.tree.to_bytes();
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
}

fn mismatch<T>(detail: &str) -> Result<T, Refusal> {
    Err(Refusal::GroupInfo(detail.to_owned()))
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
