//! Leaf nodes and key packages on the wire, and their checks that need no group (RFC 9420 §7.2, §7.3, §10.1): a client
//! that fails them fits no group.

use std::collections::BTreeSet;

use openmls::prelude::{KeyPackage, LeafNode, tls_codec::Serialize as _};

use super::{Refusal, Rule, suite::CipherSuite};
use crate::presentation::{Reader, WireError};

/// Checks of leaf nodes for one cipher suite.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LeafChecks {
    pub(crate) cipher_suite: u16,
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

/// A list of 16-bit numbers of a registry.
#[derive(Clone, Copy, Debug)]
struct Numbers<'a>(&'a [u8]);

impl Numbers<'_> {
    fn iter(&self) -> impl Iterator<Item = u16> {
        self.0.chunks_exact(2).filter_map(|pair| Some(u16::from_be_bytes(pair.try_into().ok()?)))
    }

    fn contains(&self, number: u16) -> bool {
        self.iter().any(|listed| listed == number)
    }
}

/// The types of a list of extensions.
#[derive(Clone, Debug)]
struct ExtensionTypes(BTreeSet<u16>);

impl ExtensionTypes {
    fn check_listed(&self, capabilities: Numbers<'_>, holder: &str) -> Result<(), Unfit> {
        let mut to_list = self.0.iter().filter(|kind| !is_default_extension(**kind)).peekable();
        if to_list.peek().is_none() {
            return Ok(());
        }
        let listed: BTreeSet<u16> = capabilities.iter().collect();
        match to_list.find(|kind| !listed.contains(kind)) {
            None => Ok(()),
            Some(kind) => Err(unfit(
                Rule::Capabilities,
                format!(
                    "{holder} carries an extension of type {kind:#06x}, which its capabilities do not list"
                ),
            )),
        }
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

/// Reads the types of a list of extensions, in which no type comes twice (RFC 9420 §13.4).
fn extension_types(list: &[u8], holder: &str) -> Result<ExtensionTypes, Unfit> {
    let mut types = BTreeSet::new();
    each_extension(list, |kind, _| {
        if types.insert(kind) {
            Ok(())
        } else {
            Err(unfit(Rule::LeafNode, format!("{holder} carries two extensions of type {kind:#06x}")))
        }
    })?;
    Ok(ExtensionTypes(types))
}

/// The extension types that every client supports without listing them (RFC 9420 §7.2).
pub(super) fn is_default_extension(kind: u16) -> bool {
    matches!(kind, 1..=5)
}

/// The default extension types that belong to a GroupInfo or a GroupContext (RFC 9420 §17.3).
fn is_of_a_group(kind: u16) -> bool {
    matches!(kind, 2..=5)
}

/// A leaf node on the wire.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LeafOutline<'a> {
    encryption_key: &'a [u8],
    pub(crate) signature_key: &'a [u8],
    pub(crate) credential_type: u16,
    pub(crate) credential: &'a [u8],
    versions: Numbers<'a>,
    cipher_suites: Numbers<'a>,
    supported_extensions: Numbers<'a>,
    credential_types: Numbers<'a>,
    pub(crate) lifetime: Option<Lifetime>,
    extensions: &'a [u8],
}

impl<'a> LeafOutline<'a> {
    pub(crate) fn read(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        const PART: &str = "leaf node";
        let encryption_key = reader.vector(PART)?;
        let signature_key = reader.vector(PART)?;
        let credential_type = reader.u16("credential")?;
        let credential = reader.vector("credential")?;
        let mut numbers = || reader.vector("capabilities").map(Numbers);
        let (versions, cipher_suites, supported_extensions) = (numbers()?, numbers()?, numbers()?);
        let (_proposals, credential_types) = (numbers()?, numbers()?);
        let lifetime = match reader.u8("leaf node source")? {
            1 => {
                Some(Lifetime { not_before_s: reader.u64("lifetime")?, not_after_s: reader.u64("lifetime")? })
            }
            2 => None,
            3 => {
                reader.vector("parent hash")?;
                None
            }
            _ => return Err(WireError::in_part("leaf node source")),
        };
        let extensions = reader.vector("extensions")?;
        reader.vector("signature")?;
        Ok(Self {
            encryption_key,
            signature_key,
            credential_type,
            credential,
            versions,
            cipher_suites,
            supported_extensions,
            credential_types,
            lifetime,
            extensions,
        })
    }
}

/// A key package on the wire.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeyPackageOutline<'a> {
    pub(crate) cipher_suite: u16,
    pub(crate) lifetime: Lifetime,
    init_key: &'a [u8],
    pub(crate) leaf: LeafOutline<'a>,
    extensions: &'a [u8],
}

/// The extension of the MLS extensions draft up to its fifth version that marks a last-resort key package.
const EXTENSION_LAST_RESORT: u16 = 0x000a;
/// The extension that holds components (*Attaching Application Data to MLS Messages* of the MLS extensions draft).
const EXTENSION_APP_DATA_DICTIONARY: u16 = 0x0006;
/// The component that marks a last-resort key package (*Last-Resort KeyPackages* of the MLS extensions draft).
const COMPONENT_LAST_RESORT: u16 = 0x0004;

impl<'a> KeyPackageOutline<'a> {
    /// The leaf is that of an update or a commit, and so has no lifetime.
    pub(crate) const OTHER_SOURCE: WireError =
        WireError::in_part("leaf node source, which is not that of a key package");

