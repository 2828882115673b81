//! The structures of RFC 9420 and of the MLS extensions draft, with every field open to change.

#![expect(missing_docs, reason = "the fields have the names of RFC 9420, which describes them")]

use crate::{
    crypto::{Invalid, SigningKey, Suite},
    tls::{Malformed, Reader, Tls, structures},
};

/// The version of the protocol.
pub const MLS_10: u16 = 1;

/// How messages are framed (RFC 9420 §6, `WireFormat`).
pub mod wire_format {
    /// PublicMessage.
    pub const PUBLIC_MESSAGE: u16 = 1;
    /// PrivateMessage.
    pub const PRIVATE_MESSAGE: u16 = 2;
    /// Welcome.
    pub const WELCOME: u16 = 3;
    /// GroupInfo.
    pub const GROUP_INFO: u16 = 4;
    /// KeyPackage.
    pub const KEY_PACKAGE: u16 = 5;
}

/// Types of extensions (RFC 9420 §17.3; the MLS extensions draft, *IANA Considerations*).
pub mod extension {
    pub const APPLICATION_ID: u16 = 1;
    pub const RATCHET_TREE: u16 = 2;
    pub const REQUIRED_CAPABILITIES: u16 = 3;
    pub const EXTERNAL_PUB: u16 = 4;
    pub const EXTERNAL_SENDERS: u16 = 5;
    pub const APP_DATA_DICTIONARY: u16 = 6;
    pub const LAST_RESORT: u16 = 10;
}

/// Types of proposals (RFC 9420 §17.4; the MLS extensions draft, *IANA Considerations*).
pub mod proposal {
    pub const ADD: u16 = 1;
    pub const UPDATE: u16 = 2;
    pub const REMOVE: u16 = 3;
    pub const PSK: u16 = 4;
    pub const RE_INIT: u16 = 5;
    pub const EXTERNAL_INIT: u16 = 6;
    pub const GROUP_CONTEXT_EXTENSIONS: u16 = 7;
    pub const APP_DATA_UPDATE: u16 = 8;
    pub const APP_EPHEMERAL: u16 = 9;
    pub const SELF_REMOVE: u16 = 10;
}

