//! The gateway as an external sender of MLS (RFC 9420 §12.1.8.1): its keys for proposing removals, and the `ExternalSender`s
//! that groups must list.

use std::fmt;

use openmls::prelude::SignatureScheme;
use openmls_traits::signatures::{Signer, SignerError};
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _},
};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer, pem::PemObject as _};
use snapshots::Timestamp;
use x509_parser::{certificate::X509Certificate, prelude::FromDer as _};

use crate::{
    identity::{
        ApplicationContext, Credential, CredentialType, GroupContextExtensions, Identity, IdentityError,
        IdentityProvider,
    },
    presentation::write_vector,
};

/// The reason why a key cannot be an external sender's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExternalSenderError {
    /// The private key cannot be used.
    #[error("must be a PEM file with one PKCS#8 private key (BEGIN PRIVATE KEY), Ed25519 or ECDSA P-256")]
    PrivateKey,
    /// The certificates cannot be used.
    #[error(
        "must be a PEM file with a certificate chain, the leaf first, whose leaf has the public key of `private_key`"
    )]
    Certificates,
}

/// A key with which the gateway signs proposals, and the `ExternalSender` that allows it to propose in a group.
pub struct ExternalSenderKey {
    pair: KeyPair,
    public_key: Vec<u8>,
    /// The `ExternalSender`, serialised.
    sender: Vec<u8>,
    credential_type: CredentialType,
    credential: Vec<u8>,
}

enum KeyPair {
    Ed25519(Ed25519KeyPair),
    P256(EcdsaKeyPair, SystemRandom),
}

impl ExternalSenderKey {
    /// Reads a PKCS#8 private key, Ed25519 or ECDSA P-256, in PEM. The certificate chain (PEM, the leaf first) becomes the
    /// sender's X.509 credential; without one, the credential is a basic one with this name.
    ///
    /// # Errors
    /// [`ExternalSenderError`] names the one of the two that cannot be used.
    pub fn from_pem(
        private_key: &[u8],
        certificates: Option<&[u8]>,
        name: &str,
    ) -> Result<Self, ExternalSenderError> {
        let pair = KeyPair::from_pem(private_key).ok_or(ExternalSenderError::PrivateKey)?;
        let public_key = pair.public_key().to_vec();
        let (credential_type, credential) = match certificates {
            Some(pem) => {
                let chain = x509_credential(pem, &public_key).ok_or(ExternalSenderError::Certificates)?;
                (CredentialType::X509, chain)
            }
            None => (CredentialType::BASIC, name.as_bytes().to_vec()),
        };
        let mut sender = Vec::new();
        write_vector(&mut sender, &public_key);
        sender.extend_from_slice(&credential_type.0.to_be_bytes());
        write_vector(&mut sender, &credential);
        Ok(Self { pair, public_key, sender, credential_type, credential })
    }

    /// The signature scheme (RFC 9420 §5.1), by its number in the TLS registry.
    pub fn scheme(&self) -> u16 {
        self.signature_scheme() as u16
    }

    /// The public key in the form of MLS (RFC 9420 §5.1.1).
    pub fn public_key(&self) -> &[u8] {
        &self.public_key
    }

    /// The serialised `ExternalSender` (RFC 9420 §12.1.8.1), ready for the `external_senders` extension of a group.
    pub fn external_sender(&self) -> &[u8] {
        &self.sender
    }

    /// Checks that groups of an application with this provider will accept the key's credential. A basic credential is always
    /// accepted.
    ///
    /// # Errors
    /// The reason why they will not.
    pub fn check_credential(
        &self,
        provider: &dyn IdentityProvider,
        at: Timestamp,
    ) -> Result<(), IdentityError> {
        if self.credential_type != CredentialType::X509 {
            return Ok(());
        }
        let credential = Credential { credential_type: self.credential_type, content: &self.credential };
        let identity = Identity { signature_key: &self.public_key, credential };
        let context = ApplicationContext::at(at);
        provider.validate(identity, GroupContextExtensions::empty(), context)
    }
}

