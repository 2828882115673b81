//! The draft's *Identity Providers*: from credentials to clients.

mod basic;
pub mod x509;

use std::sync::Arc;

use snapshots::{ClientHandle, DomainName, Timestamp};

pub use self::basic::BasicIdentityProvider;
use crate::presentation::Reader;

/// A client's identity as MLS carries it in a leaf node (RFC 9420 §5.3).
#[derive(Clone, Copy, Debug)]
pub struct Identity<'a> {
    /// The public key that the credential binds to an identity.
    pub signature_key: &'a [u8],
    /// The credential.
    pub credential: Credential<'a>,
}

/// A credential (RFC 9420 §5.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Credential<'a> {
    /// Its type.
    pub credential_type: CredentialType,
    /// The content of its one vector: the identity of a basic credential, the list of certificates of an X.509 credential.
    pub content: &'a [u8],
}

/// A type of credentials, by its number in the registry (RFC 9420 §17.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CredentialType(pub u16);

impl CredentialType {
    /// `basic`.
    pub const BASIC: Self = Self(1);
    /// `x509`.
    pub const X509: Self = Self(2);
}

/// The extensions of a GroupContext (RFC 9420 §8.1, §13.4).
#[derive(Clone, Copy, Debug, Default)]
pub struct GroupContextExtensions<'a>(&'a [u8]);

impl<'a> GroupContextExtensions<'a> {
    /// No extensions.
    pub fn empty() -> Self {
        Self(&[])
    }

    /// The extensions in the content of a list that was read before.
    pub(crate) fn new(list: &'a [u8]) -> Self {
        Self(list)
    }

    /// The types and the data of the extensions, in order.
    pub fn iter(self) -> impl Iterator<Item = (u16, &'a [u8])> {
        let mut reader = Reader::new(self.0);
        std::iter::from_fn(move || {
            let kind = reader.u16("extensions").ok()?;
            Some((kind, reader.vector("extensions").ok()?))
        })
    }

    /// The data of the extension of a type.
    pub fn get(self, kind: u16) -> Option<&'a [u8]> {
        self.iter().find(|(found, _)| *found == kind).map(|(_, data)| data)
    }
}

/// The context in which an identity is validated: the draft's `ApplicationContext`.
#[derive(Clone, Copy, Debug)]
pub struct ApplicationContext {
    /// The time at which the hub accepted the message that carries the identity, in Unix milliseconds. Validity is checked at
    /// this time only, so that replicas with the same trust anchors agree. A replay validates nothing.
    pub msg_timestamp: Timestamp,
    /// Whether the group's hub has accepted the message already, and this gateway follows it. Whether a certificate is revoked is
    /// for the hub to judge: revocation lists reach two gateways at different times, and a follower that judged by its own could
    /// never pass an entry that the hub accepted before.
    pub is_accepted: bool,
}

impl ApplicationContext {
    /// The context of a message that this gateway accepts at this time, or refuses.
    pub fn at(msg_timestamp: Timestamp) -> Self {
        Self { msg_timestamp, is_accepted: false }
    }
}

/// The client that an identity names, and the end of its validity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentifiedClient {
    /// [`IdentityProvider::client_handle`].
    pub handle: ClientHandle,
    /// [`IdentityProvider::client_domain`].
    pub domain: Option<DomainName>,
    /// [`IdentityProvider::valid_until`].
    pub valid_until: Option<Timestamp>,
}

/// The reason why an identity is not acceptable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct IdentityError(pub String);

/// What a provider trusts besides revocation lists. Two gateways on which it is the same come to the same verdicts on chains,
/// revocation apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrustSummary {
    /// A digest of the set of trust roots, whatever their order: the SHA-256 of the sorted SHA-256 digests of their DER.
    pub roots: [u8; 32],
    /// [`ChainLimits::above_names_max`](x509::ChainLimits::above_names_max).
    pub above_names_max: Option<usize>,
    /// Whether there are revocation lists: without one, nothing is revoked.
    pub checks_revocation: bool,
}

/// The ends of the validity of what a provider trusts, in Unix seconds; `None` where it trusts nothing that ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrustEnds {
    /// The first end of a trust root.
    pub root: Option<i64>,
    /// The first next update of a revocation list, after which chains that need it are refused.
    pub list: Option<i64>,
}

/// A trust root, CRL issuer or revocation list, by its place in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TrustMember {
    /// A trust root, by its place in the bundle.
    Root(usize),
    /// A CRL issuer, by its place in the bundle.
    CrlIssuer(usize),
    /// A revocation list, by its place in the list of files.
    Crl(usize),
}

