//! The operators' API, on a listener of its own: the applications of a gateway and their tokens.

use actors::{AppId, DomainName, Quotas, Resource, Timestamp, Usage};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    Access, Body, Endpoint, Method, Nothing, Success,
    paths::{NoMembers, PathError, PathMembers},
    percent,
    problem::ProblemKind,
};

const SECTION: &str = "Applications and tokens";

/// The access of a token: `read` or `read-write`.
pub use crate::config::TokenAccess;

/// `GET /operator/v1/applications`.
pub struct ListOperatedApplications;

impl Endpoint for ListOperatedApplications {
    const NAME: &'static str = "listApplications";
    const METHOD: Method = Method::Get;
    const PATH: &'static str = "/operator/v1/applications";
    const ACCESS: Access = Access::Read;
    const SECTION: &'static str = SECTION;
    const SUMMARY: &'static str = "The applications of this gateway";
    const DESCRIPTION: &'static str = "All of them, in the order of their ids, with the domains that each federates with and counts of what it has.";
    type Path = NoMembers;
    type Query = Nothing;
    type Body = Nothing;
    type Response = OperatedApplications;
}

/// `GET /operator/v1/applications/{appId}/tokens`.
pub struct ListTokens;

impl Endpoint for ListTokens {
    const NAME: &'static str = "listTokens";
    const METHOD: Method = Method::Get;
    const PATH: &'static str = "/operator/v1/applications/{appId}/tokens";
    const ACCESS: Access = Access::Read;
    const SECTION: &'static str = SECTION;
    const SUMMARY: &'static str = "The tokens of an application";
    const DESCRIPTION: &'static str =
        "Those that are accepted now. Neither a token nor its hash is in the answer.";
    const PROBLEMS: &'static [ProblemKind] = &[ProblemKind::UnknownApplication];
    type Path = OperatedPath;
    type Query = Nothing;
    type Body = Nothing;
    type Response = ListedTokens;
}

/// `POST /operator/v1/applications/{appId}/tokens`.
pub struct MakeToken;

impl Endpoint for MakeToken {
    const NAME: &'static str = "makeToken";
    const METHOD: Method = Method::Post;
    const PATH: &'static str = "/operator/v1/applications/{appId}/tokens";
    const ACCESS: Access = Access::ReadWrite;
    const SECTION: &'static str = SECTION;
    const SUMMARY: &'static str = "Make a token for an application";
    const DESCRIPTION: &'static str = "It is accepted at once, and after a restart as well. This answer alone holds the token; the gateway keeps its \
         hash. Repeated, the request makes another token: revoke the one whose answer was lost.";
    const SUCCESS: &'static [Success] = &[Success::Created];
    const PROBLEMS: &'static [ProblemKind] = &[ProblemKind::UnknownApplication, ProblemKind::LimitReached];
    type Path = OperatedPath;
    type Query = Nothing;
    type Body = NewTokenBody;
    type Response = MadeTokenBody;
}

/// `DELETE /operator/v1/applications/{appId}/tokens/{tokenId}`.
pub struct RevokeToken;

impl Endpoint for RevokeToken {
    const NAME: &'static str = "revokeToken";
    const METHOD: Method = Method::Delete;
    const PATH: &'static str = "/operator/v1/applications/{appId}/tokens/{tokenId}";
    const ACCESS: Access = Access::ReadWrite;
    const SECTION: &'static str = SECTION;
    const SUMMARY: &'static str = "Revoke a token of an application";
    const DESCRIPTION: &'static str = "No request with it is accepted from now on, and its event streams end. It stays revoked after a restart, also if \
         the configuration names it. Repeated, the answer is 404: take it as done.";
    const SUCCESS: &'static [Success] = &[Success::NoContent];
    const PROBLEMS: &'static [ProblemKind] = &[ProblemKind::UnknownApplication, ProblemKind::UnknownToken];
    type Path = TokenPath;
    type Query = Nothing;
    type Body = Nothing;
    type Response = Nothing;
}

/// `/operator/v1/applications/{appId}/…`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperatedPath {
    /// The application.
    pub app: AppId,
}

/// `/operator/v1/applications/{appId}/tokens/{tokenId}`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenPath {
    /// The application.
    pub app: AppId,
    /// The token, by its id.
    pub token: String,
}

