//! Clients: a signature key, a credential and capabilities.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use sha2::{Digest as _, Sha256};

use crate::{
    Capabilities, Credential, Extension, KeyPackage, LeafNode, LeafNodeSource, Lifetime, MLS_10, SigningKey,
    Suite,
};

/// Bytes that look random, the same for the same seed.
///
/// Clones go on together: no two of them give the same bytes.
#[derive(Clone, Debug)]
pub struct Randomness {
    seed: [u8; 32],
    count: Arc<AtomicU64>,
}

impl Randomness {
    /// The bytes of a seed.
    pub fn new(seed: &[u8]) -> Self {
        Self { seed: Sha256::digest(seed).into(), count: Arc::default() }
    }

    /// The next bytes.
    pub fn bytes(&self, count: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(count + 32);
        while out.len() < count {
            let count = self.count.fetch_add(1, Ordering::Relaxed);
            out.extend(Sha256::new().chain_update(self.seed).chain_update(count.to_be_bytes()).finalize());
        }
        out.truncate(count);
        out
    }

    /// A number below `end`, which is not 0.
    pub fn below(&self, end: usize) -> usize {
        (u64::from_be_bytes(self.bytes(8).try_into().unwrap()) % end as u64) as usize
    }
}

/// A client that makes key packages. The same suite and name make the same client.
#[derive(Clone, Debug)]
pub struct Client {
    /// Its cipher suite.
    pub suite: Suite,
    /// Its signature key.
    pub key: SigningKey,
    /// Its credential.
    pub credential: Credential,
    /// The capabilities of its leaves.
    pub capabilities: Capabilities,
    /// The lifetime of its key packages.
    pub lifetime: Lifetime,
    /// The extensions of its leaves.
    pub extensions: Vec<Extension>,
    /// Where its HPKE keys come from.
    pub randomness: Randomness,
}

impl Client {
    /// A client with a basic credential that supports its suite alone, whose packages are valid from an hour ago until a
    /// month from now.
    pub fn new(suite: Suite, name: &str) -> Self {
        let randomness = Randomness::new(format!("{} {name}", suite.number()).as_bytes());
        Self {
            suite,
            key: SigningKey::generate(suite, &randomness),
            credential: Credential::Basic(name.as_bytes().to_vec()),
            capabilities: Capabilities {
                versions: vec![MLS_10],
                cipher_suites: vec![suite.number()],
                extensions: Vec::new(),
                proposals: Vec::new(),
                credentials: vec![1],
            },
            lifetime: Lifetime::around_now(),
            extensions: Vec::new(),
            randomness,
        }
    }

    /// Adds types of extensions to its capabilities.
    #[must_use]
    pub fn supporting_extensions(mut self, kinds: &[u16]) -> Self {
        self.capabilities.extensions.extend(kinds);
        self
    }

    /// Adds types of proposals to its capabilities.
    #[must_use]
    pub fn supporting_proposals(mut self, kinds: &[u16]) -> Self {
        self.capabilities.proposals.extend(kinds);
        self
    }

    /// Adds types of credentials to its capabilities.
    #[must_use]
    pub fn supporting_credentials(mut self, kinds: &[u16]) -> Self {
        self.capabilities.credentials.extend(kinds);
        self
    }

    /// Its name, if it has a basic credential.
    pub fn name(&self) -> &[u8] {
        match &self.credential {
            Credential::Basic(identity) => identity,
            Credential::X509(_) | Credential::Other(..) => &[],
        }
    }

    /// A leaf with a new encryption key, not signed yet.
    pub fn leaf(&self, source: LeafNodeSource) -> LeafNode {
        LeafNode {
            encryption_key: self.suite.hpke_key(&self.randomness),
            signature_key: self.key.public(),
            credential: self.credential.clone(),
            capabilities: self.capabilities.clone(),
            source,
            extensions: self.extensions.clone(),
            signature: Vec::new(),
        }
    }

    /// A new key package.
    pub fn key_package(&self) -> KeyPackage {
        let mut package = KeyPackage {
            version: MLS_10,
            cipher_suite: self.suite.number(),
            init_key: self.suite.hpke_key(&self.randomness),
            leaf_node: self.leaf(LeafNodeSource::KeyPackage(self.lifetime.clone())),
            extensions: Vec::new(),
            signature: Vec::new(),
        };
        package.sign_all(&self.key);
        package
    }
}

impl Lifetime {
    /// From an hour ago until a month from now.
    pub fn around_now() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        Self::around(now)
    }

    /// From an hour before a moment, in Unix seconds, until a month after it.
    pub fn around(now_s: u64) -> Self {
        Self { not_before: now_s - 3600, not_after: now_s + 30 * 86_400 }
    }
}
