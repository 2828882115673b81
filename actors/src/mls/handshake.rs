//! Handshake messages on the wire: commits and proposals in PublicMessages (RFC 9420 §6, §12). They are slices of the input;
//! nothing is verified.

use super::{
    Refusal, RequestMember, WIRE_FORMAT,
    extensions::{Home, read_extensions},
    leaf::{KeyPackage, LeafNode},
    wire::{self, ContentKind, SenderKind, WireFormat},
};
use crate::presentation::{Read, Reader, WireError};

/// Types of proposals (RFC 9420 §17.4, and the registry's additions of the MLS extensions draft).
pub(super) mod proposal_type {
    pub(crate) const ADD: u16 = 1;
    pub(crate) const UPDATE: u16 = 2;
    pub(crate) const REMOVE: u16 = 3;
    pub(crate) const PSK: u16 = 4;
    pub(crate) const REINIT: u16 = 5;
    pub(crate) const EXTERNAL_INIT: u16 = 6;
    pub(crate) const GROUP_CONTEXT_EXTENSIONS: u16 = 7;
    pub(crate) const APP_DATA_UPDATE: u16 = 8;
    pub(crate) const APP_EPHEMERAL: u16 = 9;
    pub(crate) const SELF_REMOVE: u16 = 10;
}
use proposal_type as types;

/// Whether every client supports proposals of a type without listing it (RFC 9420 §7.2).
pub(super) fn is_default_proposal(kind: u16) -> bool {
    matches!(kind, types::ADD..=types::GROUP_CONTEXT_EXTENSIONS)
}

/// A PublicMessage that carries a proposal or a commit (RFC 9420 §6.2).
#[derive(Clone, Debug)]
pub(crate) struct Handshake<'a> {
    pub(crate) sender: SenderKind,
    pub(crate) content: HandshakeContent<'a>,
    /// From the protocol version to the end of the FramedContent: what is signed, before the context of a group.
    signed: &'a [u8],
    /// From the wire format to the end of the signature: the input of the confirmed transcript hash (RFC 9420 §8.2).
    confirmed_input: &'a [u8],
    /// From the wire format to the end of the FramedContentAuthData: the AuthenticatedContent (RFC 9420 §6.1).
    authenticated: &'a [u8],
    signature: &'a [u8],
    confirmation_tag: Option<&'a [u8]>,
}

