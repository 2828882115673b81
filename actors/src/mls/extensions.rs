//! Lists of extensions (RFC 9420 §13.4), and what the extensions of a GroupContext ask of its members (§11.1).

use std::{collections::BTreeSet, sync::Arc};

use super::{
    UnknownKind,
    leaf::{LeafNode, Numbers, read_credential},
    syntax::LAST_RESORT,
};
use crate::{
    identity::{Credential, GroupContextExtensions},
    presentation::{Read, Reader, WireError},
};

/// Types of extensions (RFC 9420 §17.3).
const APPLICATION_ID: u16 = 1;
const RATCHET_TREE: u16 = 2;
const REQUIRED_CAPABILITIES: u16 = 3;
const EXTERNAL_PUB: u16 = 4;
const EXTERNAL_SENDERS: u16 = 5;

/// Whether every client supports extensions of a type without listing it (RFC 9420 §7.2).
pub(super) fn is_default_extension(kind: u16) -> bool {
    matches!(kind, APPLICATION_ID..=EXTERNAL_SENDERS)
}

/// Where a list of extensions is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Home {
    LeafNode,
    KeyPackage,
    GroupContext,
    GroupInfo,
}

impl Home {
    /// Whether an extension of a type may be here (RFC 9420 §17.3, Table 8).
    pub(super) fn admits(self, kind: u16) -> bool {
        match kind {
            APPLICATION_ID => self == Self::LeafNode,
            RATCHET_TREE | EXTERNAL_PUB => self == Self::GroupInfo,
            REQUIRED_CAPABILITIES | EXTERNAL_SENDERS => self == Self::GroupContext,
            LAST_RESORT => self == Self::KeyPackage,
            _ => true,
        }
    }
}

/// Reads a list of extensions: no type comes twice, each may be where it is, and the data of those that RFC 9420 defines is well
/// formed.
pub(super) fn read_extensions<'a>(
    list: &'a [u8],
    home: Home,
    mut visit: impl FnMut(u16, &'a [u8]),
) -> Read<()> {
    const PART: &str = "extensions";
    let mut reader = Reader::new(list);
    let mut seen = BTreeSet::new();
    while !reader.is_empty() {
        let kind = reader.u16(PART)?;
        let data = reader.vector(PART)?;
        if !home.admits(kind) || !seen.insert(kind) {
            return Err(WireError::in_part(PART));
        }
        let mut content = Reader::new(data);
        match kind {
            APPLICATION_ID | RATCHET_TREE | EXTERNAL_PUB => drop(content.vector(PART)?),
            REQUIRED_CAPABILITIES => {
                for _ in 0..3 {
                    Numbers::read(&mut content, PART)?;
                }
            }
            EXTERNAL_SENDERS => {
                let mut senders = Reader::new(content.vector(PART)?);
                while !senders.is_empty() {
                    ExternalSenderOutline::read(&mut senders)?;
                }
            }
            LAST_RESORT => {}
            _ => content = Reader::new(&[]),
        }
        if !content.is_empty() {
            return Err(WireError::in_part(PART));
        }
        visit(kind, data);
    }
    Ok(())
}

/// An external sender of a group (RFC 9420 §12.1.8.1).
#[derive(Clone, Copy, Debug)]
pub(super) struct ExternalSenderOutline<'a> {
    pub(super) signature_key: &'a [u8],
    pub(super) credential: Credential<'a>,
}

impl<'a> ExternalSenderOutline<'a> {
    fn read(reader: &mut Reader<'a>) -> Read<Self> {
        let signature_key = reader.vector("external sender")?;
        Ok(Self { signature_key, credential: read_credential(reader)? })
    }
}

/// The extensions of a GroupContext (RFC 9420 §8.1).
#[derive(Clone, Debug)]
pub(super) struct ContextExtensions {
    /// The content of the list.
    bytes: Arc<[u8]>,
    needs: Arc<Needs>,
}

