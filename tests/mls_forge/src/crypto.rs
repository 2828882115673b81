//! Signatures and hashes of the seven cipher suites (RFC 9420 §5, §17.1).

use p256::ecdsa::signature::{Signer as _, Verifier as _};
use sha2::{Digest as _, Sha256, Sha384, Sha512};

use crate::{Randomness, tls::write_vector};

/// A signature that does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Invalid;

/// A cipher suite (RFC 9420 §17.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Suite {
    /// X25519, AES-128-GCM, SHA-256, Ed25519.
    Ed25519 = 1,
    /// P-256, AES-128-GCM, SHA-256, P-256.
    P256 = 2,
    /// X25519, ChaCha20-Poly1305, SHA-256, Ed25519.
    Ed25519ChaCha = 3,
    /// X448, AES-256-GCM, SHA-512, Ed448.
    Ed448 = 4,
    /// P-521, AES-256-GCM, SHA-512, P-521.
    P521 = 5,
    /// X448, ChaCha20-Poly1305, SHA-512, Ed448.
    Ed448ChaCha = 6,
    /// P-384, AES-256-GCM, SHA-384, P-384.
    P384 = 7,
}

impl Suite {
    /// All of them, by number.
    pub const ALL: [Self; 7] = [
        Self::Ed25519,
        Self::P256,
        Self::Ed25519ChaCha,
        Self::Ed448,
        Self::P521,
        Self::Ed448ChaCha,
        Self::P384,
    ];

    /// Its number.
    pub fn number(self) -> u16 {
        self as u16
    }

    /// The suite with this number.
    pub fn from_number(number: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|suite| suite.number() == number)
    }

    /// The hash of some bytes.
    pub fn hash(self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Self::Ed25519 | Self::P256 | Self::Ed25519ChaCha => Sha256::digest(bytes).to_vec(),
            Self::P384 => Sha384::digest(bytes).to_vec(),
            Self::Ed448 | Self::P521 | Self::Ed448ChaCha => Sha512::digest(bytes).to_vec(),
        }
    }

    /// How long hashes and tags are, in bytes.
    pub fn hash_length(self) -> usize {
        match self {
            Self::Ed25519 | Self::P256 | Self::Ed25519ChaCha => 32,
            Self::P384 => 48,
            Self::Ed448 | Self::P521 | Self::Ed448ChaCha => 64,
        }
    }

    /// RefHash (RFC 9420 §5.2); the label is the whole one.
    pub fn ref_hash(self, label: &str, value: &[u8]) -> Vec<u8> {
        let mut input = Vec::new();
        write_vector(&mut input, label.as_bytes());
        write_vector(&mut input, value);
        self.hash(&input)
    }

    /// How long an HPKE public key and an encapsulated key are, in bytes (RFC 9180 §7.1).
    pub fn kem_key_length(self) -> usize {
        match self {
            Self::Ed25519 | Self::Ed25519ChaCha => 32,
            Self::Ed448 | Self::Ed448ChaCha => 56,
            Self::P256 => 65,
            Self::P384 => 97,
            Self::P521 => 133,
        }
    }

    /// An HPKE public key that somebody could own, though nobody does.
    pub fn hpke_key(self, randomness: &Randomness) -> Vec<u8> {
        match self {
            Self::Ed25519 | Self::Ed25519ChaCha | Self::Ed448 | Self::Ed448ChaCha => {
                randomness.bytes(self.kem_key_length())
            }
            Self::P256 | Self::P384 | Self::P521 => SigningKey::generate(self, randomness).public(),
        }
    }

    /// VerifyWithLabel (RFC 9420 §5.1.2).
    ///
    /// # Errors
    /// The key or the signature is not one of the suite, or they do not fit the content.
    pub fn verify(self, key: &[u8], label: &str, content: &[u8], signature: &[u8]) -> Result<(), Invalid> {
        let signed = sign_content(label, content);
        let fits = match self {
            Self::Ed25519 | Self::Ed25519ChaCha => {
                let key =
                    key.try_into().ok().and_then(|key| ed25519_dalek::VerifyingKey::from_bytes(key).ok());
                let signature = ed25519_dalek::Signature::from_slice(signature).ok();
                key.zip(signature)
                    .is_some_and(|(key, signature)| key.verify_strict(&signed, &signature).is_ok())
            }
            Self::P256 => {
                let key = p256::ecdsa::VerifyingKey::from_sec1_bytes(key).ok();
                let signature = p256::ecdsa::Signature::from_der(signature).ok();
                key.zip(signature).is_some_and(|(key, signature)| key.verify(&signed, &signature).is_ok())
            }
            Self::P384 => {
                let key = p384::ecdsa::VerifyingKey::from_sec1_bytes(key).ok();
                let signature = p384::ecdsa::Signature::from_der(signature).ok();
                key.zip(signature).is_some_and(|(key, signature)| key.verify(&signed, &signature).is_ok())
            }
            Self::P521 => {
                let key = p521::ecdsa::VerifyingKey::from_sec1_bytes(key).ok();
                let signature = p521::ecdsa::Signature::from_der(signature).ok();
                key.zip(signature).is_some_and(|(key, signature)| key.verify(&signed, &signature).is_ok())
            }
            Self::Ed448 | Self::Ed448ChaCha => {
                let key = <[u8; 57]>::try_from(key).ok();
                let key = key.and_then(|key| ed448_goldilocks::VerifyingKey::from_bytes(&key).ok());
                let signature = ed448_goldilocks::Signature::from_slice(signature).ok();
                key.zip(signature).is_some_and(|(key, signature)| key.verify_raw(&signature, &signed).is_ok())
            }
        };
        if fits { Ok(()) } else { Err(Invalid) }
    }
}

