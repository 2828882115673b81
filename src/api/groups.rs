//! *Managing Groups without Metadata Protection*: creation and evolution.

use actors::{CommitBundle, DomainName, Epoch, NewGroup, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    Access, Body, Endpoint, Limit, Method, Nothing, Success, WaitMs,
    clients::PageQuery,
    paths::{AppPath, GroupPath},
    problem::ProblemKind,
    text::{Base64, GroupIdText, HandleText},
};

const SECTION: &str = "Managing Groups without Metadata Protection";

/// `PUT /apps/{appId}/groups` (*Group Creation*).
pub struct CreateGroup;

impl Endpoint for CreateGroup {
    const NAME: &'static str = "createGroup";
    const METHOD: Method = Method::Put;
    const PATH: &'static str = "/apps/{appId}/groups";
    const ACCESS: Access = Access::ReadWrite;
    const SECTION: &'static str = SECTION;
    const SUMMARY: &'static str = "Create a group of one member at epoch 0";
    const DESCRIPTION: &'static str = "The creator exports the group info and the ratchet tree at epoch 0 and uploads them. From then on the \
         gateway follows the group: it validates proposals and commits and knows the members. The same bytes give the \
         same answer again, with status 200.";
    const SUCCESS: &'static [Success] = &[Success::Created, Success::Ok];
    const PROBLEMS: &'static [ProblemKind] = &[
        ProblemKind::MalformedMlsMessage,
        ProblemKind::GroupExists,
        ProblemKind::InvalidGroupInfo,
        ProblemKind::QuotaExceeded,
    ];
    type Path = AppPath;
    type Query = Nothing;
    type Body = NewGroupBody;
    type Response = CreatedGroupBody;
}

/// `GET /apps/{appId}/groups`: all groups of the application, by pages.
pub struct ListGroups;

impl Endpoint for ListGroups {
    const NAME: &'static str = "listGroups";
    const METHOD: Method = Method::Get;
    const PATH: &'static str = "/apps/{appId}/groups";
    const ACCESS: Access = Access::Read;
    const SECTION: &'static str = SECTION;
    const SUMMARY: &'static str = "All groups of the application";
    const DESCRIPTION: &'static str =
        "By pages, in the order of their ids. Follow `nextCursor` until there is none.";
    type Path = AppPath;
    type Query = PageQuery;
    type Body = Nothing;
    type Response = Groups;
}

/// `GET /apps/{appId}/groups/{groupId}` (*Group State*).
pub struct GetGroup;

impl Endpoint for GetGroup {
    const NAME: &'static str = "getGroup";
    const METHOD: Method = Method::Get;
    const PATH: &'static str = "/apps/{appId}/groups/{groupId}";
    const ACCESS: Access = Access::Read;
    const SECTION: &'static str = SECTION;
    const SUMMARY: &'static str = "A group's epoch and members";
    const DESCRIPTION: &'static str = "What the gateway knows of the group in its current epoch. The `ETag` changes whenever the answer does.";
    const HAS_ENTITY_TAG: bool = true;
    const PROBLEMS: &'static [ProblemKind] = &[ProblemKind::UnknownGroup];
    type Path = GroupPath;
    type Query = Nothing;
    type Body = Nothing;
    type Response = Group;
}

/// `DELETE /apps/{appId}/groups/{groupId}`: at the group's hub.
pub struct DeleteGroup;

impl Endpoint for DeleteGroup {
    const NAME: &'static str = "deleteGroup";
    const METHOD: Method = Method::Delete;
    const PATH: &'static str = "/apps/{appId}/groups/{groupId}";
    const ACCESS: Access = Access::ReadWrite;
    const SECTION: &'static str = SECTION;
    const SUMMARY: &'static str = "Delete a group, at the gateway that orders it";
    const DESCRIPTION: &'static str = "Erases the group with its history and the welcomes that wait, here and at the gateways that follow it. From \
         then on every read and write of it is 404 `unknown-group`. Its id stays taken until the retention time is \
         over: creating it again is 409 `group-exists`, and deleting it again is 204 again. Members keep what they \
         have; their MLS clients are not told.";
    const SUCCESS: &'static [Success] = &[Success::NoContent];
    const PROBLEMS: &'static [ProblemKind] = &[ProblemKind::UnknownGroup, ProblemKind::NotHub];
    type Path = GroupPath;
    type Query = Nothing;
    type Body = Nothing;
    type Response = Nothing;
}

