//! MLS messages of any size, written by hand and validly signed (RFC 9420): no MLS library makes the most expensive ones.

use std::{
    sync::LazyLock,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ed25519_dalek::{Signer as _, SigningKey};
use sha2::{Digest as _, Sha256};

/// A variable-length vector (§2.1.2).
pub(crate) fn vector(content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).unwrap();
    let prefix = match length {
        0..0x40 => vec![length.to_be_bytes()[3]],
        0x40..0x4000 => (0x4000 | length).to_be_bytes()[2..].to_vec(),
        _ => (0x8000_0000 | length).to_be_bytes().to_vec(),
    };
    [prefix, content.to_vec()].concat()
}

/// This many numbers of two bytes, counted from 0x1000 and wrapping around.
pub(crate) fn types(count: usize) -> Vec<u8> {
    let types = (0..count).map(|at| 0x1000 + u16::try_from(at % 0xe000).unwrap());
    vector(&types.flat_map(u16::to_be_bytes).collect::<Vec<_>>())
}

fn sign(key: &SigningKey, label: &str, content: &[u8]) -> Vec<u8> {
    let label = vector(format!("MLS 1.0 {label}").as_bytes());
    vector(&key.sign(&[label, vector(content)].concat()).to_bytes())
}

fn hash(content: &[u8]) -> Vec<u8> {
    Sha256::digest(content).to_vec()
}

fn key(number: u64) -> SigningKey {
    SigningKey::from_bytes(&hash(&number.to_be_bytes()).try_into().unwrap())
}

/// A client, by its number.
#[derive(Clone)]
pub(crate) struct Client {
    key: SigningKey,
    number: u64,
    /// The type of its credential and the credential's content.
    credential: (u16, Vec<u8>),
}

impl Client {
    pub(crate) fn new(number: u64) -> Self {
        Self::named(number, &format!("client {number}"))
    }

    /// With a basic credential of this name.
    pub(crate) fn named(number: u64, name: &str) -> Self {
        Self { key: key(number), number, credential: (1, vector(name.as_bytes())) }
    }

    /// With an X.509 credential (§5.3): the chain that is made for its public key, its own certificate first.
    pub(crate) fn certified(number: u64, chain: impl FnOnce(&[u8]) -> Vec<Vec<u8>>) -> Self {
        let key = key(number);
        let chain = chain(key.verifying_key().as_bytes());
        let content: Vec<u8> = chain.iter().flat_map(|certificate| vector(certificate)).collect();
        Self { key, number, credential: (2, vector(&content)) }
    }

    /// Its leaf node, which lists this many extension types.
    pub(crate) fn leaf(&self, extension_types: usize) -> Vec<u8> {
        // A fixed time, so that a client's leaf is always the same.
        static NOW: LazyLock<Duration> =
            LazyLock::new(|| SystemTime::now().duration_since(UNIX_EPOCH).unwrap());
        let (now, day) = (*NOW, Duration::from_secs(24 * 3600));
        let lifetime = [(now - day).as_secs(), (now + day).as_secs()].map(u64::to_be_bytes).concat();
        let one = vector(&[0, 1]);
        let (credential_type, credential) = &self.credential;
        let credential_type = credential_type.to_be_bytes();
        let content = [
            vector(&hash(&[&[1], &self.number.to_be_bytes()[..]].concat())),
            vector(self.key.verifying_key().as_bytes()),
            credential_type.to_vec(),
            credential.clone(),
            [one.clone(), one, types(extension_types), vector(&[]), vector(&credential_type)].concat(),
            vec![1],
            lifetime,
            vector(&[]),
        ]
        .concat();
        let signature = sign(&self.key, "LeafNodeTBS", &content);
        [content, signature].concat()
    }

    /// Its key package, without the frame of an MLSMessage.
    pub(crate) fn key_package(&self) -> Vec<u8> {
        self.key_package_of(0)
    }

    /// As [`Client::key_package`], with a leaf that lists this many extension types.
    pub(crate) fn key_package_of(&self, extension_types: usize) -> Vec<u8> {
        let init_key = vector(&hash(&[&[2], &self.number.to_be_bytes()[..]].concat()));
        let content = [vec![0, 1, 0, 1], init_key, self.leaf(extension_types), vector(&[])].concat();
        let signature = sign(&self.key, "KeyPackageTBS", &content);
        [content, signature].concat()
    }
}

/// A new group of some clients, under blank parents; the first one sends.
pub(crate) struct NewGroup {
    id: Vec<u8>,
    clients: Vec<Client>,
    leaves: Vec<Vec<u8>>,
    context: Vec<u8>,
}

impl NewGroup {
    /// A group of this many clients, whose leaves list this many extension types each.
    pub(crate) fn new(clients: usize, extension_types: usize) -> Self {
        Self::of("group", (0..u64::try_from(clients).unwrap()).map(Client::new).collect(), extension_types)
    }

