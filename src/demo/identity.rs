//! How the members of the story are identified: by what they say, or by certificates made on the spot.

use std::time::Duration;

use actors::{ClientHandle, DomainName};
use openmls::prelude::{BasicCredential, Capabilities, Credential, CredentialType};

use super::{
    DemoError, DuringMls as _,
    pki::{Authority, ClientKey, credential_content},
};

/// The domain of an organisation that is alone.
const DOMAIN: &str = "harbour.example";
/// The device of every account.
const DEVICE: &str = "phone";
/// How long a device's certificate lasts.
const DEVICE_LASTS: Duration = Duration::from_secs(24 * 3600);

/// How the members of the story are identified.
pub(super) enum Identities {
    /// *Basic Identity Provider*.
    Basic,
    /// *X.509 Identity Provider*.
    X509(Box<Organisation>),
}

/// An organisation below a root: it certifies accounts, which certify devices.
pub(super) struct Organisation {
    authority: Authority,
    domain: DomainName,
    roots: String,
}

impl Organisation {
    /// One with a root of its own.
    pub(super) fn found() -> Result<Self, DemoError> {
        Self::below(&Authority::root("Demo Root", 2).during_mls("making a root certificate")?, DOMAIN)
    }

    /// The one of a domain, below a root that others may be below as well.
    pub(super) fn below(root: &Authority, domain: &str) -> Result<Self, DemoError> {
        let authority = root.below(domain).during_mls("making an organisation's certificate")?;
        let domain = DomainName::new(domain).during_mls("naming a domain")?;
        Ok(Self { authority, domain, roots: root.pem() })
    }

    pub(super) fn domain(&self) -> &DomainName {
        &self.domain
    }

    /// What an application trusts, in PEM.
    pub(super) fn roots(&self) -> &str {
        &self.roots
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

    /// What MLS clients have to say that they can do.
    pub(super) fn capabilities(&self) -> Capabilities {
        let kind = match self {
            Self::Basic => CredentialType::Basic,
            Self::X509(_) => CredentialType::X509,
        };
        Capabilities::new(None, None, None, None, Some(&[kind]))
    }

    /// The handle of somebody of this name, and a credential for a key of Ed25519.
    pub(super) fn identify(
        &self,
        name: &str,
        public_key: &[u8],
    ) -> Result<(ClientHandle, Credential), DemoError> {
        let (handle, credential) = match self {
            Self::Basic => (name.to_owned(), BasicCredential::new(name.as_bytes().to_vec()).into()),
            Self::X509(organisation) => {
                let account =
                    organisation.authority.below(name).during_mls("making an account's certificate")?;
                let chain = account
                    .certify(DEVICE, ClientKey::Ed25519(public_key), DEVICE_LASTS)
                    .during_mls("making a device's certificate")?;
                let content = credential_content(&chain).during_mls("making a credential")?;
                (format!("{name}/{DEVICE}"), Credential::new(CredentialType::X509, content))
            }
        };
        Ok((ClientHandle::new(handle).during_mls("naming a client")?, credential))
    }
}
