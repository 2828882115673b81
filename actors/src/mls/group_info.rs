//! The GroupInfo of a commit (*Commits*): whether it describes the epoch that the commit creates.

use openmls::{
    group::StagedCommit,
    messages::group_info::GroupInfo,
    prelude::{
        LeafNode, MlsMessageBodyIn, MlsMessageIn, OpenMlsSignaturePublicKey, Verifiable,
        tls_codec::{DeserializeBytes as _, Serialize as _},
    },
};

use super::{
    Crypto, Refusal, RequestMember,
    group::read_group_info,
    tree::SerialisedTree,
    wire::{self, CommitOutline, WireFormat},
};

/// Checks, without cryptography, that a GroupInfo can be read and carries the commit's confirmation tag.
pub(super) fn check_group_info_head(group_info: &[u8], commit: &CommitOutline<'_>) -> Result<(), Refusal> {
    let outline = read_group_info(group_info).map_err(of_commit)?;
    if outline.confirmation_tag != commit.confirmation_tag {
        return Err(Refusal::GroupInfo("groupInfo has another confirmation tag than the commit".into()));
    }
    Ok(())
}

/// Checks that a GroupInfo describes the epoch that the commit creates: its context and tree are those computed here, its
/// confirmation tag is the commit's, and the committer signed it (RFC 9420 §12.4.3).
pub(super) fn check_group_info(
    crypto: &Crypto,
    group_info: &[u8],
    staged: &StagedCommit,
    tree: &SerialisedTree,
    commit: &CommitOutline<'_>,
    (committer, committer_leaf): (u32, Option<&LeafNode>),
) -> Result<(), Refusal> {
    let outline = read_group_info(group_info).map_err(of_commit)?;
    let mismatch = |detail: &str| Err(Refusal::GroupInfo(detail.to_owned()));
    let context = staged.group_context().tls_serialize_detached();
    if context.is_err() || context.is_ok_and(|context| context != outline.group_context) {
        return mismatch("groupInfo has another group context than the epoch that the commit creates");
    }
    if outline.confirmation_tag != commit.confirmation_tag {
        return mismatch("groupInfo has another confirmation tag than the commit");
    }
    if outline.signer != committer {
        return mismatch("groupInfo is not signed by the committer");
    }
    if outline.ratchet_tree.is_some_and(|carried| carried != tree.to_bytes()) {
        return mismatch("groupInfo carries another ratchet tree than the epoch that the commit creates");
    }
    let verifiable = match MlsMessageIn::tls_deserialize_exact_bytes(group_info).map(MlsMessageIn::extract) {
        Ok(MlsMessageBodyIn::GroupInfo(info)) => info,
        Ok(_) | Err(_) => {
            return Err(of_commit(Refusal::unreadable(RequestMember::GroupInfo, group_info)));
        }
    };
    let Some(leaf) = committer_leaf else {
        return mismatch("groupInfo is signed by no member");
    };
    let key = OpenMlsSignaturePublicKey::from_signature_key(
        leaf.signature_key().clone(),
        staged.group_context().ciphersuite().signature_algorithm(),
    );
    let verified: Result<GroupInfo, _> = verifiable.verify(&crypto.0, &key);
    match verified {
        Ok(_) => Ok(()),
        Err(_) => mismatch("the signature of groupInfo is not the committer's"),
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
