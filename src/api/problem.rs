//! Problem types of the API and the problem document (RFC 9457).

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

/// The fixed properties of a problem type.
#[derive(Clone, Copy, Debug)]
pub struct ProblemType {
    /// The last part of its `type`, stable.
    pub slug: &'static str,
    /// The HTTP status.
    pub status: u16,
    /// A short name.
    pub title: &'static str,
    /// Its meaning.
    pub meaning: &'static str,
    /// The remedy.
    pub remedy: &'static str,
    /// Members in addition to those of every problem: name and meaning.
    pub members: &'static [(&'static str, &'static str)],
}

macro_rules! problem_types {
    ($($kind:ident: $status:literal $slug:literal, $title:literal, $meaning:literal, $remedy:literal
        $(, [$($member:literal: $about:literal),+])?;)*) => {
        /// A type of problem. Its slug is stable; new ones may be added.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum ProblemKind {
            $(#[doc = $meaning] $kind,)*
        }

        impl ProblemKind {
            /// All types, by status.
            pub const ALL: &'static [Self] = &[$(Self::$kind),*];

            /// The fixed properties of this type.
            pub const fn about(self) -> &'static ProblemType {
                match self {
                    $(Self::$kind => &ProblemType {
                        slug: $slug,
                        status: $status,
                        title: $title,
                        meaning: $meaning,
                        remedy: $remedy,
                        members: &[$($(($member, $about)),+)?],
                    },)*
                }
            }
        }
    };
}

