//! Leaf nodes and key packages on the wire, and their checks that need no group (RFC 9420 §7.2, §7.3, §10.1): a client
//! that fails them fits no group.

use std::collections::BTreeSet;

use snapshots::{KeyPackageRef, Timestamp};

use super::{
    CipherSuite, Refusal, Rule,
    extensions::{Home, is_default_extension, read_extensions},
};
use crate::{
    identity::{Credential, CredentialType, Identity},
    presentation::{Reader, WireError, write_vector_length},
};

/// Checks of leaf nodes for one cipher suite.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LeafChecks {
    pub(crate) cipher_suite: CipherSuite,
    /// The longest total lifetime of a leaf that has one, in seconds; 0 accepts every lifetime (RFC 9420 §7.2).
    pub(crate) lifetime_s_max: Option<u64>,
}

/// A check that a leaf node or a key package did not pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unfit {
    pub(crate) rule: Rule,
    pub(crate) detail: String,
}

impl From<Unfit> for Refusal {
    fn from(Unfit { rule, detail }: Unfit) -> Self {
        Self::broken(rule, detail)
    }
}

fn unfit(rule: Rule, detail: impl Into<String>) -> Unfit {
    Unfit { rule, detail: detail.into() }
}

impl From<WireError> for Unfit {
    fn from(error: WireError) -> Self {
        unfit(Rule::LeafNode, error.to_string())
    }
}

/// The interval in which a key package may be used, in Unix seconds (RFC 9420 §7.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lifetime {
    pub(crate) not_before_s: u64,
    pub(crate) not_after_s: u64,
}

impl Lifetime {
    /// Checks that a moment is within it. Its begin may be up to `skew_s` seconds away: its client's clock may be ahead. Without a
    /// skew the begin does not matter.
    pub(super) fn check(self, at: Timestamp, skew_s: Option<u64>) -> Result<(), Unfit> {
        let at_s = at.0 / 1000;
        let Self { not_before_s, not_after_s } = self;
        if skew_s.is_some_and(|skew_s| not_before_s > at_s.saturating_add(skew_s)) {
            let detail = format!("the lifetime begins at {not_before_s}, and it is {at_s} (Unix seconds)");
            return Err(unfit(Rule::Lifetime, detail));
        }
        if not_after_s.saturating_mul(1000) <= at.0 {
            let detail = format!("the lifetime ended at {not_after_s}, and it is {at_s} (Unix seconds)");
            return Err(unfit(Rule::Lifetime, detail));
        }
        Ok(())
    }
}

/// A list of 16-bit numbers of a registry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Numbers<'a>(&'a [u8]);

impl<'a> Numbers<'a> {
    pub(super) fn read(reader: &mut Reader<'a>, part: &'static str) -> Result<Self, WireError> {
        let list = reader.vector(part)?;
        if list.len().is_multiple_of(2) { Ok(Self(list)) } else { Err(WireError::in_part(part)) }
    }

    pub(super) fn iter(self) -> impl Iterator<Item = u16> + 'a {
        let (pairs, _) = self.0.as_chunks::<2>();
        pairs.iter().map(|pair| u16::from_be_bytes(*pair))
    }

    pub(super) fn contains(self, number: u16) -> bool {
        self.iter().any(|listed| listed == number)
    }

    /// The listed numbers, each once, ascending.
    pub(super) fn distinct(self) -> Vec<u16> {
        let mut numbers: Vec<u16> = self.iter().collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    }

    /// The first number that is wanted and not listed.
    pub(super) fn missing(self, wanted: &BTreeSet<u16>) -> Option<u16> {
        if wanted.is_empty() {
            return None;
        }
        let found: BTreeSet<u16> = self.iter().filter(|value| wanted.contains(value)).collect();
        wanted.difference(&found).next().copied()
    }
}

/// Checks that the types of a list of extensions are among capabilities (RFC 9420 §7.3, §10.1).
fn check_extensions_listed(list: &[u8], capabilities: Numbers<'_>, holder: &str) -> Result<(), Unfit> {
    let mut types = BTreeSet::new();
    each_extension(list, |kind, _| {
        if !is_default_extension(kind) {
            types.insert(kind);
        }
        Ok(())
    })?;
    match capabilities.missing(&types) {
        None => Ok(()),
        Some(kind) => Err(unfit(
            Rule::Capabilities,
            format!("{holder} carries an extension of type {kind:#06x}, which its capabilities do not list"),
        )),
    }
}

