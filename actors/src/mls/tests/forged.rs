//! Key packages with valid signatures that no honest client makes.

use ring::{
    rand::SystemRandom,
    signature::{Ed25519KeyPair, KeyPair as _},
};

use crate::presentation::write_vector_length;

/// The members of a key package of the cipher suite 1 that a test may change before it is signed.
#[derive(Clone)]
pub(super) struct Forged {
    pub(super) name: Vec<u8>,
    pub(super) suite: u16,
    pub(super) init_key: Vec<u8>,
    pub(super) encryption_key: Vec<u8>,
    pub(super) versions: Vec<u16>,
    pub(super) suites: Vec<u16>,
    pub(super) supported_extensions: Vec<u16>,
    pub(super) credential_types: Vec<u16>,
    pub(super) not_before_s: u64,
    pub(super) not_after_s: u64,
    pub(super) leaf_extensions: Vec<(u16, Vec<u8>)>,
    pub(super) extensions: Vec<(u16, Vec<u8>)>,
}

fn vector(out: &mut Vec<u8>, content: &[u8]) {
    write_vector_length(out, content.len());
    out.extend_from_slice(content);
}

fn numbers(out: &mut Vec<u8>, numbers: &[u16]) {
    vector(out, &numbers.iter().flat_map(|number| number.to_be_bytes()).collect::<Vec<_>>());
}

fn extension_list(out: &mut Vec<u8>, extensions: &[(u16, Vec<u8>)]) {
    let mut list = Vec::new();
    for (kind, data) in extensions {
        list.extend(kind.to_be_bytes());
        vector(&mut list, data);
    }
    vector(out, &list);
}

impl Forged {
    /// A key package that is as it should be, valid from `not_before_s` for an hour.
    pub(super) fn good(name: &str, not_before_s: u64) -> Self {
        let key = || {
            let secret = ring::agreement::EphemeralPrivateKey::generate(
                &ring::agreement::X25519,
                &SystemRandom::new(),
            );
            secret.unwrap().compute_public_key().unwrap().as_ref().to_vec()
        };
        Self {
            name: name.as_bytes().to_vec(),
            suite: 1,
            init_key: key(),
            encryption_key: key(),
            versions: vec![1],
            suites: vec![1],
            supported_extensions: Vec::new(),
            credential_types: vec![1],
            not_before_s,
            not_after_s: not_before_s + 3600,
            leaf_extensions: Vec::new(),
            extensions: Vec::new(),
        }
    }

    /// The MLSMessage, signed with a fresh key.
    pub(super) fn message(&self) -> Vec<u8> {
        let secret = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        let pair = Ed25519KeyPair::from_pkcs8(secret.as_ref()).unwrap();
        let sign = |out: &mut Vec<u8>, label: &str, content: &[u8]| {
            let mut input = Vec::new();
            vector(&mut input, format!("MLS 1.0 {label}").as_bytes());
            vector(&mut input, content);
            vector(out, pair.sign(&input).as_ref());
        };
        let mut leaf = Vec::new();
        vector(&mut leaf, &self.encryption_key);
        vector(&mut leaf, pair.public_key().as_ref());
        leaf.extend(1_u16.to_be_bytes());
        vector(&mut leaf, &self.name);
        numbers(&mut leaf, &self.versions);
        numbers(&mut leaf, &self.suites);
        numbers(&mut leaf, &self.supported_extensions);
        numbers(&mut leaf, &[]);
        numbers(&mut leaf, &self.credential_types);
        leaf.push(1);
        leaf.extend(self.not_before_s.to_be_bytes());
        leaf.extend(self.not_after_s.to_be_bytes());
        extension_list(&mut leaf, &self.leaf_extensions);
        let to_sign = leaf.clone();
        sign(&mut leaf, "LeafNodeTBS", &to_sign);

        let mut package = Vec::new();
        package.extend(1_u16.to_be_bytes());
        package.extend(self.suite.to_be_bytes());
        vector(&mut package, &self.init_key);
        package.extend_from_slice(&leaf);
        extension_list(&mut package, &self.extensions);
        let to_sign = package.clone();
        sign(&mut package, "KeyPackageTBS", &to_sign);
        [&[0, 1, 0, 5][..], &package].concat()
    }
}