/// `PUT /apps/{appId}/groups/{groupId}/proposals` (*Proposals*).
pub struct UploadProposal;

impl Endpoint for UploadProposal {
    const NAME: &'static str = "uploadProposal";
    const METHOD: Method = Method::Put;
    const PATH: &'static str = "/apps/{appId}/groups/{groupId}/proposals";
    const ACCESS: Access = Access::ReadWrite;
    const SECTION: &'static str = SECTION;
    const SUMMARY: &'static str = "Upload a proposal for the current epoch";
    const DESCRIPTION: &'static str = "The gateway validates the proposal and keeps it for the current epoch, so that members can commit it by \
         reference. It is dropped when the epoch ends. The same bytes give the same answer again, with status 200.";
    const SUCCESS: &'static [Success] = &[Success::Created, Success::Ok];
    const PROBLEMS: &'static [ProblemKind] = &[
        ProblemKind::MalformedMlsMessage,
        ProblemKind::UnknownGroup,
        ProblemKind::StaleEpoch,
        ProblemKind::FutureEpoch,
        ProblemKind::InvalidProposal,
        ProblemKind::UnknownKind,
        ProblemKind::KeyPackageReused,
        ProblemKind::TooManyProposals,
        ProblemKind::QuotaExceeded,
        ProblemKind::ApplicationConfigurationMismatch,
        ProblemKind::PeerUnreachable,
        ProblemKind::PeerTimeout,
    ];
    type Path = GroupPath;
    type Query = Nothing;
    type Body = ProposalBody;
    type Response = AcceptedProposalBody;
}

/// `GET /apps/{appId}/groups/{groupId}/proposals` (*Proposals*).
pub struct ListProposals;

impl Endpoint for ListProposals {
    const NAME: &'static str = "listProposals";
    const METHOD: Method = Method::Get;
    const PATH: &'static str = "/apps/{appId}/groups/{groupId}/proposals";
    const ACCESS: Access = Access::Read;
    const SECTION: &'static str = SECTION;
    const SUMMARY: &'static str = "The proposals that wait in the current epoch";
    const DESCRIPTION: &'static str = "A member that is about to commit processes these first, and commits them by reference. The `ETag` changes \
         with the epoch and with the list.";
    const HAS_ENTITY_TAG: bool = true;
    const PROBLEMS: &'static [ProblemKind] = &[ProblemKind::UnknownGroup];
    type Path = GroupPath;
    type Query = Nothing;
    type Body = Nothing;
    type Response = Proposals;
}

/// `PUT /apps/{appId}/groups/{groupId}/epochs` (*Commits*): the first valid commit of an epoch wins.
pub struct UploadCommit;

impl Endpoint for UploadCommit {
    const NAME: &'static str = "uploadCommit";
    const METHOD: Method = Method::Put;
    const PATH: &'static str = "/apps/{appId}/groups/{groupId}/epochs";
    const ACCESS: Access = Access::ReadWrite;
    const SECTION: &'static str = SECTION;
    const SUMMARY: &'static str = "Upload a commit, which creates the next epoch";
    const DESCRIPTION: &'static str = "The first valid commit of an epoch creates the next epoch; every other one gets 409 `stale-epoch`, and its \
         sender catches up and tries again. Apply your own commit only after the answer. A commit that adds members \
         needs the welcome that the MLS library returned with it; the group info lets others join by an external \
         commit. The same bytes give the winner the same answer again, with status 200.";
    const SUCCESS: &'static [Success] = &[Success::Created, Success::Ok];
    const PROBLEMS: &'static [ProblemKind] = &[
        ProblemKind::MalformedMlsMessage,
        ProblemKind::UnknownGroup,
        ProblemKind::StaleEpoch,
        ProblemKind::FutureEpoch,
        ProblemKind::InvalidCommit,
        ProblemKind::UnknownKind,
        ProblemKind::GroupInfoMismatch,
        ProblemKind::WelcomeMissing,
        ProblemKind::WelcomeMismatch,
        ProblemKind::ExpiredMembers,
        ProblemKind::KeyPackageReused,
        ProblemKind::TooManyWelcomes,
        ProblemKind::QuotaExceeded,
        ProblemKind::ApplicationConfigurationMismatch,
        ProblemKind::PeerUnreachable,
        ProblemKind::PeerTimeout,
    ];
    type Path = GroupPath;
    type Query = Nothing;
    type Body = CommitBody;
    type Response = AcceptedCommitBody;
}