impl KeyPair {
    fn from_pem(private_key: &[u8]) -> Option<Self> {
        let key = PrivatePkcs8KeyDer::from_pem_slice(private_key).ok()?;
        let der = key.secret_pkcs8_der();
        // OpenSSL writes Ed25519 keys without the public key, which PKCS#8 leaves optional.
        if let Ok(pair) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der) {
            return Some(Self::Ed25519(pair));
        }
        let random = SystemRandom::new();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, der, &random).ok()?;
        Some(Self::P256(pair, random))
    }

    fn public_key(&self) -> &[u8] {
        match self {
            Self::Ed25519(pair) => pair.public_key().as_ref(),
            Self::P256(pair, _) => pair.public_key().as_ref(),
        }
    }
}

/// The content of the X.509 credential (RFC 9420 §5.3) of a chain in PEM, if its leaf has this key.
fn x509_credential(pem: &[u8], public_key: &[u8]) -> Option<Vec<u8>> {
    let chain: Vec<CertificateDer<'_>> =
        CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().ok()?;
    let (_, leaf) = X509Certificate::from_der(chain.first()?).ok()?;
    if leaf.public_key().subject_public_key.data != public_key {
        return None;
    }
    let mut content = Vec::new();
    for certificate in &chain {
        write_vector(&mut content, certificate);
    }
    Some(content)
}

impl Signer for ExternalSenderKey {
    fn sign(&self, payload: &[u8]) -> Result<Vec<u8>, SignerError> {
        match &self.pair {
            KeyPair::Ed25519(pair) => Ok(pair.sign(payload).as_ref().to_vec()),
            KeyPair::P256(pair, random) => match pair.sign(random, payload) {
                Ok(signature) => Ok(signature.as_ref().to_vec()),
                Err(_) => Err(SignerError::SigningError),
            },
        }
    }

    fn signature_scheme(&self) -> SignatureScheme {
        match self.pair {
            KeyPair::Ed25519(_) => SignatureScheme::ED25519,
            KeyPair::P256(..) => SignatureScheme::ECDSA_SECP256R1_SHA256,
        }
    }
}

impl fmt::Debug for ExternalSenderKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExternalSenderKey").field("scheme", &self.signature_scheme()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use openmls_rust_crypto::RustCrypto;
    use openmls_traits::crypto::OpenMlsCrypto as _;

    use super::*;

    #[test]
    fn keys_of_both_kinds_sign_as_mls_does() {
        for algorithm in [&rcgen::PKCS_ED25519, &rcgen::PKCS_ECDSA_P256_SHA256] {
            let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
            let pem = key.serialize_pem();
            let sender = ExternalSenderKey::from_pem(pem.as_bytes(), None, "a.example").unwrap();
            let signature = sender.sign(b"payload").unwrap();
            let verifies = |payload: &[u8]| {
                let scheme = sender.signature_scheme();
                RustCrypto::default()
                    .verify_signature(scheme, payload, sender.public_key(), &signature)
                    .is_ok()
            };
            assert!(verifies(b"payload") && !verifies(b"another payload"), "{sender:?}");
        }
    }

    #[test]
    fn what_is_no_key_or_not_its_certificate_is_refused() {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let other = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let pem = key.serialize_pem();
        let certificate = |key| rcgen::CertificateParams::default().self_signed(key).unwrap().pem();
        let (own, foreign) = (certificate(&key), certificate(&other));
        let check = |private_key: &str, certificates: Option<&str>, expected| {
            let certificates = certificates.map(str::as_bytes);
            let refused = ExternalSenderKey::from_pem(private_key.as_bytes(), certificates, "name").err();
            assert_eq!(refused, expected);
        };
        check(&pem, None, None);
        check(&pem, Some(&own), None);
        check(&pem, Some(&foreign), Some(ExternalSenderError::Certificates));
        check(&pem, Some(""), Some(ExternalSenderError::Certificates));
        check(&pem, Some(&pem), Some(ExternalSenderError::Certificates));
        check("", None, Some(ExternalSenderError::PrivateKey));
        check(&own, None, Some(ExternalSenderError::PrivateKey));
        let p384 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        check(&p384.serialize_pem(), None, Some(ExternalSenderError::PrivateKey));
    }
}