#[derive(Clone, Debug)]
pub(crate) enum HandshakeContent<'a> {
    Proposal(Proposal<'a>),
    Commit(Commit<'a>),
}

impl<'a> Handshake<'a> {
    /// Reads what must be the PublicMessage of a commit or proposal. A commit is read to `proposals_max` proposals; `None`
    /// if it carries more.
    ///
    /// # Errors
    /// Where the packet is malformed, or that it is something else.
    pub(crate) fn read(
        member: RequestMember,
        packet: &'a [u8],
        expected: ContentKind,
        proposals_max: usize,
    ) -> Result<Option<Self>, Refusal> {
        let unreadable = |_| Refusal::unreadable(member, packet);
        let (format, body) = wire::message_body(packet).map_err(unreadable)?;
        if format != WireFormat::PublicMessage {
            return Err(Refusal::unexpected(member, WIRE_FORMAT, format.name(), "PublicMessage"));
        }
        let header = wire::header(format, body).map_err(unreadable)?;
        let Some(public) = header.public.filter(|_| header.content == expected) else {
            return Err(Refusal::unexpected(member, WIRE_FORMAT, header.content.name(), expected.name()));
        };
        let of_version = Reader::new(packet);
        let mut of_format = of_version;
        of_format.u16("protocol version").map_err(unreadable)?;
        Self::read_content(public, (of_version, of_format), expected, proposals_max).map_err(unreadable)
    }

    fn read_content(
        public: wire::PublicPart<'a>,
        (of_version, of_format): (Reader<'a>, Reader<'a>),
        expected: ContentKind,
        proposals_max: usize,
    ) -> Read<Option<Self>> {
        let mut reader = public.content;
        let content = match expected {
            ContentKind::Commit => match Commit::read(&mut reader, proposals_max)? {
                Some(commit) => HandshakeContent::Commit(commit),
                None => return Ok(None),
            },
            ContentKind::Proposal => HandshakeContent::Proposal(Proposal::read(&mut reader)?),
            ContentKind::Application => return Err(WireError::in_part("content type")),
        };
        let signed = reader.since(of_version);
        let signature = reader.vector("signature")?;
        let confirmed_input = reader.since(of_format);
        let confirmation_tag = match content {
            HandshakeContent::Commit(_) => Some(reader.vector("confirmation tag")?),
            HandshakeContent::Proposal(_) => None,
        };
        let authenticated = reader.since(of_format);
        if matches!(public.sender, SenderKind::Member(_)) {
            reader.vector("membership tag")?;
        }
        if !reader.is_empty() {
            return Err(WireError::in_part("end: bytes follow the message"));
        }
        Ok(Some(Self {
            sender: public.sender,
            content,
            signed,
            confirmed_input,
            authenticated,
            signature,
            confirmation_tag,
        }))
    }

    /// The commit; `None` for a proposal.
    pub(crate) fn commit(&self) -> Option<&Commit<'a>> {
        match &self.content {
            HandshakeContent::Commit(commit) => Some(commit),
            HandshakeContent::Proposal(_) => None,
        }
    }

    /// The proposal; `None` for a commit.
    pub(crate) fn proposal(&self) -> Option<Proposal<'a>> {
        match self.content {
            HandshakeContent::Proposal(proposal) => Some(proposal),
            HandshakeContent::Commit(_) => None,
        }
    }

    pub(super) fn confirmation_tag(&self) -> &'a [u8] {
        self.confirmation_tag.unwrap_or_default()
    }

    pub(super) fn confirmed_input(&self) -> &'a [u8] {
        self.confirmed_input
    }

    /// The ProposalRef (RFC 9420 §5.2).
    pub(super) fn proposal_reference(&self, suite: super::CipherSuite) -> super::Digest {
        suite.ref_hash("MLS 1.0 Proposal Reference", self.authenticated)
    }

    /// Whether the message is signed by a key in a group with this serialised GroupContext (RFC 9420 §6.1).
    pub(super) fn is_signed_by(&self, suite: super::CipherSuite, key: &[u8], context: &[u8]) -> bool {
        let context = match self.sender {
            SenderKind::Member(_) | SenderKind::NewMemberCommit => context,
            SenderKind::External(_) | SenderKind::NewMemberProposal => &[],
        };
        suite.verify_with_label(key, "FramedContentTBS", &[self.signed, context], self.signature).is_ok()
    }
}

