//! The operators' API: the audit log of an application.

use actors::{
    AuditEntry, AuditRow, ClaimedKeyPackages, ClaimedQueue, ClientId, DomainName, KeyQueueId, Timestamp,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    Access, Endpoint, Method, Nothing,
    clients::PageQuery,
    events::EpochReportedEvent,
    operator::OperatedPath,
    problem::ProblemKind,
    text::{GroupIdText, HandleText},
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
    const DESCRIPTION: &'static str = "By pages. Entries are numbered from 1 without a gap. The entry of key packages that were claimed is brought up to date \
         during its day. How many entries are kept, and for how long, are settings of `[retention]`.";
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
    /// Its time, in Unix milliseconds; of claims, that of the first.
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
    /// Key packages were assigned to the receivers of one claimant, in one day (UTC).
    KeyPackagesClaimed(ClaimedKeyPackagesBody),
}

/// The key packages that a claimant was assigned in a day. Final keys are not counted, nor repeated answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ClaimedKeyPackages)]
pub struct ClaimedKeyPackagesBody {
    /// The domain of the gateway that asked; left out when the application did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub peer: Option<DomainName>,
    /// The queue; left out in the entry about all queues beyond those that have entries of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<ClaimedQueueBody>,
    /// The number of packages.
    pub taken: u64,
    /// The time of the last assignment, in Unix milliseconds.
    #[schema(value_type = u64)]
    pub last_at: Timestamp,
    /// The ids of the newest receivers, up to 8, the newest last.
    pub receivers: Vec<String>,
}

/// A key queue whose packages were claimed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ClaimedQueue)]
pub struct ClaimedQueueBody {
    /// Its client.
    #[schema(value_type = Uuid)]
    pub client_id: ClientId,
    /// The client's handle at the first claim.
    pub client_handle: HandleText,
    /// The queue.
    #[schema(value_type = Uuid)]
    pub key_queue_id: KeyQueueId,
}

impl From<ClaimedKeyPackages> for ClaimedKeyPackagesBody {
    fn from(claimed: ClaimedKeyPackages) -> Self {
        let queue = |ClaimedQueue { client, handle, queue }| ClaimedQueueBody {
            client_id: client,
            client_handle: HandleText(handle),
            key_queue_id: queue,
        };
        Self {
            peer: claimed.peer,
            queue: claimed.queue.map(queue),
            taken: claimed.taken,
            last_at: claimed.last_at,
            receivers: claimed.receivers.into(),
        }
    }
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
            AuditEntry::KeyPackagesClaimed(claimed) => AuditedEvent::KeyPackagesClaimed(claimed.into()),
        };
        Self { number, at, entry }
    }
}
