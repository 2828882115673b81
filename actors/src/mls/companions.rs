//! The GroupInfo and the Welcome that come with a commit (*Commits*, *Joining*).

use std::collections::BTreeSet;

use openmls::{
    group::StagedCommit,
    messages::{Welcome, group_info::GroupInfo},
    prelude::{
        Ciphersuite, LeafNode, MlsMessageBodyIn, MlsMessageIn, OpenMlsSignaturePublicKey, Verifiable,
        tls_codec::{DeserializeBytes as _, Serialize as _},
    },
};

use snapshots::KeyPackageRef;

use super::{
    AddedMember, Crypto, Refusal, RequestMember, WIRE_FORMAT,
    group::read_group_info,
    tree::SerialisedTree,
    wire::{self, CommitOutline, WireFormat},
};

/// Checks of a GroupInfo what needs no cryptography: that it can be read and carries the commit's confirmation tag.
pub(super) fn check_group_info_head(group_info: &[u8], commit: &CommitOutline<'_>) -> Result<(), Refusal> {
    let outline = read_group_info(group_info).map_err(of_companion)?;
    if outline.confirmation_tag != commit.confirmation_tag {
        return Err(Refusal::GroupInfo("groupInfo has another confirmation tag than the commit".into()));
    }
    Ok(())
}

/// Checks that a GroupInfo is of the epoch that the commit creates: the context and tree that were computed here, the
/// commit's confirmation tag, the committer's signature (RFC 9420 §12.4.3).
pub(super) fn check_group_info(
    crypto: &Crypto,
    group_info: &[u8],
    staged: &StagedCommit,
    tree: &SerialisedTree,
    commit: &CommitOutline<'_>,
    (committer, committer_leaf): (u32, Option<&LeafNode>),
) -> Result<(), Refusal> {
    let outline = read_group_info(group_info).map_err(of_companion)?;
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
            return Err(of_companion(Refusal::unreadable(RequestMember::GroupInfo, group_info)));
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

/// A group info that cannot open a group is not that of the epoch, either.
fn of_companion(refusal: Refusal) -> Refusal {
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

/// The key packages that a Welcome names; none if it is no Welcome.
pub(crate) fn welcome_references(message: &[u8]) -> Vec<KeyPackageRef> {
    match MlsMessageIn::tls_deserialize_exact_bytes(message).map(MlsMessageIn::extract) {
        Ok(MlsMessageBodyIn::Welcome(welcome)) => welcome
            .secrets()
            .iter()
            .filter_map(|secrets| KeyPackageRef::new(secrets.new_member().as_slice()).ok())
            .collect(),
        Ok(_) | Err(_) => Vec::new(),
    }
}

/// Reads the welcome of a commit that adds this many clients by key package. It must be present if there are any (RFC 9420
/// §12.4.3.1). Its receivers are checked after the commit itself.
pub(super) fn read_welcome(
    welcome: Option<&[u8]>,
    adds: usize,
    suite: Ciphersuite,
) -> Result<Option<Welcome>, Refusal> {
    let Some(bytes) = welcome else {
        return if adds == 0 { Ok(None) } else { Err(Refusal::WelcomeMissing { added: adds }) };
    };
    let unreadable = || Refusal::unreadable(RequestMember::WelcomePacket, bytes);
    let (format, _) = wire::message_body(bytes).map_err(|_| unreadable())?;
    if format != WireFormat::Welcome {
        let (member, expected) = (RequestMember::WelcomePacket, WireFormat::Welcome.name());
        return Err(Refusal::unexpected(member, WIRE_FORMAT, format.name(), expected));
    }
    let welcome = match MlsMessageIn::tls_deserialize_exact_bytes(bytes).map(MlsMessageIn::extract) {
        Ok(MlsMessageBodyIn::Welcome(welcome)) => welcome,
        Ok(_) | Err(_) => return Err(unreadable()),
    };
    if welcome.ciphersuite() != suite {
        return Err(Refusal::Welcome("welcomePacket has another cipher suite than the group".into()));
    }
    Ok(Some(welcome))
}

/// Checks that the welcome is for exactly the clients that the commit adds by key package, and that there is none if there
/// are no such clients (RFC 9420 §12.4.3.1).
pub(super) fn check_welcome(welcome: Option<Welcome>, added: &[AddedMember]) -> Result<(), Refusal> {
    if welcome.is_some() && added.is_empty() {
        return Err(Refusal::Welcome(
            "the request has a welcomePacket, but the commit adds no member".into(),
        ));
    }
    let secrets = welcome.as_ref().map_or([].as_slice(), Welcome::secrets);
    let named: Vec<_> = secrets.iter().map(|secrets| secrets.new_member()).collect();
    let named_once: BTreeSet<&[u8]> = named.iter().map(|reference| reference.as_slice()).collect();
    let expected: BTreeSet<&[u8]> = added.iter().map(|member| member.reference.as_bytes()).collect();
    if named_once != expected || named.len() != expected.len() {
        return Err(Refusal::Welcome(format!(
            "the secrets of welcomePacket name {} key packages, which are not exactly the {} that the commit adds",
            named.len(),
            expected.len()
        )));
    }
    Ok(())
}