problem_types! {
    MalformedRequest: 400 "malformed-request", "Malformed request",
        "The request could not be understood: its JSON, its query string, or a value in it is not one that the API accepts.",
        "The detail names the member. Correct it and send the request again.";
    MalformedMlsMessage: 400 "malformed-mls-message", "Malformed MLS message",
        "The bytes are not a TLS-serialised MLSMessage (RFC 9420 §6) of the kind that belongs here, or something follows it.",
        "`member`, `field` and `offset` name the first field that does not fit. Send exactly one MLSMessage as the MLS library serialised it, in Base64.",
        ["member": "the member of the request that holds the bytes: `packet`, `commitPacket`, `groupInfo`, `welcomePacket` or `ratchetTree`",
         "field": "the path to the first field that does not fit, by the names of RFC 9420: `GroupInfo.extensions[1].external_pub`",
         "offset": "the start of that field, in bytes from the start of the decoded message; for trailing bytes, their start"];
    NotAuthenticated: 401 "not-authenticated", "Not authenticated",
        "The request carries no token, or one that this gateway does not know.",
        "Send `Authorization: Bearer <token>` with a token of the application.";
    NotPermitted: 403 "not-permitted", "Not permitted",
        "The token does not allow this: it belongs to another application, or it is a `read` token and the request changes something.",
        "Use a token of the application in the path, with `read-write` access where something is changed. Key package retrieval assigns a package and counts as a change.";
    UnknownApplication: 404 "unknown-application", "Unknown application",
        "This gateway has no application with this id. Only operators are told.",
        "List the applications with GET /operator/v1/applications.";
    UnknownToken: 404 "unknown-token", "Unknown token",
        "The application has no token with this tokenId, or it was revoked.",
        "List the application's tokens with GET …/tokens.";
    UnknownClient: 404 "unknown-client", "Unknown client",
        "No client with this clientId is registered in this application.",
        "Check the clientId; a client that was deleted does not come back under its old id.";
    UnknownKeyQueue: 404 "unknown-key-queue", "Unknown key queue",
        "This client has no key queue with this keyQueueId.",
        "List the client's queues with GET …/clients/{clientId}/queues.";
    UnknownGroup: 404 "unknown-group", "Unknown group",
        "No group with this group_id was created in this application, or it was deleted.",
        "Check the groupId: it is base64url without padding of the MLS group_id. Create the group with PUT /apps/{appId}/groups first.";
    NoKeyPackage: 404 "no-key-package", "No key package",
        "The client has no queue with this protocol version, cipher suite and label, or every key package in it is assigned or used and there is no final key.",
        "Ask the client to upload more key packages, or ask for other attributes.";
    UnknownRoute: 404 "unknown-route", "Unknown route",
        "The API has no such path.",
        "Check the path against /openapi.json. Slashes inside a client handle are written %2F.";
    MethodNotAllowed: 405 "method-not-allowed", "Method not allowed",
        "The path exists, but not with this method.",
        "The Allow header lists the methods of this path.";
    RequestTimeout: 408 "request-timeout", "Request timeout",
        "The body of the request did not arrive in time.",
        "Send the request again, without pausing within the body.";
    ClientHandleTaken: 409 "client-handle-taken", "Client handle taken",
        "Another registered client has this clientHandle. Nothing was changed.",
        "If it is the same client, continue with the clientId given here; otherwise choose another handle.",
        ["clientId": "the client that has the handle"];
    KeyQueueExists: 409 "key-queue-exists", "Key queue exists",
        "The client has a key queue with the same protocolVersion, cipherSuite and appLabel.",
        "Continue with the keyQueueId given here.",
        ["keyQueueId": "the queue that has these attributes"];
    GroupExists: 409 "group-exists", "Group exists",
        "A group with this group_id was created before, from other bytes, or was deleted and its id is still taken.",
        "For a new group, choose a fresh random group_id.";
    StaleEpoch: 409 "stale-epoch", "Stale epoch",
        "The packet was made for an epoch that is over: another commit was first.",
        "Download the control messages since then, apply them, and make the packet again for the current epoch.",
        ["currentEpochId": "the group's epoch now"];
    FutureEpoch: 409 "future-epoch", "Future epoch",
        "The packet was made for an epoch that the group has not reached at this gateway.",
        "Upload the commits in between first, in order.",
        ["currentEpochId": "the group's epoch now"];
    ApplicationConfigurationMismatch: 409 "application-configuration-mismatch", "Application configuration mismatch",
        "The two gateways do not have the same ApplicationConfiguration for this application.",
        "Make the configurations of the application equal on both gateways.",
        ["differs": "the members that differ, by their dotted names; empty if the answering gateway only knows that some member differs"];
    NotHub: 409 "not-hub", "Not the hub",
        "Another gateway orders this group; the request came to one that does not.",
        "Send the request to the group's hub, whose domain is in `hubDomain`.",
        ["hubDomain": "the domain of the gateway that orders the group"];
    EpochsPruned: 410 "epochs-pruned", "Epochs pruned",
        "The epochs asked for are older than the history that this gateway keeps.",
        "A member that is this far behind must join again, by an external commit or a new welcome.",
        ["floorEpochId": "the oldest epoch that is kept"];
    TooLarge: 413 "too-large", "Too large",
        "The body of the request, or something in it, is larger than this gateway accepts.",
        "The detail names the limit. Send less at once.";
    UnsupportedMediaType: 415 "unsupported-media-type", "Unsupported media type",
        "The body is not marked as JSON, or is compressed.",
        "Send `Content-Type: application/json` and no Content-Encoding.";
    ExpectationFailed: 417 "expectation-failed", "Expectation failed",
        "The Expect header asks for something that this gateway does not support.",
        "Leave the Expect header out, or send `Expect: 100-continue`.";
    InvalidKeyPackage: 422 "invalid-key-package", "Invalid key package",
        "At least one key package cannot be accepted, so none was stored.",
        "Correct or leave out the ones that are listed, and send the others again.",
        ["errors": "one object for each refused key package: `index`, its place in `keyPackages` (none for `finalKey`), and `detail`"];
    InvalidGroupInfo: 422 "invalid-group-info", "Invalid group info",
        "The group info, or the ratchet tree with it, cannot start a group (*Group Creation*).",
        "Export both at epoch 0, with the creator as the only member.";
    InvalidProposal: 422 "invalid-proposal", "Invalid proposal",
        "The proposal breaks a rule of RFC 9420 in the group's current epoch.",
        "`rule` names the rule. Make another proposal.",
        ["rule": "the rule that was broken, a stable name"];
    InvalidCommit: 422 "invalid-commit", "Invalid commit",
        "The commit breaks a rule of RFC 9420 in the group's current epoch.",
        "`rule` names the rule, and `proposalRef` the proposal to leave out. Make another commit.",
        ["rule": "the rule that was broken, a stable name",
         "proposalRef": "the reference of the proposal that is the cause, in Base64, if the commit refers to it"];
    UnknownKind: 422 "unknown-kind", "Unknown kind",
        "The packet uses a proposal, extension or credential type that this gateway does not know, and MLS does not require every member to know it.",
        "Use the types of RFC 9420; use another one only when every member lists it among its capabilities.",
        ["kind": "the kind of type: `proposal`, `extension` or `credential`",
         "value": "the number of the type, in the registries of RFC 9420 §17"];
    GroupInfoMismatch: 422 "group-info-mismatch", "Group info mismatch",
        "The groupInfo that came with a commit does not describe the epoch that the commit creates.",
        "Export the group info from the state after the commit, or leave it out.";
    WelcomeMissing: 422 "welcome-missing", "Welcome missing",
        "The commit adds members but came without a welcomePacket.",
        "Send the Welcome that the MLS library returned with the commit.";
    WelcomeMismatch: 422 "welcome-mismatch", "Welcome mismatch",
        "The secrets in the welcome are not for exactly the key packages that the commit adds.",
        "Send the Welcome that the MLS library returned with this very commit, and none with a commit that adds no member.";
    ExpiredMembers: 422 "expired-members", "Expired members",
        "The commit keeps members whose certificates have expired or were revoked, had room to remove them, and this application does not allow that.",
        "Remove the members at `leafIndices` in the commit; the proposals that wait may remove them already.",
        ["leafIndices": "the leaf indices of the members whose certificates have expired or were revoked, ascending"];
    KeyPackageReused: 422 "key-package-reused", "Key package reused",
        "The packet adds a client with a key package that was used before and is not a final key.",
        "Fetch a fresh key package of that client and make the packet again; leave a proposal out that `proposalRef` names.",
        ["proposalRef": "the reference of the Add that carries the key package, in Base64, where the commit refers to one"];
    InvalidReport: 422 "invalid-report", "Invalid report",
        "The report is of no current member of the group, or of an epoch that no commit of the group has created.",
        "Report an epoch from 1 to the current one, for a client that is a member now.";
    QuotaExceeded: 422 "quota-exceeded", "Quota exceeded",
        "The application would have more than its quota. `quota` names what it would have too much of, and `limit` says how much it may have.",
        "Delete what is no longer needed, or ask the operator of the gateway for a larger quota.";
    LimitReached: 422 "limit-reached", "Limit reached",
        "The client or key queue has reached a limit of the gateway, or the peer has reached the limit of groups of one peer.",
        "Delete what is no longer needed. The limits are settings of the gateway.";
    TooManyProposals: 429 "too-many-proposals", "Too many proposals",
        "The group's current epoch has reached the limit of proposals.",
        "Commit the waiting proposals; then propose in the new epoch.";
    TooManyWelcomes: 429 "too-many-welcomes", "Too many welcomes",
        "The commit adds a client for which the largest allowed number of welcomes waits, from this inviter or from all inviters together. Nothing was changed.",
        "Leave the client out of the commit until it has fetched and acknowledged its welcomes. Welcomes for a client of another gateway count for a time instead; the detail says how long.",
        ["clientHandle": "the client that has too many welcomes"];
    TooManyStreams: 429 "too-many-streams", "Too many streams",
        "The token, or all tokens together, have as many event streams open as the gateway allows.",
        "Close streams that are not needed. One stream of an application tells of all its groups.";
    TooManyRequests: 429 "too-many-requests", "Too many requests",
        "The gateway, the group or the key queue is busy with other requests, or the caller has exceeded a rate. Nothing was done.",
        "Send the request again after the time in Retry-After (seconds).";
    HeadersTooLarge: 431 "headers-too-large", "Headers too large",
        "The request line and the header fields together are larger than this gateway accepts.",
        "Send fewer or shorter header fields.";
    Internal: 500 "internal", "Internal error",
        "The gateway failed. It is safe to repeat writes.",
        "Try again; if it fails again, the gateway's log has the cause.";
    PeerUnreachable: 502 "peer-unreachable", "Peer unreachable",
        "The gateway of another domain could not be reached, or its answer is not one of a gateway.",
        "Try again later.";
    StorageUnavailable: 503 "storage-unavailable", "Storage unavailable",
        "The gateway could not store the write: its disk failed and the gateway stops, its disk has not answered for `write_timeout_s`, or another change came first. Everything acknowledged is kept.",
        "Try again later; it is safe to repeat writes. The detail says which of these it was.";
    ShuttingDown: 503 "shutting-down", "Shutting down",
        "The gateway is stopping and takes no new requests.",
        "Try again when it is back.";
    PeerTimeout: 504 "peer-timeout", "Peer timeout",
        "The gateway of another domain did not answer in time.",
        "Try again; it is safe to repeat writes.";
}

