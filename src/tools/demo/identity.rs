//! Credentials of the demo's members: basic ones, or new certificates.

use std::time::Duration;

use actors::{AppId, ClientHandle, DomainName};
use openmls::prelude::{BasicCredential, Credential, CredentialType};

use super::{DuringLibrary as _, ToolError};
use crate::{
    api::applications::IdentityConfiguration,
    config::{ApplicationSettings, Pem, TokenSettings, X509Settings},
    tools::pki::{CertificateAuthority, ClientKey, credential_content},
};

/// The domain of the organisation in the demo at one gateway.
const DOMAIN: &str = "harbour.example";
/// The device of every account.
const DEVICE: &str = "phone";
/// The lifetime of a device's certificate.
const DEVICE_LASTS: Duration = Duration::from_secs(24 * 3600);

/// The identification of the members of the story.
pub(super) enum Identities {
    /// *Basic Identity Provider*.
    Basic,
    /// *X.509 Identity Provider*.
    X509(Box<Organisation>),
}

/// An organisation below a root: it certifies accounts, which certify devices.
pub(super) struct Organisation {
    authority: CertificateAuthority,
    domain: DomainName,
    roots: String,
}

impl Organisation {
    /// An organisation with its own root.
    pub(super) fn found() -> Result<Self, ToolError> {
        Self::below(
            &CertificateAuthority::root("Demo Root", 2).during_library("making a root certificate")?,
            DOMAIN,
        )
    }

    /// The organisation of a domain, below a root that it may share with others.
    pub(super) fn below(root: &CertificateAuthority, domain: &str) -> Result<Self, ToolError> {
        let authority = root.below(domain).during_library("making an organisation's certificate")?;
        let domain = DomainName::new(domain).during_library("naming a domain")?;
        Ok(Self { authority, domain, roots: root.pem() })
    }

    pub(super) fn domain(&self) -> &DomainName {
        &self.domain
    }

    /// An application whose clients are the organisation's.
    pub(super) fn application(&self, id: AppId, tokens: Vec<TokenSettings>) -> ApplicationSettings {
        let policy = X509Settings::trusting(Pem::new(&self.roots));
        ApplicationSettings::x509(id, tokens, IdentityConfiguration::x509(), policy)
    }
}

impl Identities {
    /// The domain of every member.
    pub(super) fn domain(&self) -> Option<&DomainName> {
        match self {
            Self::Basic => None,
            Self::X509(organisation) => Some(&organisation.domain),
        }
    }

    /// The handle of a client of this name, and a credential for a key of Ed25519.
    pub(super) fn identify(
        &self,
        name: &str,
        public_key: &[u8],
    ) -> Result<(ClientHandle, Credential), ToolError> {
        let (handle, credential) = match self {
            Self::Basic => (name.to_owned(), BasicCredential::new(name.as_bytes().to_vec()).into()),
            Self::X509(organisation) => {
                let account =
                    organisation.authority.below(name).during_library("making an account's certificate")?;
                let chain = account
                    .certify(DEVICE, ClientKey::Ed25519(public_key), DEVICE_LASTS)
                    .during_library("making a device's certificate")?;
                let content = credential_content(&chain).during_library("making a credential")?;
                (format!("{name}/{DEVICE}"), Credential::new(CredentialType::X509, content))
            }
        };
        Ok((ClientHandle::new(handle).during_library("naming a client")?, credential))
    }
}