/// What is signed (RFC 9420 §5.1.2).
fn sign_content(label: &str, content: &[u8]) -> Vec<u8> {
    let mut signed = Vec::new();
    write_vector(&mut signed, format!("MLS 1.0 {label}").as_bytes());
    write_vector(&mut signed, content);
    signed
}

/// A signature key pair.
#[derive(Clone)]
pub struct SigningKey {
    suite: Suite,
    secret: Secret,
}

#[derive(Clone)]
enum Secret {
    Ed25519(Box<ed25519_dalek::SigningKey>),
    P256(Box<p256::ecdsa::SigningKey>),
    P384(Box<p384::ecdsa::SigningKey>),
    P521(Box<p521::ecdsa::SigningKey>),
    Ed448(Box<ed448_goldilocks::SigningKey>),
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigningKey({:?}, {:02x?}…)", self.suite, &self.public()[..4])
    }
}

impl SigningKey {
    /// The next key of a source.
    pub fn generate(suite: Suite, randomness: &Randomness) -> Self {
        let secret = loop {
            let secret = match suite {
                Suite::Ed25519 | Suite::Ed25519ChaCha => {
                    let seed = randomness.bytes(32).try_into().unwrap();
                    Some(Secret::Ed25519(Box::new(ed25519_dalek::SigningKey::from_bytes(&seed))))
                }
                Suite::P256 => p256::ecdsa::SigningKey::from_slice(&randomness.bytes(32))
                    .ok()
                    .map(|key| Secret::P256(Box::new(key))),
                Suite::P384 => p384::ecdsa::SigningKey::from_slice(&randomness.bytes(48))
                    .ok()
                    .map(|key| Secret::P384(Box::new(key))),
                Suite::P521 => {
                    let mut bytes = randomness.bytes(66);
                    bytes[0] &= 1;
                    p521::ecdsa::SigningKey::from_slice(&bytes).ok().map(|key| Secret::P521(Box::new(key)))
                }
                Suite::Ed448 | Suite::Ed448ChaCha => {
                    ed448_goldilocks::SigningKey::try_from(&randomness.bytes(57)[..])
                        .ok()
                        .map(|key| Secret::Ed448(Box::new(key)))
                }
            };
            if let Some(secret) = secret {
                break secret;
            }
        };
        Self { suite, secret }
    }

    /// The public key, as leaf nodes hold it (RFC 9420 §5.1.1).
    pub fn public(&self) -> Vec<u8> {
        match &self.secret {
            Secret::Ed25519(key) => key.verifying_key().to_bytes().to_vec(),
            Secret::P256(key) => key.verifying_key().to_sec1_point(false).as_bytes().to_vec(),
            Secret::P384(key) => key.verifying_key().to_sec1_point(false).as_bytes().to_vec(),
            Secret::P521(key) => key.verifying_key().to_sec1_point(false).as_bytes().to_vec(),
            Secret::Ed448(key) => key.verifying_key().to_bytes().to_vec(),
        }
    }

    /// SignWithLabel (RFC 9420 §5.1.2).
    pub fn sign(&self, label: &str, content: &[u8]) -> Vec<u8> {
        let signed = sign_content(label, content);
        match &self.secret {
            Secret::Ed25519(key) => ed25519_dalek::Signer::sign(&**key, &signed).to_bytes().to_vec(),
            Secret::P256(key) => {
                let signature: p256::ecdsa::Signature = key.sign(&signed);
                signature.to_der().as_bytes().to_vec()
            }
            Secret::P384(key) => {
                let signature: p384::ecdsa::Signature = key.sign(&signed);
                signature.to_der().as_bytes().to_vec()
            }
            Secret::P521(key) => {
                let signature: p521::ecdsa::Signature = key.sign(&signed);
                signature.to_der().as_bytes().to_vec()
            }
            Secret::Ed448(key) => key.sign_raw(&signed).to_bytes().to_vec(),
        }
    }
}