/// Walks a list of extensions.
fn each_extension<'a>(
    list: &'a [u8],
    mut visit: impl FnMut(u16, &'a [u8]) -> Result<(), Unfit>,
) -> Result<(), Unfit> {
    let mut reader = Reader::new(list);
    while !reader.is_empty() {
        let kind = reader.u16("extensions")?;
        visit(kind, reader.vector("extensions")?)?;
    }
    Ok(())
}

/// The source of a leaf node (RFC 9420 §7.2), with what goes with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LeafSource<'a> {
    KeyPackage(Lifetime),
    Update,
    Commit { parent_hash: &'a [u8] },
}

/// A leaf node on the wire (RFC 9420 §7.2).
#[derive(Clone, Copy, Debug)]
pub(crate) struct LeafNode<'a> {
    /// The whole structure.
    pub(crate) bytes: &'a [u8],
    /// The structure without its signature.
    unsigned: &'a [u8],
    pub(crate) encryption_key: &'a [u8],
    pub(crate) signature_key: &'a [u8],
    pub(crate) credential: Credential<'a>,
    /// The lists that follow, as one.
    pub(super) capabilities: &'a [u8],
    versions: Numbers<'a>,
    cipher_suites: Numbers<'a>,
    pub(super) supported_extensions: Numbers<'a>,
    pub(super) supported_proposals: Numbers<'a>,
    pub(super) supported_credentials: Numbers<'a>,
    pub(crate) source: LeafSource<'a>,
    extensions: &'a [u8],
    signature: &'a [u8],
}

impl<'a> LeafNode<'a> {
    pub(crate) fn read(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        const PART: &str = "leaf node";
        let start = *reader;
        let encryption_key = reader.vector(PART)?;
        let signature_key = reader.vector(PART)?;
        let credential = read_credential(reader)?;
        let before = *reader;
        let mut numbers = || Numbers::read(reader, "capabilities");
        let (versions, cipher_suites) = (numbers()?, numbers()?);
        let (supported_extensions, supported_proposals) = (numbers()?, numbers()?);
        let supported_credentials = numbers()?;
        let capabilities = reader.since(before);
        let source = match reader.u8("leaf node source")? {
            1 => {
                let not_before_s = reader.u64("lifetime")?;
                LeafSource::KeyPackage(Lifetime { not_before_s, not_after_s: reader.u64("lifetime")? })
            }
            2 => LeafSource::Update,
            3 => LeafSource::Commit { parent_hash: reader.vector("parent hash")? },
            _ => return Err(WireError::in_part("leaf node source")),
        };
        let extensions = reader.vector("extensions")?;
        read_extensions(extensions, Home::LeafNode, |_, _| {})?;
        let unsigned = reader.since(start);
        let signature = reader.vector("signature")?;
        Ok(Self {
            bytes: reader.since(start),
            unsigned,
            encryption_key,
            signature_key,
            credential,
            capabilities,
            versions,
            cipher_suites,
            supported_extensions,
            supported_proposals,
            supported_credentials,
            source,
            extensions,
            signature,
        })
    }

    /// Reads a leaf node that fills the bytes.
    pub(crate) fn of_bytes(bytes: &'a [u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        let leaf = Self::read(&mut reader)?;
        if reader.is_empty() { Ok(leaf) } else { Err(WireError::in_part("leaf node: bytes follow it")) }
    }

    pub(crate) fn identity(&self) -> Identity<'a> {
        Identity { signature_key: self.signature_key, credential: self.credential }
    }

    /// The interval in which a key package with this leaf may be used.
    pub(crate) fn lifetime(&self) -> Option<Lifetime> {
        match self.source {
            LeafSource::KeyPackage(lifetime) => Some(lifetime),
            LeafSource::Update | LeafSource::Commit { .. } => None,
        }
    }

    /// Whether the signature is the leaf's own (RFC 9420 §7.2). Its place in a group counts for every source but a key package.
    pub(crate) fn has_valid_signature(&self, suite: CipherSuite, group_id: &[u8], leaf_index: u32) -> bool {
        let mut place = Vec::new();
        match self.source {
            LeafSource::KeyPackage(_) => {}
            LeafSource::Update | LeafSource::Commit { .. } => {
                write_vector_length(&mut place, group_id.len());
                place.extend_from_slice(group_id);
                place.extend_from_slice(&leaf_index.to_be_bytes());
            }
        }
        let signed = [self.unsigned, &*place];
        suite.verify_with_label(self.signature_key, "LeafNodeTBS", &signed, self.signature).is_ok()
    }
}

