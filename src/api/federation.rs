//! *Operational Context*, *Group Evolution*: requests between gateways of different domains, in addition to those that
//! they share with application servers.

use std::{collections::BTreeSet, fmt, str::FromStr};

use actors::{DomainName, Timestamp, USED_KEY_PACKAGES_MAX};
use reqwest::Url;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::{Map, Value};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ObjectBuilder, RefOr, Schema, SchemaFormat, schema::Type},
};
use uuid::Uuid;

use super::{
    Access, Body, Endpoint, Method, Nothing,
    groups::{CommitBody, NewGroupBody, ProposalBody},
    list,
    paths::{AppPath, GroupPath, NoMembers},
    problem::ProblemKind,
    text::Base64,
};

const SECTION: &str = "Federation";

/// The supported version of the protocol between gateways.
pub const VERSION: u32 = 1;

/// The header of a request between gateways that names the sender's ApplicationConfiguration: the SHA-256, in lower-case
/// hexadecimal digits, of its JSON with sorted members and no spaces.
pub const CONFIGURATION_HEADER: &str = "mimi-application-configuration";

/// The header of a request between gateways, and of its answer, that tells what the sender trusts in the application, but for revocation
/// lists: `name=value` parts with commas between them. The receiver shows operators what differs from its own. It may be absent, and a
/// receiver takes no notice of names that it does not know.
pub const TRUST_HEADER: &str = "mimi-application-trust";

/// `GET /.well-known/mimi-gateway`: the domains of a gateway, and the URL of its federation listener.
pub struct Discover;

impl Endpoint for Discover {
    const NAME: &'static str = "discover";
    const METHOD: Method = Method::Get;
    const PATH: &'static str = "/.well-known/mimi-gateway";
    const ACCESS: Access = Access::Public;
    const SECTION: &'static str = SECTION;
    const SUMMARY: &'static str = "The domains of this gateway and where it federates";
    const DESCRIPTION: &'static str =
        "Gateways of other domains read this to find where to federate. Needs no token.";
    type Path = NoMembers;
    type Query = Nothing;
    type Body = Nothing;
    type Response = GatewayDescription;
}

/// `PUT /apps/{appId}/configuration`: compares the ApplicationConfiguration of two gateways before they exchange
/// anything else about the application (*Applications*).
pub struct CompareConfiguration;

impl Endpoint for CompareConfiguration {
    const NAME: &'static str = "compareConfiguration";
    const METHOD: Method = Method::Put;
    const PATH: &'static str = "/apps/{appId}/configuration";
    const ACCESS: Access = Access::Read;
    const SECTION: &'static str = SECTION;
    const SUMMARY: &'static str = "Compare an application's configuration";
    const DESCRIPTION: &'static str = "Two gateways compare the configuration of an application before they exchange anything else about it.";
    const PROBLEMS: &'static [ProblemKind] = &[ProblemKind::ApplicationConfigurationMismatch];
    type Path = AppPath;
    type Query = Nothing;
    type Body = ConfigurationBody;
    type Response = ConfigurationBody;
}

/// `PUT /apps/{appId}/groups/{groupId}/log`: a group's hub delivers accepted entries to a gateway that follows it.
pub struct ReplicateLog;

impl Endpoint for ReplicateLog {
    const NAME: &'static str = "replicateLog";
    const METHOD: Method = Method::Put;
    const PATH: &'static str = "/apps/{appId}/groups/{groupId}/log";
    const ACCESS: Access = Access::ReadWrite;
    const SECTION: &'static str = SECTION;
    const SUMMARY: &'static str = "Deliver the entries of a group's log";
    const DESCRIPTION: &'static str = "The hub of a group sends each accepted entry to the gateways that follow it. The answer is the greatest \
         number that the follower holds. It also tells them that the group is deleted.";
    const PROBLEMS: &'static [ProblemKind] = &[
        ProblemKind::MalformedMlsMessage,
        ProblemKind::InvalidGroupInfo,
        ProblemKind::InvalidProposal,
        ProblemKind::InvalidCommit,
        ProblemKind::UnknownKind,
        ProblemKind::LimitReached,
    ];
    type Path = GroupPath;
    type Query = Nothing;
    type Body = DeliveryBody;
    type Response = ReplicationAckBody;
}

/// The description of a gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GatewayDescription {
    /// The domains that are assigned to it.
    #[schema(value_type = Vec<String>)]
    pub domains: BTreeSet<DomainName>,
    /// The URL of its federation listener; left out if it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub federation: Option<GatewayUrl>,
    /// The versions of the protocol between gateways that it speaks.
    pub versions: Vec<u32>,
}

