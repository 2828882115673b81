//! The cryptography of a member that can lie: it encrypts path secrets so that nobody can decrypt them (RFC 9420 §7.5). Everything
//! that outsiders see of such a commit is right: its signature, its tags, and the number and form of the ciphertexts.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use mls_rs::{CipherSuite, CipherSuiteProvider, CryptoProvider};
use mls_rs_core::crypto::{
    HpkeCiphertext, HpkePsk, HpkePublicKey, HpkeSecretKey, SignaturePublicKey, SignatureSecretKey,
};
use mls_rs_crypto_rustcrypto::RustCryptoProvider;
use zeroize::Zeroizing;

type Honest = <RustCryptoProvider as CryptoProvider>::CipherSuiteProvider;
type Failure = <Honest as CipherSuiteProvider>::Error;
type Secret = Zeroizing<Vec<u8>>;

/// The provider of a member; it is honest until it is told to lie.
#[derive(Clone, Debug, Default)]
pub(crate) struct Crypto {
    honest: RustCryptoProvider,
    lies: Arc<AtomicBool>,
}

/// The provider of one cipher suite.
#[derive(Clone)]
pub(crate) struct CryptoOfSuite {
    honest: Honest,
    lies: Arc<AtomicBool>,
}

impl Crypto {
    /// Lies from now on, or no longer.
    pub(crate) fn lie(&self, lies: bool) {
        self.lies.store(lies, Ordering::Relaxed);
    }
}

impl CryptoProvider for Crypto {
    type CipherSuiteProvider = CryptoOfSuite;

    fn supported_cipher_suites(&self) -> Vec<CipherSuite> {
        self.honest.supported_cipher_suites()
    }

    fn cipher_suite_provider(&self, suite: CipherSuite) -> Option<CryptoOfSuite> {
        let honest = self.honest.cipher_suite_provider(suite)?;
        Some(CryptoOfSuite { honest, lies: Arc::clone(&self.lies) })
    }
}

impl CipherSuiteProvider for CryptoOfSuite {
    type Error = Failure;
    type HpkeContextS = <Honest as CipherSuiteProvider>::HpkeContextS;
    type HpkeContextR = <Honest as CipherSuiteProvider>::HpkeContextR;

    /// `info` is the label of `EncryptWithLabel` with the context (RFC 9420 §5.1.3).
    fn hpke_seal(
        &self,
        remote_key: &HpkePublicKey,
        info: &[u8],
        aad: Option<&[u8]>,
        pt: &[u8],
    ) -> Result<HpkeCiphertext, Failure> {
        let mut sealed = self.honest.hpke_seal(remote_key, info, aad, pt)?;
        let is_of_path = info.windows(b"UpdatePathNode".len()).any(|part| part == b"UpdatePathNode");
        if is_of_path && self.lies.load(Ordering::Relaxed) {
            sealed.ciphertext.iter_mut().for_each(|byte| *byte ^= 1);
        }
        Ok(sealed)
    }

    fn cipher_suite(&self) -> CipherSuite {
        self.honest.cipher_suite()
    }

    fn hash(&self, data: &[u8]) -> Result<Vec<u8>, Failure> {
        self.honest.hash(data)
    }

    fn mac(&self, key: &[u8], data: &[u8]) -> Result<Vec<u8>, Failure> {
        self.honest.mac(key, data)
    }

    fn aead_seal(
        &self,
        key: &[u8],
        data: &[u8],
        aad: Option<&[u8]>,
        nonce: &[u8],
    ) -> Result<Vec<u8>, Failure> {
        self.honest.aead_seal(key, data, aad, nonce)
    }

    fn aead_open(
        &self,
        key: &[u8],
        ciphertext: &[u8],
        aad: Option<&[u8]>,
        nonce: &[u8],
    ) -> Result<Secret, Failure> {
        self.honest.aead_open(key, ciphertext, aad, nonce)
    }

    fn aead_key_size(&self) -> usize {
        self.honest.aead_key_size()
    }

    fn aead_nonce_size(&self) -> usize {
        self.honest.aead_nonce_size()
    }

    fn kdf_extract(&self, salt: &[u8], ikm: &[u8]) -> Result<Secret, Failure> {
        self.honest.kdf_extract(salt, ikm)
    }

    fn kdf_expand(&self, prk: &[u8], info: &[u8], len: usize) -> Result<Secret, Failure> {
        self.honest.kdf_expand(prk, info, len)
    }

    fn kdf_extract_size(&self) -> usize {
        self.honest.kdf_extract_size()
    }

    fn hpke_seal_psk(
        &self,
        remote_key: &HpkePublicKey,
        info: &[u8],
        aad: Option<&[u8]>,
        pt: &[u8],
        psk: HpkePsk<'_>,
    ) -> Result<HpkeCiphertext, Failure> {
        self.honest.hpke_seal_psk(remote_key, info, aad, pt, psk)
    }

    fn hpke_open(
        &self,
        ciphertext: &HpkeCiphertext,
        local_secret: &HpkeSecretKey,
        local_public: &HpkePublicKey,
        info: &[u8],
        aad: Option<&[u8]>,
    ) -> Result<Secret, Failure> {
        self.honest.hpke_open(ciphertext, local_secret, local_public, info, aad)
    }

    fn hpke_open_psk(
        &self,
        ciphertext: &HpkeCiphertext,
        local_secret: &HpkeSecretKey,
        local_public: &HpkePublicKey,
        info: &[u8],
        aad: Option<&[u8]>,
        psk: HpkePsk<'_>,
    ) -> Result<Secret, Failure> {
        self.honest.hpke_open_psk(ciphertext, local_secret, local_public, info, aad, psk)
    }

    fn hpke_setup_s(
        &self,
        remote_key: &HpkePublicKey,
        info: &[u8],
    ) -> Result<(Vec<u8>, Self::HpkeContextS), Failure> {
        self.honest.hpke_setup_s(remote_key, info)
    }

    fn hpke_setup_r(
        &self,
        kem_output: &[u8],
        local_secret: &HpkeSecretKey,
        local_public: &HpkePublicKey,
        info: &[u8],
    ) -> Result<Self::HpkeContextR, Failure> {
        self.honest.hpke_setup_r(kem_output, local_secret, local_public, info)
    }

    fn kem_derive(&self, ikm: &[u8]) -> Result<(HpkeSecretKey, HpkePublicKey), Failure> {
        self.honest.kem_derive(ikm)
    }

    fn kem_generate(&self) -> Result<(HpkeSecretKey, HpkePublicKey), Failure> {
        self.honest.kem_generate()
    }

    fn kem_public_key_validate(&self, key: &HpkePublicKey) -> Result<(), Failure> {
        self.honest.kem_public_key_validate(key)
    }

    fn random_bytes(&self, out: &mut [u8]) -> Result<(), Failure> {
        self.honest.random_bytes(out)
    }

    fn signature_key_generate(&self) -> Result<(SignatureSecretKey, SignaturePublicKey), Failure> {
        self.honest.signature_key_generate()
    }

    fn signature_key_derive_public(
        &self,
        secret_key: &SignatureSecretKey,
    ) -> Result<SignaturePublicKey, Failure> {
        self.honest.signature_key_derive_public(secret_key)
    }

    fn sign(&self, secret_key: &SignatureSecretKey, data: &[u8]) -> Result<Vec<u8>, Failure> {
        self.honest.sign(secret_key, data)
    }

    fn verify(&self, public_key: &SignaturePublicKey, signature: &[u8], data: &[u8]) -> Result<(), Failure> {
        self.honest.verify(public_key, signature, data)
    }
}
