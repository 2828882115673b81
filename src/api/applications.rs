//! *Applications*: the public description of applications.

use actors::AppId;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::{Access, Endpoint, Method, Nothing, paths::NoMembers};

/// `GET /apps`: the configurations of the public applications.
pub struct ListApplications;

impl Endpoint for ListApplications {
    const NAME: &'static str = "listApplications";
    const METHOD: Method = Method::Get;
    const PATH: &'static str = "/apps";
    const ACCESS: Access = Access::Public;
    const SECTION: &'static str = "Applications";
    const SUMMARY: &'static str = "The configurations of the public applications";
    const DESCRIPTION: &'static str = "Lists what is the same on every gateway that serves an application: how its clients are identified. Needs no \
         token. Applications that are not public are left out, so an empty list is a normal answer.";
    type Path = NoMembers;
    type Query = Nothing;
    type Body = Nothing;
    type Response = ApplicationConfigurations;
}

/// The public applications of a gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
#[schema(as = ApplicationConfigurationList)]
pub struct ApplicationConfigurations(pub Vec<ApplicationConfiguration>);

/// The draft's ApplicationConfiguration (*Applications*): the same on every gateway that federates it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ApplicationConfiguration {
    /// The identification of the application's clients.
    pub identity_configuration: IdentityConfiguration,
    /// The application.
    #[schema(value_type = Uuid)]
    pub id: AppId,
}

/// The draft's IdentityConfiguration (*Identity Providers*).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct IdentityConfiguration {
    /// 1 = Basic, 2 = X.509: the MLS credential type that it accepts (RFC 9420 §17.5).
    #[schema(value_type = u8, minimum = 1, maximum = 2)]
    pub identity_provider_type: IdentityProviderType,
    /// Whether clients belong to accounts.
    #[serde(default)]
    #[schema(required = true)]
    pub supports_accounts: bool,
    /// Whether accounts and clients belong to domains.
    #[serde(default)]
    #[schema(required = true)]
    pub supports_domains: bool,
    /// Parameters of the provider.
    #[serde(default)]
    #[schema(value_type = Object, required = true)]
    pub parameters: Map<String, Value>,
}

impl IdentityConfiguration {
    /// *X.509 Identity Provider* for chains of a device, its account and its domain, in this order.
    pub fn x509() -> Self {
        let parameters = [
            ("device_handle_range", json!({"start": 0, "end": 0})),
            ("account_handle_offset", json!(1)),
            ("domain_name_offset", json!(2)),
        ];
        Self {
            identity_provider_type: IdentityProviderType::X509,
            supports_accounts: true,
            supports_domains: true,
            parameters: parameters.map(|(name, value)| (name.to_owned(), value)).into_iter().collect(),
        }
    }
}

actors::choices! {
    /// The draft's identity providers, by the MLS credential type that each accepts (RFC 9420 §17.5).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub enum IdentityProviderType: u8 {
        /// *Basic Identity Provider*.
        #[default]
        Basic = 1 "Basic",
        /// *X.509 Identity Provider*.
        X509 = 2 "X.509",
    }
}