/// An ApplicationConfiguration as plain JSON: a member that only one gateway knows is a difference, not an error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
#[schema(as = ComparedConfiguration, value_type = Object)]
pub struct ConfigurationBody(pub Map<String, Value>);

impl Body for ConfigurationBody {
    const BYTES_MAX: usize = 256 << 10;
}

/// A delivery of a hub for one group: consecutive entries, the current state of the group, or its deletion.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = Delivery)]
pub struct DeliveryBody {
    /// The domain of the hub.
    #[schema(value_type = String)]
    pub hub: DomainName,
    /// The time at which the entry before the first one was accepted, in Unix milliseconds, if that is still known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>)]
    pub preceding: Option<Timestamp>,
    /// Consecutive entries of the log. Left out when there is a transfer.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "list::at_most::<{ list::ENTRIES_MAX }, _, _>"
    )]
    pub entries: Vec<LogEntryBody>,
    /// The whole group. Left out when there are entries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transfer: Option<Box<GroupTransferBody>>,
    /// The deletion of the group, instead of entries or a transfer. A follower that has answered with a `revision` below 2 does not
    /// know it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion: Option<GroupDeletionBody>,
}

impl Body for DeliveryBody {}

/// The deletion of a group by its hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = GroupDeletion)]
pub struct GroupDeletionBody {
    /// When the hub deleted it, in Unix milliseconds.
    #[schema(value_type = u64)]
    pub timestamp: Timestamp,
}

/// One accepted entry of a group's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = LogEntry)]
pub struct LogEntryBody {
    /// Its number: 0 is the group's creation, and there is no gap.
    pub sequence: u64,
    /// The time at which the hub accepted it, in Unix milliseconds.
    #[schema(value_type = u64)]
    pub timestamp: Timestamp,
    /// The accepted packet.
    pub content: EntryContentBody,
}

/// The content of a log entry: the bytes as they were uploaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = EntryContent)]
pub enum EntryContentBody {
    /// *Group Creation*.
    Creation(NewGroupBody),
    /// *Proposals*.
    Proposal(ProposalBody),
    /// *Commits*.
    Commit(CommitBody),
}

/// The state of a group after an entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = GroupTransfer)]
pub struct GroupTransferBody {
    /// The last entry that it includes.
    pub sequence: u64,
    /// The time at which the hub accepted that entry, in Unix milliseconds.
    #[schema(value_type = u64)]
    pub timestamp: Timestamp,
    /// An MLSMessage that holds the GroupInfo of the current epoch.
    pub group_info: Base64,
    /// `optional<Node> ratchet_tree<V>` of the current epoch (RFC 9420 §12.4.3.3), length prefix included.
    pub ratchet_tree: Base64,
    /// The proposals that wait in the current epoch, PublicMessages, in the order in which they were accepted.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "list::at_most::<{ list::PROPOSALS_MAX }, _, _>"
    )]
    pub proposals: Vec<Base64>,
    /// An MLSMessage that holds the Welcome of the current epoch, if its commit added clients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub welcome: Option<Base64>,
    /// KeyPackageRefs (RFC 9420 §5.2) of packages that were used in entries that the follower has not seen. Those after the
    /// first 4096 are ignored.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "list::first::<{ USED_KEY_PACKAGES_MAX }, _, _>"
    )]
    pub used_key_packages: Vec<Base64>,
    /// Whether the group was reinitialised, so that no commit can follow (RFC 9420 §11.2). Left out for a follower that has
    /// answered with a `revision` of 0, or has refused the group before its first answer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reinitialised: bool,
}

/// The position of a follower after a delivery.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Held)]
pub struct ReplicationAckBody {
    /// The number of the entry that it needs next.
    pub next: u64,
    /// Whether it can no longer validate that entry and needs the whole group.
    #[serde(default)]
    pub needs_transfer: bool,
    /// The time after which it can append that entry, in milliseconds: a lifetime in it has not begun by the follower's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// Entries before `next` that it never received, because it received the group as a whole, and accepts for its history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<MissingEntriesBody>,
    /// The revision of the protocol that it understands: from 1 on, entries that it names in `missing`, and
    /// `reinitialised`; from 2 on, `deletion`.
    #[serde(default)]
    pub revision: u32,
    /// The id of the store that holds its replicas. When it changes, the follower has lost them.
    pub store: Uuid,
}

/// Entries of a group's log that a follower never received.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = MissingEntries)]
pub struct MissingEntriesBody {
    /// The number of the first one.
    pub from: u64,
    /// The number of the last one.
    pub through: u64,
}

