//! Clients that basic credentials name `handle@domain`: domains without certificates.

use actors::identity::{
    ApplicationContext, CredentialType, GroupContextExtensions, Identity, IdentityError, IdentityProvider,
};
use snapshots::{ClientHandle, DomainName};

pub(crate) struct AtDomains;

impl AtDomains {
    fn split(identity: Identity<'_>) -> Result<(String, DomainName), IdentityError> {
        let unnamed = || IdentityError("not a handle at a domain".into());
        let text = String::from_utf8(identity.credential.content.to_vec()).map_err(|_| unnamed())?;
        let (handle, domain) = text.split_once('@').ok_or_else(unnamed)?;
        Ok((handle.to_owned(), DomainName::new(domain).map_err(|_| unnamed())?))
    }
}

impl IdentityProvider for AtDomains {
    fn supported_credentials(&self) -> &[CredentialType] {
        &[CredentialType::BASIC]
    }

    fn validate(
        &self,
        identity: Identity<'_>,
        _: GroupContextExtensions<'_>,
        _: ApplicationContext,
    ) -> Result<(), IdentityError> {
        Self::split(identity).map(drop)
    }

    fn client_handle(&self, identity: Identity<'_>) -> Result<ClientHandle, IdentityError> {
        let (handle, _) = Self::split(identity)?;
        ClientHandle::new(handle).map_err(|error| IdentityError(error.to_string()))
    }

    fn client_domain(&self, identity: Identity<'_>) -> Result<Option<DomainName>, IdentityError> {
        Self::split(identity).map(|(_, domain)| Some(domain))
    }
}