/// A credential (RFC 9420 §5.3): a type and one vector, whichever type it is.
pub(super) fn read_credential<'a>(reader: &mut Reader<'a>) -> Result<Credential<'a>, WireError> {
    let credential_type = CredentialType(reader.u16("credential")?);
    Ok(Credential { credential_type, content: reader.vector("credential")? })
}

/// A key package on the wire (RFC 9420 §10).
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeyPackage<'a> {
    /// The whole structure.
    pub(crate) bytes: &'a [u8],
    unsigned: &'a [u8],
    version: u16,
    pub(crate) cipher_suite: u16,
    pub(crate) init_key: &'a [u8],
    pub(crate) leaf: LeafNode<'a>,
    extensions: &'a [u8],
    signature: &'a [u8],
}

/// The extension of the MLS extensions draft up to its fifth version that marks a last-resort key package.
const EXTENSION_LAST_RESORT: u16 = 0x000a;
/// The extension that holds components (*Attaching Application Data to MLS Messages* of the MLS extensions draft).
const EXTENSION_APP_DATA_DICTIONARY: u16 = 0x0006;
/// The component that marks a last-resort key package (*Last-Resort KeyPackages* of the MLS extensions draft).
const COMPONENT_LAST_RESORT: u16 = 0x0004;

impl<'a> KeyPackage<'a> {
    pub(crate) fn read(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        let start = *reader;
        let version = reader.u16("protocol version")?;
        let cipher_suite = reader.u16("cipher suite")?;
        let init_key = reader.vector("init_key")?;
        let leaf = LeafNode::read(reader)?;
        let extensions = reader.vector("extensions")?;
        read_extensions(extensions, Home::KeyPackage, |_, _| {})?;
        let unsigned = reader.since(start);
        let signature = reader.vector("signature")?;
        let bytes = reader.since(start);
        Ok(Self { bytes, unsigned, version, cipher_suite, init_key, leaf, extensions, signature })
    }

    /// Reads a key package that fills the bytes.
    pub(crate) fn of_bytes(bytes: &'a [u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        let package = Self::read(&mut reader)?;
        if reader.is_empty() {
            Ok(package)
        } else {
            Err(WireError::in_part("end: bytes follow the key package"))
        }
    }

    /// Its KeyPackageRef (RFC 9420 §5.2).
    ///
    /// # Errors
    /// None for a suite of RFC 9420, whose hashes all fit.
    pub(crate) fn reference(&self, suite: CipherSuite) -> Option<KeyPackageRef> {
        let hash = suite.ref_hash("MLS 1.0 KeyPackage Reference", self.bytes);
        KeyPackageRef::new(hash.as_ref().to_vec()).ok()
    }

    /// Whether the package is signed by the key of its leaf (RFC 9420 §10.1), which has a signature of its own.
    fn has_valid_signature(&self, suite: CipherSuite) -> bool {
        let key = self.leaf.signature_key;
        suite.verify_with_label(key, "KeyPackageTBS", &[self.unsigned], self.signature).is_ok()
    }

    /// Whether the package is marked as one that may be used more than once: by the `last_resort` extension, or by the
    /// component that later versions of the MLS extensions draft have in its place.
    pub(crate) fn is_last_resort(&self) -> bool {
        marks_last_resort(self.extensions)
    }
}

/// Whether the extensions of a key package say so; see [`KeyPackage::is_last_resort`].
pub(super) fn marks_last_resort(extensions: &[u8]) -> bool {
    let mut is_marked = false;
    let walked = each_extension(extensions, |kind, data| {
        is_marked |= kind == EXTENSION_LAST_RESORT
            || (kind == EXTENSION_APP_DATA_DICTIONARY && has_last_resort_component(data));
        Ok(())
    });
    walked.is_ok() && is_marked
}

fn has_last_resort_component(dictionary: &[u8]) -> bool {
    let mut outer = Reader::new(dictionary);
    let Ok(entries) = outer.vector("components") else { return false };
    let mut reader = Reader::new(entries);
    while !reader.is_empty() {
        let (Ok(component), Ok(data)) = (reader.u16("component"), reader.vector("component")) else {
            return false;
        };
        if component == COMPONENT_LAST_RESORT {
            return data.is_empty();
        }
    }
    false
}

/// Checks the signatures of a key package and its leaf (RFC 9420 §7.3, §10.1).
///
/// # Errors
/// [`Unfit`]: which one is not by the leaf's key.
pub(super) fn check_package_signatures(package: &KeyPackage<'_>, suite: CipherSuite) -> Result<(), Unfit> {
    if !package.leaf.has_valid_signature(suite, &[], 0) {
        return Err(unfit(Rule::LeafNode, "the signature of the key package's leaf is not its own"));
    }
    if !package.has_valid_signature(suite) {
        return Err(unfit(Rule::Proposal, "the signature of the key package is not its own"));
    }
    Ok(())
}

