//! `[applications.x509]`: trust and expiry, which are deployment policy and not part of the `ApplicationConfiguration`.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use actors::{ExpiredMembers, identity::x509::MAX_CERTIFICATES, settings::Accepts};
use serde::{Deserialize, Serialize};

use super::rows::{self, PEM_BEGINS};

actors::settings! {
    /// Trust anchors; required if clients are identified by certificates, and not accepted otherwise.
    #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
    pub struct X509Settings {
        /// The trust roots: a PEM file, or the PEM itself.
        pub trust_roots: Pem => PEM, e.g. r#""roots.pem""#;
        /// Files with revocation lists, PEM or DER: complete, delta and indirect ones. With the first one, every certificate
        /// below the root needs a current list. None by default.
        #[serde(default)]
        pub crls: Vec<PathBuf> => Accepts::List(&CRL_FILE), e.g. r#"["roots.crl"]"#;
        /// The certificates of those who sign revocation lists but are in no chain, and of their issuers: a PEM file, or the PEM
        /// itself. Each must be issued below the same root as the chain in question. None by default.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub crl_issuers: Option<Pem> => PEM, e.g. r#""crl-issuers.pem""#;
        /// The number of certificates allowed between the highest one that names a client and the root, both not counted. By
        /// default none if domains are supported, and any number if not: such chains may have been made for other uses, with
        /// authorities above the names.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub certificates_above_names_max: Option<usize> => Accepts::from_to(0, MAX_CERTIFICATES as u64), e.g. "0";
        /// The treatment of a commit that keeps members whose certificates have expired or are revoked. With "propose", the
        /// default, it is accepted, and the gateway proposes their removal in the new epoch. With "refuse" it is refused if it
        /// had room to remove them, and their removal is proposed in the present epoch. With "ignore" nothing is done.
        #[serde(default)]
        pub expired_members: ExpiredMembers => ExpiredMembers::ACCEPTS, e.g. r#""propose""#;
        /// A key with which the gateway proposes the removal of such members, in groups that list the key as an external
        /// sender. None by default.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        pub external_senders: Vec<ExternalSenderSettings>
            => Accepts::List(&Accepts::Table(ExternalSenderSettings::ROWS));
    }
}

actors::settings! {
    /// One key of the gateway as an external sender (RFC 9420 §12.1.8.1).
    #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
    pub struct ExternalSenderSettings {
        /// A PEM file with a PKCS#8 private key, Ed25519 or ECDSA P-256.
        pub private_key: PathBuf => rows::PEM_FILE, e.g. r#""sender.key""#;
        /// The certificate chain of the sender's credential, the leaf first: a PEM file, or the PEM itself. Without it, the
        /// credential is a basic one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub certificate: Option<Pem> => PEM, e.g. r#""sender.pem""#;
    }
}

/// Certificates, in a file or inline.
const PEM: Accepts = Accepts::Text("the path of a PEM file, or PEM with certificates", is_pem);
/// A file with a revocation list.
const CRL_FILE: Accepts = Accepts::Text("the path of a PEM or DER file", rows::is_path);

/// Certificates in PEM: the path of a file, or the PEM itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Pem(String);

/// The largest file that is read, in bytes; a file with a revocation list may be larger.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// The largest file with a revocation list, in bytes: about three million entries.
const CRL_BYTES_MAX: u64 = 128 << 20;

impl X509Settings {
    /// Settings with these trust roots, and defaults otherwise.
    pub fn trusting(trust_roots: Pem) -> Self {
        Self {
            trust_roots,
            crls: Vec::new(),
            crl_issuers: None,
            certificates_above_names_max: None,
            expired_members: ExpiredMembers::default(),
            external_senders: Vec::new(),
        }
    }

    /// Changes the paths of all files that it names.
    pub(super) fn change_paths(&mut self, change: &dyn Fn(&mut PathBuf)) {
        let senders = self.external_senders.iter_mut();
        let (keys, certificates): (Vec<_>, Vec<_>) =
            senders.map(|sender| (&mut sender.private_key, &mut sender.certificate)).unzip();
        self.crls.iter_mut().chain(keys).for_each(change);
        let certificates = certificates.into_iter().flatten();
        certificates
            .chain(&mut self.crl_issuers)
            .chain([&mut self.trust_roots])
            .for_each(|pem| pem.change_path(change));
    }
}

impl Pem {
    /// The path of a file, or the PEM itself if it begins like PEM.
    pub fn new(path_or_pem: impl Into<String>) -> Self {
        Self(path_or_pem.into())
    }

    fn is_inline(&self) -> bool {
        self.0.trim_start().starts_with(PEM_BEGINS)
    }

    /// The path, if it is one.
    pub(super) fn path(&self) -> Option<PathBuf> {
        (!self.is_inline()).then(|| PathBuf::from(&self.0))
    }

    fn change_path(&mut self, change: &dyn Fn(&mut PathBuf)) {
        if !self.is_inline() {
            let mut path = PathBuf::from(&self.0);
            change(&mut path);
            // A path that is not UTF-8 cannot be written into a configuration either.
            self.0 = path.to_string_lossy().into_owned();
        }
    }

    /// Reads the PEM, from its file if it is a path.
    pub(super) fn read(&self) -> io::Result<Vec<u8>> {
        if self.is_inline() { Ok(self.0.clone().into_bytes()) } else { read(Path::new(&self.0)) }
    }
}

impl fmt::Display for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_inline() { "the PEM in the configuration" } else { &self.0 })
    }
}

/// Whether a text is a path or PEM with certificates. A private key is neither.
fn is_pem(text: &str) -> bool {
    rows::is_path(text) || text.trim_start().starts_with("-----BEGIN CERTIFICATE")
}

/// Reads a file, unless it is unreasonably large.
pub(super) fn read(path: &Path) -> io::Result<Vec<u8>> {
    read_up_to(path, FILE_BYTES_MAX)
}

/// Reads a file with a revocation list.
pub(super) fn read_crl(path: &Path) -> io::Result<Vec<u8>> {
    read_up_to(path, CRL_BYTES_MAX)
}

fn read_up_to(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    if std::fs::metadata(path)?.len() > bytes_max {
        return Err(io::Error::other(format!("it has more than {bytes_max} bytes")));
    }
    std::fs::read(path)
}
