//! `[applications.x509]`: trust and the treatment of expired members. This is deployment policy, not part of an
//! `ApplicationConfiguration`.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use actors::ExpiredMembers;
use serde::{Deserialize, Serialize};

/// The section `[applications.x509]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct X509Settings {
    /// The certificates that chains may end at.
    pub trust_roots: Pem,
    /// Files with revocation lists, PEM or DER.
    #[serde(default)]
    pub crls: Vec<PathBuf>,
    /// How many certificates may stand between the highest one that names a client and the root, which is not counted
    /// itself. By default none where domains are supported, and any number where they are not: such a chain may have been
    /// made for other uses, with authorities above the names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificates_above_names_max: Option<usize>,
    /// What becomes of a commit that keeps members whose certificates have expired.
    #[serde(default)]
    pub expired_members: ExpiredMembers,
    /// The keys by which the gateway proposes the removal of such members, in the groups that name one of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub external_senders: Vec<ExternalSenderSettings>,
}

/// One key of the gateway as an external sender (RFC 9420 §12.1.8.1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExternalSenderSettings {
    /// A PEM file with a PKCS#8 private key, Ed25519 or ECDSA P-256.
    pub private_key: PathBuf,
    /// The chain that clients are shown as the sender's credential, the leaf first; a basic credential without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<Pem>,
}

/// Certificates in PEM: the path of a file, or the PEM itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Pem(String);

/// What the PEM itself begins with, and a path does not.
const PEM_BEGINS: &str = "-----BEGIN ";
/// The largest file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 16 << 20;

impl X509Settings {
    /// Trusts these roots; everything else by default.
    pub fn trusting(trust_roots: Pem) -> Self {
        Self {
            trust_roots,
            crls: Vec::new(),
            certificates_above_names_max: None,
            expired_members: ExpiredMembers::default(),
            external_senders: Vec::new(),
        }
    }

    /// Takes relative paths to be relative to a directory.
    pub(super) fn resolve(&mut self, directory: &Path) {
        self.trust_roots.resolve(directory);
        for crl in &mut self.crls {
            *crl = directory.join(&*crl);
        }
        for sender in &mut self.external_senders {
            sender.private_key = directory.join(&sender.private_key);
            if let Some(certificate) = &mut sender.certificate {
                certificate.resolve(directory);
            }
        }
    }
}

impl Pem {
    /// A file, or the PEM itself when it begins as PEM does.
    pub fn new(path_or_pem: impl Into<String>) -> Self {
        Self(path_or_pem.into())
    }

    fn is_inline(&self) -> bool {
        self.0.trim_start().starts_with(PEM_BEGINS)
    }

    fn resolve(&mut self, directory: &Path) {
        if !self.is_inline() {
            let path = directory.join(&self.0);
            // A path that is not UTF-8 cannot be written into a configuration either.
            self.0 = path.to_string_lossy().into_owned();
        }
    }

    /// The PEM, read from its file if it is in one.
    pub(super) fn read(&self) -> io::Result<Vec<u8>> {
        if self.is_inline() { Ok(self.0.clone().into_bytes()) } else { read(Path::new(&self.0)) }
    }
}

impl fmt::Display for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_inline() { "the PEM in the configuration" } else { &self.0 })
    }
}

/// Reads a file that is not unreasonably large.
pub(super) fn read(path: &Path) -> io::Result<Vec<u8>> {
    if std::fs::metadata(path)?.len() > FILE_BYTES_MAX {
        return Err(io::Error::other(format!("it has more than {FILE_BYTES_MAX} bytes")));
    }
    std::fs::read(path)
}