    /// Reads a KeyPackage to the end of the bytes.
    pub(crate) fn read(mut reader: Reader<'a>) -> Result<Self, WireError> {
        if reader.u16("protocol version")? != super::PROTOCOL_VERSION {
            return Err(WireError::in_part("protocol version"));
        }
        let cipher_suite = reader.u16("cipher suite")?;
        let init_key = reader.vector("init_key")?;
        let leaf = LeafOutline::read(&mut reader)?;
        let extensions = reader.vector("extensions")?;
        reader.vector("signature")?;
        if !reader.is_empty() {
            return Err(WireError::in_part("end: bytes follow the key package"));
        }
        let lifetime = leaf.lifetime.ok_or(Self::OTHER_SOURCE)?;
        Ok(Self { cipher_suite, lifetime, init_key, leaf, extensions })
    }

    /// Whether the package is marked as one that may be used more than once: by the `last_resort` extension, or by the
    /// component that later versions of the MLS extensions draft have in its place.
    pub(crate) fn is_last_resort(&self) -> bool {
        marks_last_resort(self.extensions)
    }
}

/// Whether the extensions of a key package say so; see [`KeyPackageOutline::is_last_resort`].
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

impl LeafChecks {
    /// Checks a key package: itself, and its leaf by [`Self::check_leaf`].
    ///
    /// # Errors
    /// [`Unfit`]: no commit could ever add its client.
    pub(crate) fn check_key_package(self, package: &KeyPackageOutline<'_>) -> Result<(), Unfit> {
        if package.cipher_suite != self.cipher_suite {
            let detail = format!(
                "the key package is of the cipher suite {}, not {}",
                package.cipher_suite, self.cipher_suite
            );
            return Err(unfit(Rule::Proposal, detail));
        }
        self.check_leaf(&package.leaf)?;
        extension_types(package.extensions, "the key package")?
            .check_listed(package.leaf.supported_extensions, "the key package")?;
        if package.init_key == package.leaf.encryption_key {
            return Err(unfit(
                Rule::DistinctKeys,
                "the key package's init_key is the encryption_key of its leaf as well",
            ));
        }
        self.check_hpke_key(package.init_key, Rule::Proposal, "the key package's init_key")
    }

    /// Checks a leaf node without regard to its group: its own extension types, credential type, suite and version are
    /// among its capabilities, no extension comes twice, its lifetime is an interval that is not too long, and its
    /// encryption key is a key of the suite (RFC 9420 §7.2, §7.3).
    ///
    /// # Errors
    /// [`Unfit`]: the leaf can be in no group, or would freeze the one that took it in.
    pub(crate) fn check_leaf(self, leaf: &LeafOutline<'_>) -> Result<(), Unfit> {
        let missing = |what: String| {
            Err(unfit(Rule::Capabilities, format!("the leaf's own {what} is not among its capabilities")))
        };
        if !leaf.versions.contains(super::PROTOCOL_VERSION) {
            return missing(format!("protocol version ({})", super::PROTOCOL_VERSION));
        }
        if !leaf.cipher_suites.contains(self.cipher_suite) {
            return missing(format!("cipher suite ({})", self.cipher_suite));
        }
        if !leaf.credential_types.contains(leaf.credential_type) {
            return missing(format!("credential type ({})", leaf.credential_type));
        }
        let extensions = extension_types(leaf.extensions, "the leaf")?;
        if let Some(kind) = extensions.0.iter().find(|kind| is_of_a_group(**kind)) {
            let detail = format!("a leaf cannot carry an extension of type {kind:#06x}, which is of a group");
            return Err(unfit(Rule::LeafNode, detail));
        }
        extensions.check_listed(leaf.supported_extensions, "the leaf")?;
        if let Some(lifetime) = leaf.lifetime {
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

    /// Checks the leaf of a key package that was verified.
    ///
    /// # Errors
    /// As [`Self::check_key_package`].
    pub(super) fn check_verified_package(self, package: &KeyPackage) -> Result<(), Unfit> {
        with_outline(package, |outline| self.check_key_package(outline))?
    }

    /// Checks a leaf node that was verified.
    ///
    /// # Errors
    /// As [`Self::check_leaf`].
    pub(super) fn check_verified_leaf(self, leaf: &LeafNode) -> Result<(), Unfit> {
        let bytes =
            leaf.tls_serialize_detached().map_err(|_| unfit(Rule::LeafNode, "the leaf cannot be written"))?;
        let outline = LeafOutline::read(&mut Reader::new(&bytes))?;
        self.check_leaf(&outline)
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
        let suite = CipherSuite::from_number(self.cipher_suite)
            .ok_or_else(|| unfit(rule, format!("the cipher suite {} is not supported", self.cipher_suite)))?;
        suite.check_hpke_key(key).map_err(|what| unfit(rule, format!("{name} {what}")))
    }
}

/// Whether a verified key package is marked as one of last resort; see [`KeyPackageOutline::is_last_resort`].
pub(super) fn is_last_resort(package: &KeyPackage) -> bool {
    with_outline(package, |outline| outline.is_last_resort()).unwrap_or_default()
}

fn with_outline<T>(package: &KeyPackage, ask: impl FnOnce(&KeyPackageOutline<'_>) -> T) -> Result<T, Unfit> {
    let bytes = package
        .tls_serialize_detached()
        .map_err(|_| unfit(Rule::Proposal, "the key package cannot be written"))?;
    let outline = KeyPackageOutline::read(Reader::new(&bytes))?;
    Ok(ask(&outline))
}
