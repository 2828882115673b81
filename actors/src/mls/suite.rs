//! Cryptography of an observer, for every cipher suite of RFC 9420 §17.1.
//!
//! An observer hashes, verifies signatures, and checks that public keys can be used. It holds no secrets.

mod digest;
mod low_order;
#[cfg(feature = "simulation")]
mod remembered;
#[cfg(test)]
mod tests;

use aws_lc_rs::{
    digest as aws_digest,
    signature::{
        self, ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ECDSA_P521_SHA512_ASN1,
        EcdsaVerificationAlgorithm, ParsedPublicKey, UnparsedPublicKey,
    },
};
use sha2::{Sha256, Sha384, Sha512, digest::Output};

pub(crate) use self::digest::Digest;
use crate::presentation::write_vector_length;

/// A cipher suite, by its number in the registry (RFC 9420 §17.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum CipherSuite {
    /// MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519
    X25519Aes128Sha256Ed25519 = 1,
    /// MLS_128_DHKEMP256_AES128GCM_SHA256_P256
    P256Aes128Sha256P256 = 2,
    /// MLS_128_DHKEMX25519_CHACHA20POLY1305_SHA256_Ed25519
    X25519ChaCha20Sha256Ed25519 = 3,
    /// MLS_256_DHKEMX448_AES256GCM_SHA512_Ed448
    X448Aes256Sha512Ed448 = 4,
    /// MLS_256_DHKEMP521_AES256GCM_SHA512_P521
    P521Aes256Sha512P521 = 5,
    /// MLS_256_DHKEMX448_CHACHA20POLY1305_SHA512_Ed448
    X448ChaCha20Sha512Ed448 = 6,
    /// MLS_256_DHKEMP384_AES256GCM_SHA384_P384
    P384Aes256Sha384P384 = 7,
}

/// A signature that its public key did not make, or that is not one of its scheme.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the signature is invalid")]
pub(crate) struct InvalidSignature;

/// The hash functions of the suites.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HashFunction {
    Sha256,
    Sha384,
    Sha512,
}

/// The curve of a suite's HPKE keys and signature keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Curve {
    /// X25519 and Ed25519.
    Curve25519,
    /// X448 and Ed448.
    Curve448,
    /// ECDH and ECDSA.
    Nist(NistCurve),
}

/// The curves whose points are encoded as in SEC 1 §2.3.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NistCurve {
    P256,
    P384,
    P521,
}

/// The first byte of an uncompressed point, the only form that MLS has (RFC 9420 §5.1.1).
const UNCOMPRESSED: u8 = 4;

/// A vector's length is below this (RFC 9420 §2.1.2).
const VECTOR_LENGTH_END: usize = 1 << 30;

impl CipherSuite {
    /// Every suite, in the order of the numbers.
    pub(crate) const ALL: [Self; 7] = [
        Self::X25519Aes128Sha256Ed25519,
        Self::P256Aes128Sha256P256,
        Self::X25519ChaCha20Sha256Ed25519,
        Self::X448Aes256Sha512Ed448,
        Self::P521Aes256Sha512P521,
        Self::X448ChaCha20Sha512Ed448,
        Self::P384Aes256Sha384P384,
    ];

