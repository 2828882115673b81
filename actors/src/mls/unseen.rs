//! Handshake messages of epochs that this gateway never tracked: what can be read of them, and their chain of
//! transcript hashes (RFC 9420 §8.2), without the group's state. Signatures are not verified here.

use snapshots::{Epoch, GroupId, KeyPackageRef, Timestamp};

use super::{
    CipherSuite, Digest, Refusal, RequestMember,
    group_context::{interim_hash, transcript_after},
    handshake::{Handshake, Proposal, ProposalOrRef},
    handshake_header,
    leaf::KeyPackage,
    wire::{self, ContentKind, WireFormat},
};
use crate::{identity::Credential, limits::Limits, presentation::WireError};

/// Proposals that one commit is read to: as many as a gateway can accept.
const PROPOSALS_MAX: usize = Limits::PROPOSALS_PER_COMMIT_MAX;

/// A message that cannot be read, or not as the one that it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Unreadable(String);

impl From<WireError> for Unreadable {
    fn from(error: WireError) -> Self {
        Self(error.to_string())
    }
}

/// A proposal of an epoch that was not tracked.
#[derive(Debug)]
pub(crate) struct UnseenProposal<'a> {
    pub(crate) epoch: Epoch,
    message: Handshake<'a>,
    /// The key package of an Add.
    pub(crate) added: Option<&'a [u8]>,
}

/// A commit of an epoch that was not tracked.
#[derive(Debug)]
pub(crate) struct UnseenCommit<'a> {
    /// The epoch that it ends.
    pub(crate) epoch: Epoch,
    /// The references among its proposals, in order.
    pub(crate) references: Vec<&'a [u8]>,
    /// The key packages of the Adds that it carries by value.
    pub(crate) added: Vec<&'a [u8]>,
    message: Handshake<'a>,
}

/// The transcript hashes of an epoch (RFC 9420 §8.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Transcript {
    pub(crate) confirmed: Digest,
    pub(crate) interim: Digest,
}

/// The client in a key package, and what matters of the package once it was used. Nothing of it is verified.
#[derive(Debug)]
pub(crate) struct UnseenKeyPackage<'a> {
    pub(crate) signature_key: &'a [u8],
    pub(crate) credential: Credential<'a>,
    pub(crate) not_after: Timestamp,
    pub(crate) last_resort: bool,
}

impl<'a> UnseenProposal<'a> {
    pub(crate) fn read(group: &GroupId, packet: &'a [u8]) -> Result<Self, Unreadable> {
        let (epoch, message) = handshake(group, packet, ContentKind::Proposal)?;
        let added = message.proposal().as_ref().and_then(key_package_of);
        Ok(Self { epoch, message, added })
    }

    /// Its ProposalRef (RFC 9420 §5.2).
    pub(crate) fn reference(&self, suite: CipherSuite) -> Vec<u8> {
        self.message.proposal_reference(suite).as_ref().to_vec()
    }
}

impl<'a> UnseenCommit<'a> {
    pub(crate) fn read(group: &GroupId, packet: &'a [u8]) -> Result<Self, Unreadable> {
        let (epoch, message) = handshake(group, packet, ContentKind::Commit)?;
        let (mut references, mut added) = (Vec::new(), Vec::new());
        for listed in message.commit().map_or([].as_slice(), |commit| &commit.proposals) {
            match listed {
                ProposalOrRef::Proposal(proposal) => added.extend(key_package_of(proposal)),
                ProposalOrRef::Reference(reference) => references.push(*reference),
            }
        }
        Ok(Self { epoch, references, added, message })
    }

    /// The transcript after it, from the interim hash before it.
    pub(crate) fn transcript(&self, suite: CipherSuite, interim: &[u8]) -> Transcript {
        let (confirmed, interim) = transcript_after(suite, interim, &self.message);
        Transcript { confirmed, interim }
    }
}

impl<'a> UnseenKeyPackage<'a> {
    pub(crate) fn read(key_package: &'a [u8]) -> Result<Self, Unreadable> {
        let package = KeyPackage::of_bytes(key_package)?;
        let lifetime = package
            .leaf
            .lifetime()
            .ok_or_else(|| Unreadable("the leaf of a key package has no lifetime".into()))?;
        Ok(Self {
            signature_key: package.leaf.signature_key,
            credential: package.leaf.credential,
            not_after: Timestamp(lifetime.not_after_s.saturating_mul(1000)),
            last_resort: package.is_last_resort(),
        })
    }
}

/// The key package of an Add.
fn key_package_of<'a>(proposal: &Proposal<'a>) -> Option<&'a [u8]> {
    match proposal {
        Proposal::Add(package) => Some(package.bytes),
        Proposal::Update(_)
        | Proposal::Remove(_)
        | Proposal::PreSharedKey(_)
        | Proposal::ReInit(_)
        | Proposal::ExternalInit
        | Proposal::GroupContextExtensions(_)
        | Proposal::SelfRemove
        | Proposal::AppDataUpdate { .. }
        | Proposal::Other(_) => None,
    }
}

/// The KeyPackageRef of a serialised key package (RFC 9420 §5.2).
pub(crate) fn key_package_reference(
    suite: CipherSuite,
    key_package: &[u8],
) -> Result<KeyPackageRef, Unreadable> {
    let package = KeyPackage::of_bytes(key_package)?;
    package.reference(suite).ok_or_else(|| Unreadable("the key package has no reference".into()))
}

/// The interim transcript hash of epoch 0, from the GroupInfo message that created a group.
pub(crate) fn first_interim_hash(
    suite: CipherSuite,
    group: &GroupId,
    group_info: &[u8],
) -> Result<Digest, Unreadable> {
    let (format, body) = wire::message_body(group_info)?;
    if format != WireFormat::GroupInfo {
        return Err(Unreadable(format!("expected a GroupInfo, found a {}", format.name())));
    }
    let outline = wire::group_info_outline(body)?;
    if outline.group_id != group.as_bytes() {
        return Err(Unreadable("the group info is of another group".into()));
    }
    Ok(interim_hash(suite, &[], outline.confirmation_tag))
}

/// The `ratchet_tree` extension of a GroupInfo message, if it has one.
pub(crate) fn carried_tree(group_info: &[u8]) -> Option<&[u8]> {
    let (format, body) = wire::message_body(group_info).ok()?;
    let outline = (format == WireFormat::GroupInfo).then(|| wire::group_info_outline(body).ok())?;
    outline?.ratchet_tree
}

/// The cipher suite of a number that a tracked group has.
pub(crate) fn cipher_suite(number: u16) -> Result<CipherSuite, Unreadable> {
    CipherSuite::from_number(number).ok_or_else(|| Unreadable(format!("cipher suite {number} is not known")))
}

fn handshake<'a>(
    group: &GroupId,
    packet: &'a [u8],
    expected: ContentKind,
) -> Result<(Epoch, Handshake<'a>), Unreadable> {
    let unreadable = |refusal: Refusal| Unreadable(refusal.to_string());
    let member = RequestMember::Packet;
    let header = handshake_header(member, packet).map_err(unreadable)?;
    if header.group_id != group.as_bytes() {
        return Err(Unreadable("the packet was made for another group".into()));
    }
    match Handshake::read(member, packet, expected, PROPOSALS_MAX).map_err(unreadable)? {
        Some(message) => Ok((header.epoch, message)),
        None => Err(Unreadable(format!("the commit carries more than {PROPOSALS_MAX} proposals"))),
    }
}
