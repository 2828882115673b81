//! The draft's *Identity Providers*: from credentials to clients.

mod basic;
pub mod x509;

use openmls::prelude::{Credential, CredentialType, Extensions, GroupContext};
use snapshots::{ClientHandle, DomainName, Timestamp};

pub use self::basic::BasicIdentityProvider;

/// A client's identity as MLS carries it in a leaf node (RFC 9420 §5.3).
#[derive(Clone, Copy, Debug)]
pub struct Identity<'a> {
    /// The public key that the credential binds to an identity.
    pub signature_key: &'a [u8],
    /// The credential.
    pub credential: &'a Credential,
}

/// The context in which an identity is validated: the draft's `ApplicationContext`.
#[derive(Clone, Copy, Debug)]
pub struct ApplicationContext {
    /// When the message that carries the identity was accepted, in Unix milliseconds: validity is validated at this
    /// time and no other, so that every replica validates alike, as far as it is configured alike: what a provider trusts
    /// is a gateway's own. A replay validates nothing.
    pub msg_timestamp: Timestamp,
}

/// Who an identity says that a client is, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentifiedClient {
    /// [`IdentityProvider::client_handle`].
    pub handle: ClientHandle,
    /// [`IdentityProvider::client_domain`].
    pub domain: Option<DomainName>,
    /// [`IdentityProvider::valid_until`].
    pub valid_until: Option<Timestamp>,
}

/// Why an identity is not acceptable; the text says what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct IdentityError(pub String);

/// The functions that the draft asks of an identity provider (*Identity Providers*).
pub trait IdentityProvider: Send + Sync {
    /// The MLS credential types that this provider understands.
    fn supported_credentials(&self) -> &[CredentialType];

    /// Whether a valid credential proves that its holder is the client that it names. Where it does not, anybody can name
    /// any client, and only what is signed with one key is known to come from one client.
    fn authenticates(&self) -> bool {
        true
    }

    /// Whether the identity is valid in a group with these GroupContext extensions; in a commit, with the extensions
    /// as the commit leaves them.
    ///
    /// # Errors
    /// Says why it is not.
    fn validate(
        &self,
        identity: Identity<'_>,
        group_context_extensions: &Extensions<GroupContext>,
        context: ApplicationContext,
    ) -> Result<(), IdentityError>;

    /// The client's handle, unique within its domain, or within the application where domains are not used.
    ///
    /// # Errors
    /// Says why the identity names no client.
    fn client_handle(&self, identity: Identity<'_>) -> Result<ClientHandle, IdentityError>;

    /// The client's domain; `None` if the provider is configured without domains.
    ///
    /// # Errors
    /// Says why the identity names no domain although it must.
    fn client_domain(&self, identity: Identity<'_>) -> Result<Option<DomainName>, IdentityError>;

    /// The last moment at which the identity can be valid, as far as the credential itself tells; `None` if it does not end.
    ///
    /// # Errors
    /// Says why the credential cannot be read.
    fn valid_until(&self, _: Identity<'_>) -> Result<Option<Timestamp>, IdentityError> {
        Ok(None)
    }

    /// Validates the identity and says who it is, at once: a credential may be large, and all of this depends on reading it.
    ///
    /// # Errors
    /// Those of [`Self::validate`], and that the credential names no client.
    fn identify(
        &self,
        identity: Identity<'_>,
        group_context_extensions: &Extensions<GroupContext>,
        context: ApplicationContext,
    ) -> Result<IdentifiedClient, IdentityError> {
        self.validate(identity, group_context_extensions, context)?;
        Ok(IdentifiedClient {
            handle: self.client_handle(identity)?,
            domain: self.client_domain(identity)?,
            valid_until: self.valid_until(identity)?,
        })
    }

    /// Whether `successor` may take the place of `predecessor` in a group: by default, whether both are the same client.
    fn valid_successor(&self, predecessor: Identity<'_>, successor: Identity<'_>) -> bool {
        let client =
            |identity| Some((self.client_domain(identity).ok()?, self.client_handle(identity).ok()?));
        client(predecessor).is_some_and(|before| client(successor).is_some_and(|after| before == after))
    }
}
