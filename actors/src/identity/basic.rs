//! The draft's *Basic Identity Provider*: the credential's content is the client handle.

use openmls::prelude::{BasicCredential, CredentialType, Extensions, GroupContext};
use snapshots::{ClientHandle, DomainName};

use super::{ApplicationContext, Identity, IdentityError, IdentityProvider};

/// Accepts every basic credential and takes its `identity` as the client handle. It has neither accounts nor domains.
#[derive(Clone, Copy, Debug, Default)]
pub struct BasicIdentityProvider;

impl IdentityProvider for BasicIdentityProvider {
    fn supported_credentials(&self) -> &[CredentialType] {
        &[CredentialType::Basic]
    }

    fn authenticates(&self) -> bool {
        false
    }

    fn validate(
        &self,
        identity: Identity<'_>,
        _: &Extensions<GroupContext>,
        _: ApplicationContext,
    ) -> Result<(), IdentityError> {
        self.client_handle(identity).map(drop)
    }

    fn client_handle(&self, identity: Identity<'_>) -> Result<ClientHandle, IdentityError> {
        if identity.credential.credential_type() != CredentialType::Basic {
            return Err(IdentityError("this application accepts basic credentials only".into()));
        }
        let basic = BasicCredential::try_from(identity.credential.clone())
            .map_err(|_| IdentityError("the basic credential is malformed".into()))?;
        ClientHandle::new(basic.identity()).map_err(|error| {
            IdentityError(format!("the credential's identity cannot be a client handle: {error}"))
        })
    }

    fn client_domain(&self, _: Identity<'_>) -> Result<Option<DomainName>, IdentityError> {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use openmls::prelude::Credential;
    use snapshots::Timestamp;

    use super::*;

    fn check(credential: &Credential, expected: Result<&[u8], &str>) {
        let identity = Identity { signature_key: b"key", credential };
        let context = ApplicationContext { msg_timestamp: Timestamp(0) };
        let provider = BasicIdentityProvider;
        let handle = provider.client_handle(identity);
        assert_eq!(provider.validate(identity, &Extensions::empty(), context).is_ok(), handle.is_ok());
        match expected {
            Ok(bytes) => assert_eq!(handle.unwrap().as_bytes(), bytes),
            Err(part) => assert!(handle.unwrap_err().0.contains(part)),
        }
    }

    #[test]
    fn the_identity_is_the_handle() {
        let basic = |identity: &[u8]| Credential::from(BasicCredential::new(identity.to_vec()));
        check(&basic(b"alice/phone"), Ok(b"alice/phone"));
        check(&basic(&[0xff, 0]), Ok(&[0xff, 0]));
        check(&basic(b""), Err("client handle"));
        check(&basic(&[b'a'; 1025]), Err("client handle"));
        check(&Credential::new(CredentialType::X509, vec![]), Err("basic credentials only"));
        check(&Credential::new(CredentialType::Other(9), vec![]), Err("basic credentials only"));
    }

    #[test]
    fn a_successor_is_the_same_client() {
        let alice = Credential::from(BasicCredential::new(b"alice".to_vec()));
        let bob = Credential::from(BasicCredential::new(b"bob".to_vec()));
        let of = |credential| Identity { signature_key: b"any", credential };
        assert!(BasicIdentityProvider.valid_successor(of(&alice), of(&alice)));
        assert!(!BasicIdentityProvider.valid_successor(of(&alice), of(&bob)));
    }
}