impl LeafChecks {
    /// Checks a key package: itself, and its leaf by [`Self::check_leaf`].
    ///
    /// # Errors
    /// [`Unfit`]: no commit could ever add its client.
    pub(crate) fn check_key_package(self, package: &KeyPackage<'_>) -> Result<(), Unfit> {
        let suite = self.cipher_suite.number();
        if package.cipher_suite != suite {
            let detail =
                format!("the key package is of the cipher suite {}, not {suite}", package.cipher_suite);
            return Err(unfit(Rule::Proposal, detail));
        }
        if package.version != super::PROTOCOL_VERSION {
            let detail = format!("the key package is of the protocol version {}", package.version);
            return Err(unfit(Rule::Proposal, detail));
        }
        if package.leaf.lifetime().is_none() {
            let detail = "the leaf node source of a key package is not key_package";
            return Err(unfit(Rule::LeafNode, detail));
        }
        self.check_leaf(&package.leaf)?;
        let capabilities = package.leaf.supported_extensions;
        check_extensions_listed(package.extensions, capabilities, "the key package")?;
        if package.init_key == package.leaf.encryption_key {
            return Err(unfit(
                Rule::DistinctKeys,
                "the key package's init_key is the encryption_key of its leaf as well",
            ));
        }
        self.check_hpke_key(package.init_key, Rule::Proposal, "the key package's init_key")
    }

    /// Checks a leaf node without regard to its group: its own extension types, credential type, suite and version are
    /// among its capabilities, its lifetime is an interval that is not too long, and its
    /// encryption key is a key of the suite (RFC 9420 §7.2, §7.3).
    ///
    /// # Errors
    /// [`Unfit`]: the leaf can be in no group, or would freeze the one that took it in.
    pub(crate) fn check_leaf(self, leaf: &LeafNode<'_>) -> Result<(), Unfit> {
        let missing = |what: String| {
            Err(unfit(Rule::Capabilities, format!("the leaf's own {what} is not among its capabilities")))
        };
        if !leaf.versions.contains(super::PROTOCOL_VERSION) {
            return missing(format!("protocol version ({})", super::PROTOCOL_VERSION));
        }
        let suite = self.cipher_suite.number();
        if !leaf.cipher_suites.contains(suite) {
            return missing(format!("cipher suite ({suite})"));
        }
        let CredentialType(own) = leaf.credential.credential_type;
        if !leaf.supported_credentials.contains(own) {
            return missing(format!("credential type ({own})"));
        }
        self.cipher_suite
            .check_signature_key(leaf.signature_key)
            .map_err(|what| unfit(Rule::LeafNode, format!("the leaf's signature_key {what}")))?;
        check_extensions_listed(leaf.extensions, leaf.supported_extensions, "the leaf")?;
        if let Some(lifetime) = leaf.lifetime() {
            self.check_lifetime(lifetime)?;
        }
        self.check_hpke_key(leaf.encryption_key, Rule::LeafNode, "the leaf's encryption_key")
    }

    fn check_lifetime(self, lifetime: Lifetime) -> Result<(), Unfit> {
        let total = lifetime.not_after_s.checked_sub(lifetime.not_before_s);
        match total {
            None => Err(unfit(Rule::LeafNode, "not_before is later than not_after")),
            Some(total) => match self.lifetime_s_max {
                Some(max) if total > max => Err(unfit(
                    Rule::Lifetime,
                    format!("the total lifetime is {total} seconds; this gateway accepts at most {max}"),
                )),
                Some(_) | None => Ok(()),
            },
        }
    }

    /// Checks the public keys of an update path (RFC 9420 §7.6): they become keys of parent nodes.
    ///
    /// # Errors
    /// [`Unfit`]: a key to which no member can encrypt.
    pub(super) fn check_path_keys(self, keys: &[&[u8]]) -> Result<(), Unfit> {
        keys.iter()
            .try_for_each(|key| self.check_hpke_key(key, Rule::Path, "a public key of the update path"))
    }

    fn check_hpke_key(self, key: &[u8], rule: Rule, name: &str) -> Result<(), Unfit> {
        self.cipher_suite.check_hpke_key(key).map_err(|what| unfit(rule, format!("{name} {what}")))
    }
}
