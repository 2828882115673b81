//! The gateway as an external sender of MLS (RFC 9420 §12.1.8.1): the keys that members add to a group so that the gateway may
//! propose the removal of members whose certificates have expired (*Handing Timestamps*).

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Access, Endpoint, Method, Nothing, paths::AppPath, text::Base64};

/// `GET /apps/{appId}/external-sender`.
pub struct ListExternalSenders;

impl Endpoint for ListExternalSenders {
    const NAME: &'static str = "listExternalSenders";
    const METHOD: Method = Method::Get;
    const PATH: &'static str = "/apps/{appId}/external-sender";
    const ACCESS: Access = Access::Read;
    const SECTION: &'static str = "Identity Providers";
    const SUMMARY: &'static str = "The keys by which the gateway proposes the removal of expired members";
    const DESCRIPTION: &'static str = "Put the key of the group's signature scheme into the `external_senders` extension of a group, so that the \
         gateway may propose to remove members whose certificates have expired. The list is empty in an application \
         whose clients have no certificates.";
    type Path = AppPath;
    type Query = Nothing;
    type Body = Nothing;
    type Response = ExternalSenders;
}

/// The keys of the gateway; none when it proposes nothing in this application.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ExternalSenderList)]
pub struct ExternalSenders {
    /// One for each key. A group needs the one of its cipher suite's signature scheme.
    pub external_senders: Vec<ExternalSenderBody>,
}

/// One key of the gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ExternalSenderKey)]
pub struct ExternalSenderBody {
    /// The signature scheme, by its number in the TLS registry: 2055 is Ed25519, 1027 ECDSA on P-256 with SHA-256.
    pub signature_scheme: u16,
    /// The public key (RFC 9420 §5.1.1).
    pub public_key: Base64,
    /// The TLS-serialised `ExternalSender`, ready for the `external_senders` extension of a group.
    pub external_sender: Base64,
}
