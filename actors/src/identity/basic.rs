//! The draft's *Basic Identity Provider*: the credential's content is the client handle.

use snapshots::{ClientHandle, DomainName};

use super::{
    ApplicationContext, CredentialType, GroupContextExtensions, Identity, IdentityError, IdentityProvider,
};

/// Accepts every basic credential and takes its `identity` as the client handle. It has neither accounts nor domains.
#[derive(Clone, Copy, Debug, Default)]
pub struct BasicIdentityProvider;

impl IdentityProvider for BasicIdentityProvider {
    fn supported_credentials(&self) -> &[CredentialType] {
        &[CredentialType::BASIC]
    }

    fn authenticates(&self) -> bool {
        false
    }

    fn reads_extensions(&self) -> bool {
        false
    }

    fn validate(
        &self,
        identity: Identity<'_>,
        _: GroupContextExtensions<'_>,
        _: ApplicationContext,
    ) -> Result<(), IdentityError> {
        self.client_handle(identity).map(drop)
    }

    fn client_handle(&self, identity: Identity<'_>) -> Result<ClientHandle, IdentityError> {
        if identity.credential.credential_type != CredentialType::BASIC {
            return Err(IdentityError("this application accepts basic credentials only".into()));
        }
        ClientHandle::new(identity.credential.content).map_err(|error| {
            IdentityError(format!("the credential's identity cannot be a client handle: {error}"))
        })
    }

    fn client_domain(&self, _: Identity<'_>) -> Result<Option<DomainName>, IdentityError> {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use snapshots::Timestamp;

    use super::*;
    use crate::identity::Credential;

    fn check(credential: Credential<'_>, expected: Result<&[u8], &str>) {
        let identity = Identity { signature_key: b"key", credential };
        let context = ApplicationContext::at(Timestamp(0));
        let provider = BasicIdentityProvider;
        let handle = provider.client_handle(identity);
        assert_eq!(
            provider.validate(identity, GroupContextExtensions::empty(), context).is_ok(),
            handle.is_ok()
        );
        match expected {
            Ok(bytes) => assert_eq!(handle.unwrap().as_bytes(), bytes),
            Err(part) => assert!(handle.unwrap_err().0.contains(part)),
        }
    }

    #[test]
    fn the_identity_is_the_handle() {
        let of = |kind, content| Credential { credential_type: kind, content };
        let basic = |identity| of(CredentialType::BASIC, identity);
        check(basic(b"alice/phone"), Ok(b"alice/phone"));
        check(basic(&[0xff, 0]), Ok(&[0xff, 0]));
        check(basic(b""), Err("client handle"));
        check(basic(&[b'a'; 1025]), Err("client handle"));
        check(of(CredentialType::X509, &[]), Err("basic credentials only"));
        check(of(CredentialType(9), &[]), Err("basic credentials only"));
    }

    #[test]
    fn a_successor_is_the_same_client() {
        let of = |content| {
            let credential = Credential { credential_type: CredentialType::BASIC, content };
            Identity { signature_key: b"any", credential }
        };
        assert!(BasicIdentityProvider.valid_successor(of(b"alice"), of(b"alice")));
        assert!(!BasicIdentityProvider.valid_successor(of(b"alice"), of(b"bob")));
    }
}
