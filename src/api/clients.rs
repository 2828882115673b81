//! *Managing Identities*: clients, their handles and their tags.

use actors::{ClientId, DomainName, Epoch};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    Access, Body, Endpoint, Limit, Method, Nothing, Success, list,
    paths::{AppPath, ClientPath, HandlePath},
    problem::ProblemKind,
    text::{GroupIdText, HandleText, TagText},
};

const SECTION: &str = "Managing Identities";

/// `POST /apps/{appId}/clients` (*Identity Registration*).
pub struct RegisterClient;

impl Endpoint for RegisterClient {
    const NAME: &'static str = "registerClient";
    const METHOD: Method = Method::Post;
    const PATH: &'static str = "/apps/{appId}/clients";
    const ACCESS: Access = Access::ReadWrite;
    const SECTION: &'static str = SECTION;
    const SUMMARY: &'static str = "Register a client under its handle";
    const DESCRIPTION: &'static str = "A client must be registered before it can have key queues. Keep the `clientId` of the answer: it stays when \
         the handle changes. Only the Basic identity provider takes handles as they are; X.509 handles come from the \
         certificates.";
    const SUCCESS: &'static [Success] = &[Success::Created];
    const PROBLEMS: &'static [ProblemKind] = &[ProblemKind::ClientHandleTaken, ProblemKind::QuotaExceeded];
    type Path = AppPath;
    type Query = Nothing;
    type Body = NewClientBody;
    type Response = RegisteredClient;
}

/// `GET /apps/{appId}/clients/{clientId}` (*Identity Retrieval*).
pub struct GetClient;

impl Endpoint for GetClient {
    const NAME: &'static str = "getClient";
    const METHOD: Method = Method::Get;
    const PATH: &'static str = "/apps/{appId}/clients/{clientId}";
    const ACCESS: Access = Access::Read;
    const SECTION: &'static str = SECTION;
    const SUMMARY: &'static str = "A registered client";
    const DESCRIPTION: &'static str = "The handle and the tags of one client, as they are now.";
    const PROBLEMS: &'static [ProblemKind] = &[ProblemKind::UnknownClient];
    type Path = ClientPath;
    type Query = Nothing;
    type Body = Nothing;
    type Response = ClientBody;
}

/// `PATCH /apps/{appId}/clients/{clientId}` (*Identity Registration*): all or nothing.
pub struct ChangeClient;

impl Endpoint for ChangeClient {
    const NAME: &'static str = "changeClient";
    const METHOD: Method = Method::Patch;
    const PATH: &'static str = "/apps/{appId}/clients/{clientId}";
    const ACCESS: Access = Access::ReadWrite;
    const SECTION: &'static str = SECTION;
    const SUMMARY: &'static str = "Rename a client, add and remove tags";
    const DESCRIPTION: &'static str = "All or nothing. Renaming drops the key packages that carry the old handle, because nobody could use them any \
         more; the client uploads new ones. The answer is the client after the change.";
    const PROBLEMS: &'static [ProblemKind] = &[ProblemKind::UnknownClient, ProblemKind::ClientHandleTaken];
    type Path = ClientPath;
    type Query = Nothing;
    type Body = ClientChangeBody;
    type Response = ClientBody;
}

/// `DELETE /apps/{appId}/clients/{clientId}` (*Identity Deletion*): its queues, assignments, tags and waiting welcomes are
/// deleted with it.
pub struct DeleteClient;

impl Endpoint for DeleteClient {
    const NAME: &'static str = "deleteClient";
    const METHOD: Method = Method::Delete;
    const PATH: &'static str = "/apps/{appId}/clients/{clientId}";
    const ACCESS: Access = Access::ReadWrite;
    const SECTION: &'static str = SECTION;
    const SUMMARY: &'static str = "Delete a client with its queues, tags and pending welcomes";
    const DESCRIPTION: &'static str = "Deletes what the gateway keeps for the client. Groups keep it as a member until a commit removes it. \
         Repeated, the answer is 404: take it as done.";
    const SUCCESS: &'static [Success] = &[Success::NoContent];
    const PROBLEMS: &'static [ProblemKind] = &[ProblemKind::UnknownClient];
    type Path = ClientPath;
    type Query = Nothing;
    type Body = Nothing;
    type Response = Nothing;
}

/// `GET /apps/{appId}/clients?tag=…` (*Client Discovery*); without `tag` all clients.
pub struct FindClients;