/// `GET /apps/{appId}/groups/{groupId}/control-msgs` (*Commits*).
pub struct ListControlMessages;

impl Endpoint for ListControlMessages {
    const NAME: &'static str = "listControlMessages";
    const METHOD: Method = Method::Get;
    const PATH: &'static str = "/apps/{appId}/groups/{groupId}/control-msgs";
    const ACCESS: Access = Access::Read;
    const SECTION: &'static str = SECTION;
    const SUMMARY: &'static str =
        "The commits that created a range of epochs, with the proposals that they refer to";
    const DESCRIPTION: &'static str = "What a member has missed: it processes `messages` in order. A member in epoch n asks from n + 1. The answer \
         is empty when there is nothing new; with `waitMs` the gateway holds it until there is.";
    const DEVIATION: Option<&'static str> = Some(
        "it answers all epochs of the range. Here an answer has a size limit; it has `nextEpochId` if epochs are left \
         over.",
    );
    const PROBLEMS: &'static [ProblemKind] = &[ProblemKind::UnknownGroup, ProblemKind::EpochsPruned];
    type Path = GroupPath;
    type Query = EpochRange;
    type Body = Nothing;
    type Response = ControlMessagesBody;
}

/// A new group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = NewGroup)]
pub struct NewGroupBody {
    /// An MLSMessage that holds the group's GroupInfo at epoch 0.
    pub group_info: Base64,
    /// `optional<Node> ratchet_tree<V>` (RFC 9420 §12.4.3.3), length prefix included. May be left out when the group
    /// info carries it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ratchet_tree: Option<Base64>,
}

impl Body for NewGroupBody {}

impl From<NewGroupBody> for NewGroup {
    fn from(body: NewGroupBody) -> Self {
        Self { group_info: body.group_info.0, ratchet_tree: body.ratchet_tree.map(|tree| tree.0) }
    }
}

impl From<NewGroup> for NewGroupBody {
    fn from(group: NewGroup) -> Self {
        Self { group_info: Base64(group.group_info), ratchet_tree: group.ratchet_tree.map(Base64) }
    }
}

/// A group just created, or created before from the same bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = CreatedGroup)]
pub struct CreatedGroupBody {
    /// The MLS group_id from the group info.
    pub group_id: GroupIdText,
    /// 0.
    #[schema(value_type = u64)]
    pub epoch_id: Epoch,
}

/// Groups of an application.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = GroupPage)]
pub struct Groups {
    /// The groups, by their ids.
    pub groups: Vec<ListedGroup>,
    /// The cursor of the next page, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// One group of an application.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ListedGroup {
    /// Its id.
    pub group_id: GroupIdText,
    /// Its current epoch.
    #[schema(value_type = u64)]
    pub epoch_id: Epoch,
    /// The domain of the gateway that orders it, where the application uses domains.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub hub_domain: Option<DomainName>,
}

/// The current state of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = GroupState)]
pub struct Group {
    /// Its id.
    pub group_id: GroupIdText,
    /// Its epoch.
    #[schema(value_type = u64)]
    pub epoch_id: Epoch,
    /// The domain of the gateway that orders it, where the application uses domains.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub hub_domain: Option<DomainName>,
    /// MLS 1.0 is 1.
    pub protocol_version: u16,
    /// Its cipher suite (RFC 9420 §17.1).
    pub cipher_suite: u16,
    /// Its members, in the order of their leaves.
    pub members: Vec<MemberBody>,
}

/// One member of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = GroupMember)]
pub struct MemberBody {
    /// Its leaf index in the ratchet tree.
    pub leaf_index: u32,
    /// Its handle, from its credential.
    pub client_handle: HandleText,
    /// Its domain, where the application uses domains.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub domain: Option<DomainName>,
}