impl ProblemKind {
    /// The type of a slug.
    pub fn of_slug(slug: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.about().slug == slug)
    }

    /// The value of a problem's `type`: the path of the page that explains it.
    pub fn type_uri(self) -> String {
        format!("{TYPE_PREFIX}{}", self.about().slug)
    }
}

/// The prefix of `type`.
const TYPE_PREFIX: &str = "/problems/";

/// The media type of a [`ProblemDocument`].
pub const PROBLEM_JSON: &str = "application/problem+json";

/// A problem document (RFC 9457 §3).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProblemDocument {
    /// `/problems/<slug>`: a page of the gateway that explains this type of problem.
    pub r#type: String,
    /// The type in a few words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// The fault of this request, and its remedy.
    pub detail: String,
    /// The path of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// The id of the request, also in `X-Request-Id` and in the gateway's log.
    #[serde(default, rename = "requestId", skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// The members of this type, in addition to the common ones.
    #[serde(flatten)]
    #[schema(ignore)]
    pub members: Map<String, Value>,
    /// The field `Retry-After` of the answer, in seconds, if it was received with one.
    #[serde(skip)]
    #[schema(ignore)]
    pub retry_after_s: Option<u64>,
}

impl ProblemDocument {
    /// A problem of which only the status is known (RFC 9457 §4.2.1).
    pub(crate) fn of_status(status: u16) -> Self {
        Self {
            r#type: "about:blank".to_owned(),
            title: String::new(),
            status,
            detail: String::new(),
            instance: None,
            request_id: None,
            members: Map::new(),
            retry_after_s: None,
        }
    }

