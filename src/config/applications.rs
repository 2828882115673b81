//! Applications for the actors, built from settings and the files that they name.

use std::sync::Arc;

use actors::{
    Application, Clock, ExternalSenderError, ExternalSenderKey,
    identity::{
        BasicIdentityProvider, IdentityProvider,
        x509::{ChainLimits, NameOffsets, TrustError, TrustStore, X509IdentityProvider, X509Parameters},
    },
};
use serde_json::Value;

use super::{
    ApplicationSettings, Config, ConfigError,
    check::refuse,
    x509::{self, X509Settings},
};
use crate::api::applications::{IdentityConfiguration, IdentityProviderType};

/// The fewest and the most chains that are remembered to be valid; one takes about half a KiB.
const REMEMBERED_CHAINS: (usize, usize) = (1024, 1 << 16);

/// Where the members of one application are in the configuration.
pub(super) struct Place(pub(super) usize);

impl Place {
    pub(super) fn member(&self, name: &str) -> String {
        format!("applications[{}].{name}", self.0)
    }

    pub(super) fn of_identity(&self, name: &str) -> String {
        self.member(&format!("identity_configuration.{name}"))
    }
}

/// Reads the files of an application and makes what the actors take. The configuration has been checked.
pub(super) fn build(
    config: &Config,
    settings: &ApplicationSettings,
    place: &Place,
) -> Result<Application, ConfigError> {
    let identity = &settings.identity_configuration;
    let mut application = Application {
        supports_domains: identity.supports_domains,
        domains: config.domains.clone(),
        federates_with: Arc::new(settings.federates_with.clone()),
        ..Application::basic(settings.id)
    };
    match (identity.identity_provider_type, &settings.x509) {
        (IdentityProviderType::Basic, _) => application.identity = Arc::new(BasicIdentityProvider),
        (IdentityProviderType::X509, None) => return Err(lacks_x509(place)),
        (IdentityProviderType::X509, Some(x509)) => {
            application.identity = provider(config, identity, x509, place)?;
            application.expired_members = x509.expired_members;
            application.external_senders =
                external_senders(config, &*application.identity, x509, place)?.into();
        }
    }
    Ok(application)
}

pub(super) fn lacks_x509(place: &Place) -> ConfigError {
    refuse(
        place.member("x509"),
        "must be there, because identity_provider_type is 2: [applications.x509] with trust_roots, a PEM file",
    )
}

/// *X.509 Identity Provider*: the parameters and their assertions.
pub(super) fn offsets(identity: &IdentityConfiguration, place: &Place) -> Result<NameOffsets, ConfigError> {
    let parameters: X509Parameters =
        serde_path_to_error::deserialize(Value::Object(identity.parameters.clone())).map_err(|error| {
            let member = match error.path().to_string() {
                root if root == "." => place.of_identity("parameters"),
                member => place.of_identity(&format!("parameters.{member}")),
            };
            refuse(member, error.inner().to_string())
        })?;
    parameters
        .check(identity.supports_accounts, identity.supports_domains)
        .map_err(|error| refuse(place.of_identity(&format!("parameters.{}", error.member)), error.reason))
}

fn provider(
    config: &Config,
    identity: &IdentityConfiguration,
    x509: &X509Settings,
    place: &Place,
) -> Result<Arc<dyn IdentityProvider>, ConfigError> {
    let refuse_roots = |reason: &dyn std::fmt::Display| {
        refuse(place.member("x509.trust_roots"), format!("{}: {reason}", x509.trust_roots))
    };
    let roots = x509.trust_roots.read().map_err(|error| refuse_roots(&error))?;
    let mut crls = Vec::with_capacity(x509.crls.len());
    for (index, path) in x509.crls.iter().enumerate() {
        crls.push(x509::read(path).map_err(|error| {
            refuse(place.member(&format!("x509.crls[{index}]")), format!("{}: {error}", path.display()))
        })?);
    }
    let trust = TrustStore::new(&roots, &crls).map_err(|error| match error {
        TrustError::NoRoots | TrustError::TooManyRoots | TrustError::Root { .. } => refuse_roots(&error),
        TrustError::TooManyCrls => refuse(place.member("x509.crls"), error.to_string()),
        TrustError::Crl { number, ref reason } => {
            refuse(place.member(&format!("x509.crls[{}]", number.saturating_sub(1))), reason.clone())
        }
    })?;
    let limits = ChainLimits {
        certificates_max: config.limits.certificates_per_chain_max,
        bytes_max: config.limits.certificate_chain_bytes_max,
        remembered_max: config.limits.group_members_max.clamp(REMEMBERED_CHAINS.0, REMEMBERED_CHAINS.1),
        above_names_max: x509.certificates_above_names_max.or(identity.supports_domains.then_some(0)),
    };
    Ok(Arc::new(X509IdentityProvider::new(offsets(identity, place)?, trust, limits)))
}

/// A certificate that is not valid is no reason not to start: it may have expired, and the groups that there are can do with its
/// key.
fn external_senders(
    config: &Config,
    provider: &dyn IdentityProvider,
    x509: &X509Settings,
    place: &Place,
) -> Result<Vec<ExternalSenderKey>, ConfigError> {
    let name = config.domains.first().map_or("mimi-gateway", |domain| domain.as_str());
    let mut senders = Vec::with_capacity(x509.external_senders.len());
    for (index, settings) in x509.external_senders.iter().enumerate() {
        let member = |name: &str| place.member(&format!("x509.external_senders[{index}].{name}"));
        let at_key = |reason: &dyn std::fmt::Display| {
            refuse(member("private_key"), format!("{}: {reason}", settings.private_key.display()))
        };
        let at_certificate = |reason: &dyn std::fmt::Display| {
            let source = settings.certificate.as_ref().map(ToString::to_string).unwrap_or_default();
            refuse(member("certificate"), format!("{source}: {reason}"))
        };
        let key = x509::read(&settings.private_key).map_err(|error| at_key(&error))?;
        let certificate = settings
            .certificate
            .as_ref()
            .map(x509::Pem::read)
            .transpose()
            .map_err(|error| at_certificate(&error))?;
        let sender =
            ExternalSenderKey::from_pem(&key, certificate.as_deref(), name).map_err(|error| match error {
                ExternalSenderError::PrivateKey => at_key(&error),
                ExternalSenderError::Certificates => at_certificate(&error),
            })?;
        if let Err(reason) = sender.check_credential(provider, Clock::system().now()) {
            tracing::warn!(
                member = member("certificate"),
                %reason,
                "the certificate of an external sender is not valid now: groups that name it cannot be created"
            );
        }
        senders.push(sender);
    }
    Ok(senders)
}
