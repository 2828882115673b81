//! `[[applications]]`: ids, tokens and identity providers, and the conditions between them.

use std::collections::{BTreeMap, BTreeSet};

use actors::{
    AppId, DomainName, Quotas, Resource,
    identity::x509::{NameOffsets, X509Parameters},
    settings::{Accepts, Row},
};
use serde::{Deserialize, Serialize};
use toml::Table;

use super::{
    Config, ConfigError,
    rows::{self, refuse},
    x509::X509Settings,
};
use crate::{
    api::applications::{IdentityConfiguration, IdentityProviderType},
    token::TokenHash,
};

actors::settings! {
    /// One application.
    #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
    pub struct ApplicationSettings {
        /// The draft's ApplicationID (*Applications*).
        pub id: AppId => Accepts::Text(
            "a UUID of version 4: xxxxxxxx-xxxx-4xxx-yxxx-xxxxxxxxxxxx, where y is 8, 9, a or b",
            rows::parses::<AppId>,
        ), e.g. r#""7c0c7b44-5a0f-4a43-9a51-0a9f6b9c7e11""#;
        /// Whether `GET /apps` lists it; false by default.
        #[serde(default)]
        pub public: bool => Accepts::Boolean, e.g. "false";
        /// The domains of the gateways that it federates with; none by default.
        #[serde(default)]
        pub federates_with: BTreeSet<DomainName> => Accepts::List(&rows::DOMAIN), e.g. r#"["b.example"]"#;
        /// A token. Without one, the application cannot be used. `mimi-gateway token` makes one.
        #[serde(default)]
        pub tokens: Vec<TokenSettings> => Accepts::List(&Accepts::Table(TokenSettings::ROWS));
        /// The identification of its clients; *Basic Identity Provider* by default.
        #[serde(default)]
        pub identity_configuration: IdentityConfiguration => Accepts::Table(IDENTITY);
        /// The most that the application may have at this gateway.
        #[serde(default)]
        pub quotas: QuotaSettings => Accepts::Table(QuotaSettings::ROWS);
        /// The rate of requests of each of its tokens.
        #[serde(default)]
        pub rates: TokenRateSettings => Accepts::Table(TokenRateSettings::ROWS);
        /// Trust anchors; required if clients are identified by certificates, and not accepted otherwise.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub x509: Option<X509Settings> => Accepts::Table(X509Settings::ROWS);
    }
}

actors::settings! {
    /// The most that an application may have at this gateway. What would exceed a quota is refused; what is there stays. Each is
    /// without a limit by default.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    pub struct QuotaSettings {
        /// Registered clients.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub clients_max: Option<u64> => QUOTA, e.g. "100000";
        /// Groups, replicas of other gateways' groups included.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub groups_max: Option<u64> => QUOTA, e.g. "100000";
        /// Key packages in the queues of clients, assigned ones and final keys included.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub key_packages_max: Option<u64> => QUOTA, e.g. "10000000";
        /// Stored messages and states, in bytes: entries of groups, welcomes, key packages, and snapshots of groups and key queues.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub stored_bytes_max: Option<u64> => QUOTA, e.g. "100000000000";
    }
}

actors::settings! {
    /// The rate of requests of each token of an application. They may come all at once; then they are allowed again at a constant
    /// pace, and others are answered 429.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    pub struct TokenRateSettings {
        /// Requests with one token in `window_s`. Without a limit by default.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub requests_max: Option<u64> => Accepts::COUNT, e.g. "6000";
        /// The time in which this number of requests is allowed again, in seconds; 60 by default.
        #[serde(default = "default_window_s")]
        pub window_s: u64 => RATE_WINDOW, e.g. "60";
    }
}

const fn default_window_s() -> u64 {
    60
}

impl Default for TokenRateSettings {
    fn default() -> Self {
        Self { requests_max: None, window_s: default_window_s() }
    }
}

/// Requests of a rate; 0 for no limit.
pub(super) const RATE: Accepts = Accepts::from_to(0, 1 << 24);
/// The time of a rate, in seconds: at most a day.
pub(super) const RATE_WINDOW: Accepts = Accepts::from_to(1, 24 * 3600);

