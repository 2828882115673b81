//! Handshake messages of epochs that this gateway never tracked: what can be read of them, and their chain of
//! transcript hashes (RFC 9420 §8.2), without the group's state. Signatures are not verified here.

use openmls::prelude::{Ciphersuite, Credential, CredentialType};
use openmls_traits::crypto::OpenMlsCrypto as _;
use snapshots::{Epoch, GroupId, KeyPackageRef, Timestamp};

use super::{
    Crypto, PROTOCOL_VERSION,
    leaf::marks_last_resort,
    wire::{self, ContentKind, PublicPart, SenderKind, WireFormat},
};
use crate::presentation::{Reader, WireError, write_vector_length};

/// Proposals that one commit is read to, by value and by reference together.
const PROPOSALS_MAX: usize = 4096;
const ADD: u16 = 1;

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
    /// The AuthenticatedContent (RFC 9420 §6.1), which the ProposalRef is a hash of.
    authenticated: &'a [u8],
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
    confirmed_input: &'a [u8],
    confirmation_tag: &'a [u8],
}

/// The transcript hashes of an epoch (RFC 9420 §8.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Transcript {
    pub(crate) confirmed: Vec<u8>,
    pub(crate) interim: Vec<u8>,
}

/// The client in a key package, and what matters of the package once it was used. Nothing of it is verified.
#[derive(Debug)]
pub(crate) struct UnseenKeyPackage<'a> {
    pub(crate) signature_key: &'a [u8],
    pub(crate) credential: Credential,
    pub(crate) not_after: Timestamp,
    pub(crate) last_resort: bool,
}

impl<'a> UnseenProposal<'a> {
    pub(crate) fn read(group: &GroupId, packet: &'a [u8]) -> Result<Self, Unreadable> {
        let (epoch, public) = handshake(group, packet, ContentKind::Proposal)?;
        let mut reader = public.content;
        let added = proposal(&mut reader)?;
        reader.vector("signature")?;
        let authenticated = authenticated(packet, reader)?;
        end(public.sender, reader)?;
        Ok(Self { epoch, authenticated, added })
    }

    /// Its ProposalRef (RFC 9420 §5.2).
    pub(crate) fn reference(&self, crypto: &Crypto, suite: Ciphersuite) -> Result<Vec<u8>, Unreadable> {
        reference_hash(crypto, suite, b"MLS 1.0 Proposal Reference", self.authenticated)
    }
}

impl<'a> UnseenCommit<'a> {
    pub(crate) fn read(group: &GroupId, packet: &'a [u8]) -> Result<Self, Unreadable> {
        let (epoch, public) = handshake(group, packet, ContentKind::Commit)?;
        let mut reader = public.content;
        let mut list = Reader::new(reader.vector("list of proposals")?);
        let (mut references, mut added) = (Vec::new(), Vec::new());
        let mut proposals = 0;
        while !list.is_empty() {
            proposals += 1;
            if proposals > PROPOSALS_MAX {
                return Err(Unreadable(format!("the commit carries more than {PROPOSALS_MAX} proposals")));
            }
            match list.u8("list of proposals")? {
                1 => added.extend(proposal(&mut list)?),
                2 => references.push(list.vector("proposal reference")?),
                _ => return Err(Unreadable("the list of proposals is malformed".into())),
            }
        }
        match reader.u8("update path")? {
            0 => {}
            1 => drop(wire::path_ciphertexts(&mut reader, &mut Vec::new())?),
            _ => return Err(Unreadable("the update path is malformed".into())),
        }
        reader.vector("signature")?;
        let confirmed_input = authenticated(packet, reader)?;
        let before_tag = reader;
        reader.vector("confirmation tag")?;
        let confirmation_tag = reader.since(before_tag);
        end(public.sender, reader)?;
        Ok(Self { epoch, references, added, confirmed_input, confirmation_tag })
    }

    /// The transcript after it, from the interim hash before it.
    pub(crate) fn transcript(
        &self,
        crypto: &Crypto,
        suite: Ciphersuite,
        interim: &[u8],
    ) -> Result<Transcript, Unreadable> {
        let confirmed = hash(crypto, suite, &[interim, self.confirmed_input].concat())?;
        let interim = hash(crypto, suite, &[&*confirmed, self.confirmation_tag].concat())?;
        Ok(Transcript { confirmed, interim })
    }
}

impl<'a> UnseenKeyPackage<'a> {
    pub(crate) fn read(key_package: &'a [u8]) -> Result<Self, Unreadable> {
        const PART: &str = "key package";
        let mut reader = Reader::new(key_package);
        reader.u16(PART)?;
        reader.u16(PART)?;
        reader.vector(PART)?;
        let mut leaf = reader;
        wire::skip_leaf_node(&mut reader)?;
        leaf.vector(PART)?;
        let signature_key = leaf.vector(PART)?;
        let kind = leaf.u16(PART)?;
        let credential = Credential::new(CredentialType::from(kind), leaf.vector(PART)?.to_vec());
        for _ in 0..5 {
            leaf.vector(PART)?;
        }
        if leaf.u8(PART)? != 1 {
            return Err(Unreadable("the leaf of a key package has no lifetime".into()));
        }
        leaf.u64(PART)?;
        let not_after = Timestamp(leaf.u64(PART)?.saturating_mul(1000));
        let last_resort = marks_last_resort(reader.vector(PART)?);
        Ok(Self { signature_key, credential, not_after, last_resort })
    }
}

