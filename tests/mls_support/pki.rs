//! An organisation's certificates for real clients.

use std::time::Duration;

use actors::{ClientHandle, DomainName};
use mimi_gateway::tools::pki::{CertificateAuthority, ClientKey};
use mls_rs::{
    CipherSuite, CipherSuiteProvider as _, CryptoProvider as _,
    identity::{
        SigningIdentity,
        x509::{CertificateChain, DerCertificate},
    },
};
use mls_rs_core::crypto::{SignaturePublicKey, SignatureSecretKey};
use mls_rs_crypto_rustcrypto::RustCryptoProvider;

/// A certificate that outlives every test.
pub(crate) const LONG: Duration = Duration::from_secs(86_400);

/// A root, under which each domain, each account and each device has a certificate.
pub(crate) struct Pki {
    root: CertificateAuthority,
}

/// A client with its certificate and its key.
#[derive(Clone)]
pub(crate) struct Certified {
    pub(crate) handle: ClientHandle,
    pub(crate) domain: DomainName,
    pub(crate) suite: CipherSuite,
    pub(crate) chain: Vec<Vec<u8>>,
    pub(crate) secret: SignatureSecretKey,
    pub(crate) public: SignaturePublicKey,
}

impl Pki {
    pub(crate) fn new() -> Self {
        Self { root: CertificateAuthority::root("Test Root", 2).unwrap() }
    }

    /// What an application trusts.
    pub(crate) fn roots(&self) -> String {
        self.root.pem()
    }

    /// A device of an account of a domain, for MLS's first cipher suite.
    pub(crate) fn certify(&self, domain: &str, account: &str, device: &str) -> Certified {
        self.certify_for(CipherSuite::CURVE25519_AES128, domain, account, device, LONG)
    }

    /// As [`Pki::certify`], for so long.
    pub(crate) fn certify_for(
        &self,
        suite: CipherSuite,
        domain: &str,
        account: &str,
        device: &str,
        lasts: Duration,
    ) -> Certified {
        certify(&self.issuer(domain, account), suite, [domain, account, device], lasts)
    }

    /// As [`Pki::certify`], below a domain and an account that are made below an account, which may have none.
    pub(crate) fn certify_below(&self, [domain, account]: [&str; 2], names: [&str; 3]) -> Certified {
        let issuer = self.issuer(domain, account).below(names[0]).unwrap().below(names[1]).unwrap();
        certify(&issuer, CipherSuite::CURVE25519_AES128, names, LONG)
    }

    fn issuer(&self, domain: &str, account: &str) -> CertificateAuthority {
        self.root.below(domain).unwrap().below(account).unwrap()
    }

    /// A chain for a key: a domain, an account and a device.
    pub(crate) fn chain_for(
        &self,
        key: ClientKey<'_>,
        [domain, account, device]: [&str; 3],
        lasts: Duration,
    ) -> Vec<Vec<u8>> {
        self.issuer(domain, account).certify(device, key, lasts).unwrap()
    }
}

fn certify(
    issuer: &CertificateAuthority,
    suite: CipherSuite,
    [domain, account, device]: [&str; 3],
    lasts: Duration,
) -> Certified {
    let crypto = RustCryptoProvider::default().cipher_suite_provider(suite).unwrap();
    let (secret, public) = crypto.signature_key_generate().unwrap();
    let key = match suite {
        CipherSuite::P256_AES128 => ClientKey::P256(public.as_bytes()),
        _ => ClientKey::Ed25519(public.as_bytes()),
    };
    Certified {
        handle: ClientHandle::new(format!("{account}/{device}").as_bytes()).unwrap(),
        domain: DomainName::new(domain).unwrap(),
        suite,
        chain: issuer.certify(device, key, lasts).unwrap(),
        secret,
        public,
    }
}

impl Certified {
    pub(crate) fn signing_identity(&self) -> SigningIdentity {
        let certificates = self.chain.iter().cloned().map(DerCertificate::from).collect::<Vec<_>>();
        SigningIdentity::new(CertificateChain::from(certificates).into_credential(), self.public.clone())
    }
}