    /// The type, when it is one that this version knows.
    pub fn kind(&self) -> Option<ProblemKind> {
        ProblemKind::of_slug(self.slug())
    }

    /// The last part of the type.
    pub fn slug(&self) -> &str {
        self.r#type.strip_prefix(TYPE_PREFIX).unwrap_or(&self.r#type)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn slugs_are_unique_and_well_formed() {
        let slugs: BTreeSet<_> = ProblemKind::ALL.iter().map(|kind| kind.about().slug).collect();
        assert_eq!(slugs.len(), ProblemKind::ALL.len());
        for kind in ProblemKind::ALL {
            let about = kind.about();
            assert!(
                about.slug.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'),
                "{}",
                about.slug
            );
            assert!((400..600).contains(&about.status), "{}", about.slug);
            assert_eq!(ProblemKind::of_slug(about.slug), Some(*kind));
        }
        assert!(ProblemKind::ALL.is_sorted_by_key(|kind| kind.about().status));
    }

    #[test]
    fn a_document_keeps_the_members_of_its_type() {
        let json = r#"{"type":"/problems/stale-epoch","title":"Stale epoch","status":409,"detail":"…","currentEpochId":3}"#;
        let document: ProblemDocument = serde_json::from_str(json).unwrap();
        assert_eq!(document.kind(), Some(ProblemKind::StaleEpoch));
        assert_eq!(document.members.get("currentEpochId"), Some(&Value::from(3)));
        assert_eq!(serde_json::to_string(&document).unwrap(), json);
    }
}