structures! {
    /// RFC 9420 §7.2.
    pub struct Capabilities {
        pub versions: Vec<u16>,
        pub cipher_suites: Vec<u16>,
        pub extensions: Vec<u16>,
        pub proposals: Vec<u16>,
        pub credentials: Vec<u16>,
    }

    /// RFC 9420 §7.2. Both ends belong to it, in Unix seconds.
    pub struct Lifetime {
        pub not_before: u64,
        pub not_after: u64,
    }

    /// RFC 9420 §13.
    pub struct Extension {
        pub kind: u16,
        pub data: Vec<u8>,
    }

    /// RFC 9420 §11.1.
    pub struct RequiredCapabilities {
        pub extension_types: Vec<u16>,
        pub proposal_types: Vec<u16>,
        pub credential_types: Vec<u16>,
    }

    /// RFC 9420 §12.1.8.1.
    pub struct ExternalSender {
        pub signature_key: Vec<u8>,
        pub credential: Credential,
    }

    /// RFC 9420 §7.2.
    pub struct LeafNode {
        pub encryption_key: Vec<u8>,
        pub signature_key: Vec<u8>,
        pub credential: Credential,
        pub capabilities: Capabilities,
        pub source: LeafNodeSource,
        pub extensions: Vec<Extension>,
        pub signature: Vec<u8>,
    }

    /// RFC 9420 §10.
    pub struct KeyPackage {
        pub version: u16,
        pub cipher_suite: u16,
        pub init_key: Vec<u8>,
        pub leaf_node: LeafNode,
        pub extensions: Vec<Extension>,
        pub signature: Vec<u8>,
    }

    /// RFC 9420 §8.4.
    pub struct PreSharedKeyId {
        pub psk: Psk,
        pub psk_nonce: Vec<u8>,
    }

    /// RFC 9420 §12.1.5.
    pub struct ReInit {
        pub group_id: Vec<u8>,
        pub version: u16,
        pub cipher_suite: u16,
        pub extensions: Vec<Extension>,
    }

    /// RFC 9420 §7.6.
    pub struct HpkeCiphertext {
        pub kem_output: Vec<u8>,
        pub ciphertext: Vec<u8>,
    }

    /// RFC 9420 §7.6.
    pub struct UpdatePathNode {
        pub encryption_key: Vec<u8>,
        pub encrypted_path_secret: Vec<HpkeCiphertext>,
    }

    /// RFC 9420 §7.6.
    pub struct UpdatePath {
        pub leaf_node: LeafNode,
        pub nodes: Vec<UpdatePathNode>,
    }

    /// RFC 9420 §12.4.
    pub struct Commit {
        pub proposals: Vec<ProposalOrRef>,
        pub path: Option<UpdatePath>,
    }

    /// RFC 9420 §6.
    pub struct FramedContent {
        pub group_id: Vec<u8>,
        pub epoch: u64,
        pub sender: Sender,
        pub authenticated_data: Vec<u8>,
        pub content: Content,
    }

    /// RFC 9420 §8.1.
    pub struct GroupContext {
        pub version: u16,
        pub cipher_suite: u16,
        pub group_id: Vec<u8>,
        pub epoch: u64,
        pub tree_hash: Vec<u8>,
        pub confirmed_transcript_hash: Vec<u8>,
        pub extensions: Vec<Extension>,
    }

    /// RFC 9420 §12.4.3.
    pub struct GroupInfo {
        pub group_context: GroupContext,
        pub extensions: Vec<Extension>,
        pub confirmation_tag: Vec<u8>,
        pub signer: u32,
        pub signature: Vec<u8>,
    }

    /// RFC 9420 §12.4.3.1.
    pub struct EncryptedGroupSecrets {
        pub new_member: Vec<u8>,
        pub encrypted_group_secrets: HpkeCiphertext,
    }

    /// RFC 9420 §12.4.3.1.
    pub struct Welcome {
        pub cipher_suite: u16,
        pub secrets: Vec<EncryptedGroupSecrets>,
        pub encrypted_group_info: Vec<u8>,
    }
}

/// RFC 9420 §5.3.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// The identity.
    Basic(Vec<u8>),
    /// The certificates, the client's own first.
    X509(Vec<Vec<u8>>),
    /// One vector under another type.
    Other(u16, Vec<u8>),
}

impl Credential {
    /// Its type.
    pub fn kind(&self) -> u16 {
        match self {
            Self::Basic(_) => 1,
            Self::X509(_) => 2,
            Self::Other(kind, _) => *kind,
        }
    }
}

impl Tls for Credential {
    fn write(&self, out: &mut Vec<u8>) {
        self.kind().write(out);
        match self {
            Self::Basic(bytes) | Self::Other(_, bytes) => bytes.write(out),
            Self::X509(chain) => chain.write(out),
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(match u16::read(from)? {
            1 => Self::Basic(Tls::read(from)?),
            2 => Self::X509(Tls::read(from)?),
            kind => Self::Other(kind, Tls::read(from)?),
        })
    }
}

/// The origin of a leaf node (RFC 9420 §7.2, `leaf_node_source`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeafNodeSource {
    /// A key package.
    KeyPackage(Lifetime),
    /// An Update.
    Update,
    /// An update path, with the leaf's parent hash.
    Commit(Vec<u8>),
}

impl Tls for LeafNodeSource {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::KeyPackage(lifetime) => {
                out.push(1);
                lifetime.write(out);
            }
            Self::Update => out.push(2),
            Self::Commit(parent_hash) => {
                out.push(3);
                parent_hash.write(out);
            }
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        match u8::read(from)? {
            1 => Ok(Self::KeyPackage(Tls::read(from)?)),
            2 => Ok(Self::Update),
            3 => Ok(Self::Commit(Tls::read(from)?)),
            _ => Err(Malformed),
        }
    }
}