    /// The suite of this number; `None` for one that RFC 9420 does not define.
    pub(crate) fn from_number(number: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|suite| suite.number() == number)
    }

    /// The number in the registry.
    pub(crate) fn number(self) -> u16 {
        self as u16
    }

    /// Its signature scheme, by the number in the registry of TLS (RFC 9420 §17.1).
    pub(crate) fn signature_scheme(self) -> u16 {
        match self {
            Self::X25519Aes128Sha256Ed25519 | Self::X25519ChaCha20Sha256Ed25519 => 0x0807,
            Self::P256Aes128Sha256P256 => 0x0403,
            Self::X448Aes256Sha512Ed448 | Self::X448ChaCha20Sha512Ed448 => 0x0808,
            Self::P521Aes256Sha512P521 => 0x0603,
            Self::P384Aes256Sha384P384 => 0x0503,
        }
    }

    /// Hashes the concatenation of the parts.
    pub(crate) fn hash(self, parts: &[&[u8]]) -> Digest {
        self.hash_behind(&[], parts)
    }

    /// Hashes `head` and then the parts.
    fn hash_behind(self, head: &[u8], parts: &[&[u8]]) -> Digest {
        match self.hash_function() {
            HashFunction::Sha256 => Digest::of(&output::<Sha256>(head, parts)),
            HashFunction::Sha384 => Digest::of(&output::<Sha384>(head, parts)),
            HashFunction::Sha512 => Digest::of(&output::<Sha512>(head, parts)),
        }
    }

    /// The length of a hash in bytes: `Nh` of RFC 9420.
    pub(crate) fn hash_length(self) -> usize {
        match self.hash_function() {
            HashFunction::Sha256 => 32,
            HashFunction::Sha384 => 48,
            HashFunction::Sha512 => 64,
        }
    }

    /// `RefHash` (RFC 9420 §5.2). The label is given in full, such as "MLS 1.0 KeyPackage Reference".
    pub(crate) fn ref_hash(self, label: &str, value: &[u8]) -> Digest {
        let mut head = Vec::with_capacity(label.len() + 8);
        write_vector_length(&mut head, label.len());
        head.extend_from_slice(label.as_bytes());
        write_vector_length(&mut head, value.len());
        self.hash(&[&head, value])
    }

    /// `VerifyWithLabel` (RFC 9420 §5.1.2), of content that is given in parts.
    ///
    /// Libraries differ in which signatures they accept from a signer who deviates from its scheme. A signature that only
    /// some members accept would split their group, so this accepts those that the libraries agree on:
    ///
    /// - Ed25519 by RFC 8032 §5.1.7 without the cofactor, as OpenSSL, BoringSSL, AWS-LC and dalek verify, and with the
    ///   refusals of dalek's `verify_strict`, which openmls calls: no public key and no R of small order, S below the
    ///   group's order, canonical encodings (of the key too, as AWS-LC asks).
    /// - Ed448 by RFC 8032 §5.2.7 with the cofactor, as the RFC writes it and OpenSSL does, and with the same refusals.
    /// - ECDSA in DER, with nothing behind it and r and s in 1..n. A signature with n - s in the place of s is valid too:
    ///   neither RFC 9420 nor FIPS 186-5 asks for the smaller one.
    ///
    /// # Errors
    /// [`InvalidSignature`], also for a public key that is not one of the suite.
    pub(crate) fn verify_with_label(
        self,
        public_key: &[u8],
        label: &str,
        content: &[&[u8]],
        signature: &[u8],
    ) -> Result<(), InvalidSignature> {
        let length = content.iter().map(|part| part.len()).sum();
        let head = sign_content_head(label, length).ok_or(InvalidSignature)?;
        #[cfg(feature = "simulation")]
        if snapshots::is_simulated() {
            let number = self.number().to_be_bytes();
            let parts =
                [&number[..], public_key, signature, &head].into_iter().chain(content.iter().copied());
            return remembered::verdict(parts, || self.verify(public_key, &head, content, signature));
        }
        self.verify(public_key, &head, content, signature)
    }

    /// Verifies the signature of `head` followed by the parts.
    fn verify(
        self,
        public_key: &[u8],
        head: &[u8],
        parts: &[&[u8]],
        signature: &[u8],
    ) -> Result<(), InvalidSignature> {
        self.check_signature_key(public_key).map_err(|_| InvalidSignature)?;
        match self.curve() {
            Curve::Curve25519 => {
                let has_small_order =
                    signature.first_chunk().is_none_or(|point| low_order::is_ed25519_point(*point));
                if has_small_order {
                    return Err(InvalidSignature);
                }
                UnparsedPublicKey::new(&signature::ED25519, public_key)
                    .verify(&concatenation(head, parts), signature)
                    .map_err(|_| InvalidSignature)
            }
            Curve::Curve448 => {
                let has_small_order =
                    signature.first_chunk().is_none_or(|y| low_order::is_curve448_coordinate(*y));
                let key = crrl::ed448::PublicKey::decode(public_key).ok_or(InvalidSignature)?;
                if !has_small_order && key.verify_raw(signature, &concatenation(head, parts)) {
                    Ok(())
                } else {
                    Err(InvalidSignature)
                }
            }
            Curve::Nist(curve) => {
                let digest = self.hash_behind(head, parts);
                let digest = aws_digest::Digest::import_less_safe(digest.as_ref(), curve.digest())
                    .map_err(|_| InvalidSignature)?;
                UnparsedPublicKey::new(curve.ecdsa(), public_key)
                    .verify_digest(&digest, signature)
                    .map_err(|_| InvalidSignature)
            }
        }
    }

    /// Checks that the bytes are an HPKE public key that can be encrypted to: it has the right length, is a point of the
    /// curve and is not of low order (RFC 9180 §7.1.4; RFC 9420 §5.1). A key to which no member can encrypt would block
    /// its group.
    ///
    /// # Errors
    /// Says what the bytes are instead.
    pub(crate) fn check_hpke_key(self, key: &[u8]) -> Result<(), &'static str> {
        match self.curve() {
            Curve::Curve25519 => {
                let key = key.try_into().map_err(|_| "is not an X25519 key of 32 bytes")?;
                if low_order::is_x25519_key(key) { Err("is an X25519 point of low order") } else { Ok(()) }
            }
            Curve::Curve448 => {
                let key = key.try_into().map_err(|_| "is not an X448 key of 56 bytes")?;
                if low_order::is_curve448_coordinate(key) {
                    Err("is an X448 point of low order")
                } else {
                    Ok(())
                }
            }
            Curve::Nist(curve) => curve.check_point(key),
        }
    }

    /// Checks the form of a signature public key (RFC 9420 §5.1.1): it has the right length, is in its only encoding, and
    /// is not of low order, since any message could be given a signature that verifies with such a key. With a key that
    /// is not a point of the curve no signature verifies; that is not looked at here.
    ///
    /// # Errors
    /// Says what the bytes are instead.
    pub(crate) fn check_signature_key(self, key: &[u8]) -> Result<(), &'static str> {
        match self.curve() {
            Curve::Curve25519 => {
                let key = key.try_into().map_err(|_| "is not an Ed25519 key of 32 bytes")?;
                if low_order::is_ed25519_point(key) {
                    Err("is an Ed25519 point of low order")
                } else if !low_order::is_ed25519_canonical(key) {
                    Err("is not an Ed25519 point in its canonical encoding")
                } else {
                    Ok(())
                }
            }
            Curve::Curve448 => {
                let key: [u8; 57] = key.try_into().map_err(|_| "is not an Ed448 key of 57 bytes")?;
                let [y @ .., _sign] = key;
                if low_order::is_curve448_coordinate(y) {
                    Err("is an Ed448 point of low order")
                } else {
                    Ok(())
                }
            }
            Curve::Nist(curve) => curve.check_form(key),
        }
    }

    fn hash_function(self) -> HashFunction {
        match self {
            Self::X25519Aes128Sha256Ed25519
            | Self::P256Aes128Sha256P256
            | Self::X25519ChaCha20Sha256Ed25519 => HashFunction::Sha256,
            Self::P384Aes256Sha384P384 => HashFunction::Sha384,
            Self::X448Aes256Sha512Ed448 | Self::P521Aes256Sha512P521 | Self::X448ChaCha20Sha512Ed448 => {
                HashFunction::Sha512
            }
        }
    }

    fn curve(self) -> Curve {
        match self {
            Self::X25519Aes128Sha256Ed25519 | Self::X25519ChaCha20Sha256Ed25519 => Curve::Curve25519,
            Self::X448Aes256Sha512Ed448 | Self::X448ChaCha20Sha512Ed448 => Curve::Curve448,
            Self::P256Aes128Sha256P256 => Curve::Nist(NistCurve::P256),
            Self::P384Aes256Sha384P384 => Curve::Nist(NistCurve::P384),
            Self::P521Aes256Sha512P521 => Curve::Nist(NistCurve::P521),
        }
    }
}

