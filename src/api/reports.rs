//! Reports of members that cannot open an epoch.

use actors::{DomainName, Epoch, GroupId, NewReport, ReportKind, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    Access, Body, Endpoint, Method, Nothing, Success,
    clients::PageQuery,
    operator::OperatedPath,
    paths::GroupPath,
    problem::ProblemKind,
    text::{GroupIdText, HandleText},
    whole,
};

/// `POST /apps/{appId}/groups/{groupId}/reports`.
pub struct ReportEpoch;

impl Endpoint for ReportEpoch {
    const NAME: &'static str = "reportEpoch";
    const METHOD: Method = Method::Post;
    const PATH: &'static str = "/apps/{appId}/groups/{groupId}/reports";
    const ACCESS: Access = Access::ReadWrite;
    const SECTION: &'static str = "Managing Groups without Metadata Protection";
    const SUMMARY: &'static str = "Report that a member cannot open an epoch";
    const DESCRIPTION: &'static str = "A member can commit what the others cannot open: path secrets that do not decrypt, or a wrong confirmation tag. \
         Nobody outside sees that, so the application passes on what its members report. From a share of the members on, \
         which is a setting, the event `epoch-reported` says which epoch it is and who committed it, once for an epoch. \
         The same report again counts once. A follower passes it to the hub.";
    const SUCCESS: &'static [Success] = &[Success::Accepted];
    const PROBLEMS: &'static [ProblemKind] = &[
        ProblemKind::UnknownGroup,
        ProblemKind::EpochsPruned,
        ProblemKind::InvalidReport,
        ProblemKind::ApplicationConfigurationMismatch,
        ProblemKind::PeerUnreachable,
        ProblemKind::PeerTimeout,
    ];
    type Path = GroupPath;
    type Query = Nothing;
    type Body = ReportBody;
    type Response = Reporters;
}

/// A report of a member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = EpochReport)]
pub struct ReportBody {
    /// The epoch that it cannot open.
    #[serde(deserialize_with = "whole::epoch")]
    #[schema(value_type = u64)]
    pub epoch_id: Epoch,
    /// The member that reports it.
    pub client_handle: HandleText,
    /// The member's domain, where the application uses domains. The gateway's only one when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, min_length = 1, max_length = 253)]
    pub domain: Option<DomainName>,
    /// What it could not do.
    pub kind: ReportKindText,
}

impl Body for ReportBody {
    const BYTES_MAX: usize = 16 << 10;
}

/// What a member could not do with a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ReportKindText {
    /// Decrypt the path secret that is for it.
    CannotDecryptPath,
    /// Arrive at the confirmation tag.
    ConfirmationTag,
    /// Something else.
    Other,
}

impl From<ReportBody> for NewReport {
    fn from(body: ReportBody) -> Self {
        let kind = match body.kind {
            ReportKindText::CannotDecryptPath => ReportKind::CannotDecryptPath,
            ReportKindText::ConfirmationTag => ReportKind::ConfirmationTag,
            ReportKindText::Other => ReportKind::Other,
        };
        Self { epoch: body.epoch_id, handle: body.client_handle.0, domain: body.domain, kind }
    }
}

/// The number of members who have reported an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = CountedReport)]
pub struct Reporters {
    /// The number of distinct ones.
    pub reporters: u64,
}

/// The member that committed an epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = EpochCommitter)]
pub struct CommitterBody {
    /// Its leaf index in the epoch.
    pub leaf_index: u32,
    /// Its handle.
    pub client_handle: HandleText,
}

impl From<actors::EpochCommitter> for CommitterBody {
    fn from(committer: actors::EpochCommitter) -> Self {
        Self { leaf_index: committer.leaf_index, client_handle: HandleText(committer.handle) }
    }
}

/// `GET /operator/v1/applications/{appId}/reports`.
pub struct ListReportedEpochs;

impl Endpoint for ListReportedEpochs {
    const NAME: &'static str = "listReportedEpochs";
    const METHOD: Method = Method::Get;
    const PATH: &'static str = "/operator/v1/applications/{appId}/reports";
    const ACCESS: Access = Access::Read;
    const SECTION: &'static str = "Groups";
    const SUMMARY: &'static str = "The epochs that members have reported";
    const DESCRIPTION: &'static str = "Epochs that some members cannot open, of groups that this gateway orders, by pages, in the order of the groups. \
         They are kept as long as the epoch is.";
    const PROBLEMS: &'static [ProblemKind] = &[ProblemKind::UnknownApplication];
    type Path = OperatedPath;
    type Query = PageQuery;
    type Body = Nothing;
    type Response = ListedReports;
}

/// Reported epochs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ListedReports {
    /// The epochs, by their groups.
    pub epochs: Vec<ListedReport>,
    /// The cursor of the next page, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// A reported epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ListedReport {
    /// The group.
    pub group_id: GroupIdText,
    /// The epoch.
    #[schema(value_type = u64)]
    pub epoch_id: Epoch,
    /// The number of distinct members who have reported it.
    pub reporters: u64,
    /// The time of the first report, in Unix milliseconds.
    #[schema(value_type = u64)]
    pub first_at: Timestamp,
    /// When the application was told, in Unix milliseconds; absent while too few have reported it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>)]
    pub told_at: Option<Timestamp>,
    /// The member that committed it; absent if that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub committer: Option<CommitterBody>,
}

/// The place of a reported epoch in the list of its application, for cursors.
pub(crate) fn cursor_of(group: &GroupId, epoch: Epoch) -> Vec<u8> {
    [&epoch.0.to_be_bytes(), group.as_bytes()].concat()
}

/// The reverse of [`cursor_of`].
pub(crate) fn of_cursor(bytes: &[u8]) -> Option<(GroupId, Epoch)> {
    let (epoch, group) = bytes.split_first_chunk::<8>()?;
    Some((GroupId::new(group).ok()?, Epoch(u64::from_be_bytes(*epoch))))
}