impl PartialEq for ContextExtensions {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for ContextExtensions {}

impl ContextExtensions {
    /// Reads the content of the list.
    pub(super) fn read(list: &[u8]) -> Read<Self> {
        let mut needs = Needs::default();
        read_extensions(list, Home::GroupContext, |kind, data| needs.add(kind, data))?;
        Ok(Self { bytes: list.into(), needs: Arc::new(needs) })
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The form in which identity providers get them.
    pub(super) fn for_provider(&self) -> GroupContextExtensions<'_> {
        GroupContextExtensions::new(&self.bytes)
    }

    pub(super) fn needs(&self) -> &Needs {
        &self.needs
    }

    /// The external senders, in order; none without the extension.
    pub(super) fn external_senders(&self) -> impl Iterator<Item = ExternalSenderOutline<'_>> {
        let data = self.for_provider().get(EXTERNAL_SENDERS).unwrap_or_default();
        let mut senders = Reader::new(Reader::new(data).vector("external senders").unwrap_or_default());
        std::iter::from_fn(move || {
            if senders.is_empty() { None } else { ExternalSenderOutline::read(&mut senders).ok() }
        })
    }
}

/// What a leaf must support to be in a group with some GroupContext extensions (RFC 9420 §7.2, §11.1), besides what every
/// client supports. Types are counted once, however often they are listed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Needs {
    /// The extensions themselves.
    pub(super) extensions: BTreeSet<u16>,
    pub(super) required_extensions: BTreeSet<u16>,
    pub(super) required_proposals: BTreeSet<u16>,
    pub(super) required_credentials: BTreeSet<u16>,
}

/// What a leaf lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Lack {
    #[error("a leaf does not support the extension {0:#06x} of the group")]
    Extension(u16),
    #[error("a leaf does not support the {0} type {1:#06x}, which the group requires")]
    Required(UnknownKind, u16),
}

impl Needs {
    fn add(&mut self, kind: u16, data: &[u8]) {
        if !is_default_extension(kind) {
            self.extensions.insert(kind);
        }
        if kind == REQUIRED_CAPABILITIES {
            let mut reader = Reader::new(data);
            let mut list = || Numbers::read(&mut reader, "required capabilities").ok();
            let (extensions, proposals, credentials) = (list(), list(), list());
            let of = |list: Option<Numbers<'_>>| list.map(Numbers::distinct).unwrap_or_default();
            self.required_extensions
                .extend(of(extensions).iter().filter(|kind| !is_default_extension(**kind)));
            self.required_proposals
                .extend(of(proposals).iter().filter(|kind| !super::handshake::is_default_proposal(**kind)));
            self.required_credentials.extend(of(credentials));
        }
    }

    /// What a leaf lacks. Goes once over what the leaf supports.
    pub(super) fn lack_of(&self, leaf: &LeafNode<'_>) -> Option<Lack> {
        let required = |kind| move |value| Lack::Required(kind, value);
        leaf.supported_extensions
            .missing(&self.extensions)
            .map(Lack::Extension)
            .or_else(|| {
                leaf.supported_extensions
                    .missing(&self.required_extensions)
                    .map(required(UnknownKind::Extension))
            })
            .or_else(|| {
                leaf.supported_proposals
                    .missing(&self.required_proposals)
                    .map(required(UnknownKind::Proposal))
            })
            .or_else(|| {
                leaf.supported_credentials
                    .missing(&self.required_credentials)
                    .map(required(UnknownKind::Credential))
            })
    }

    /// Each needed type, with what a leaf lacks that does not support it.
    pub(super) fn each(&self) -> impl Iterator<Item = (UnknownKind, u16, Lack)> {
        let extensions =
            self.extensions.iter().map(|kind| (UnknownKind::Extension, *kind, Lack::Extension(*kind)));
        let required = [
            (UnknownKind::Extension, &self.required_extensions),
            (UnknownKind::Proposal, &self.required_proposals),
            (UnknownKind::Credential, &self.required_credentials),
        ];
        extensions.chain(
            required
                .into_iter()
                .flat_map(|(of, kinds)| kinds.iter().map(move |kind| (of, *kind, Lack::Required(of, *kind)))),
        )
    }
}
