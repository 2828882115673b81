//! Outlines of MLS structures that must be read before or next to the MLS library: message headers (to refuse a stale packet
//! before any cryptography), the outline of a commit (to count what the library does not count) and the plain part of a
//! GroupInfo. They are slices of the input.

use std::collections::BTreeSet;

use snapshots::Epoch;

mod ratchet_tree;

pub(crate) use self::ratchet_tree::{
    NodeOutline, TreeSize, is_one_leaf, ratchet_tree_nodes, ratchet_tree_size,
};
use super::syntax::is_known_proposal;
use crate::presentation::{Read, Reader, WireError};

/// What kind of MLSMessage the bytes hold (RFC 9420 §6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WireFormat {
    PublicMessage,
    PrivateMessage,
    Welcome,
    GroupInfo,
    KeyPackage,
}

impl WireFormat {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::PublicMessage => "PublicMessage",
            Self::PrivateMessage => "PrivateMessage",
            Self::Welcome => "Welcome",
            Self::GroupInfo => "GroupInfo",
            Self::KeyPackage => "KeyPackage",
        }
    }
}

/// Reads `version` and `wire_format`; what follows is the body.
pub(crate) fn message_body(bytes: &[u8]) -> Read<(WireFormat, Reader<'_>)> {
    let mut reader = Reader::new(bytes);
    if reader.u16("protocol version")? != 1 {
        return Err(WireError("protocol version"));
    }
    let format = match reader.u16("wire format")? {
        1 => WireFormat::PublicMessage,
        2 => WireFormat::PrivateMessage,
        3 => WireFormat::Welcome,
        4 => WireFormat::GroupInfo,
        5 => WireFormat::KeyPackage,
        _ => return Err(WireError("wire format")),
    };
    Ok((format, reader))
}

/// Who framed a message (RFC 9420 §6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SenderKind {
    Member(u32),
    External(u32),
    NewMemberProposal,
    NewMemberCommit,
}

/// What a framed message carries (RFC 9420 §6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ContentKind {
    Application,
    Proposal,
    Commit,
}

impl ContentKind {
    /// Its name in RFC 9420.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Application => "application message",
            Self::Proposal => "proposal",
            Self::Commit => "commit",
        }
    }
}

/// The head of a handshake message: enough to route it and to tell whether it is stale.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header<'a> {
    pub(crate) group_id: &'a [u8],
    pub(crate) epoch: Epoch,
    pub(crate) content: ContentKind,
    /// `None` for a PrivateMessage, which an outsider cannot read.
    pub(crate) public: Option<PublicPart<'a>>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct PublicPart<'a> {
    pub(crate) sender: SenderKind,
    /// From the content itself to the end of the message.
    pub(crate) content: Reader<'a>,
}

impl PublicPart<'_> {
    /// The ProposalType of a proposal (RFC 9420 §12.1). `None` if it is cut short.
    pub(crate) fn proposal_type(&self) -> Option<u16> {
        let mut reader = self.content;
        reader.u16("proposal").ok()
    }

    /// What a proposal lists; nothing if it is malformed.
    pub(crate) fn listed_by_proposal(&self) -> Listed {
        let mut reader = self.content;
        skip_proposal(&mut reader).map(|(_, listed)| listed).unwrap_or_default()
    }

    /// The nonce's length in a PreSharedKey proposal whose key may be proposed: external, or resumption of
    /// application use (RFC 9420 §12.1.4). `None` for anything else.
    pub(crate) fn psk_nonce_length(&self) -> Option<usize> {
        const PART: &str = "pre-shared key";
        let mut reader = self.content;
        if reader.u16(PART).ok()? != 4 {
            return None;
        }
        match reader.u8(PART).ok()? {
            1 => {
                reader.vector(PART).ok()?;
            }
            2 => {
                if reader.u8(PART).ok()? != 1 {
                    return None;
                }
                reader.vector(PART).ok()?;
                reader.u64(PART).ok()?;
            }
            _ => return None,
        }
        reader.vector(PART).ok().map(<[u8]>::len)
    }

    /// The protocol version that a ReInit proposal asks for (RFC 9420 §12.1.5). `None` for anything else.
    pub(crate) fn reinit_version(&self) -> Option<u16> {
        const PART: &str = "re-initialisation";
        let mut reader = self.content;
        if reader.u16(PART).ok()? != 5 {
            return None;
        }
        reader.vector(PART).ok()?;
        reader.u16(PART).ok()
    }
}