/// A reason why certificates are refused, or soon will be, that lies in what a provider trusts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustWarning {
    /// The root or list.
    pub member: TrustMember,
    /// The fault and its effect.
    pub text: String,
}

/// The revocation lists of a provider by their state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListCounts {
    /// Not yet due.
    pub current: usize,
    /// In the last quarter of their term.
    pub due: usize,
    /// Past their next update.
    pub late: usize,
    /// Signed by no trust root, no CRL issuer and no issuer in a chain that was validated so far.
    pub without_signer: usize,
}

/// The draft's interface of an identity provider (*Identity Providers*).
pub trait IdentityProvider: Send + Sync {
    /// The MLS credential types that this provider understands.
    fn supported_credentials(&self) -> &[CredentialType];

    /// Whether a valid credential proves that its holder is the client that it names. If not, anybody can name any client, and
    /// only messages signed with one key are known to come from one client.
    fn authenticates(&self) -> bool {
        true
    }

    /// True if the GroupContext extensions matter to [`Self::validate`]: all members are validated again when the
    /// extensions change.
    fn reads_extensions(&self) -> bool {
        true
    }

    /// Checks that the identity is valid in a group with these GroupContext extensions; for a commit, those after the commit.
    ///
    /// # Errors
    /// The reason why it is not.
    fn validate(
        &self,
        identity: Identity<'_>,
        group_context_extensions: GroupContextExtensions<'_>,
        context: ApplicationContext,
    ) -> Result<(), IdentityError>;

    /// The client's handle, unique within its domain, or within the application where domains are not used.
    ///
    /// # Errors
    /// The reason why the identity names no client.
    fn client_handle(&self, identity: Identity<'_>) -> Result<ClientHandle, IdentityError>;

    /// The client's domain; `None` if the provider is configured without domains.
    ///
    /// # Errors
    /// The reason why the identity names no domain although it must.
    fn client_domain(&self, identity: Identity<'_>) -> Result<Option<DomainName>, IdentityError>;

    /// The trust roots and revocation lists by which it validates; `None` if it validates no certificates.
    fn trusted(&self) -> Option<Arc<x509::Trusted>> {
        None
    }

    /// Validates by the trust roots and revocation lists of a newer provider from now on.
    fn take_trust(&self, _newer: &dyn IdentityProvider) {}

    /// What it trusts besides revocation lists; `None` if it validates no certificates.
    fn trust_summary(&self) -> Option<TrustSummary> {
        None
    }

    /// The ends of the validity of what it trusts, for operators.
    fn trust_ends(&self) -> TrustEnds {
        TrustEnds::default()
    }

    /// The faults of what it trusts at this time, for operators.
    fn trust_warnings(&self, _at: Timestamp) -> Vec<TrustWarning> {
        Vec::new()
    }

    /// The states of its revocation lists at this time, for operators; `None` if it validates no certificates.
    fn list_counts(&self, _at: Timestamp) -> Option<ListCounts> {
        None
    }

    /// The chains that hubs accepted and its revocation lists refuse, since the start, for operators; `None` if it validates no
    /// certificates.
    fn disputed_chains(&self) -> Option<u64> {
        None
    }

    /// The end of the identity's validity by the credential itself; `None` if it has no end.
    ///
    /// # Errors
    /// The reason why the credential cannot be read.
    fn valid_until(&self, _: Identity<'_>) -> Result<Option<Timestamp>, IdentityError> {
        Ok(None)
    }

    /// Validates the identity and extracts the client in one pass, since parsing a credential may be expensive.
    ///
    /// # Errors
    /// The errors of [`Self::validate`], and a credential that names no client.
    fn identify(
        &self,
        identity: Identity<'_>,
        group_context_extensions: GroupContextExtensions<'_>,
        context: ApplicationContext,
    ) -> Result<IdentifiedClient, IdentityError> {
        self.validate(identity, group_context_extensions, context)?;
        Ok(IdentifiedClient {
            handle: self.client_handle(identity)?,
            domain: self.client_domain(identity)?,
            valid_until: self.valid_until(identity)?,
        })
    }

    /// Whether `successor` may replace `predecessor` in a group: by default, if both are the same client.
    fn valid_successor(&self, predecessor: Identity<'_>, successor: Identity<'_>) -> bool {
        let client =
            |identity| Some((self.client_domain(identity).ok()?, self.client_handle(identity).ok()?));
        client(predecessor).is_some_and(|before| client(successor).is_some_and(|after| before == after))
    }
}
