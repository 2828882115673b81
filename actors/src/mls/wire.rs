//! Outlines of MLS structures: message headers, to refuse a stale packet before any cryptography, and the plain part of a
//! GroupInfo. They are slices of the input.

use snapshots::Epoch;

mod ratchet_tree;

pub(crate) use self::ratchet_tree::{TreeSize, is_one_leaf, ratchet_tree_size};
use super::{
    CipherSuite,
    extensions::{Home, read_extensions},
};
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
    /// What is signed.
    unsigned: &'a [u8],
    signature: &'a [u8],
}

impl GroupInfoOutline<'_> {
    /// Whether it is signed by a key (RFC 9420 §12.4.3).
    pub(super) fn is_signed_by(&self, suite: CipherSuite, key: &[u8]) -> bool {
        suite.verify_with_label(key, "GroupInfoTBS", &[self.unsigned], self.signature).is_ok()
    }
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
    let mut ratchet_tree = None;
    read_extensions(reader.vector("group info extensions")?, Home::GroupInfo, |kind, data| {
        if kind == EXTENSION_RATCHET_TREE {
            ratchet_tree = Some(data);
        }
    })?;
    let confirmation_tag = reader.vector("confirmation tag")?;
    let signer = reader.u32("signer")?;
    let unsigned = reader.since(body);
    let signature = reader.vector("signature")?;
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
        unsigned,
        signature,
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
                let _ = header(format, body);
            }
            let _ = ratchet_tree_size(&bytes, usize::MAX);
        }
    }
}