/// A quota of none is one, too: it lets an application have nothing more.
const QUOTA: Accepts = Accepts::from_to(0, u64::MAX >> 1);

impl QuotaSettings {
    /// The quotas in the form of the store.
    pub(super) fn quotas(&self) -> Quotas {
        Quotas::default()
            .with(Resource::Clients, self.clients_max)
            .with(Resource::Groups, self.groups_max)
            .with(Resource::KeyPackages, self.key_packages_max)
            .with(Resource::Bytes, self.stored_bytes_max)
    }
}

actors::settings! {
    /// One token of an application.
    #[derive(Clone, Copy, Debug, Serialize, Deserialize)]
    pub struct TokenSettings {
        /// The SHA-256 of the token, not the token itself.
        pub sha256: TokenHash => Accepts::Secret(
            "64 hexadecimal digits, as `mimi-gateway token` prints after `sha256:`",
            rows::parses::<TokenHash>,
        ), e.g. r#""0000000000000000000000000000000000000000000000000000000000000000""#;
        /// The requests that it allows: "read" for those that change nothing, "read-write" for all.
        pub access: TokenAccess => TokenAccess::ACCEPTS, e.g. r#""read-write""#;
    }
}

impl PartialEq for TokenSettings {
    fn eq(&self, other: &Self) -> bool {
        self.access == other.access && bool::from(self.sha256.matches(&other.sha256))
    }
}

impl Eq for TokenSettings {}

actors::choices! {
    /// The requests that a token allows.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum TokenAccess {
        /// Requests that change nothing.
        Read = "read",
        /// All requests.
        ReadWrite = "read-write",
    }
}

/// A setting whose type belongs to the draft.
const fn row(
    name: &'static str,
    doc: &'static [&'static str],
    accepts: Accepts,
    example: &'static str,
    is_required: bool,
) -> Row {
    Row { name, doc, accepts, example: Some(example), is_required }
}

/// The draft's IdentityConfiguration (*Identity Providers*).
const IDENTITY: &[Row] = &[
    row(
        "identity_provider_type",
        &[" How clients are identified: by a basic credential, the default, or by certificates."],
        IdentityProviderType::ACCEPTS,
        "2",
        true,
    ),
    row(
        "supports_accounts",
        &[" Whether clients belong to accounts; X.509 only. Not by default."],
        Accepts::Boolean,
        "true",
        false,
    ),
    row(
        "supports_domains",
        &[" Whether accounts and clients belong to domains; X.509 only. Not by default."],
        Accepts::Boolean,
        "true",
        false,
    ),
    Row {
        name: "parameters",
        doc: &[
            " The places of names in a certificate chain, counted from the client's own certificate, which is 0; X.509 only.",
        ],
        accepts: Accepts::Parameters(X509Parameters::ROWS),
        example: None,
        is_required: false,
    },
];

impl ApplicationSettings {
    /// An application of the Basic identity provider that is not public.
    pub fn basic(id: AppId, tokens: Vec<TokenSettings>) -> Self {
        Self {
            id,
            public: false,
            federates_with: BTreeSet::new(),
            tokens,
            identity_configuration: IdentityConfiguration::default(),
            quotas: QuotaSettings::default(),
            rates: TokenRateSettings::default(),
            x509: None,
        }
    }

    /// An application whose clients are identified by certificates, and that is not public.
    pub fn x509(
        id: AppId,
        tokens: Vec<TokenSettings>,
        identity_configuration: IdentityConfiguration,
        x509: X509Settings,
    ) -> Self {
        Self { identity_configuration, x509: Some(x509), ..Self::basic(id, tokens) }
    }
}

/// The path of an application in a configuration.
pub(super) fn at(place: usize) -> String {
    format!("applications[{place}]")
}

