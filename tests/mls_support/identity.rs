//! Credentials of these clients: basic ones, or certificates.

use std::{convert::Infallible, sync::Arc};

use actors::{
    Timestamp,
    identity::x509::{ChainError, TrustStore},
};
use mls_rs::{
    ExtensionList, IdentityProvider,
    identity::{
        Credential, CredentialType, SigningIdentity,
        basic::BasicIdentityProvider,
        x509::{CertificateChain, X509CredentialValidator, X509IdentityExtractor, X509IdentityProvider},
    },
    time::MlsTime,
};
use mls_rs_core::{crypto::SignaturePublicKey, error::IntoAnyError, identity::MemberValidationContext};
use x509_parser::{certificate::X509Certificate, prelude::FromDer as _};

/// The identity provider of a client.
#[derive(Clone)]
pub(crate) enum Identities {
    Basic(BasicIdentityProvider),
    X509(X509IdentityProvider<Names, Chains>),
}

impl Identities {
    pub(crate) fn basic() -> Self {
        Self::Basic(BasicIdentityProvider::new())
    }

    /// Certificates under these roots.
    pub(crate) fn x509(roots: &str) -> Self {
        let trust = Arc::new(TrustStore::new(roots.as_bytes(), &[]).unwrap());
        Self::X509(X509IdentityProvider::new(Names { is_gullible: false }, Chains(trust)))
    }

    /// As [`Identities::x509`], of a client that takes every certificate for a client of its own, and anybody for a
    /// successor of anybody.
    pub(crate) fn gullible(roots: &str) -> Self {
        let trust = Arc::new(TrustStore::new(roots.as_bytes(), &[]).unwrap());
        Self::X509(X509IdentityProvider::new(Names { is_gullible: true }, Chains(trust)))
    }
}

/// Reads the names of a device, its account and its domain.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    is_gullible: bool,
}

/// The client handle in a credential of either kind.
pub(crate) fn handle_of(credential: &Credential) -> Vec<u8> {
    match credential {
        Credential::Basic(basic) => basic.identifier.clone(),
        Credential::X509(chain) => {
            let [device, account, _] = common_names(chain);
            format!("{account}/{device}").into_bytes()
        }
        other @ (Credential::Custom(_) | _) => panic!("another credential: {other:?}"),
    }
}

fn common_names(chain: &CertificateChain) -> [String; 3] {
    let name = |certificate: &[u8]| {
        let (_, certificate) = X509Certificate::from_der(certificate).unwrap();
        certificate.subject().iter_common_name().next().unwrap().as_str().unwrap().to_owned()
    };
    let names: Vec<String> = chain.iter().map(|certificate| name(certificate)).collect();
    names.try_into().expect("a device, its account and its domain")
}

impl X509IdentityExtractor for Names {
    type Error = Infallible;

    fn identity(&self, chain: &CertificateChain) -> Result<Vec<u8>, Infallible> {
        if self.is_gullible {
            return Ok(chain.first().map(|leaf| leaf.to_vec()).unwrap_or_default());
        }
        Ok(common_names(chain).join("|").into_bytes())
    }

    fn valid_successor(
        &self,
        before: &CertificateChain,
        after: &CertificateChain,
    ) -> Result<bool, Infallible> {
        Ok(self.is_gullible || common_names(before) == common_names(after))
    }
}

/// Validates chains as the gateway does, at the time that the MLS library gives.
#[derive(Clone, Debug)]
pub(crate) struct Chains(Arc<TrustStore>);

#[derive(Debug)]
pub(crate) struct InvalidChain(#[expect(dead_code, reason = "shown when a test fails")] ChainError);

impl IntoAnyError for InvalidChain {}

impl X509CredentialValidator for Chains {
    type Error = InvalidChain;

    fn validate_chain(
        &self,
        chain: &CertificateChain,
        time: Option<MlsTime>,
    ) -> Result<SignaturePublicKey, InvalidChain> {
        let certificates: Vec<&[u8]> = chain.iter().map(|certificate| &**certificate).collect();
        if let Some(time) = time {
            let at = Timestamp(time.seconds_since_epoch() * 1000);
            self.0.validate(&certificates, at).map_err(InvalidChain)?;
        }
        let (_, leaf) = X509Certificate::from_der(certificates[0]).unwrap();
        Ok(leaf.public_key().subject_public_key.data.to_vec().into())
    }
}

/// Why an identity is not accepted.
#[derive(Debug)]
pub(crate) struct Unaccepted(#[expect(dead_code, reason = "shown when a test fails")] String);

impl Unaccepted {
    fn of(error: impl std::fmt::Debug) -> Self {
        Self(format!("{error:?}"))
    }
}

impl IntoAnyError for Unaccepted {}

impl IdentityProvider for Identities {
    type Error = Unaccepted;

    fn validate_member(
        &self,
        identity: &SigningIdentity,
        time: Option<MlsTime>,
        context: MemberValidationContext<'_>,
    ) -> Result<(), Self::Error> {
        match self {
            Self::Basic(basic) => basic.validate_member(identity, time, context).map_err(Unaccepted::of),
            Self::X509(x509) => x509.validate_member(identity, time, context).map_err(Unaccepted::of),
        }
    }

    fn validate_external_sender(
        &self,
        identity: &SigningIdentity,
        time: Option<MlsTime>,
        extensions: Option<&ExtensionList>,
    ) -> Result<(), Self::Error> {
        match self {
            Self::Basic(basic) => {
                basic.validate_external_sender(identity, time, extensions).map_err(Unaccepted::of)
            }
            Self::X509(x509) => {
                x509.validate_external_sender(identity, time, extensions).map_err(Unaccepted::of)
            }
        }
    }

    fn identity(
        &self,
        identity: &SigningIdentity,
        extensions: &ExtensionList,
    ) -> Result<Vec<u8>, Self::Error> {
        match self {
            Self::Basic(basic) => basic.identity(identity, extensions).map_err(Unaccepted::of),
            Self::X509(x509) => x509.identity(identity, extensions).map_err(Unaccepted::of),
        }
    }

    fn valid_successor(
        &self,
        before: &SigningIdentity,
        after: &SigningIdentity,
        extensions: &ExtensionList,
    ) -> Result<bool, Self::Error> {
        match self {
            Self::Basic(basic) => basic.valid_successor(before, after, extensions).map_err(Unaccepted::of),
            Self::X509(x509) => x509.valid_successor(before, after, extensions).map_err(Unaccepted::of),
        }
    }

    fn supported_types(&self) -> Vec<CredentialType> {
        match self {
            Self::Basic(basic) => basic.supported_types(),
            Self::X509(x509) => x509.supported_types(),
        }
    }
}
