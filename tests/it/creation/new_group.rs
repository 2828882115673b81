//! Group infos and ratchet trees written by hand and validly signed, so that each can break one rule and keep the
//! others.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use mls_rs::{CipherSuite, CipherSuiteProvider as _, CryptoProvider as _};
use mls_rs_core::crypto::SignatureSecretKey;
use mls_rs_crypto_rustcrypto::{RustCryptoProvider, RustCryptoProvider as Provider};
use serde_json::{Value, json};

/// MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519.
const SUITE: CipherSuite = CipherSuite::CURVE25519_AES128;

/// A variable-length vector (RFC 9420 §2.1.2).
pub(crate) fn vector(content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).unwrap();
    let prefix = match length {
        0..0x40 => vec![length.to_be_bytes()[3]],
        0x40..0x4000 => (0x4000 | length).to_be_bytes()[2..].to_vec(),
        _ => (0x8000_0000 | length).to_be_bytes().to_vec(),
    };
    [prefix, content.to_vec()].concat()
}

fn numbers(numbers: &[u16]) -> Vec<u8> {
    vector(&numbers.iter().flat_map(|number| number.to_be_bytes()).collect::<Vec<_>>())
}

fn extensions(extensions: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let each =
        extensions.iter().flat_map(|(kind, data)| [kind.to_be_bytes().to_vec(), vector(data)].concat());
    vector(&each.collect::<Vec<_>>())
}

fn suite() -> <Provider as mls_rs::CryptoProvider>::CipherSuiteProvider {
    RustCryptoProvider::default().cipher_suite_provider(SUITE).unwrap()
}

/// SignWithLabel (RFC 9420 §5.1.2).
fn sign(secret: &SignatureSecretKey, label: &str, content: &[u8]) -> Vec<u8> {
    let label = vector(format!("MLS 1.0 {label}").as_bytes());
    suite().sign(secret, &[label, vector(content)].concat()).unwrap()
}

/// A client's leaf in a new group.
pub(crate) struct Leaf {
    pub(crate) identity: Vec<u8>,
    pub(crate) suites: Vec<u16>,
    pub(crate) extension_types: Vec<u16>,
    pub(crate) lifetime: (u64, u64),
    /// Whether its signature is of another content.
    pub(crate) is_forged: bool,
    signature_key: Vec<u8>,
    encryption_key: Vec<u8>,
    secret: SignatureSecretKey,
}

impl Leaf {
    pub(crate) fn new(identity: &str) -> Self {
        let (secret, public) = suite().signature_key_generate().unwrap();
        let (_, encryption_key) = suite().kem_generate().unwrap();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let day = Duration::from_secs(24 * 3600);
        Self {
            identity: identity.as_bytes().to_vec(),
            suites: vec![1],
            extension_types: Vec::new(),
            lifetime: ((now - day).as_secs(), (now + day).as_secs()),
            is_forged: false,
            signature_key: public.as_bytes().to_vec(),
            encryption_key: encryption_key.to_vec(),
            secret,
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let basic = [vec![0, 1], vector(&self.identity)].concat();
        let capabilities = [
            numbers(&[1]),
            numbers(&self.suites),
            numbers(&self.extension_types),
            numbers(&[]),
            numbers(&[1]),
        ]
        .concat();
        let (not_before, not_after) = self.lifetime;
        let source = [vec![1], not_before.to_be_bytes().to_vec(), not_after.to_be_bytes().to_vec()].concat();
        let (encryption_key, signature_key) = (vector(&self.encryption_key), vector(&self.signature_key));
        let content = [encryption_key, signature_key, basic, capabilities, source, extensions(&[])].concat();
        let signed: &[u8] = if self.is_forged { b"another leaf" } else { &content };
        let signature = sign(&self.secret, "LeafNodeTBS", signed);
        [content, vector(&signature)].concat()
    }
}

/// Everything that a new group is made of.
pub(crate) struct NewGroup {
    pub(crate) id: Vec<u8>,
    pub(crate) epoch: u64,
    pub(crate) confirmed_transcript_hash: Vec<u8>,
    pub(crate) context_extensions: Vec<(u16, Vec<u8>)>,
    pub(crate) leaves: Vec<Leaf>,
    /// In the place of the hash of the tree.
    pub(crate) tree_hash: Option<Vec<u8>>,
    pub(crate) signer: u32,
    /// Who signs in the place of the first leaf.
    pub(crate) forger: Option<Leaf>,
    /// Whether the group info carries the tree as an extension.
    pub(crate) carries_tree: bool,
    /// In the place of the serialised tree.
    pub(crate) tree: Option<Vec<u8>>,
}

impl NewGroup {
    /// A group that can be created.
    pub(crate) fn new(id: &str) -> Self {
        Self {
            id: id.as_bytes().to_vec(),
            epoch: 0,
            confirmed_transcript_hash: Vec::new(),
            context_extensions: Vec::new(),
            leaves: vec![Leaf::new("alice")],
            tree_hash: None,
            signer: 0,
            forger: None,
            carries_tree: false,
            tree: None,
        }
    }

    /// `optional<Node> ratchet_tree<V>` (RFC 9420 §12.4.3.3).
    pub(crate) fn tree(&self) -> Vec<u8> {
        let leaf = |leaf: &Leaf| [vec![1, 1], leaf.bytes()].concat();
        let nodes: Vec<Vec<u8>> = self.leaves.iter().map(leaf).collect();
        // A blank parent stands between two leaves.
        self.tree.clone().unwrap_or_else(|| vector(&nodes.join(&0)))
    }

    /// The tree hash (RFC 9420 §7.8) of one leaf, or of two under a blank parent.
    fn tree_hash(&self) -> Vec<u8> {
        let leaf = |(index, leaf): (u32, &Leaf)| {
            let input = [vec![1], index.to_be_bytes().to_vec(), vec![1], leaf.bytes()].concat();
            suite().hash(&input).unwrap()
        };
        let hashes: Vec<Vec<u8>> = (0..).zip(&self.leaves).map(leaf).collect();
        match hashes.as_slice() {
            [hash] => hash.clone(),
            [left, right] => suite().hash(&[vec![2, 0], vector(left), vector(right)].concat()).unwrap(),
            _ => panic!("one leaf or two"),
        }
    }

    /// An MLSMessage with the GroupInfo (RFC 9420 §12.4.3).
    pub(crate) fn group_info(&self) -> Vec<u8> {
        let context = [
            vec![0, 1, 0, 1],
            vector(&self.id),
            self.epoch.to_be_bytes().to_vec(),
            vector(&self.tree_hash.clone().unwrap_or_else(|| self.tree_hash())),
            vector(&self.confirmed_transcript_hash),
            extensions(&self.context_extensions),
        ]
        .concat();
        let carried = if self.carries_tree { vec![(2, self.tree())] } else { Vec::new() };
        let tag = vector(&[7; 32]);
        let content = [context, extensions(&carried), tag, self.signer.to_be_bytes().to_vec()].concat();
        let signer = self.forger.as_ref().unwrap_or(&self.leaves[0]);
        let signature = sign(&signer.secret, "GroupInfoTBS", &content);
        [vec![0, 1, 0, 4], content, vector(&signature)].concat()
    }

    /// The request that creates it.
    pub(crate) fn body(&self) -> Value {
        json!({
            "groupInfo": STANDARD.encode(self.group_info()),
            "ratchetTree": STANDARD.encode(self.tree()),
        })
    }
}
