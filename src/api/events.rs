//! Event streams: server-sent events of an application or of a group (WHATWG HTML, *Server-sent events*).

use actors::{ClientId, DomainName, Epoch, KeyPackagesChange, KeyQueueId, Timestamp};
use serde::{Deserialize, Deserializer, Serialize, de};
use utoipa::{IntoParams, ToSchema};

use super::{
    Access, Endpoint, Method, Nothing, Success,
    joining::JoinInfoId,
    paths::{AppPath, GroupPath},
    problem::ProblemKind,
    reports::CommitterBody,
    text::{Base64, EventIdText, GroupIdText, HandleText},
};

const SECTION: &str = "Event streams";

/// The media type of a stream.
pub const EVENT_STREAM: &str = "text/event-stream";

/// `GET /apps/{appId}/events`.
pub struct StreamApplicationEvents;

impl Endpoint for StreamApplicationEvents {
    const NAME: &'static str = "streamApplicationEvents";
    const METHOD: Method = Method::Get;
    const PATH: &'static str = "/apps/{appId}/events";
    const ACCESS: Access = Access::Read;
    const SECTION: &'static str = SECTION;
    const SUMMARY: &'static str = "What happens in the application, as it happens";
    const DESCRIPTION: &'static str = "Server-sent events (WHATWG HTML) of all groups, welcomes and key queues of the application. The `event` \
         field names the kind, `data` is one line of JSON, and `id` is where to resume.";
    const SUCCESS: &'static [Success] = &[Success::Ok];
    const MEDIA_TYPE: &'static str = EVENT_STREAM;
    const RESUMES: bool = true;
    const PROBLEMS: &'static [ProblemKind] = &[ProblemKind::TooManyStreams];
    type Path = AppPath;
    type Query = EventQuery;
    type Body = Nothing;
    type Response = EventData;
}

/// `GET /apps/{appId}/groups/{groupId}/events`.
pub struct StreamGroupEvents;

impl Endpoint for StreamGroupEvents {
    const NAME: &'static str = "streamGroupEvents";
    const METHOD: Method = Method::Get;
    const PATH: &'static str = "/apps/{appId}/groups/{groupId}/events";
    const ACCESS: Access = Access::Read;
    const SECTION: &'static str = SECTION;
    const SUMMARY: &'static str = "What happens in the group, as it happens";
    const DESCRIPTION: &'static str = "Server-sent events (WHATWG HTML) of one group: its proposals and epochs, and its end. The `event` field names the kind, \
         `data` is one line of JSON, and `id` is where to resume.";
    const SUCCESS: &'static [Success] = &[Success::Ok];
    const MEDIA_TYPE: &'static str = EVENT_STREAM;
    const RESUMES: bool = true;
    const PROBLEMS: &'static [ProblemKind] = &[ProblemKind::UnknownGroup, ProblemKind::TooManyStreams];
    type Path = GroupPath;
    type Query = EventQuery;
    type Body = Nothing;
    type Response = EventData;
}

/// A selection of events.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct EventQuery {
    /// The id of the event after which the stream continues; it begins now when left out or empty. The header
    /// `Last-Event-ID` has precedence.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "id_unless_empty")]
    #[param(value_type = Option<String>)]
    pub after: Option<EventIdText>,
    /// Whether `proposal` and `epoch` carry the messages; `false` by default.
    #[serde(default)]
    #[param(default = false)]
    pub packets: bool,
}

fn id_unless_empty<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<EventIdText>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.is_empty() { Ok(None) } else { text.parse().map(Some).map_err(de::Error::custom) }
}

/// The `data` of an event; its kind is in the event's `event` field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum EventData {
    /// `proposal`.
    Proposal(ProposalEvent),
    /// `epoch`.
    Epoch(EpochEvent),
    /// `group`.
    Group(GroupEvent),
    /// `welcome`.
    Welcome(WelcomeEvent),
    /// `key-packages`.
    KeyPackages(KeyPackagesEvent),
    /// `epoch-reported`.
    EpochReported(EpochReportedEvent),
    /// `reset`.
    Reset(ResetEvent),
}

/// `epoch-reported`: enough members have reported that they cannot open an epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EpochReportedEvent {
    /// The group.
    pub group_id: GroupIdText,
    /// The epoch.
    #[schema(value_type = u64)]
    pub epoch_id: Epoch,
    /// The number of distinct members who have.
    pub reporters: u64,
    /// The member that committed it; left out if that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub committer: Option<CommitterBody>,
}

/// `proposal`: a proposal was accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProposalEvent {
    /// The group.
    pub group_id: GroupIdText,
    /// The epoch that the proposal is for.
    #[schema(value_type = u64)]
    pub epoch_id: Epoch,
    /// Its ProposalRef (RFC 9420 §5.2).
    pub proposal_ref: Base64,
    /// The proposal, with `packets=true`, if it is still kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packet: Option<Base64>,
}

/// `epoch`: a commit was accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EpochEvent {
    /// The group.
    pub group_id: GroupIdText,
    /// The epoch that the commit created.
    #[schema(value_type = u64)]
    pub epoch_id: Epoch,
    /// When the hub accepted the commit, in Unix milliseconds.
    #[schema(value_type = u64)]
    pub timestamp: Timestamp,
    /// The commit, with `packets=true`, if it is still kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<Base64>,
    /// With it, the proposals that it includes by reference, in its order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proposals: Option<Vec<Base64>>,
}

/// `group`: a group was created or came here from its hub, or was deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct GroupEvent {
    /// The group.
    pub group_id: GroupIdText,
    /// What happened to it.
    pub change: GroupChange,
}

/// What happened to a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum GroupChange {
    /// It was created.
    Created,
    /// It was deleted; its own stream ends.
    Deleted,
}

/// `welcome`: a welcome waits for a client of this gateway's domains.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WelcomeEvent {
    /// The client.
    pub client_handle: HandleText,
    /// Its domain, where the application uses domains.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub domain: Option<DomainName>,
    /// The group to join.
    pub group_id: GroupIdText,
    /// The epoch to join.
    #[schema(value_type = u64)]
    pub epoch_id: Epoch,
    /// The id of the join info.
    pub id: JoinInfoId,
}

/// `key-packages`: the key packages of a queue run out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct KeyPackagesEvent {
    /// The client.
    #[schema(value_type = uuid::Uuid)]
    pub client_id: ClientId,
    /// Its handle.
    pub client_handle: HandleText,
    /// The queue.
    #[schema(value_type = uuid::Uuid)]
    pub key_queue_id: KeyQueueId,
    /// The number of unexpired key packages that are not assigned.
    pub key_packages_available: u64,
    /// What happened.
    pub change: KeyPackagesChangeText,
}

/// What happened to the key packages of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum KeyPackagesChangeText {
    /// Few are left, or none.
    Low,
    /// None was left for a receiver, so the final key was given out.
    FinalKeyUsed,
    /// Some have expired.
    Expired,
}

impl From<KeyPackagesChange> for KeyPackagesChangeText {
    fn from(change: KeyPackagesChange) -> Self {
        match change {
            KeyPackagesChange::Low => Self::Low,
            KeyPackagesChange::FinalKeyUsed => Self::FinalKeyUsed,
            KeyPackagesChange::Expired => Self::Expired,
        }
    }
}

/// `reset`: events are missing before this place. The stream goes on; the reader reads the state anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResetEvent {
    /// Why, in words.
    pub reason: String,
}
