//! Backups, as operators see them.

use actors::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Access, Endpoint, Method, Nothing, Success, paths::NoMembers, problem::ProblemKind};

const SECTION: &str = "Backups";

/// `GET /operator/v1/backups`.
pub struct ListBackups;

impl Endpoint for ListBackups {
    const NAME: &'static str = "listBackups";
    const METHOD: Method = Method::Get;
    const PATH: &'static str = "/operator/v1/backups";
    const ACCESS: Access = Access::Read;
    const SECTION: &'static str = SECTION;
    const SUMMARY: &'static str = "The backups of this gateway";
    const DESCRIPTION: &'static str = "Those in the directory of its configuration, the newest first, up to 1000. No answer holds what is in a backup.";
    type Path = NoMembers;
    type Query = Nothing;
    type Body = Nothing;
    type Response = ListedBackups;
}

/// `POST /operator/v1/backups`.
pub struct MakeBackup;

impl Endpoint for MakeBackup {
    const NAME: &'static str = "makeBackup";
    const METHOD: Method = Method::Post;
    const PATH: &'static str = "/operator/v1/backups";
    const ACCESS: Access = Access::ReadWrite;
    const SECTION: &'static str = SECTION;
    const SUMMARY: &'static str = "Make a backup now";
    const DESCRIPTION: &'static str = "One moment of the whole store, written to the directory of the configuration while the gateway serves. The \
         answer comes once it is on the disk, which takes as long as reading the whole store; a caller that does not wait does not \
         end it. Afterwards the oldest backups beyond `keep` are deleted. One is made at a time: meanwhile the answer is 429.";
    const SUCCESS: &'static [Success] = &[Success::Created];
    const PROBLEMS: &'static [ProblemKind] = &[ProblemKind::TooManyRequests, ProblemKind::StorageUnavailable];
    type Path = NoMembers;
    type Query = Nothing;
    type Body = Nothing;
    type Response = MadeBackup;
}

/// The backups of a gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ListedBackups {
    /// Their directory, on the machine of the gateway; absent if the configuration names none and the gateway keeps no data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
    /// Each of them, the newest first.
    pub backups: Vec<ListedBackup>,
}

/// A backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ListedBackup {
    /// The name of its file.
    pub name: String,
    /// The moment that it holds, in Unix milliseconds.
    #[schema(value_type = u64)]
    pub created_at: Timestamp,
    /// The size of its file.
    pub bytes: u64,
}

/// A backup that was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MadeBackup {
    /// Its directory, on the machine of the gateway.
    pub directory: String,
    /// The name of its file.
    pub name: String,
    /// The moment that it holds, in Unix milliseconds.
    #[schema(value_type = u64)]
    pub created_at: Timestamp,
    /// The size of its file.
    pub bytes: u64,
    /// The rows in it.
    pub rows: u64,
}
