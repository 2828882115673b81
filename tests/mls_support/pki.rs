//! An organisation's certificates for real clients.

use std::{
    cell::Cell,
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

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

/// A root, domains and their accounts, with revocation lists in files.
pub(crate) struct ListedPki {
    root: CertificateAuthority,
    domains: BTreeMap<&'static str, CertificateAuthority>,
    /// Each with its domain.
    accounts: BTreeMap<&'static str, (&'static str, CertificateAuthority)>,
    /// The number of the latest lists.
    number: Cell<u64>,
}

impl ListedPki {
    /// These accounts, each with its domain.
    pub(crate) fn new(names: &[(&'static str, &'static str)]) -> Self {
        let root = CertificateAuthority::root("Test Root", 2).unwrap();
        let domains: BTreeMap<_, _> =
            names.iter().map(|(_, domain)| (*domain, root.below(domain).unwrap())).collect();
        let account = |(account, domain): &(&'static str, &'static str)| {
            (*account, (*domain, domains[domain].below(account).unwrap()))
        };
        let accounts = names.iter().map(account).collect();
        Self { root, domains, accounts, number: Cell::new(0) }
    }

    /// What an application trusts.
    pub(crate) fn roots(&self) -> String {
        self.root.pem()
    }

    /// A device of an account.
    pub(crate) fn certify(&self, account: &str, device: &str) -> Certified {
        let (domain, authority) = &self.accounts[account];
        certify(authority, CipherSuite::CURVE25519_AES128, [domain, account, device], LONG)
    }

    /// A chain for a key of a device.
    pub(crate) fn chain_for(&self, key: ClientKey<'_>, account: &str, device: &str) -> Vec<Vec<u8>> {
        self.accounts[account].1.certify(device, key, LONG).unwrap()
    }

    /// The files of the lists in a directory: of the root, of the domains and of the accounts.
    pub(crate) fn lists(&self, directory: &Path) -> Vec<PathBuf> {
        self.authorities().map(|(name, _)| directory.join(format!("{name}.crl"))).collect()
    }

    /// Replaces all lists in a directory by newer ones that list these certificates, each in the list of its issuer.
    pub(crate) fn publish(&self, directory: &Path, revoked: &[&[u8]]) {
        self.number.set(self.number.get() + 1);
        for ((_, authority), path) in self.authorities().zip(self.lists(directory)) {
            let issued: Vec<&[u8]> = revoked.iter().filter(|der| authority.issued(der)).copied().collect();
            let list = authority.revocation_list(self.number.get(), &issued).unwrap();
            let new = path.with_extension("new");
            std::fs::write(&new, list).unwrap();
            std::fs::rename(&new, &path).unwrap();
        }
    }

    fn authorities(&self) -> impl Iterator<Item = (&str, &CertificateAuthority)> {
        let domains = self.domains.iter().map(|(name, domain)| (*name, domain));
        let accounts = self.accounts.iter().map(|(name, (_, account))| (*name, account));
        [("root", &self.root)].into_iter().chain(domains).chain(accounts)
    }
}

/// A device with a new key, certified by its account.
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