impl LeafNode {
    /// What its signature covers; the place is that of a leaf in an Update or a path.
    fn to_be_signed(&self, group_id: &[u8], leaf_index: u32) -> Vec<u8> {
        let mut out = Vec::new();
        self.encryption_key.write(&mut out);
        self.signature_key.write(&mut out);
        self.credential.write(&mut out);
        self.capabilities.write(&mut out);
        self.source.write(&mut out);
        self.extensions.write(&mut out);
        if !matches!(self.source, LeafNodeSource::KeyPackage(_)) {
            group_id.to_vec().write(&mut out);
            leaf_index.write(&mut out);
        }
        out
    }

    /// Signs it; its `signature_key` stays as it is.
    pub fn sign(&mut self, key: &SigningKey, group_id: &[u8], leaf_index: u32) {
        self.signature = key.sign("LeafNodeTBS", &self.to_be_signed(group_id, leaf_index));
    }

    /// Verifies its signature.
    ///
    /// # Errors
    /// It does not fit.
    pub fn verify(&self, suite: Suite, group_id: &[u8], leaf_index: u32) -> Result<(), Invalid> {
        let signed = self.to_be_signed(group_id, leaf_index);
        suite.verify(&self.signature_key, "LeafNodeTBS", &signed, &self.signature)
    }
}

impl KeyPackage {
    /// Signs it, and not its leaf node.
    pub fn sign(&mut self, key: &SigningKey) {
        self.signature = key.sign("KeyPackageTBS", &without_signature(self, &self.signature));
    }

    /// Signs its leaf node, then itself.
    pub fn sign_all(&mut self, key: &SigningKey) {
        self.leaf_node.sign(key, &[], 0);
        self.sign(key);
    }

    /// Verifies its signature and that of its leaf node.
    ///
    /// # Errors
    /// One does not fit.
    pub fn verify(&self, suite: Suite) -> Result<(), Invalid> {
        self.leaf_node.verify(suite, &[], 0)?;
        let signed = without_signature(self, &self.signature);
        suite.verify(&self.leaf_node.signature_key, "KeyPackageTBS", &signed, &self.signature)
    }

    /// Its reference (RFC 9420 §5.2).
    pub fn reference(&self, suite: Suite) -> Vec<u8> {
        suite.ref_hash("MLS 1.0 KeyPackage Reference", &self.to_bytes())
    }

    /// As an MLSMessage.
    pub fn to_message(&self) -> Vec<u8> {
        message(wire_format::KEY_PACKAGE, self)
    }
}

/// The bytes of a structure that ends with its signature.
fn without_signature(structure: &impl Tls, signature: &Vec<u8>) -> Vec<u8> {
    let mut bytes = structure.to_bytes();
    bytes.truncate(bytes.len() - signature.to_bytes().len());
    bytes
}

/// An MLSMessage (RFC 9420 §6).
pub fn message(wire_format: u16, body: &impl Tls) -> Vec<u8> {
    let mut out = Vec::new();
    MLS_10.write(&mut out);
    wire_format.write(&mut out);
    body.write(&mut out);
    out
}

/// The body of an MLSMessage that is framed in this way.
///
/// # Errors
/// It is not.
pub fn read_message<T: Tls>(wire_format: u16, message: &[u8]) -> Result<T, Malformed> {
    let mut from = Reader(message);
    if (u16::read(&mut from)?, u16::read(&mut from)?) != (MLS_10, wire_format) {
        return Err(Malformed);
    }
    T::from_bytes(from.0)
}

/// The kinds of pre-shared keys (RFC 9420 §8.4; the MLS extensions draft, *Pre-Shared Keys*).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Psk {
    /// `psk_id`.
    External(Vec<u8>),
    Resumption {
        usage: u8,
        psk_group_id: Vec<u8>,
        psk_epoch: u64,
    },
    Application {
        component_id: u16,
        psk_id: Vec<u8>,
    },
}

