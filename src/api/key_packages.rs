//! *Managing Key Packages*: key queues, and the packages handed out from them.

use actors::{DomainName, KeyQueueId};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    Access, Body, Endpoint, Method, Nothing, Success, list,
    paths::{ClientPath, KeyQueuePath},
    problem::ProblemKind,
    text::Base64,
    whole::whole,
};

const SECTION: &str = "Managing Key Packages";

/// `POST /apps/{appId}/clients/{clientId}/queues` (*Key Queue Creation*).
///
/// DEVIATION: the draft allows a gateway only one queue of a protocol version, cipher suite and label; here each client may
/// have one. Otherwise only one client of a gateway could have key packages of a suite.
pub struct CreateKeyQueue;

impl Endpoint for CreateKeyQueue {
    const NAME: &'static str = "createKeyQueue";
    const METHOD: Method = Method::Post;
    const PATH: &'static str = "/apps/{appId}/clients/{clientId}/queues";
    const ACCESS: Access = Access::ReadWrite;
    const SECTION: &'static str = SECTION;
    const SUMMARY: &'static str = "Create a key queue of a client";
    const DESCRIPTION: &'static str = "A key queue holds the key packages of one protocol version, cipher suite and label, with which others add \
         the client to groups while it is offline. Keep the `keyQueueId` of the answer.";
    const DEVIATION: Option<&'static str> = Some(
        "its words forbid a gateway two queues of one protocol version, cipher suite and label. Here two queues of one client \
         differ in one of them, and two clients may have the same: otherwise only one client of a gateway could have key \
         packages of a suite.",
    );
    const SUCCESS: &'static [Success] = &[Success::Created];
    const PROBLEMS: &'static [ProblemKind] =
        &[ProblemKind::UnknownClient, ProblemKind::KeyQueueExists, ProblemKind::LimitReached];
    type Path = ClientPath;
    type Query = Nothing;
    type Body = NewKeyQueueBody;
    type Response = CreatedKeyQueue;
}

/// `GET /apps/{appId}/clients/{clientId}/queues`.
pub struct ListKeyQueues;

impl Endpoint for ListKeyQueues {
    const NAME: &'static str = "listKeyQueues";
    const METHOD: Method = Method::Get;
    const PATH: &'static str = "/apps/{appId}/clients/{clientId}/queues";
    const ACCESS: Access = Access::Read;
    const SECTION: &'static str = SECTION;
    const SUMMARY: &'static str = "The key queues of a client and what they hold";
    const DESCRIPTION: &'static str =
        "Says how many key packages each queue has left, so that a client knows when to upload more.";
    const PROBLEMS: &'static [ProblemKind] = &[ProblemKind::UnknownClient];
    type Path = ClientPath;
    type Query = Nothing;
    type Body = Nothing;
    type Response = KeyQueues;
}

/// `PATCH /apps/{appId}/clients/{clientId}/queues/{keyQueueId}` (*Key Queue Update*): all or nothing.
pub struct UploadKeyPackages;

impl Endpoint for UploadKeyPackages {
    const NAME: &'static str = "uploadKeyPackages";
    const METHOD: Method = Method::Patch;
    const PATH: &'static str = "/apps/{appId}/clients/{clientId}/queues/{keyQueueId}";
    const ACCESS: Access = Access::ReadWrite;
    const SECTION: &'static str = SECTION;
    const SUMMARY: &'static str =
        "Add key packages to a queue, empty it first, relabel it, set its final key";
    const DESCRIPTION: &'static str = "All or nothing: one key package that is refused leaves the queue unchanged, and the problem lists each \
         refused one. A package that the queue had before is counted once, so the request can be repeated. The answer \
         counts the packages after the change.";
    const PROBLEMS: &'static [ProblemKind] = &[
        ProblemKind::UnknownClient,
        ProblemKind::UnknownKeyQueue,
        ProblemKind::KeyQueueExists,
        ProblemKind::InvalidKeyPackage,
        ProblemKind::LimitReached,
        ProblemKind::QuotaExceeded,
    ];
    type Path = KeyQueuePath;
    type Query = Nothing;
    type Body = KeyPackageUploadBody;
    type Response = PoolSize;
}

/// `DELETE /apps/{appId}/clients/{clientId}/queues/{keyQueueId}` (*Key Pool Deletion*).
pub struct DeleteKeyQueue;

impl Endpoint for DeleteKeyQueue {
    const NAME: &'static str = "deleteKeyQueue";
    const METHOD: Method = Method::Delete;
    const PATH: &'static str = "/apps/{appId}/clients/{clientId}/queues/{keyQueueId}";
    const ACCESS: Access = Access::ReadWrite;
    const SECTION: &'static str = SECTION;
    const SUMMARY: &'static str = "Delete a key queue with its packages";
    const DESCRIPTION: &'static str = "The packages that were assigned from it and are not used yet go too. Repeated, the answer is 404: take it as \
         done.";
    const SUCCESS: &'static [Success] = &[Success::NoContent];
    const PROBLEMS: &'static [ProblemKind] = &[ProblemKind::UnknownClient, ProblemKind::UnknownKeyQueue];
    type Path = KeyQueuePath;
    type Query = Nothing;
    type Body = Nothing;
    type Response = Nothing;
}

/// `GET /apps/{appId}/clients/{clientId}/keyPackage` (*Key Package Retrieval*): assigns, so it needs a `read-write`
/// token.
pub struct RetrieveKeyPackage;

