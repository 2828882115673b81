//! The operators' API: groups, their epochs, and the gateways of other domains. No answer has a packet or a key.

use actors::{AppId, DomainName, Epoch, GroupId, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    Access, Endpoint, Limit, Method, Nothing, Success,
    clients::PageQuery,
    groups::Groups,
    operator::OperatedPath,
    paths::{GroupPath, NoMembers, PathError, PathMembers},
    problem::ProblemKind,
    text::GroupIdText,
};

const SECTION: &str = "Groups";

/// `GET /operator/v1/applications/{appId}/groups`.
pub struct ListOperatedGroups;

impl Endpoint for ListOperatedGroups {
    const NAME: &'static str = "listGroups";
    const METHOD: Method = Method::Get;
    const PATH: &'static str = "/operator/v1/applications/{appId}/groups";
    const ACCESS: Access = Access::Read;
    const SECTION: &'static str = SECTION;
    const SUMMARY: &'static str = "The groups of an application";
    const DESCRIPTION: &'static str =
        "By pages, in the order of their ids. Follow `nextCursor` until there is none.";
    const PROBLEMS: &'static [ProblemKind] = &[ProblemKind::UnknownApplication];
    type Path = OperatedPath;
    type Query = PageQuery;
    type Body = Nothing;
    type Response = Groups;
}

/// `GET /operator/v1/applications/{appId}/groups/{groupId}`.
pub struct InspectGroup;

impl Endpoint for InspectGroup {
    const NAME: &'static str = "inspectGroup";
    const METHOD: Method = Method::Get;
    const PATH: &'static str = "/operator/v1/applications/{appId}/groups/{groupId}";
    const ACCESS: Access = Access::Read;
    const SECTION: &'static str = SECTION;
    const SUMMARY: &'static str = "A group's epoch, sizes, and what peers lack of it";
    const DESCRIPTION: &'static str = "Loads the group into memory if it is not there.";
    const PROBLEMS: &'static [ProblemKind] = &[ProblemKind::UnknownApplication, ProblemKind::UnknownGroup];
    type Path = OperatedGroupPath;
    type Query = Nothing;
    type Body = Nothing;
    type Response = InspectedGroup;
}

/// `DELETE /operator/v1/applications/{appId}/groups/{groupId}`.
pub struct DeleteOperatedGroup;

impl Endpoint for DeleteOperatedGroup {
    const NAME: &'static str = "deleteGroup";
    const METHOD: Method = Method::Delete;
    const PATH: &'static str = "/operator/v1/applications/{appId}/groups/{groupId}";
    const ACCESS: Access = Access::ReadWrite;
    const SECTION: &'static str = SECTION;
    const SUMMARY: &'static str = "Delete a group that this gateway orders";
    const DESCRIPTION: &'static str = "As its application does: with its history and the welcomes that wait, here and at the gateways that follow it. \
         Its id stays taken until the retention time is over, and deleting it again is 204 again.";
    const SUCCESS: &'static [Success] = &[Success::NoContent];
    const PROBLEMS: &'static [ProblemKind] =
        &[ProblemKind::UnknownApplication, ProblemKind::UnknownGroup, ProblemKind::NotHub];
    type Path = OperatedGroupPath;
    type Query = Nothing;
    type Body = Nothing;
    type Response = Nothing;
}

/// `GET /operator/v1/applications/{appId}/groups/{groupId}/epochs`.
pub struct ListGroupEpochs;

impl Endpoint for ListGroupEpochs {
    const NAME: &'static str = "listGroupEpochs";
    const METHOD: Method = Method::Get;
    const PATH: &'static str = "/operator/v1/applications/{appId}/groups/{groupId}/epochs";
    const ACCESS: Access = Access::Read;
    const SECTION: &'static str = SECTION;
    const SUMMARY: &'static str = "A group's epochs, the newest first";
    const DESCRIPTION: &'static str = "When each was created, by which member, and how large its commit is. Ends at epoch 1, or at the oldest epoch \
         that is kept. For the epochs before these, give the last `epochId` of the answer as `before`.";
    const PROBLEMS: &'static [ProblemKind] = &[ProblemKind::UnknownApplication, ProblemKind::UnknownGroup];
    type Path = OperatedGroupPath;
    type Query = EpochsBefore;
    type Body = Nothing;
    type Response = GroupEpochs;
}

/// `GET /operator/v1/peers`.
pub struct ListPeers;

impl Endpoint for ListPeers {
    const NAME: &'static str = "listPeers";
    const METHOD: Method = Method::Get;
    const PATH: &'static str = "/operator/v1/peers";
    const ACCESS: Access = Access::Read;
    const SECTION: &'static str = "Peers";
    const SUMMARY: &'static str = "The gateways of other domains";
    const DESCRIPTION: &'static str =
        "Whether each answers, and what it lacks of the groups that this gateway orders.";
    type Path = NoMembers;
    type Query = Nothing;
    type Body = Nothing;
    type Response = ListedPeers;
}

/// `/operator/v1/applications/{appId}/groups/{groupId}/…`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperatedGroupPath {
    /// The application.
    pub application: OperatedPath,
    /// The group.
    pub group: GroupId,
}