impl Tls for Psk {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::External(psk_id) => {
                out.push(1);
                psk_id.write(out);
            }
            Self::Resumption { usage, psk_group_id, psk_epoch } => {
                out.push(2);
                usage.write(out);
                psk_group_id.write(out);
                psk_epoch.write(out);
            }
            Self::Application { component_id, psk_id } => {
                out.push(3);
                component_id.write(out);
                psk_id.write(out);
            }
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        match u8::read(from)? {
            1 => Ok(Self::External(Tls::read(from)?)),
            2 => Ok(Self::Resumption {
                usage: Tls::read(from)?,
                psk_group_id: Tls::read(from)?,
                psk_epoch: Tls::read(from)?,
            }),
            3 => Ok(Self::Application { component_id: Tls::read(from)?, psk_id: Tls::read(from)? }),
            _ => Err(Malformed),
        }
    }
}

/// RFC 9420 §12.1; the MLS extensions draft, *Proposals*.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proposal {
    Add(KeyPackage),
    Update(LeafNode),
    /// The leaf that is removed.
    Remove(u32),
    PreSharedKey(PreSharedKeyId),
    ReInit(ReInit),
    /// `kem_output`.
    ExternalInit(Vec<u8>),
    GroupContextExtensions(Vec<Extension>),
    /// `update` replaces the component's data; without it, they are removed.
    AppDataUpdate {
        component_id: u16,
        update: Option<Vec<u8>>,
    },
    AppEphemeral {
        component_id: u16,
        data: Vec<u8>,
    },
    SelfRemove,
    /// A type and the bytes that follow it. When read, these are one vector.
    Other(u16, Vec<u8>),
}

impl Proposal {
    /// Its type.
    pub fn kind(&self) -> u16 {
        match self {
            Self::Add(_) => proposal::ADD,
            Self::Update(_) => proposal::UPDATE,
            Self::Remove(_) => proposal::REMOVE,
            Self::PreSharedKey(_) => proposal::PSK,
            Self::ReInit(_) => proposal::RE_INIT,
            Self::ExternalInit(_) => proposal::EXTERNAL_INIT,
            Self::GroupContextExtensions(_) => proposal::GROUP_CONTEXT_EXTENSIONS,
            Self::AppDataUpdate { .. } => proposal::APP_DATA_UPDATE,
            Self::AppEphemeral { .. } => proposal::APP_EPHEMERAL,
            Self::SelfRemove => proposal::SELF_REMOVE,
            Self::Other(kind, _) => *kind,
        }
    }

    /// An external pre-shared key with a nonce of the right length.
    pub fn external_psk(suite: Suite, psk_id: &[u8]) -> Self {
        let psk_nonce = suite.hash(psk_id);
        Self::PreSharedKey(PreSharedKeyId { psk: Psk::External(psk_id.to_vec()), psk_nonce })
    }

    /// Whether a commit that holds it must have a path (RFC 9420 §12.4; the MLS extensions draft).
    pub fn needs_path(&self) -> bool {
        !matches!(
            self,
            Self::Add(_)
                | Self::PreSharedKey(_)
                | Self::ReInit(_)
                | Self::AppDataUpdate { .. }
                | Self::AppEphemeral { .. }
        )
    }
}