/// A proposal to upload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = ProposalUpload)]
pub struct ProposalBody {
    /// An MLSMessage that holds a public proposal.
    pub packet: Base64,
}

impl Body for ProposalBody {}

/// A proposal that was accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = AcceptedProposal)]
pub struct AcceptedProposalBody {
    /// Its ProposalRef (RFC 9420 §5.2).
    pub proposal_ref: Base64,
    /// Its epoch.
    #[schema(value_type = u64)]
    pub epoch_id: Epoch,
}

/// The proposals that wait.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = WaitingProposals)]
pub struct Proposals {
    /// MLSMessages, in the order of their acceptance.
    pub messages: Vec<Base64>,
    /// Their epoch.
    #[schema(value_type = u64)]
    pub epoch_id: Epoch,
}

/// A commit to upload, with its group info and welcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = CommitUpload)]
pub struct CommitBody {
    /// An MLSMessage that holds a public commit.
    pub commit_packet: Base64,
    /// An MLSMessage that holds the GroupInfo of the new epoch, for external joiners.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group_info: Option<Base64>,
    /// An MLSMessage that holds the Welcome for the members that the commit adds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub welcome_packet: Option<Base64>,
}

impl Body for CommitBody {}

impl From<CommitBody> for CommitBundle {
    fn from(body: CommitBody) -> Self {
        Self {
            commit: body.commit_packet.0,
            group_info: body.group_info.map(|message| message.0),
            welcome: body.welcome_packet.map(|message| message.0),
        }
    }
}

impl From<CommitBundle> for CommitBody {
    fn from(bundle: CommitBundle) -> Self {
        Self {
            commit_packet: Base64(bundle.commit),
            group_info: bundle.group_info.map(Base64),
            welcome_packet: bundle.welcome.map(Base64),
        }
    }
}

/// A commit that was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = AcceptedCommit)]
pub struct AcceptedCommitBody {
    /// The epoch that it created.
    #[schema(value_type = u64)]
    pub epoch_id: Epoch,
    /// The time at which the hub accepted it, in Unix milliseconds.
    #[schema(value_type = u64)]
    pub timestamp: Timestamp,
}

/// A range of epochs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct EpochRange {
    /// The first epoch whose commit is wanted. A member in epoch n asks for n + 1.
    #[param(value_type = u64)]
    pub start_epoch_id: Epoch,
    /// The last one; the current epoch when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<u64>)]
    pub end_epoch_id: Option<Epoch>,
    /// The number of epochs in one answer. Without it, an answer ends at the end of the range or at its size limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<u16>, minimum = 1, maximum = 1000)]
    pub limit: Option<Limit>,
    /// How long an answer that would have no epoch waits for one, in milliseconds.
    #[serde(default, skip_serializing_if = "WaitMs::is_zero")]
    #[param(inline)]
    pub wait_ms: WaitMs,
}

/// The range from an epoch to the current one.
impl From<Epoch> for EpochRange {
    fn from(start: Epoch) -> Self {
        Self { start_epoch_id: start, end_epoch_id: None, limit: None, wait_ms: WaitMs::default() }
    }
}

/// The control messages of a range of epochs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ControlMessages)]
pub struct ControlMessagesBody {
    /// Every MLSMessage of `epochs` in the order in which a member processes them: each epoch's proposals, then its commit.
    pub messages: Vec<Base64>,
    /// The same by epoch.
    pub epochs: Vec<EpochMessages>,
    /// The group's current epoch.
    #[schema(value_type = u64)]
    pub current_epoch_id: Epoch,
    /// The epoch to continue from, if the range extends beyond this answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>)]
    pub next_epoch_id: Option<Epoch>,
}

/// The commit that created one epoch, and its proposals.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EpochMessages {
    /// The epoch.
    #[schema(value_type = u64)]
    pub epoch_id: Epoch,
    /// The time at which the hub accepted it, in Unix milliseconds.
    #[schema(value_type = u64)]
    pub timestamp: Timestamp,
    /// The proposals that its commit refers to, in the commit's order.
    pub proposals: Vec<Base64>,
    /// The commit that created it.
    pub commit: Base64,
}