/// A proposal (RFC 9420 §12.1).
#[derive(Clone, Copy, Debug)]
pub(crate) enum Proposal<'a> {
    Add(KeyPackage<'a>),
    Update(LeafNode<'a>),
    /// The leaf index.
    Remove(u32),
    PreSharedKey(PreSharedKeyId<'a>),
    ReInit(ReInit),
    ExternalInit,
    /// The content of the list of extensions.
    GroupContextExtensions(&'a [u8]),
    SelfRemove,
    /// Changes or removes the data of an application component (MLS extensions draft).
    AppDataUpdate {
        component: u16,
        removes: bool,
    },
    /// A type that RFC 9420 does not define. What it means is the members' business.
    Other(u16),
}

/// The identifier of a pre-shared key (RFC 9420 §8.4).
#[derive(Clone, Copy, Debug)]
pub(crate) struct PreSharedKeyId<'a> {
    /// The whole structure.
    pub(crate) bytes: &'a [u8],
    pub(crate) kind: PskKind,
    pub(crate) nonce: &'a [u8],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PskKind {
    External,
    /// A key of an earlier group or epoch, with its ResumptionPSKUsage.
    Resumption {
        usage: u8,
    },
    /// A key of an application component (MLS extensions draft).
    Application,
}

/// The ResumptionPSKUsage `application`: the only one that may be proposed outside a re-initialisation or a branch.
pub(crate) const USAGE_APPLICATION: u8 = 1;

/// A ReInit (RFC 9420 §12.1.5), as far as it is checked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReInit {
    pub(crate) version: u16,
}

impl<'a> Proposal<'a> {
    pub(crate) fn read(reader: &mut Reader<'a>) -> Read<Self> {
        const PART: &str = "proposal";
        Ok(match reader.u16(PART)? {
            types::ADD => Self::Add(KeyPackage::read(reader)?),
            types::UPDATE => Self::Update(LeafNode::read(reader)?),
            types::REMOVE => Self::Remove(reader.u32(PART)?),
            types::PSK => Self::PreSharedKey(PreSharedKeyId::read(reader)?),
            types::REINIT => {
                reader.vector(PART)?;
                let version = reader.u16(PART)?;
                reader.u16(PART)?;
                read_extensions(reader.vector(PART)?, Home::GroupContext, |_, _| {})?;
                Self::ReInit(ReInit { version })
            }
            types::EXTERNAL_INIT => {
                reader.vector(PART)?;
                Self::ExternalInit
            }
            types::GROUP_CONTEXT_EXTENSIONS => {
                let list = reader.vector(PART)?;
                read_extensions(list, Home::GroupContext, |_, _| {})?;
                Self::GroupContextExtensions(list)
            }
            types::SELF_REMOVE => Self::SelfRemove,
            types::APP_DATA_UPDATE => {
                let component = reader.u16(PART)?;
                match reader.u8(PART)? {
                    1 => {
                        reader.vector(PART)?;
                        Self::AppDataUpdate { component, removes: false }
                    }
                    2 => Self::AppDataUpdate { component, removes: true },
                    _ => return Err(WireError::in_part("operation of an AppDataUpdate")),
                }
            }
            kind @ types::APP_EPHEMERAL => {
                reader.u16(PART)?;
                reader.vector(PART)?;
                Self::Other(kind)
            }
            // Clients that define their own types write them as one vector.
            kind => {
                reader.vector(PART)?;
                Self::Other(kind)
            }
        })
    }

    /// Its ProposalType (RFC 9420 §17.4).
    pub(crate) fn kind(&self) -> u16 {
        match self {
            Self::Add(_) => types::ADD,
            Self::Update(_) => types::UPDATE,
            Self::Remove(_) => types::REMOVE,
            Self::PreSharedKey(_) => types::PSK,
            Self::ReInit(_) => types::REINIT,
            Self::ExternalInit => types::EXTERNAL_INIT,
            Self::GroupContextExtensions(_) => types::GROUP_CONTEXT_EXTENSIONS,
            Self::SelfRemove => types::SELF_REMOVE,
            Self::AppDataUpdate { .. } => types::APP_DATA_UPDATE,
            Self::Other(kind) => *kind,
        }
    }

    /// The leaf whose node the proposal replaces or takes out, if a sender makes it.
    pub(crate) fn replaced_leaf(&self, sender: SenderKind) -> Option<u32> {
        match (self, sender) {
            (Self::Remove(leaf), _) => Some(*leaf),
            (Self::Update(_) | Self::SelfRemove, SenderKind::Member(leaf)) => Some(leaf),
            _ => None,
        }
    }

    /// Whether a commit of the proposal needs an update path (RFC 9420 §17.4).
    pub(crate) fn needs_path(&self) -> bool {
        match self {
            Self::Update(_)
            | Self::Remove(_)
            | Self::ExternalInit
            | Self::GroupContextExtensions(_)
            | Self::SelfRemove => true,
            Self::Add(_)
            | Self::PreSharedKey(_)
            | Self::ReInit(_)
            | Self::AppDataUpdate { .. }
            | Self::Other(_) => false,
        }
    }
}

impl<'a> PreSharedKeyId<'a> {
    fn read(reader: &mut Reader<'a>) -> Read<Self> {
        const PART: &str = "pre-shared key";
        let start = *reader;
        let kind = match reader.u8(PART)? {
            1 => {
                reader.vector(PART)?;
                PskKind::External
            }
            2 => {
                let usage = reader.u8(PART)?;
                reader.vector(PART)?;
                reader.u64(PART)?;
                PskKind::Resumption { usage }
            }
            3 => {
                reader.u16(PART)?;
                reader.vector(PART)?;
                PskKind::Application
            }
            _ => return Err(WireError::in_part(PART)),
        };
        let nonce = reader.vector(PART)?;
        Ok(Self { bytes: reader.since(start), kind, nonce })
    }
}

/// A proposal in a commit (RFC 9420 §12.4).
#[expect(clippy::large_enum_variant, reason = "a commit that refers to proposals has few of them")]
#[derive(Clone, Copy, Debug)]
pub(crate) enum ProposalOrRef<'a> {
    Proposal(Proposal<'a>),
    Reference(&'a [u8]),
}

/// A commit (RFC 9420 §12.4).
#[derive(Clone, Debug)]
pub(crate) struct Commit<'a> {
    pub(crate) proposals: Vec<ProposalOrRef<'a>>,
    pub(crate) path: Option<UpdatePath<'a>>,
}

/// An update path (RFC 9420 §7.6).
#[derive(Clone, Debug)]
pub(crate) struct UpdatePath<'a> {
    pub(crate) leaf: LeafNode<'a>,
    pub(crate) nodes: Vec<UpdatePathNode<'a>>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct UpdatePathNode<'a> {
    pub(crate) encryption_key: &'a [u8],
    /// How many ciphertexts of its path secret it carries.
    pub(crate) ciphertexts: usize,
}

impl<'a> Commit<'a> {
    fn read(reader: &mut Reader<'a>, proposals_max: usize) -> Read<Option<Self>> {
        let mut list = Reader::new(reader.vector("list of proposals")?);
        let mut proposals = Vec::new();
        while !list.is_empty() {
            if proposals.len() >= proposals_max {
                return Ok(None);
            }
            proposals.push(match list.u8("list of proposals")? {
                1 => ProposalOrRef::Proposal(Proposal::read(&mut list)?),
                2 => ProposalOrRef::Reference(list.vector("proposal reference")?),
                _ => return Err(WireError::in_part("list of proposals")),
            });
        }
        let path = match reader.u8("update path")? {
            0 => None,
            1 => Some(UpdatePath::read(reader)?),
            _ => return Err(WireError::in_part("update path")),
        };
        Ok(Some(Self { proposals, path }))
    }

    /// The references among the proposals, in order.
    pub(crate) fn references(&self) -> impl Iterator<Item = &'a [u8]> {
        self.proposals.iter().filter_map(|listed| match listed {
            ProposalOrRef::Reference(reference) => Some(*reference),
            ProposalOrRef::Proposal(_) => None,
        })
    }
}

impl<'a> UpdatePath<'a> {
    fn read(reader: &mut Reader<'a>) -> Read<Self> {
        const PART: &str = "update path";
        let leaf = LeafNode::read(reader)?;
        let mut list = Reader::new(reader.vector(PART)?);
        let mut nodes = Vec::new();
        while !list.is_empty() {
            let encryption_key = list.vector(PART)?;
            let mut secrets = Reader::new(list.vector(PART)?);
            let mut ciphertexts = 0;
            while !secrets.is_empty() {
                secrets.vector("path secret")?;
                secrets.vector("path secret")?;
                ciphertexts += 1;
            }
            nodes.push(UpdatePathNode { encryption_key, ciphertexts });
        }
        Ok(Self { leaf, nodes })
    }
}