fn content_kind(byte: u8) -> Read<ContentKind> {
    match byte {
        1 => Ok(ContentKind::Application),
        2 => Ok(ContentKind::Proposal),
        3 => Ok(ContentKind::Commit),
        _ => Err(WireError("content type")),
    }
}

/// Reads the header of a PublicMessage or PrivateMessage.
pub(crate) fn header(format: WireFormat, mut body: Reader<'_>) -> Read<Header<'_>> {
    let group_id = body.vector("group_id")?;
    let epoch = Epoch(body.u64("epoch")?);
    match format {
        WireFormat::PrivateMessage => {
            let content = content_kind(body.u8("content type")?)?;
            Ok(Header { group_id, epoch, content, public: None })
        }
        WireFormat::PublicMessage => {
            let sender = match body.u8("sender")? {
                1 => SenderKind::Member(body.u32("sender")?),
                2 => SenderKind::External(body.u32("sender")?),
                3 => SenderKind::NewMemberProposal,
                4 => SenderKind::NewMemberCommit,
                _ => return Err(WireError("sender")),
            };
            body.vector("authenticated data")?;
            let content = content_kind(body.u8("content type")?)?;
            Ok(Header { group_id, epoch, content, public: Some(PublicPart { sender, content: body }) })
        }
        WireFormat::Welcome | WireFormat::GroupInfo | WireFormat::KeyPackage => Err(WireError("wire format")),
    }
}

/// The ProposalType of an Add (RFC 9420 §17.4).
pub(crate) const ADD: u16 = 1;

/// What an outsider can count in a commit (RFC 9420 §12.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CommitOutline<'a> {
    pub(crate) proposals: usize,
    /// The references among the proposals, in order.
    pub(crate) references: Vec<&'a [u8]>,
    /// How many of the other proposals are Adds.
    pub(crate) adds: usize,
    /// The types of the other proposals, as far as the gateway does not know them.
    pub(crate) unknown_types: BTreeSet<u16>,
    /// What the other proposals and the path list.
    pub(crate) listed: Listed,
    /// For each node of the update path, how many ciphertexts it carries; `None` without a path.
    pub(crate) path_ciphertexts: Option<Vec<usize>>,
    /// The public key of each node of the update path.
    pub(crate) path_keys: Vec<&'a [u8]>,
    pub(crate) confirmation_tag: &'a [u8],
}

/// Reads a commit's outline from the content of a PublicMessage, to the end of the message.
///
/// At most `proposals_max` proposals are walked; `None` if there are more.
pub(crate) fn commit_outline(
    public: PublicPart<'_>,
    proposals_max: usize,
) -> Read<Option<CommitOutline<'_>>> {
    let mut reader = public.content;
    let mut list = Reader::new(reader.vector("list of proposals")?);
    let mut proposals = 0;
    let (mut references, mut unknown_types, mut listed) = (Vec::new(), BTreeSet::new(), Listed::default());
    let mut adds = 0;
    while !list.is_empty() {
        proposals += 1;
        if proposals > proposals_max {
            return Ok(None);
        }
        match list.u8("list of proposals")? {
            1 => {
                let (kind, of_proposal) = skip_proposal(&mut list)?;
                listed.add(of_proposal);
                adds += usize::from(kind == ADD);
                if !is_known_proposal(kind) {
                    unknown_types.insert(kind);
                }
            }
            2 => references.push(list.vector("proposal reference")?),
            _ => return Err(WireError("list of proposals")),
        }
    }
    let mut path_keys = Vec::new();
    let path_ciphertexts = match reader.u8("update path")? {
        0 => None,
        1 => {
            let (of_leaf, counts) = path_ciphertexts(&mut reader, &mut path_keys)?;
            listed.add(of_leaf);
            Some(counts)
        }
        _ => return Err(WireError("update path")),
    };
    reader.vector("signature")?;
    let confirmation_tag = reader.vector("confirmation tag")?;
    if matches!(public.sender, SenderKind::Member(_)) {
        reader.vector("membership tag")?;
    }
    if !reader.is_empty() {
        return Err(WireError("end: bytes follow the message"));
    }
    Ok(Some(CommitOutline {
        proposals,
        references,
        adds,
        unknown_types,
        listed,
        path_ciphertexts,
        path_keys,
        confirmation_tag,
    }))
}