impl Tls for Proposal {
    fn write(&self, out: &mut Vec<u8>) {
        self.kind().write(out);
        match self {
            Self::Add(key_package) => key_package.write(out),
            Self::Update(leaf_node) => leaf_node.write(out),
            Self::Remove(removed) => removed.write(out),
            Self::PreSharedKey(psk) => psk.write(out),
            Self::ReInit(reinit) => reinit.write(out),
            Self::ExternalInit(kem_output) => kem_output.write(out),
            Self::GroupContextExtensions(extensions) => extensions.write(out),
            Self::AppDataUpdate { component_id, update } => {
                component_id.write(out);
                out.push(if update.is_some() { 1 } else { 2 });
                if let Some(update) = update {
                    update.write(out);
                }
            }
            Self::AppEphemeral { component_id, data } => {
                component_id.write(out);
                data.write(out);
            }
            Self::SelfRemove => {}
            Self::Other(_, body) => out.extend_from_slice(body),
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(match u16::read(from)? {
            proposal::ADD => Self::Add(Tls::read(from)?),
            proposal::UPDATE => Self::Update(Tls::read(from)?),
            proposal::REMOVE => Self::Remove(Tls::read(from)?),
            proposal::PSK => Self::PreSharedKey(Tls::read(from)?),
            proposal::RE_INIT => Self::ReInit(Tls::read(from)?),
            proposal::EXTERNAL_INIT => Self::ExternalInit(Tls::read(from)?),
            proposal::GROUP_CONTEXT_EXTENSIONS => Self::GroupContextExtensions(Tls::read(from)?),
            proposal::APP_DATA_UPDATE => {
                let component_id = Tls::read(from)?;
                let update = match u8::read(from)? {
                    1 => Some(Tls::read(from)?),
                    2 => None,
                    _ => return Err(Malformed),
                };
                Self::AppDataUpdate { component_id, update }
            }
            proposal::APP_EPHEMERAL => {
                Self::AppEphemeral { component_id: Tls::read(from)?, data: Tls::read(from)? }
            }
            proposal::SELF_REMOVE => Self::SelfRemove,
            kind => Self::Other(kind, Vec::<u8>::read(from)?.to_bytes()),
        })
    }
}

/// RFC 9420 §12.4.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "tests match on it without a box")]
pub enum ProposalOrRef {
    Proposal(Proposal),
    Reference(Vec<u8>),
}

impl Tls for ProposalOrRef {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Proposal(proposal) => {
                out.push(1);
                proposal.write(out);
            }
            Self::Reference(reference) => {
                out.push(2);
                reference.write(out);
            }
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        match u8::read(from)? {
            1 => Ok(Self::Proposal(Tls::read(from)?)),
            2 => Ok(Self::Reference(Tls::read(from)?)),
            _ => Err(Malformed),
        }
    }
}

/// RFC 9420 §6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// The leaf index.
    Member(u32),
    /// The place in the group's `external_senders`.
    External(u32),
    NewMemberProposal,
    NewMemberCommit,
}

impl Tls for Sender {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Member(leaf_index) => {
                out.push(1);
                leaf_index.write(out);
            }
            Self::External(sender_index) => {
                out.push(2);
                sender_index.write(out);
            }
            Self::NewMemberProposal => out.push(3),
            Self::NewMemberCommit => out.push(4),
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        match u8::read(from)? {
            1 => Ok(Self::Member(Tls::read(from)?)),
            2 => Ok(Self::External(Tls::read(from)?)),
            3 => Ok(Self::NewMemberProposal),
            4 => Ok(Self::NewMemberCommit),
            _ => Err(Malformed),
        }
    }
}

/// The content of a message and its type (RFC 9420 §6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    Application(Vec<u8>),
    Proposal(Proposal),
    Commit(Commit),
}

impl Tls for Content {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Application(data) => {
                out.push(1);
                data.write(out);
            }
            Self::Proposal(proposal) => {
                out.push(2);
                proposal.write(out);
            }
            Self::Commit(commit) => {
                out.push(3);
                commit.write(out);
            }
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        match u8::read(from)? {
            1 => Ok(Self::Application(Tls::read(from)?)),
            2 => Ok(Self::Proposal(Tls::read(from)?)),
            3 => Ok(Self::Commit(Tls::read(from)?)),
            _ => Err(Malformed),
        }
    }
}

/// RFC 9420 §6.2. The tags are written where they are `Some`: whether they belong there is up to the test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicMessage {
    pub content: FramedContent,
    pub signature: Vec<u8>,
    pub confirmation_tag: Option<Vec<u8>>,
    pub membership_tag: Option<Vec<u8>>,
}