/// The URL of a federation listener: `https://host` or `https://host:port`, without a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayUrl(Url);

/// A text that is not a [`GatewayUrl`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be https:// with a host and, where it is not 443, a port, as https://gateway.example:8443")]
pub struct GatewayUrlError;

impl GatewayUrl {
    /// The host: a name, or an IP address without brackets.
    pub fn host(&self) -> &str {
        self.0.host_str().unwrap_or_default().trim_matches(['[', ']'])
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.0.port_or_known_default().unwrap_or(HTTPS_PORT)
    }
}

const HTTPS_PORT: u16 = 443;

impl FromStr for GatewayUrl {
    type Err = GatewayUrlError;

    fn from_str(text: &str) -> Result<Self, GatewayUrlError> {
        let url = Url::parse(text).map_err(|_| GatewayUrlError)?;
        let is_bare = url.path() == "/"
            && url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty()
            && url.password().is_none();
        let is_usable = url.scheme() == "https" && url.has_host() && url.port() != Some(0);
        if is_bare && is_usable { Ok(Self(url)) } else { Err(GatewayUrlError) }
    }
}

impl fmt::Display for GatewayUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str().trim_end_matches('/'))
    }
}

impl Serialize for GatewayUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for GatewayUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl PartialSchema for GatewayUrl {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .format(Some(SchemaFormat::Custom("uri".to_owned())))
            .description(Some("`https://host` or `https://host:port`"))
            .into()
    }
}

impl ToSchema for GatewayUrl {}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<(&str, u16, &str)>) {
        let url = text.parse::<GatewayUrl>().ok();
        let found = url.as_ref().map(|url| (url.host().to_owned(), url.port(), url.to_string()));
        let expected = expected.map(|(host, port, shown)| (host.to_owned(), port, shown.to_owned()));
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn urls_of_gateways_are_bare_and_secure() {
        check("https://b.example", Some(("b.example", 443, "https://b.example")));
        check("https://b.example/", Some(("b.example", 443, "https://b.example")));
        check("https://B.example:8443", Some(("b.example", 8443, "https://b.example:8443")));
        check("https://127.0.0.1:9443", Some(("127.0.0.1", 9443, "https://127.0.0.1:9443")));
        check("https://[::1]:9443", Some(("::1", 9443, "https://[::1]:9443")));
        for refused in [
            "",
            "b.example",
            "http://b.example",
            "https://",
            "https://b.example/path",
            "https://b.example/?q",
            "https://b.example/#f",
            "https://user@b.example",
            "https://:secret@b.example",
            "https://b.example:0",
            "https://b.example:70000",
        ] {
            check(refused, None);
        }
    }

    /// A gateway of the version before knows no member beyond these, and refuses a transfer that has one.
    #[test]
    fn gateways_of_the_first_revision_understand_what_is_sent_to_them() {
        let text = r#"{"next":3,"needsTransfer":true,"store":"00000000-0000-0000-0000-000000000001"}"#;
        let held: ReplicationAckBody = serde_json::from_str(text).unwrap();
        let expected = ReplicationAckBody {
            next: 3,
            needs_transfer: true,
            retry_after_ms: None,
            missing: None,
            revision: 0,
            store: Uuid::from_u128(1),
        };
        assert_eq!(held, expected);
        let transfer = GroupTransferBody {
            sequence: 1,
            timestamp: Timestamp(2),
            group_info: Base64(Vec::new()),
            ratchet_tree: Base64(Vec::new()),
            proposals: Vec::new(),
            welcome: None,
            used_key_packages: Vec::new(),
            reinitialised: false,
        };
        let text = r#"{"sequence":1,"timestamp":2,"groupInfo":"","ratchetTree":""}"#;
        assert_eq!(serde_json::to_string(&transfer).unwrap(), text);
    }

    #[test]
    fn a_delivery_has_one_text() {
        let body = DeliveryBody {
            preceding: None,
            hub: "a.example".parse().unwrap(),
            entries: vec![LogEntryBody {
                sequence: 1,
                timestamp: Timestamp(5),
                content: EntryContentBody::Proposal(ProposalBody { packet: Base64(vec![1, 2]) }),
            }],
            transfer: None,
            deletion: None,
        };
        let text = r#"{"hub":"a.example","entries":[{"sequence":1,"timestamp":5,"content":{"proposal":{"packet":"AQI="}}}]}"#;
        assert_eq!(serde_json::to_string(&body).unwrap(), text);
        assert_eq!(serde_json::from_str::<DeliveryBody>(text).unwrap(), body);
    }
}