/// Reads an update path (RFC 9420 §7.6); answers what its leaf lists and how many ciphertexts each node carries.
pub(super) fn path_ciphertexts<'a>(
    reader: &mut Reader<'a>,
    keys: &mut Vec<&'a [u8]>,
) -> Read<(Listed, Vec<usize>)> {
    let listed = skip_leaf_node(reader)?;
    let mut nodes = Reader::new(reader.vector("update path")?);
    let mut counts = Vec::new();
    while !nodes.is_empty() {
        keys.push(nodes.vector("update path")?);
        let mut ciphertexts = Reader::new(nodes.vector("update path")?);
        let mut count = 0;
        while !ciphertexts.is_empty() {
            ciphertexts.vector("path secret")?;
            ciphertexts.vector("path secret")?;
            count += 1;
        }
        counts.push(count);
    }
    Ok((listed, counts))
}

/// Answers the proposal's type and what it lists.
pub(super) fn skip_proposal(reader: &mut Reader<'_>) -> Read<(u16, Listed)> {
    const PART: &str = "proposal";
    let kind = reader.u16(PART)?;
    let mut listed = Listed::default();
    match kind {
        1 => {
            reader.u16(PART)?;
            reader.u16(PART)?;
            reader.vector(PART)?;
            listed = skip_leaf_node(reader)?;
            reader.vector(PART)?;
            reader.vector(PART)?;
        }
        2 => listed = skip_leaf_node(reader)?,
        3 => {
            reader.u32(PART)?;
        }
        4 => {
            match reader.u8(PART)? {
                1 => {
                    reader.vector(PART)?;
                }
                2 => {
                    reader.u8(PART)?;
                    reader.vector(PART)?;
                    reader.u64(PART)?;
                }
                _ => return Err(WireError(PART)),
            }
            reader.vector(PART)?;
        }
        5 => {
            reader.vector(PART)?;
            reader.u16(PART)?;
            reader.u16(PART)?;
            reader.vector(PART)?;
        }
        6 => {
            reader.vector(PART)?;
        }
        7 => listed = context_extensions(reader.vector(PART)?)?,
        // SelfRemove (MLS extensions draft) is an empty structure.
        0x000a => {}
        // A custom proposal is carried as one opaque vector.
        _ => {
            reader.vector(PART)?;
        }
    }
    Ok((kind, listed))
}

/// How much leaf nodes and lists of extensions enumerate: what has to be compared with the members of a group, and with
/// each other, grows with the product.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Listed {
    /// Leaf nodes.
    pub(crate) leaves: usize,
    /// Extension types among the capabilities of the leaves.
    pub(crate) extension_types: usize,
    /// Credential types among the capabilities of the leaves.
    pub(crate) credential_types: usize,
    /// Extensions for a group context.
    pub(crate) context_extensions: usize,
    /// Extension types that a group context would require.
    pub(crate) required_types: usize,
}

impl Listed {
    pub(crate) fn add(&mut self, other: Self) {
        self.leaves += other.leaves;
        self.extension_types += other.extension_types;
        self.credential_types += other.credential_types;
        self.context_extensions += other.context_extensions;
        self.required_types += other.required_types;
    }
}

/// What a list of extensions for a group context enumerates.
fn context_extensions(list: &[u8]) -> Read<Listed> {
    const PART: &str = "group context extensions";
    const REQUIRED_CAPABILITIES: u16 = 3;
    let (mut reader, mut listed) = (Reader::new(list), Listed::default());
    while !reader.is_empty() {
        listed.context_extensions += 1;
        let (kind, data) = (reader.u16(PART)?, reader.vector(PART)?);
        if kind == REQUIRED_CAPABILITIES {
            listed.required_types += Reader::new(data).vector(PART)?.len() / 2;
        }
    }
    Ok(listed)
}