impl NistCurve {
    fn ecdsa(self) -> &'static EcdsaVerificationAlgorithm {
        match self {
            Self::P256 => &ECDSA_P256_SHA256_ASN1,
            Self::P384 => &ECDSA_P384_SHA384_ASN1,
            Self::P521 => &ECDSA_P521_SHA512_ASN1,
        }
    }

    fn digest(self) -> &'static aws_digest::Algorithm {
        match self {
            Self::P256 => &aws_digest::SHA256,
            Self::P384 => &aws_digest::SHA384,
            Self::P521 => &aws_digest::SHA512,
        }
    }

    /// Checks that the bytes have the length and the first byte of an uncompressed point. The library would also take
    /// other encodings.
    fn check_form(self, key: &[u8]) -> Result<(), &'static str> {
        let (length, otherwise) = match self {
            Self::P256 => (65, "is not an uncompressed P-256 point of 65 bytes"),
            Self::P384 => (97, "is not an uncompressed P-384 point of 97 bytes"),
            Self::P521 => (133, "is not an uncompressed P-521 point of 133 bytes"),
        };
        if key.len() == length && key.first() == Some(&UNCOMPRESSED) { Ok(()) } else { Err(otherwise) }
    }

    fn check_point(self, key: &[u8]) -> Result<(), &'static str> {
        self.check_form(key)?;
        let (is_point, otherwise) = match self {
            // A fifth of the time that the other library takes.
            Self::P256 => {
                (p256::PublicKey::from_sec1_bytes(key).is_ok(), "is not a point on the curve P-256")
            }
            Self::P384 => {
                (ParsedPublicKey::new(self.ecdsa(), key).is_ok(), "is not a point on the curve P-384")
            }
            Self::P521 => {
                (ParsedPublicKey::new(self.ecdsa(), key).is_ok(), "is not a point on the curve P-521")
            }
        };
        if is_point { Ok(()) } else { Err(otherwise) }
    }
}

/// The `SignContent` (RFC 9420 §5.1.2) up to its content, whose length is given in bytes; `None` if no vector has that
/// length.
fn sign_content_head(label: &str, length: usize) -> Option<Vec<u8>> {
    const PREFIX: &str = "MLS 1.0 ";
    if length >= VECTOR_LENGTH_END {
        return None;
    }
    let mut head = Vec::with_capacity(PREFIX.len() + label.len() + 8);
    write_vector_length(&mut head, PREFIX.len() + label.len());
    head.extend_from_slice(PREFIX.as_bytes());
    head.extend_from_slice(label.as_bytes());
    write_vector_length(&mut head, length);
    Some(head)
}

fn output<H: sha2::Digest>(head: &[u8], parts: &[&[u8]]) -> Output<H> {
    let mut hash = H::new();
    hash.update(head);
    for part in parts {
        hash.update(part);
    }
    hash.finalize()
}

/// The signed bytes in one piece, as the libraries ask for with EdDSA.
fn concatenation(head: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let length = head.len() + parts.iter().map(|part| part.len()).sum::<usize>();
    let mut whole = Vec::with_capacity(length);
    whole.extend_from_slice(head);
    parts.iter().for_each(|part| whole.extend_from_slice(part));
    whole
}