/// Checks that ids and tokens are used once, those of operators included, and each identity provider.
pub(super) fn check(config: &Config) -> Result<(), ConfigError> {
    let mut ids: BTreeMap<AppId, String> = BTreeMap::new();
    let mut hashes: BTreeMap<String, String> = BTreeMap::new();
    for (place, application) in config.applications.iter().enumerate() {
        let at = at(place);
        if let Some(first) = ids.insert(application.id, at.clone()) {
            return Err(refuse(format!("{at}.id"), format!("{first} has this id already")));
        }
        match application.identity_configuration.identity_provider_type {
            IdentityProviderType::Basic => check_basic(application, &at)?,
            IdentityProviderType::X509 => check_x509(config, application, &at)?,
        }
        for (index, token) in application.tokens.iter().enumerate() {
            let at = format!("{at}.tokens[{index}].sha256");
            if let Some(first) = hashes.insert(token.sha256.to_string(), at.clone()) {
                let reason = format!("{first} is this token already; a token belongs to one application");
                return Err(refuse(at, reason));
            }
        }
    }
    for (index, token) in config.operator.iter().flat_map(|operator| &operator.tokens).enumerate() {
        let at = format!("operator.tokens[{index}].sha256");
        if let Some(first) = hashes.insert(token.sha256.to_string(), at.clone()) {
            let reason = format!("{first} is this token already; a token of an operator is nobody else's");
            return Err(refuse(at, reason));
        }
    }
    Ok(())
}

/// *Basic Identity Provider*: it supports neither accounts nor domains.
fn check_basic(application: &ApplicationSettings, at: &str) -> Result<(), ConfigError> {
    let identity = &application.identity_configuration;
    let neither = "must be false: the Basic identity provider supports neither accounts nor domains";
    let wrong = [
        (identity.supports_accounts, "identity_configuration.supports_accounts", neither),
        (identity.supports_domains, "identity_configuration.supports_domains", neither),
        (
            !identity.parameters.is_empty(),
            "identity_configuration.parameters",
            "must be empty: the Basic identity provider takes none",
        ),
        (
            application.x509.is_some(),
            "x509",
            "must be left out: identity_provider_type is 1 (Basic), and only 2 (X.509) trusts certificates",
        ),
    ];
    match wrong.into_iter().find(|(is_wrong, ..)| *is_wrong) {
        Some((_, name, reason)) => Err(refuse(format!("{at}.{name}"), reason)),
        None => Ok(()),
    }
}

fn check_x509(config: &Config, application: &ApplicationSettings, at: &str) -> Result<(), ConfigError> {
    let identity = &application.identity_configuration;
    let highest = usize::from(offsets(identity, at)?.highest());
    if application.x509.is_none() {
        return Err(lacks_x509(at));
    }
    let certificates = config.limits.certificates_per_chain_max;
    if highest >= certificates {
        return Err(refuse(
            format!("{at}.identity_configuration.parameters"),
            format!(
                "the highest offset is {highest}, and limits.certificates_per_chain_max allows {certificates} \
                 certificates, which have the offsets 0 to {}",
                certificates.saturating_sub(1)
            ),
        ));
    }
    if identity.supports_domains && config.domains.is_empty() {
        let reason = format!("must name a domain of this gateway, because {at} uses domains");
        return Err(refuse("domains", reason));
    }
    Ok(())
}

pub(super) fn lacks_x509(at: &str) -> ConfigError {
    refuse(
        format!("{at}.x509"),
        "is required, because identity_provider_type is 2: [applications.x509] with trust_roots, a PEM file",
    )
}

/// *X.509 Identity Provider*: the parameters and their assertions.
pub(super) fn offsets(identity: &IdentityConfiguration, at: &str) -> Result<NameOffsets, ConfigError> {
    let at = format!("{at}.identity_configuration.parameters");
    let malformed = |error: &dyn std::fmt::Display| refuse(at.clone(), error.to_string());
    let table = Table::try_from(&identity.parameters).map_err(|error| malformed(&error))?;
    rows::check(X509Parameters::ROWS, &table, &at)?;
    let parameters: X509Parameters = table.try_into().map_err(|error| malformed(&error))?;
    parameters
        .check(identity.supports_accounts, identity.supports_domains)
        .map_err(|error| refuse(format!("{at}.{}", error.member), error.reason))
}
