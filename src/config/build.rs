//! Applications in the form of the actors: identity providers, built from the files that the configuration names.

use std::sync::Arc;

use actors::{
    Application, ExternalSenderError, ExternalSenderKey,
    identity::{
        BasicIdentityProvider, IdentityProvider,
        x509::{ChainLimits, TrustError, TrustStore, X509IdentityProvider},
    },
};

use super::{
    ApplicationSettings, Config, ConfigError,
    applications::{lacks_x509, offsets},
    rows::refuse,
    x509::{self, X509Settings},
};
use crate::api::applications::{IdentityConfiguration, IdentityProviderType};

/// The least and the greatest size of the cache of valid chains; an entry takes about half a KiB.
const REMEMBERED_CHAINS: (usize, usize) = (1024, 1 << 16);

/// Reads the files of an application and builds it for the actors. The configuration has been checked.
pub(super) fn build(
    config: &Config,
    settings: &ApplicationSettings,
    at: &str,
) -> Result<Application, ConfigError> {
    let identity = &settings.identity_configuration;
    let mut application = Application {
        supports_domains: identity.supports_domains,
        domains: config.domains.clone(),
        federates_with: Arc::new(settings.federates_with.clone()),
        quotas: settings.quotas.quotas(),
        ..Application::basic(settings.id)
    };
    match (identity.identity_provider_type, &settings.x509) {
        (IdentityProviderType::Basic, _) => application.identity = Arc::new(BasicIdentityProvider),
        (IdentityProviderType::X509, None) => return Err(lacks_x509(at)),
        (IdentityProviderType::X509, Some(x509)) => {
            application.identity = provider(config, identity, x509, at)?;
            application.expired_members = x509.expired_members;
            application.external_senders = external_senders(config, x509, at)?.into();
        }
    }
    Ok(application)
}

fn provider(
    config: &Config,
    identity: &IdentityConfiguration,
    x509: &X509Settings,
    at: &str,
) -> Result<Arc<dyn IdentityProvider>, ConfigError> {
    let trust = trust_store(x509, at)?;
    let limits = ChainLimits {
        certificates_max: config.limits.certificates_per_chain_max,
        bytes_max: config.limits.certificate_chain_bytes_max,
        remembered_max: config.limits.group_members_max.clamp(REMEMBERED_CHAINS.0, REMEMBERED_CHAINS.1),
        above_names_max: x509.certificates_above_names_max.or(identity.supports_domains.then_some(0)),
    };
    Ok(Arc::new(X509IdentityProvider::new(offsets(identity, at)?, trust, limits)))
}

/// Reads the trust roots, the revocation lists and the certificates of those who sign lists.
fn trust_store(x509: &X509Settings, at: &str) -> Result<TrustStore, ConfigError> {
    let refuse_roots = |reason: &dyn std::fmt::Display| {
        refuse(format!("{at}.x509.trust_roots"), format!("{}: {reason}", x509.trust_roots))
    };
    let refuse_issuers = |reason: &dyn std::fmt::Display| {
        let source = x509.crl_issuers.as_ref().map(ToString::to_string).unwrap_or_default();
        refuse(format!("{at}.x509.crl_issuers"), format!("{source}: {reason}"))
    };
    let roots = x509.trust_roots.read().map_err(|error| refuse_roots(&error))?;
    let mut crls = Vec::with_capacity(x509.crls.len());
    for (index, path) in x509.crls.iter().enumerate() {
        crls.push(x509::read_crl(path).map_err(|error| {
            refuse(format!("{at}.x509.crls[{index}]"), format!("{}: {error}", path.display()))
        })?);
    }
    let refused = |error: TrustError| match error {
        TrustError::NoRoots | TrustError::TooManyRoots | TrustError::Root { .. } => refuse_roots(&error),
        TrustError::TooManyCrls => refuse(format!("{at}.x509.crls"), error.to_string()),
        TrustError::Crl { number, ref reason } => {
            refuse(format!("{at}.x509.crls[{}]", number.saturating_sub(1)), reason.clone())
        }
        TrustError::CrlIssuers { .. } | TrustError::CrlIssuer { .. } => refuse_issuers(&error),
    };
    let trust = TrustStore::new(&roots, &crls).map_err(refused)?;
    match &x509.crl_issuers {
        None => Ok(trust),
        Some(issuers) => {
            let issuers = issuers.read().map_err(|error| refuse_issuers(&error))?;
            trust.with_crl_issuers(&issuers).map_err(refused)
        }
    }
}

/// An invalid certificate only causes a warning: it may have expired, and existing groups need only its key.
fn external_senders(
    config: &Config,
    x509: &X509Settings,
    at: &str,
) -> Result<Vec<ExternalSenderKey>, ConfigError> {
    let name = config.domains.first().map_or("mimi-gateway", |domain| domain.as_str());
    let mut senders = Vec::with_capacity(x509.external_senders.len());
    for (index, settings) in x509.external_senders.iter().enumerate() {
        let member = |name: &str| format!("{at}.x509.external_senders[{index}].{name}");
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
        senders.push(sender);
    }
    Ok(senders)
}