/// The KeyPackageRef of a serialised key package (RFC 9420 §5.2).
pub(crate) fn key_package_reference(
    crypto: &Crypto,
    suite: Ciphersuite,
    key_package: &[u8],
) -> Result<KeyPackageRef, Unreadable> {
    let reference = reference_hash(crypto, suite, b"MLS 1.0 KeyPackage Reference", key_package)?;
    KeyPackageRef::new(reference).map_err(|error| Unreadable(error.to_string()))
}

/// The interim transcript hash of epoch 0, from the GroupInfo message that created a group.
pub(crate) fn first_interim_hash(
    crypto: &Crypto,
    suite: Ciphersuite,
    group: &GroupId,
    group_info: &[u8],
) -> Result<Vec<u8>, Unreadable> {
    let (format, body) = wire::message_body(group_info)?;
    if format != WireFormat::GroupInfo {
        return Err(Unreadable(format!("expected a GroupInfo, found a {}", format.name())));
    }
    let outline = wire::group_info_outline(body)?;
    if outline.group_id != group.as_bytes() {
        return Err(Unreadable("the group info is of another group".into()));
    }
    let mut input = Vec::new();
    write_vector_length(&mut input, outline.confirmation_tag.len());
    input.extend_from_slice(outline.confirmation_tag);
    hash(crypto, suite, &input)
}

/// The `ratchet_tree` extension of a GroupInfo message, if it has one.
pub(crate) fn carried_tree(group_info: &[u8]) -> Option<&[u8]> {
    let (format, body) = wire::message_body(group_info).ok()?;
    let outline = (format == WireFormat::GroupInfo).then(|| wire::group_info_outline(body).ok())?;
    outline?.ratchet_tree
}

/// The cipher suite of a number that a tracked group has.
pub(crate) fn cipher_suite(number: u16) -> Result<Ciphersuite, Unreadable> {
    Ciphersuite::try_from(number).map_err(|_| Unreadable(format!("cipher suite {number} is not known")))
}

fn handshake<'a>(
    group: &GroupId,
    packet: &'a [u8],
    expected: ContentKind,
) -> Result<(Epoch, PublicPart<'a>), Unreadable> {
    let (format, body) = wire::message_body(packet)?;
    let header = match format {
        WireFormat::PublicMessage => wire::header(format, body)?,
        WireFormat::PrivateMessage | WireFormat::Welcome | WireFormat::GroupInfo | WireFormat::KeyPackage => {
            return Err(Unreadable(format!("expected a PublicMessage, found a {}", format.name())));
        }
    };
    if header.group_id != group.as_bytes() {
        return Err(Unreadable("the packet was made for another group".into()));
    }
    match header.public {
        Some(public) if header.content == expected => Ok((header.epoch, public)),
        Some(_) | None => Err(Unreadable(format!("expected a {expected:?}"))),
    }
}

/// Reads over a proposal; answers the key package of an Add.
fn proposal<'a>(reader: &mut Reader<'a>) -> Result<Option<&'a [u8]>, Unreadable> {
    let mut content = *reader;
    let kind = content.u16("proposal")?;
    wire::skip_proposal(reader)?;
    let length = content.rest().len().saturating_sub(reader.rest().len());
    Ok(content.rest().get(..length).filter(|_| kind == ADD))
}

/// The packet from behind its protocol version to where a reader stands: wire format, content and signature.
fn authenticated<'a>(packet: &'a [u8], reader: Reader<'_>) -> Result<&'a [u8], Unreadable> {
    let version_bytes = size_of_val(&PROTOCOL_VERSION);
    let end = packet.len().saturating_sub(reader.rest().len());
    packet.get(version_bytes..end).ok_or_else(|| Unreadable("the packet ends early".into()))
}

fn end(sender: SenderKind, mut reader: Reader<'_>) -> Result<(), Unreadable> {
    if matches!(sender, SenderKind::Member(_)) {
        reader.vector("membership tag")?;
    }
    if reader.is_empty() { Ok(()) } else { Err(Unreadable("bytes follow the message".into())) }
}

fn reference_hash(
    crypto: &Crypto,
    suite: Ciphersuite,
    label: &[u8],
    value: &[u8],
) -> Result<Vec<u8>, Unreadable> {
    let mut input = Vec::with_capacity(label.len() + value.len() + 8);
    for part in [label, value] {
        write_vector_length(&mut input, part.len());
        input.extend_from_slice(part);
    }
    hash(crypto, suite, &input)
}

fn hash(crypto: &Crypto, suite: Ciphersuite, bytes: &[u8]) -> Result<Vec<u8>, Unreadable> {
    crypto.0.hash(suite.hash_algorithm(), bytes).map_err(|error| Unreadable(error.to_string()))
}
