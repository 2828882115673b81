//! MLS structures that must be read without the MLS library: message headers (to refuse a stale packet before any
//! cryptography), the outline of a commit (to count what the library does not count) and the unencrypted part of a
//! GroupInfo. Reads slices of the input and hardly allocates.

use std::collections::BTreeSet;

use snapshots::Epoch;

use super::syntax::is_known_proposal;

/// Bytes that are not the structure they should be, with the name of the part that was being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the message ends early or is malformed in its {0}")]
pub(crate) struct WireError(&'static str);

impl WireError {
    pub(crate) const fn in_part(part: &'static str) -> Self {
        Self(part)
    }
}

type Read<T> = Result<T, WireError>;

/// A cursor over TLS presentation language (RFC 9420 §2.1).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    fn take(&mut self, length: usize, part: &'static str) -> Read<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(WireError(part))?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, part: &'static str) -> Read<[u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(WireError(part))?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(crate) fn u8(&mut self, part: &'static str) -> Read<u8> {
        self.array::<1>(part).map(u8::from_be_bytes)
    }

    pub(crate) fn u16(&mut self, part: &'static str) -> Read<u16> {
        self.array(part).map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self, part: &'static str) -> Read<u32> {
        self.array(part).map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self, part: &'static str) -> Read<u64> {
        self.array(part).map(u64::from_be_bytes)
    }

    /// A variable-length vector's content (RFC 9420 §2.1.2); its length must be encoded minimally.
    pub(crate) fn vector(&mut self, part: &'static str) -> Read<&'a [u8]> {
        let first = self.u8(part)?;
        let low = u32::from(first & 0x3f);
        let (length, least) = match first >> 6 {
            0 => (low, 0),
            1 => ((low << 8) | u32::from(self.u8(part)?), 1 << 6),
            2 => {
                let [second, third, fourth] = self.array::<3>(part)?;
                (u32::from_be_bytes([first & 0x3f, second, third, fourth]), 1 << 14)
            }
            _ => return Err(WireError(part)),
        };
        if length < least {
            return Err(WireError(part));
        }
        self.take(usize::try_from(length).map_err(|_| WireError(part))?, part)
    }

    /// What has not been read.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The bytes between an earlier position of this reader and now.
    pub(super) fn since(&self, earlier: Reader<'a>) -> &'a [u8] {
        let length = earlier.rest.len().saturating_sub(self.rest.len());
        earlier.rest.get(..length).unwrap_or_default()
    }
}

/// Writes a variable-length vector's length prefix (RFC 9420 §2.1.2).
pub(crate) fn write_vector_length(out: &mut Vec<u8>, length: usize) {
    match u32::try_from(length).unwrap_or(u32::MAX) {
        short @ 0..0x40 => out.push(short.to_be_bytes()[3]),
        medium @ 0x40..0x4000 => {
            let [_, _, high, low] = medium.to_be_bytes();
            out.extend_from_slice(&[0x40 | high, low]);
        }
        long => {
            let [first, rest @ ..] = long.to_be_bytes();
            out.push(0x80 | first);
            out.extend_from_slice(&rest);
        }
    }
}

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

/// Whether a serialised `ratchet_tree` (RFC 9420 §12.4.3.3) is one leaf and nothing else. Nothing after the first node is
/// read.
pub(crate) fn is_one_leaf(tree: &[u8]) -> Read<bool> {
    const PART: &str = "ratchet tree";
    let mut reader = Reader::new(tree);
    let mut nodes = Reader::new(reader.vector(PART)?);
    if nodes.is_empty() {
        return Ok(false);
    }
    match nodes.u8(PART)? {
        0 => return Ok(false),
        1 => {}
        _ => return Err(WireError(PART)),
    }
    match nodes.u8(PART)? {
        1 => drop(skip_leaf_node(&mut nodes)?),
        2 => return Ok(false),
        _ => return Err(WireError(PART)),
    }
    match (nodes.is_empty(), reader.is_empty()) {
        (false, _) => Ok(false),
        (true, true) => Ok(true),
        (true, false) => Err(WireError(PART)),
    }
}

/// One node of a serialised `ratchet_tree` (RFC 9420 §12.4.3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NodeOutline<'a> {
    Blank,
    Leaf { bytes: &'a [u8] },
    Parent { bytes: &'a [u8], unmerged_leaves: &'a [u8] },
}

/// Splits a serialised `optional<Node> ratchet_tree<V>` into its nodes.
pub(crate) fn ratchet_tree_nodes(tree: &[u8]) -> Read<Vec<NodeOutline<'_>>> {
    let mut nodes = ratchet_tree_content(tree)?;
    let mut split = Vec::new();
    while !nodes.is_empty() {
        split.push(next_node(&mut nodes)?.0);
    }
    Ok(split)
}

const RATCHET_TREE: &str = "ratchet tree";

fn ratchet_tree_content(tree: &[u8]) -> Read<Reader<'_>> {
    let mut outer = Reader::new(tree);
    let nodes = Reader::new(outer.vector(RATCHET_TREE)?);
    if outer.is_empty() { Ok(nodes) } else { Err(WireError("ratchet tree: bytes follow it")) }
}

/// Reads one `optional<Node>`, and what its leaf lists.
fn next_node<'a>(reader: &mut Reader<'a>) -> Read<(NodeOutline<'a>, Listed)> {
    const PART: &str = RATCHET_TREE;
    match reader.u8(PART)? {
        0 => return Ok((NodeOutline::Blank, Listed::default())),
        1 => {}
        _ => return Err(WireError(PART)),
    }
    let start = *reader;
    match reader.u8(PART)? {
        1 => {
            let listed = skip_leaf_node(reader)?;
            Ok((NodeOutline::Leaf { bytes: reader.since(start) }, listed))
        }
        2 => {
            reader.vector(PART)?;
            reader.vector(PART)?;
            let unmerged_leaves = reader.vector(PART)?;
            let bytes = reader.since(start);
            Ok((NodeOutline::Parent { bytes, unmerged_leaves }, Listed::default()))
        }
        _ => Err(WireError(PART)),
    }
}

/// How much there is in a serialised ratchet tree (RFC 9420 §12.4.3.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TreeSize {
    /// Nodes, blank ones included.
    pub(crate) nodes: usize,
    /// What its leaves list together; their number is that of its members.
    pub(crate) listed: Listed,
}

/// Counts without keeping anything; `None` if there are more nodes than `nodes_max`; the rest is then not read.
pub(crate) fn ratchet_tree_size(tree: &[u8], nodes_max: usize) -> Read<Option<TreeSize>> {
    let mut rest = ratchet_tree_content(tree)?;
    let mut size = TreeSize::default();
    while !rest.is_empty() {
        if size.nodes >= nodes_max {
            return Ok(None);
        }
        let (_, listed) = next_node(&mut rest)?;
        size.nodes += 1;
        size.listed.add(listed);
    }
    Ok(Some(size))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn vector_lengths_are_read_back_and_must_be_minimal() {
        for length in [0_usize, 1, 63, 64, 16_383, 16_384, 70_000] {
            let mut bytes = Vec::new();
            write_vector_length(&mut bytes, length);
            bytes.resize(bytes.len() + length, 7);
            let mut reader = Reader::new(&bytes);
            assert_eq!(reader.vector("test").map(<[u8]>::len), Ok(length));
            assert!(reader.is_empty());
        }
        for padded in [&[0x40, 0x01, 0][..], &[0x80, 0, 0, 1, 0], &[0xc0, 0, 0, 0, 0, 0, 0, 0]] {
            assert!(Reader::new(padded).vector("test").is_err(), "{padded:?}");
        }
    }

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