impl PathMembers for OperatedPath {
    fn read(segments: &[&str]) -> Result<Self, PathError> {
        let app = segments.first().and_then(|segment| text(segment)?.parse().ok());
        let app = app.ok_or_else(|| PathError {
            kind: ProblemKind::UnknownApplication,
            detail: "no application has this id: it is not a UUID".to_owned(),
        })?;
        Ok(Self { app })
    }

    fn texts(&self) -> Vec<String> {
        vec![self.app.to_string()]
    }
}

impl PathMembers for TokenPath {
    fn read(segments: &[&str]) -> Result<Self, PathError> {
        let OperatedPath { app } = OperatedPath::read(segments)?;
        let token = segments.get(1).and_then(|segment| text(segment)).unwrap_or_default();
        Ok(Self { app, token })
    }

    fn texts(&self) -> Vec<String> {
        vec![self.app.to_string(), self.token.clone()]
    }
}

fn text(segment: &str) -> Option<String> {
    String::from_utf8(percent::decode(segment)?).ok()
}

/// The applications of a gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OperatedApplications {
    /// Each of them.
    pub applications: Vec<OperatedApplication>,
}

/// An application, as an operator sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OperatedApplication {
    /// Its id.
    #[schema(value_type = Uuid)]
    pub id: AppId,
    /// The domains of the gateways that it federates with.
    #[schema(value_type = Vec<String>)]
    pub federates_with: Vec<DomainName>,
    /// Its clients.
    pub clients: BoundedCount,
    /// Its groups, those that another gateway orders included.
    pub groups: BoundedCount,
    /// The key packages in the queues of its clients: assigned ones and final keys included.
    pub key_packages: BoundedCount,
    /// What its quotas limit.
    pub quotas: ApplicationQuotas,
}

/// How much an application has, and how much it may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApplicationQuotas {
    /// Clients.
    pub clients: UsedQuota,
    /// Groups, those that another gateway orders included.
    pub groups: UsedQuota,
    /// Key packages in queues: assigned ones and final keys included.
    pub key_packages: UsedQuota,
    /// Stored messages and states, in bytes.
    pub stored_bytes: UsedQuota,
}

/// How much there is of something, and how much there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct UsedQuota {
    /// How much there is.
    pub used: u64,
    /// The quota; left out if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<u64>,
}

impl ApplicationQuotas {
    /// The quotas with their use.
    pub fn of(usage: &Usage, quotas: &Quotas) -> Self {
        let of = |resource| UsedQuota { used: usage.of(resource), max: quotas.of(resource) };
        Self {
            clients: of(Resource::Clients),
            groups: of(Resource::Groups),
            key_packages: of(Resource::KeyPackages),
            stored_bytes: of(Resource::Bytes),
        }
    }
}

/// A number that is counted up to 10,000.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct BoundedCount {
    /// The number, at most 10,000.
    #[schema(maximum = 10000)]
    pub count: u64,
    /// Whether there are more than 10,000.
    pub is_more: bool,
}

impl BoundedCount {
    /// The number up to which is counted.
    pub const MAX: usize = 10_000;

    /// The count of as many as were found, if those beyond [`BoundedCount::MAX`] were looked for.
    pub fn of(found: usize) -> Self {
        let count = u64::try_from(found.min(Self::MAX)).unwrap_or(u64::MAX);
        Self { count, is_more: found > Self::MAX }
    }
}

/// The tokens of an application.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ListedTokens {
    /// Each of them: those of the configuration first.
    pub tokens: Vec<ListedToken>,
}

/// A token, without what would let anyone use it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ListedToken {
    /// Its id: the first 16 hexadecimal digits of its SHA-256.
    pub token_id: String,
    /// The requests that it allows.
    #[schema(value_type = String)]
    pub access: TokenAccess,
    /// When an operator made it, in Unix milliseconds; absent for one of the configuration, and for that of the application that
    /// the gateway made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>)]
    pub created_at: Option<Timestamp>,
}

/// A token to make.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewTokenBody {
    /// The requests that it is to allow: `read` for those that change nothing, `read-write` for all.
    #[schema(value_type = String)]
    pub access: TokenAccess,
}

impl Body for NewTokenBody {
    const BYTES_MAX: usize = 4 << 10;
}

/// A token that was made.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MadeTokenBody {
    /// Its id, by which it can be revoked.
    pub token_id: String,
    /// The token.
    pub token: String,
}

impl std::fmt::Debug for MadeTokenBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MadeTokenBody").field("token_id", &self.token_id).finish_non_exhaustive()
    }
}