/// Answers what the leaf lists.
pub(super) fn skip_leaf_node(reader: &mut Reader<'_>) -> Read<Listed> {
    const PART: &str = "leaf node";
    reader.vector(PART)?;
    reader.vector(PART)?;
    // Every credential type is a type and one vector (RFC 9420 §5.3).
    reader.u16(PART)?;
    reader.vector(PART)?;
    let mut capabilities = || reader.vector("capabilities").map(|list| list.len() / 2);
    let (_versions, _suites) = (capabilities()?, capabilities()?);
    let (extension_types, _proposals, credential_types) = (capabilities()?, capabilities()?, capabilities()?);
    match reader.u8("leaf node source")? {
        1 => {
            reader.u64(PART)?;
            reader.u64(PART)?;
        }
        2 => {}
        3 => {
            reader.vector(PART)?;
        }
        _ => return Err(WireError("leaf node source")),
    }
    reader.vector(PART)?;
    reader.vector(PART)?;
    Ok(Listed { leaves: 1, extension_types, credential_types, ..Listed::default() })
}

/// The parts of a GroupInfo (RFC 9420 §12.4.3).
#[derive(Clone, Copy, Debug)]
pub(crate) struct GroupInfoOutline<'a> {
    /// The serialised GroupContext.
    pub(crate) group_context: &'a [u8],
    pub(crate) group_id: &'a [u8],
    pub(crate) epoch: Epoch,
    pub(crate) confirmed_transcript_hash: &'a [u8],
    /// The content of the `ratchet_tree` extension: the tree with its length prefix.
    pub(crate) ratchet_tree: Option<&'a [u8]>,
    pub(crate) confirmation_tag: &'a [u8],
    pub(crate) signer: u32,
}

const EXTENSION_RATCHET_TREE: u16 = 0x0002;

/// Reads a GroupInfo to the end of its message.
pub(crate) fn group_info_outline(body: Reader<'_>) -> Read<GroupInfoOutline<'_>> {
    const PART: &str = "group context";
    let mut reader = body;
    reader.u16(PART)?;
    reader.u16(PART)?;
    let group_id = reader.vector(PART)?;
    let epoch = Epoch(reader.u64(PART)?);
    // tree_hash
    reader.vector(PART)?;
    let confirmed_transcript_hash = reader.vector(PART)?;
    reader.vector(PART)?;
    let group_context = reader.since(body);
    let mut extensions = Reader::new(reader.vector("group info extensions")?);
    let mut ratchet_tree = None;
    while !extensions.is_empty() {
        let kind = extensions.u16("group info extensions")?;
        let data = extensions.vector("group info extensions")?;
        if kind == EXTENSION_RATCHET_TREE && ratchet_tree.replace(data).is_some() {
            return Err(WireError("group info extensions: two ratchet trees"));
        }
    }
    let confirmation_tag = reader.vector("confirmation tag")?;
    let signer = reader.u32("signer")?;
    reader.vector("signature")?;
    if !reader.is_empty() {
        return Err(WireError("end: bytes follow the message"));
    }
    Ok(GroupInfoOutline {
        group_context,
        group_id,
        epoch,
        confirmed_transcript_hash,
        ratchet_tree,
        confirmation_tag,
        signer,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever arrives, reading it ends without a panic.
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..400), kind in 1_u8..6) {
            let mut framed = vec![0, 1, 0, kind];
            framed.extend_from_slice(&bytes);
            if let Ok((format, body)) = message_body(&framed) {
                let _ = group_info_outline(body);
                if let Ok(Header { public: Some(public), .. }) = header(format, body) {
                    let _ = commit_outline(public, 100);
                }
            }
            let nodes = ratchet_tree_nodes(&bytes).map(|nodes| nodes.len());
            let size = ratchet_tree_size(&bytes, usize::MAX).map(|size| size.unwrap().nodes);
            prop_assert_eq!(size, nodes);
        }
    }
}
