//! Certificates and keys from PEM files, and the names and validity of a certificate.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::{SystemTime, UNIX_EPOCH},
};

use actors::DomainName;
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::{CryptoProvider, ring},
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject as _},
    },
};
use x509_parser::{
    certificate::X509Certificate,
    extensions::GeneralName,
    prelude::{FromDer as _, Validity},
};

/// The reason why a file cannot be used for TLS.
#[derive(Debug, thiserror::Error)]
#[error("{}: {reason}", path.display())]
pub(crate) struct TlsFileError {
    /// The member of a configuration that names the file: `certificate` or `private_key`.
    pub(crate) member: &'static str,
    path: PathBuf,
    reason: String,
}

/// A certificate with the chain that leads to it, and its key.
#[derive(Debug)]
pub(crate) struct TlsIdentity {
    /// The leaf first.
    pub(crate) chain: Vec<CertificateDer<'static>>,
    /// The key of the leaf.
    pub(crate) key: PrivateKeyDer<'static>,
}

/// TLS of a listener for HTTP/1.1, which can be replaced while it serves: each connection keeps what it began with. Clones
/// are the same.
#[derive(Clone, Debug)]
pub(crate) struct ServerTls(Arc<RwLock<Arc<ServerConfig>>>);

impl ServerTls {
    /// TLS without protocol names, which are added.
    pub(crate) fn new(mut config: ServerConfig) -> Self {
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Self(Arc::new(RwLock::new(Arc::new(config))))
    }

    /// TLS for the next connection.
    pub(crate) fn present(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Uses newer TLS for connections that come later.
    pub(crate) fn take(&self, newer: &Self) {
        let newer = newer.present();
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = newer;
    }
}

/// The names and the validity in a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    /// The DNS names of its SubjectAlternativeName, without wildcards.
    pub(crate) domains: BTreeSet<DomainName>,
    /// The beginning of its validity, in seconds since 1970.
    pub(crate) not_before_s: i64,
    /// The end of its validity, in seconds since 1970.
    pub(crate) not_after_s: i64,
}

/// The cryptography of all TLS in the gateway.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// Makes [`provider`] the default of this process; an HTTP client without TLS settings needs one.
pub(crate) fn install_provider() {
    // It fails only if there is a default already, which is then used.
    let _ = ring::default_provider().install_default();
}

/// TLS for an HTTP client that makes no TLS connections.
pub(crate) fn trusting_nobody() -> Result<ClientConfig, rustls::Error> {
    Ok(ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth())
}

/// Reads the certificates of a PEM file: at least one.
pub(crate) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsFileError> {
    let found = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    found
        .and_then(|found| if found.is_empty() { Err(pem::Error::NoItemsFound) } else { Ok(found) })
        .map_err(|error| unusable("certificate", path, in_words(&error, "certificate")))
}

/// Reads the certificates of a PEM file as trust anchors.
pub(crate) fn roots(path: &Path) -> Result<RootCertStore, TlsFileError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|error| {
            unusable("certificate", path, format!("a certificate in it cannot certify others: {error}"))
        })?;
    }
    Ok(roots)
}

impl TlsIdentity {
    /// Reads a certificate chain and the key of its first certificate, both PEM, and checks that they match.
    pub(crate) fn read(certificate: &Path, key: &Path) -> Result<Self, TlsFileError> {
        let chain = certificates(certificate)?;
        let unusable = |reason| unusable("private_key", key, reason);
        let private =
            PrivateKeyDer::from_pem_file(key).map_err(|error| unusable(in_words(&error, "private key")))?;
        let credentials = Self { chain, key: private };
        credentials.server_config().map_err(|error| {
            unusable(if matches!(error, rustls::Error::InconsistentKeys(_)) {
                "it does not match the certificate, which has another public key".to_owned()
            } else {
                format!("it does not match the certificate: {error}")
            })
        })?;
        Ok(credentials)
    }

    /// The names and the validity in the first certificate.
    pub(crate) fn holder(&self) -> Option<Holder> {
        self.chain.first().and_then(Holder::of)
    }

    /// TLS for a listener that requests no client certificates.
    pub(crate) fn server_config(&self) -> Result<ServerConfig, rustls::Error> {
        ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(self.chain.clone(), self.key.clone_key())
    }
}

impl Holder {
    /// The holder of a certificate in DER; `None` if it cannot be parsed.
    pub(crate) fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
        let Validity { not_before, not_after } = certificate.validity();
        let names = certificate.subject_alternative_name().ok()?;
        let names = names.map_or(&[][..], |extension| &extension.value.general_names);
        let domains = names.iter().filter_map(|name| {
            if let GeneralName::DNSName(name) = name { DomainName::new(name).ok() } else { None }
        });
        Some(Self {
            domains: domains.collect(),
            not_before_s: not_before.timestamp(),
            not_after_s: not_after.timestamp(),
        })
    }

    /// Whether the certificate is valid at a time, in seconds since 1970.
    pub(crate) fn is_valid_at(&self, now_s: i64) -> bool {
        (self.not_before_s..=self.not_after_s).contains(&now_s)
    }
}

/// The time, in seconds since 1970.
pub(crate) fn now_s() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

fn unusable(member: &'static str, path: &Path, reason: String) -> TlsFileError {
    TlsFileError { member, path: path.to_owned(), reason }
}

fn in_words(error: &pem::Error, wanted: &str) -> String {
    if let pem::Error::Io(error) = error {
        return error.to_string();
    }
    if matches!(error, pem::Error::NoItemsFound) {
        return format!("there is no {wanted} in it");
    }
    format!("it is not PEM: {error}")
}
