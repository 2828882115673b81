//! The operators' API: the audit log of an application.

use actors::{AuditEntry, AuditRow, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    Access, Endpoint, Method, Nothing, clients::PageQuery, events::EpochReportedEvent,
    operator::OperatedPath, problem::ProblemKind, text::GroupIdText,
};

/// `GET /operator/v1/applications/{appId}/audit`.
pub struct ListAudit;

impl Endpoint for ListAudit {
    const NAME: &'static str = "listAudit";
    const METHOD: Method = Method::Get;
    const PATH: &'static str = "/operator/v1/applications/{appId}/audit";
    const ACCESS: Access = Access::Read;
    const SECTION: &'static str = "Audit";
    const SUMMARY: &'static str = "The audit log of an application, the newest entries first";
    const DESCRIPTION: &'static str = "By pages. Entries are numbered from 1 without a gap. How many are kept, and for how long, are settings of \
         `[retention]`.";
    const PROBLEMS: &'static [ProblemKind] = &[ProblemKind::UnknownApplication];
    type Path = OperatedPath;
    type Query = PageQuery;
    type Body = Nothing;
    type Response = AuditLog;
}

/// A page of an audit log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuditLog {
    /// The entries, the newest first.
    pub entries: Vec<AuditedEntry>,
    /// The cursor of the next page, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// An entry of an audit log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuditedEntry {
    /// Its number.
    pub number: u64,
    /// Its time, in Unix milliseconds.
    #[schema(value_type = u64)]
    pub at: Timestamp,
    /// What happened.
    #[serde(flatten)]
    pub entry: AuditedEvent,
}

/// What an entry of an audit log is about, by `kind`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum AuditedEvent {
    /// Enough members have reported that they cannot open an epoch.
    EpochReported(EpochReportedEvent),
}

impl From<(u64, AuditRow)> for AuditedEntry {
    fn from((number, AuditRow { at, entry }): (u64, AuditRow)) -> Self {
        let entry = match entry {
            AuditEntry::EpochReported { group, epoch, reporters, committer } => {
                AuditedEvent::EpochReported(EpochReportedEvent {
                    group_id: GroupIdText(group),
                    epoch_id: epoch,
                    reporters,
                    committer: committer.map(Into::into),
                })
            }
        };
        Self { number, at, entry }
    }
}