impl Tls for PublicMessage {
    fn write(&self, out: &mut Vec<u8>) {
        self.content.write(out);
        self.signature.write(out);
        for tag in [&self.confirmation_tag, &self.membership_tag].into_iter().flatten() {
            tag.write(out);
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let content = FramedContent::read(from)?;
        let signature = Tls::read(from)?;
        let mut tag = |is_there: bool| is_there.then(|| Tls::read(from)).transpose();
        let confirmation_tag = tag(matches!(content.content, Content::Commit(_)))?;
        let membership_tag = tag(matches!(content.sender, Sender::Member(_)))?;
        Ok(Self { content, signature, confirmation_tag, membership_tag })
    }
}

impl PublicMessage {
    /// What its signature covers (RFC 9420 §6.1). `context` counts for members and for those who join by a commit.
    pub fn to_be_signed(&self, context: &GroupContext) -> Vec<u8> {
        let mut out = Vec::new();
        MLS_10.write(&mut out);
        wire_format::PUBLIC_MESSAGE.write(&mut out);
        self.content.write(&mut out);
        if matches!(self.content.sender, Sender::Member(_) | Sender::NewMemberCommit) {
            context.write(&mut out);
        }
        out
    }

    /// Signs it; the tags stay as they are.
    pub fn sign(&mut self, key: &SigningKey, context: &GroupContext) {
        self.signature = key.sign("FramedContentTBS", &self.to_be_signed(context));
    }

    /// The reference of the proposal that it holds (RFC 9420 §5.2).
    pub fn reference(&self, suite: Suite) -> Vec<u8> {
        let mut authenticated = Vec::new();
        wire_format::PUBLIC_MESSAGE.write(&mut authenticated);
        self.content.write(&mut authenticated);
        self.signature.write(&mut authenticated);
        if let Some(tag) = &self.confirmation_tag {
            tag.write(&mut authenticated);
        }
        suite.ref_hash("MLS 1.0 Proposal Reference", &authenticated)
    }

    /// The confirmed transcript hash of the epoch that this commit begins (RFC 9420 §8.2).
    pub fn confirmed_transcript_hash(&self, suite: Suite, interim: &[u8]) -> Vec<u8> {
        let mut input = interim.to_vec();
        wire_format::PUBLIC_MESSAGE.write(&mut input);
        self.content.write(&mut input);
        self.signature.write(&mut input);
        suite.hash(&input)
    }

    /// As an MLSMessage.
    pub fn to_message(&self) -> Vec<u8> {
        message(wire_format::PUBLIC_MESSAGE, self)
    }

    /// Its commit.
    ///
    /// # Panics
    /// It holds none.
    pub fn commit_mut(&mut self) -> &mut Commit {
        let Content::Commit(commit) = &mut self.content.content else { panic!("not a commit") };
        commit
    }

    /// Its proposal.
    ///
    /// # Panics
    /// It holds none.
    pub fn proposal_mut(&mut self) -> &mut Proposal {
        let Content::Proposal(proposal) = &mut self.content.content else { panic!("not a proposal") };
        proposal
    }
}

impl GroupContext {
    /// The data of an extension.
    pub fn extension(&self, kind: u16) -> Option<&[u8]> {
        self.extensions.iter().find(|extension| extension.kind == kind).map(|extension| &extension.data[..])
    }
}

impl GroupInfo {
    /// Signs it.
    pub fn sign(&mut self, key: &SigningKey) {
        self.signature = key.sign("GroupInfoTBS", &without_signature(self, &self.signature));
    }

    /// As an MLSMessage.
    pub fn to_message(&self) -> Vec<u8> {
        message(wire_format::GROUP_INFO, self)
    }
}

impl Welcome {
    /// As an MLSMessage.
    pub fn to_message(&self) -> Vec<u8> {
        message(wire_format::WELCOME, self)
    }
}

impl Extension {
    /// An extension of a structure.
    pub fn of(kind: u16, data: &impl Tls) -> Self {
        Self { kind, data: data.to_bytes() }
    }

    /// `required_capabilities` (RFC 9420 §11.1).
    pub fn required_capabilities(extensions: &[u16], proposals: &[u16], credentials: &[u16]) -> Self {
        let required = RequiredCapabilities {
            extension_types: extensions.to_vec(),
            proposal_types: proposals.to_vec(),
            credential_types: credentials.to_vec(),
        };
        Self::of(extension::REQUIRED_CAPABILITIES, &required)
    }
}