    /// As [`NewGroup::new`], with these clients and this id.
    pub(crate) fn of(id: &str, clients: Vec<Client>, extension_types: usize) -> Self {
        let id = id.as_bytes().to_vec();
        let leaves: Vec<_> = clients.iter().map(|client| client.leaf(extension_types)).collect();
        let width = leaves.len().next_power_of_two();
        let context = [
            vec![0, 1, 0, 1],
            vector(&id),
            vec![0; 8],
            vector(&tree_hash(&leaves, 0, width)),
            vector(&[]),
            vector(&[]),
        ]
        .concat();
        Self { id, clients, leaves, context }
    }

    /// `optional<Node> ratchet_tree<V>` (§12.4.3.3).
    pub(crate) fn tree(&self) -> Vec<u8> {
        let nodes: Vec<Vec<u8>> =
            self.leaves.iter().map(|leaf| [&[1, 1], leaf.as_slice()].concat()).collect();
        vector(&nodes.join(&0))
    }

    pub(crate) fn group_info(&self) -> Vec<u8> {
        let content = [self.context.clone(), vector(&[]), vector(&[7; 32]), vec![0; 4]].concat();
        let signature = sign(&self.clients[0].key, "GroupInfoTBS", &content);
        [vec![0, 1, 0, 4], content, signature].concat()
    }

    /// A group info with this many extensions of unknown types and a byte too many.
    pub(crate) fn followed_group_info(&self, extensions: usize) -> Vec<u8> {
        let each = (0..extensions).flat_map(|at| {
            let kind = 0x1000 + u16::try_from(at % 0xe000).unwrap();
            [&kind.to_be_bytes()[..], &[0]].concat()
        });
        let list = vector(&each.collect::<Vec<_>>());
        [
            vec![0, 1, 0, 4],
            self.context.clone(),
            list,
            vector(&[7; 32]),
            vec![0; 4],
            vector(&[7; 64]),
            vec![0],
        ]
        .concat()
    }

    /// A PublicMessage of the first client (§6.2), whose content is a proposal or a commit.
    pub(crate) fn public(&self, content: &[u8]) -> Vec<u8> {
        let framed =
            [vector(&self.id), vec![0; 8], vec![1, 0, 0, 0, 0], vector(&[]), content.to_vec()].concat();
        let signed = [vec![0, 1, 0, 1], framed.clone(), self.context.clone()].concat();
        let signature = sign(&self.clients[0].key, "FramedContentTBS", &signed);
        let confirmation = if content[0] == 3 { vector(&[7; 32]) } else { Vec::new() };
        [vec![0, 1, 0, 1], framed, signature, confirmation, vector(&[7; 32])].concat()
    }

    /// A commit without a path that carries these proposals by value.
    pub(crate) fn commit(&self, proposals: impl IntoIterator<Item = Vec<u8>>) -> Vec<u8> {
        let list: Vec<u8> =
            proposals.into_iter().flat_map(|proposal| [&[1], proposal.as_slice()].concat()).collect();
        self.public(&[vec![3], vector(&list), vec![0]].concat())
    }
}

fn tree_hash(leaves: &[Vec<u8>], first: usize, width: usize) -> Vec<u8> {
    if width == 1 {
        let index = u32::try_from(first).unwrap().to_be_bytes();
        let leaf = leaves.get(first).map_or(vec![0], |leaf| [&[1], leaf.as_slice()].concat());
        return hash(&[vec![1], index.to_vec(), leaf].concat());
    }
    let half = width / 2;
    let [left, right] = [first, first + half].map(|first| vector(&tree_hash(leaves, first, half)));
    hash(&[vec![2, 0], left, right].concat())
}

/// A GroupContextExtensions proposal that requires this many extension types (§12.1.7).
pub(crate) fn requiring(extension_types: usize) -> Vec<u8> {
    let required = [types(extension_types), vector(&[]), vector(&[])].concat();
    [vec![0, 7], vector(&[vec![0, 3], vector(&required)].concat())].concat()
}

/// A GroupContextExtensions proposal of this many extensions, at most 0xe000.
pub(crate) fn setting(extensions: usize) -> Vec<u8> {
    let each = (0..extensions).flat_map(|at| {
        let kind = 0x1000 + u16::try_from(at).unwrap();
        [&kind.to_be_bytes()[..], &[0]].concat()
    });
    [vec![0, 7], vector(&each.collect::<Vec<_>>())].concat()
}

/// An Update to a leaf (§12.1.2).
pub(crate) fn update(leaf: Vec<u8>) -> Vec<u8> {
    [vec![0, 2], leaf].concat()
}

/// An Add (§12.1.1).
pub(crate) fn add(key_package: Vec<u8>) -> Vec<u8> {
    [vec![0, 1], key_package].concat()
}

/// A Welcome whose secrets name these key packages (§12.4.3.1).
pub(crate) fn welcome(key_packages: &[Vec<u8>]) -> Vec<u8> {
    let secrets = key_packages.iter().flat_map(|package| {
        let label = vector(b"MLS 1.0 KeyPackage Reference");
        let reference = hash(&[label, vector(package)].concat());
        [vector(&reference), vector(&[7; 32]), vector(&[7; 48])].concat()
    });
    let secrets = vector(&secrets.collect::<Vec<_>>());
    [vec![0, 1, 0, 3, 0, 1], secrets, vector(&[7; 200])].concat()
}