impl Endpoint for RetrieveKeyPackage {
    const NAME: &'static str = "retrieveKeyPackage";
    const METHOD: Method = Method::Get;
    const PATH: &'static str = "/apps/{appId}/clients/{clientId}/keyPackage";
    const ACCESS: Access = Access::ReadWrite;
    const SECTION: &'static str = SECTION;
    const SUMMARY: &'static str = "A key package of a client, assigned to the receiver until it is used";
    const DESCRIPTION: &'static str = "Assigns a key package to the receiver, that is, to the client that will use it in a commit or an Add \
         proposal. The same receiver gets the same package until it is used, so the request can be repeated. It \
         changes the queue, so it needs a `read-write` token.";
    const PROBLEMS: &'static [ProblemKind] = &[
        ProblemKind::UnknownClient,
        ProblemKind::NoKeyPackage,
        ProblemKind::ApplicationConfigurationMismatch,
        ProblemKind::PeerUnreachable,
        ProblemKind::PeerTimeout,
    ];
    type Path = ClientPath;
    type Query = KeyPackageQuery;
    type Body = Nothing;
    type Response = RetrievedKeyPackage;
}

/// A new key queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = NewKeyQueue)]
pub struct NewKeyQueueBody {
    /// The protocol version of its packages; MLS 1.0 is 1 (RFC 9420 §6).
    #[serde(deserialize_with = "whole")]
    #[schema(minimum = 1, maximum = 1)]
    pub protocol_version: u16,
    /// The cipher suite of its packages (RFC 9420 §17.1).
    #[serde(deserialize_with = "whole")]
    #[schema(minimum = 1, maximum = 7)]
    pub cipher_suite: u16,
    /// A label by which the application selects queues; may be empty.
    pub app_label: String,
}

impl Body for NewKeyQueueBody {}

/// A key queue just created.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CreatedKeyQueue {
    /// Its id.
    #[schema(value_type = Uuid)]
    pub key_queue_id: KeyQueueId,
}

/// The key queues of a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = KeyQueueList)]
pub struct KeyQueues {
    /// The queues.
    pub queues: Vec<KeyQueue>,
}

/// One key queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct KeyQueue {
    /// Its id.
    #[schema(value_type = Uuid)]
    pub key_queue_id: KeyQueueId,
    /// Of its packages.
    pub protocol_version: u16,
    /// Of its packages.
    pub cipher_suite: u16,
    /// Its label.
    pub app_label: String,
    /// Unexpired non-final packages held, assigned ones included.
    pub key_packages_in_pool: usize,
    /// Those of them that are not assigned.
    pub key_packages_available: usize,
    /// Whether it has a final key, which is handed out repeatedly once all other packages are used.
    pub has_final_key: bool,
}

/// An update of a key queue.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = KeyPackageUpload)]
pub struct KeyPackageUploadBody {
    /// MLSMessages that hold key packages. Those that were dropped because their receiver did not use them in time are left out.
    #[serde(default, deserialize_with = "list::at_most::<{ list::KEY_PACKAGES_MAX }, _, _>")]
    pub key_packages: Vec<Base64>,
    /// Whether the queue is emptied first.
    #[serde(default)]
    pub is_reset: bool,
    /// The queue's new label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_label: Option<String>,
    /// The queue's new final key: an MLSMessage that holds a key package.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub final_key: Option<Base64>,
}

impl Body for KeyPackageUploadBody {}

/// The contents of a queue after an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PoolSize {
    /// Unexpired non-final packages held, assigned ones included.
    pub key_packages_in_pool: usize,
    /// Those of them that are not assigned.
    pub key_packages_available: usize,
}

/// The attributes of the wanted key package, and its receiver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct KeyPackageQuery {
    /// MLS 1.0 is 1 (RFC 9420 §6).
    #[param(maximum = 65535)]
    pub protocol_version: u16,
    /// The cipher suite of the group (RFC 9420 §17.1).
    #[param(maximum = 65535)]
    pub cipher_suite: u16,
    /// The receiver: it gets the same package until that is used, or dropped because it was not used in the time that the operator
    /// has set (by default there is none). `receiver_client_id`, as the draft writes it, is accepted too.
    #[serde(alias = "receiver_client_id")]
    #[param(min_length = 1)]
    pub receiver_client_id: String,
    /// The queue's label; empty if left out.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub app_label: String,
    /// The client's domain. An application that uses domains must give it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>, min_length = 1, max_length = 253)]
    pub domain: Option<DomainName>,
}

/// A key package handed out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RetrievedKeyPackage {
    /// An MLSMessage that holds it.
    pub key_package: Base64,
    /// A security warning if true: this package is given to many receivers, so an attacker who learns its private key can
    /// read every welcome that was made with it.
    pub is_final_key: bool,
}

/// One key package that was refused: an element of `errors` in `invalid-key-package`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RefusedKeyPackage {
    /// Its index in `keyPackages`; for `finalKey`, the index after the last.
    pub index: usize,
    /// The fault.
    pub detail: String,
}

impl KeyPackageQuery {
    /// A query for a package of the queue with the empty label, without a domain.
    pub fn new(protocol_version: u16, cipher_suite: u16, receiver_client_id: impl Into<String>) -> Self {
        Self {
            protocol_version,
            cipher_suite,
            receiver_client_id: receiver_client_id.into(),
            app_label: String::new(),
            domain: None,
        }
    }
}
