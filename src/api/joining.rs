//! *Joining*: by a welcome, or by a group info.

use actors::{DeliveryId, DomainName, Epoch};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use utoipa::{
    IntoParams, ToSchema,
    openapi::{ObjectBuilder, RefOr, Schema, schema::Type},
};

use super::{
    Access, Endpoint, Limit, Method, Nothing, Success, WaitMs,
    paths::{GroupPath, HandlePath, JoinInfoPath},
    problem::ProblemKind,
    text::{Base64, GroupIdText},
};

const SECTION: &str = "Joining";

/// `GET /apps/{appId}/clients/{clientHandle}/welcome-msgs`.
pub struct ListWelcomes;

impl Endpoint for ListWelcomes {
    const NAME: &'static str = "listWelcomes";
    const METHOD: Method = Method::Get;
    const PATH: &'static str = "/apps/{appId}/clients/{clientHandle}/welcome-msgs";
    const ACCESS: Access = Access::Read;
    const SECTION: &'static str = SECTION;
    const SUMMARY: &'static str =
        "The welcomes that wait for a handle, oldest first, with their ratchet trees";
    const DESCRIPTION: &'static str = "What a client needs to join the groups to which it was added. Join, then acknowledge each welcome by its \
         `id`. With `waitMs` the gateway holds an empty answer until a welcome comes.";
    type Path = HandlePath;
    type Query = WelcomeQuery;
    type Body = Nothing;
    type Response = JoinInfos;
}

/// `DELETE /apps/{appId}/clients/{clientHandle}/welcome-msgs/{id}`: it is never delivered again.
pub struct AcknowledgeWelcome;

impl Endpoint for AcknowledgeWelcome {
    const NAME: &'static str = "acknowledgeWelcome";
    const METHOD: Method = Method::Delete;
    const PATH: &'static str = "/apps/{appId}/clients/{clientHandle}/welcome-msgs/{id}";
    const ACCESS: Access = Access::ReadWrite;
    const SECTION: &'static str = SECTION;
    const SUMMARY: &'static str = "Acknowledge a welcome, so that it is not delivered again";
    const DESCRIPTION: &'static str =
        "Acknowledge after the client has joined and stored its state. Repeated, the answer is 204 again.";
    const SUCCESS: &'static [Success] = &[Success::NoContent];
    type Path = JoinInfoPath;
    type Query = HandleQuery;
    type Body = Nothing;
    type Response = Nothing;
}

/// `GET /apps/{appId}/groups/{groupId}/group-info`: empty when the last committer gave none.
pub struct GetGroupInfo;

impl Endpoint for GetGroupInfo {
    const NAME: &'static str = "getGroupInfo";
    const METHOD: Method = Method::Get;
    const PATH: &'static str = "/apps/{appId}/groups/{groupId}/group-info";
    const ACCESS: Access = Access::Read;
    const SECTION: &'static str = SECTION;
    const SUMMARY: &'static str = "The group info and ratchet tree for an external joiner";
    const DESCRIPTION: &'static str = "For a client that joins by an external commit, without an invitation. The list is empty when the last \
         committer gave no group info. The `ETag` changes with the epoch.";
    const HAS_ENTITY_TAG: bool = true;
    const PROBLEMS: &'static [ProblemKind] = &[ProblemKind::UnknownGroup];
    type Path = GroupPath;
    type Query = Nothing;
    type Body = Nothing;
    type Response = GroupInfos;
}

/// The domain of a client handle.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct HandleQuery {
    /// The client's domain, where the application uses domains. The gateway's only one when left out; required when the
    /// gateway has several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>, min_length = 1, max_length = 253)]
    pub domain: Option<DomainName>,
}

/// A selection of welcomes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct WelcomeQuery {
    /// The client's domain, where the application uses domains. The gateway's only one when left out; required when the
    /// gateway has several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>, min_length = 1, max_length = 253)]
    pub domain: Option<DomainName>,
    /// Only those after this `id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<JoinInfoId>,
    /// Whether to include the ratchet trees; `true` by default. The gateway cannot see whether a group uses the ratchet_tree
    /// extension; clients of groups that do should send `false`.
    #[serde(default = "with_ratchet_tree")]
    #[param(default = true)]
    pub ratchet_tree: bool,
    /// How long an answer that would have no welcome waits for one, in milliseconds.
    #[serde(default, skip_serializing_if = "WaitMs::is_zero")]
    #[param(inline)]
    pub wait_ms: WaitMs,
    /// The number of results in one answer.
    #[serde(default)]
    #[param(inline)]
    pub limit: Limit,
    /// `nextCursor` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

fn with_ratchet_tree() -> bool {
    true
}

/// A query for the first page of all waiting welcomes, with their ratchet trees.
impl Default for WelcomeQuery {
    fn default() -> Self {
        Self {
            domain: None,
            after: None,
            ratchet_tree: with_ratchet_tree(),
            wait_ms: WaitMs::default(),
            limit: Limit::default(),
            cursor: None,
        }
    }
}

/// The waiting welcomes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = JoinInfoPage)]
pub struct JoinInfos {
    /// The welcomes, oldest first.
    pub join_infos: Vec<JoinInfoBody>,
    /// The cursor of the next page, if more wait. A page ends at `limit` or at the size limit of an answer, and holds
    /// at least one welcome.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// One welcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = JoinInfo)]
pub struct JoinInfoBody {
    /// The id with which it is acknowledged; ids increase in order of delivery.
    pub id: JoinInfoId,
    /// The group to join.
    pub group_id: GroupIdText,
    /// The epoch to join at.
    #[schema(value_type = u64)]
    pub epoch_id: Epoch,
    /// An MLSMessage that holds the Welcome.
    pub welcome: Base64,
    /// `optional<Node> ratchet_tree<V>` (RFC 9420 §12.4.3.3) of that epoch, unless `ratchetTree` was `false`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ratchet_tree: Option<Base64>,
}

/// The group info and ratchet tree for an external joiner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = GroupInfoList)]
pub struct GroupInfos {
    /// One, or none when the last committer gave none.
    pub group_infos: Vec<GroupInfo>,
}

/// The group info of the current epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = PublishedGroupInfo)]
pub struct GroupInfo {
    /// An MLSMessage that holds the GroupInfo.
    pub group_info: Base64,
    /// `optional<Node> ratchet_tree<V>` (RFC 9420 §12.4.3.3) of the current epoch.
    pub ratchet_tree: Base64,
}

/// The `id` of a join info in its text form, opaque to callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct JoinInfoId(pub DeliveryId);

impl Serialize for JoinInfoId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for JoinInfoId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Self).map_err(|_| de::Error::custom("not the `id` of a join info"))
    }
}

impl utoipa::PartialSchema for JoinInfoId {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some("opaque, in order of delivery"))
            .into()
    }
}

impl ToSchema for JoinInfoId {}
