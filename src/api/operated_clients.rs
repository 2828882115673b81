//! The operators' API: clients, and the key packages that each has left.

use actors::{ClientId, DomainName};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    Access, Endpoint, Method, Nothing, clients::PageQuery, operator::OperatedPath, problem::ProblemKind,
    text::HandleText,
};

/// `GET /operator/v1/applications/{appId}/clients`.
pub struct ListOperatedClients;

impl Endpoint for ListOperatedClients {
    const NAME: &'static str = "listClients";
    const METHOD: Method = Method::Get;
    const PATH: &'static str = "/operator/v1/applications/{appId}/clients";
    const ACCESS: Access = Access::Read;
    const SECTION: &'static str = "Clients";
    const SUMMARY: &'static str = "The clients of an application";
    const DESCRIPTION: &'static str = "Those of all domains, by pages, in the order of their ids. A page may have fewer than `limit`, because it ends \
         once 10,000 key queues and key packages were counted for it. Follow `nextCursor` until there is none.";
    const PROBLEMS: &'static [ProblemKind] = &[ProblemKind::UnknownApplication];
    type Path = OperatedPath;
    type Query = PageQuery;
    type Body = Nothing;
    type Response = OperatedClients;
}

/// Clients of an application.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OperatedClients {
    /// The clients, by their ids.
    pub clients: Vec<OperatedClient>,
    /// The cursor of the next page, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// A client, as an operator sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OperatedClient {
    /// Its id.
    #[schema(value_type = Uuid)]
    pub client_id: ClientId,
    /// Its handle.
    pub client_handle: HandleText,
    /// Its domain, where the application uses domains.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub domain: Option<DomainName>,
    /// Its tags, sorted.
    pub tags: Vec<String>,
    /// The number of its key queues.
    pub key_queues: u64,
    /// The one-time key packages in all its queues that have not expired and are not assigned: those that are left.
    pub key_packages_available: u64,
}
