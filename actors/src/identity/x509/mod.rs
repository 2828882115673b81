//! The draft's *X.509 Identity Provider*: a client is who its certificates say, at the time at which they say so.
//!
//! What a chain *says* (`names.rs`) and whether it can be *trusted* (`trust.rs`) are two things. The first needs no time and
//! no anchor, so it names a member also after its certificates have expired.

mod credential;
mod names;
mod parameters;
mod trust;

use openmls::prelude::{CredentialType, Extensions, GroupContext};
use snapshots::{ClientHandle, DomainName, Timestamp};

use self::credential::{Claims, certificates};
pub use self::{
    credential::ChainLimits,
    parameters::{DeviceHandleRange, NameOffsets, ParametersError, X509Parameters},
    trust::{ChainError, TrustError, TrustStore},
};
use super::{ApplicationContext, Identity, IdentityError, IdentityProvider};

/// Accepts X.509 credentials whose chain is valid by RFC 5280 at the time of the message and leads to a trust anchor of
/// the application.
#[derive(Debug)]
pub struct X509IdentityProvider {
    offsets: NameOffsets,
    trust: TrustStore,
    limits: ChainLimits,
}

impl X509IdentityProvider {
    /// A provider that finds names at these offsets and trusts these anchors.
    pub fn new(offsets: NameOffsets, trust: TrustStore, limits: ChainLimits) -> Self {
        Self { offsets, trust, limits }
    }

    /// The credential's certificates and what they say.
    fn read<'a>(&self, identity: Identity<'a>) -> Result<(Vec<&'a [u8]>, Claims), IdentityError> {
        if identity.credential.credential_type() != CredentialType::X509 {
            return Err(IdentityError("this application accepts X.509 credentials only".into()));
        }
        let chain = certificates(identity.credential.serialized_content(), self.limits)?;
        let claims = Claims::of_chain(&chain, &self.offsets)?;
        Ok((chain, claims))
    }
}

impl IdentityProvider for X509IdentityProvider {
    fn supported_credentials(&self) -> &[CredentialType] {
        &[CredentialType::X509]
    }

    fn validate(
        &self,
        identity: Identity<'_>,
        _: &Extensions<GroupContext>,
        context: ApplicationContext,
    ) -> Result<(), IdentityError> {
        let (chain, claims) = self.read(identity)?;
        if claims.signature_key != identity.signature_key {
            return Err(IdentityError(
                "the leaf certificate is for another key than the MLS signature key of the leaf node".into(),
            ));
        }
        self.trust
            .validate(&chain, context.msg_timestamp)
            .map_err(|error| IdentityError(format!("the certificate chain is not valid: {error}")))
    }

    fn client_handle(&self, identity: Identity<'_>) -> Result<ClientHandle, IdentityError> {
        self.read(identity).map(|(_, claims)| claims.names.handle)
    }

    fn client_domain(&self, identity: Identity<'_>) -> Result<Option<DomainName>, IdentityError> {
        self.read(identity).map(|(_, claims)| claims.names.domain)
    }

    fn valid_until(&self, identity: Identity<'_>) -> Result<Option<Timestamp>, IdentityError> {
        self.read(identity).map(|(_, claims)| Some(claims.valid.1))
    }
}

#[cfg(test)]
mod tests;