impl Endpoint for FindClients {
    const NAME: &'static str = "findClients";
    const METHOD: Method = Method::Get;
    const PATH: &'static str = "/apps/{appId}/clients";
    const ACCESS: Access = Access::Read;
    const SECTION: &'static str = SECTION;
    const SUMMARY: &'static str = "The clients that have a tag, or all";
    const DESCRIPTION: &'static str = "Finds the clients to invite, for example all devices of an account, by a tag that they were registered with. \
         Follow `nextCursor` until there is none. With `domain`, the gateway of that domain is asked.";
    const PROBLEMS: &'static [ProblemKind] = &[
        ProblemKind::ApplicationConfigurationMismatch,
        ProblemKind::PeerUnreachable,
        ProblemKind::PeerTimeout,
    ];
    type Path = AppPath;
    type Query = TagQuery;
    type Body = Nothing;
    type Response = IdentitiesBody;
}

/// `GET /apps/{appId}/clients/{clientHandle}/groups`: the groups whose current tree holds this client.
pub struct ListGroupsOfClient;

impl Endpoint for ListGroupsOfClient {
    const NAME: &'static str = "listGroupsOfClient";
    const METHOD: Method = Method::Get;
    const PATH: &'static str = "/apps/{appId}/clients/{clientHandle}/groups";
    const ACCESS: Access = Access::Read;
    const SECTION: &'static str = SECTION;
    const SUMMARY: &'static str = "The groups that a handle is a member of";
    const DESCRIPTION: &'static str = "The groups whose ratchet tree holds this handle now, with their epochs: a client that was away learns where \
         to catch up.";
    type Path = HandlePath;
    type Query = GroupsOfClientQuery;
    type Body = Nothing;
    type Response = GroupsOfClient;
}

/// The registration of a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = NewClient)]
pub struct NewClientBody {
    /// The client's handle, as the identity provider's `client_handle` extracts it; unique.
    pub client_handle: HandleText,
    /// Tags by which the client can be found.
    #[serde(default, deserialize_with = "list::at_most::<{ list::TAGS_MAX }, _, _>")]
    #[schema(value_type = Vec<TagText>)]
    pub tags: Vec<String>,
    /// The client's domain; the gateway's only one when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, min_length = 1, max_length = 253)]
    pub domain: Option<DomainName>,
}

impl Body for NewClientBody {}

/// A client just registered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RegisteredClient {
    /// Its id, which stays the same when its handle changes.
    #[schema(value_type = Uuid)]
    pub client_id: ClientId,
}

/// A registered client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ClientDetails)]
pub struct ClientBody {
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
}

/// A change of a client. Members that are left out stay unchanged.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = ClientChange)]
pub struct ClientChangeBody {
    /// The new handle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_handle: Option<HandleText>,
    /// Tags to add.
    #[serde(default, deserialize_with = "list::at_most::<{ list::TAGS_MAX }, _, _>")]
    #[schema(value_type = Vec<TagText>)]
    pub tags_to_add: Vec<String>,
    /// Tags to remove.
    #[serde(default, deserialize_with = "list::at_most::<{ list::TAGS_MAX }, _, _>")]
    pub tags_to_remove: Vec<String>,
}

impl Body for ClientChangeBody {}

/// A query for clients.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct TagQuery {
    /// The tag of the clients; without it, all clients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// Their domain. An application that uses domains must give it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>, min_length = 1, max_length = 253)]
    pub domain: Option<DomainName>,
    /// The number of results in one answer.
    #[serde(default)]
    #[param(inline)]
    pub limit: Limit,
    /// `nextCursor` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// A query for the groups of a client.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct GroupsOfClientQuery {
    /// The client's domain, where the application uses domains. The gateway's only one when left out; required when the
    /// gateway has several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>, min_length = 1, max_length = 253)]
    pub domain: Option<DomainName>,
    /// The number of results in one answer.
    #[serde(default)]
    #[param(inline)]
    pub limit: Limit,
    /// `nextCursor` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// A query for one page of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// The number of results in one answer.
    #[serde(default)]
    #[param(inline)]
    pub limit: Limit,
    /// `nextCursor` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// Clients that were found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = FoundClientPage)]
pub struct IdentitiesBody {
    /// The clients, by their ids.
    pub identities: Vec<IdentityBody>,
    /// The cursor of the next page, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// One client that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = FoundClient)]
pub struct IdentityBody {
    /// Its id.
    #[schema(value_type = Uuid)]
    pub client_id: ClientId,
    /// Its handle.
    pub client_handle: HandleText,
    /// All its tags, sorted.
    pub tags: Vec<String>,
}

/// The groups of a handle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = GroupOfClientPage)]
pub struct GroupsOfClient {
    /// The groups, by their ids.
    pub groups: Vec<GroupOfClient>,
    /// The cursor of the next page, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// One group of a handle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct GroupOfClient {
    /// The group.
    pub group_id: GroupIdText,
    /// Its current epoch.
    #[schema(value_type = u64)]
    pub epoch_id: Epoch,
}