impl PathMembers for OperatedGroupPath {
    fn read(segments: &[&str]) -> Result<Self, PathError> {
        let application = OperatedPath::read(segments)?;
        let GroupPath { group, .. } = GroupPath::read(segments)?;
        Ok(Self { application, group })
    }

    fn texts(&self) -> Vec<String> {
        GroupPath { app: self.application.app, group: self.group.clone() }.texts()
    }
}

/// A query for a group's epochs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct EpochsBefore {
    /// The number of epochs in one answer.
    #[serde(default)]
    #[param(inline)]
    pub limit: Limit,
    /// The epoch before which to begin; without it, the current one is the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<u64>)]
    pub before: Option<Epoch>,
}

/// A group, as an operator sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct InspectedGroup {
    /// Its id.
    pub group_id: GroupIdText,
    /// Its epoch.
    #[schema(value_type = u64)]
    pub epoch_id: Epoch,
    /// The domain of the gateway that orders it, where the application uses domains.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub hub_domain: Option<DomainName>,
    /// When its hub accepted its creation, in Unix milliseconds.
    #[schema(value_type = u64)]
    pub created_at: Timestamp,
    /// Its cipher suite (RFC 9420 §17.1).
    pub cipher_suite: u16,
    /// The number of its members.
    pub members: u64,
    /// The size of its serialised ratchet tree, in bytes.
    pub ratchet_tree_bytes: u64,
    /// The number of proposals that wait in its epoch.
    pub proposals: u64,
    /// The number of entries that its log has had after its creation: accepted proposals and commits.
    pub log_entries: u64,
    /// The oldest epoch whose commit is kept, if there is any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>)]
    pub oldest_epoch_id: Option<Epoch>,
    /// The peers that follow it; empty where another gateway orders it.
    pub followers: Vec<GroupFollower>,
}

/// A peer that follows a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct GroupFollower {
    /// Its domain.
    #[schema(value_type = String)]
    pub domain: DomainName,
    /// The number of log entries that it lacks, as far as is known here.
    pub lag_entries: u64,
}

/// Epochs of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GroupEpochs {
    /// The epochs, the newest first.
    pub epochs: Vec<InspectedEpoch>,
}

/// An epoch and the commit that created it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct InspectedEpoch {
    /// The epoch.
    #[schema(value_type = u64)]
    pub epoch_id: Epoch,
    /// When the hub accepted the commit, in Unix milliseconds.
    #[schema(value_type = u64)]
    pub timestamp: Timestamp,
    /// The leaf index of the member that committed; absent for an external commit, by which a client joins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub committer_leaf_index: Option<u32>,
    /// The size of the commit, in bytes.
    pub commit_bytes: u64,
    /// The number of proposals that it includes by reference.
    pub proposals: u64,
    /// The newest commits that were refused as `stale-epoch` because this one was accepted first, oldest first. They are kept
    /// in memory only, and no more than 64 of one group. A follower that knows the epoch already refuses a commit itself, and the
    /// hub does not list it.
    pub losers: Vec<EpochLoser>,
}

/// A commit that was refused because the epoch had a commit already.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EpochLoser {
    /// The leaf index that the commit names as its sender, which is not verified; absent for an external commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leaf_index: Option<u32>,
    /// When it came, in Unix milliseconds.
    #[schema(value_type = u64)]
    pub at: Timestamp,
}

/// The gateways of other domains.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ListedPeers {
    /// Each of them, by its domain.
    pub peers: Vec<ListedPeer>,
}

/// The gateway of another domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ListedPeer {
    /// Its domain.
    #[schema(value_type = String)]
    pub domain: DomainName,
    /// Whether the last request to it was answered, or none was made.
    pub is_reachable: bool,
    /// When it last answered, in Unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_contact: Option<u64>,
    /// The number of deliveries that it refused since the start.
    pub refusals: u64,
    /// The number of groups with entries that it lacks, up to 10,000.
    pub lag_groups: u64,
    /// The number of entries that it lacks in them.
    pub lag_entries: u64,
    /// The number of groups of which this gateway, their hub, has lost entries that the peer holds, up to 10,000.
    pub groups_lost_here: u64,
    /// The number of groups of which the peer, their hub, has lost entries that this gateway holds, up to 10,000.
    pub groups_lost_there: u64,
    /// The X.509 applications in which it has told what it trusts, compared with this gateway's.
    #[serde(default)]
    pub trust: Vec<ComparedTrust>,
}

impl ListedPeer {
    /// The applications in whose clients it has other trust, each with the settings that differ, as text; `None` if it has told nothing.
    pub fn differing_trust(&self) -> Option<String> {
        let differing = self.trust.iter().filter(|compared| !compared.differs.is_empty());
        let texts: Vec<String> = differing
            .map(|ComparedTrust { application, differs }| format!("{application}: {}", differs.join(", ")))
            .collect();
        let text = if texts.is_empty() { "no".to_owned() } else { texts.join("; ") };
        (!self.trust.is_empty()).then_some(text)
    }
}

/// A comparison of what two gateways trust in the clients of an application.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ComparedTrust {
    /// The application.
    #[schema(value_type = String)]
    pub application: AppId,
    /// The settings of `[applications.x509]` that differ, sorted; none if the two come to the same verdicts. `crls` differs if only one of
    /// the two has revocation lists.
    pub differs: Vec<String>,
}
