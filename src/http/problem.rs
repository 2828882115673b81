//! The mapping from errors to problem documents, for the whole gateway.

use actix_web::{HttpResponse, http::StatusCode, http::header};
use actors::{
    ClientError, DomainError, GroupError, KeyQueueError, MalformedMessage, QuotaExceeded, Resource,
    StorageError,
};
use serde_json::{Map, Value};

use super::request_id::RequestId;
use crate::{
    api::{
        key_packages::RefusedKeyPackage,
        paths::PathError,
        problem::{PROBLEM_JSON, ProblemDocument, ProblemKind},
        text::{Base64, HandleText},
    },
    federation::{DIFFERS, PeerError},
};

/// The reason why a request failed.
#[derive(Debug)]
pub(crate) struct Problem {
    kind: ProblemKind,
    detail: String,
    members: Map<String, Value>,
    headers: Vec<(header::HeaderName, String)>,
    /// A peer's problem type that this version does not know.
    foreign: Option<Box<ForeignType>>,
}

/// A problem type that only the answering peer knows.
#[derive(Debug)]
struct ForeignType {
    type_uri: String,
    title: String,
    status: StatusCode,
}

impl Problem {
    /// A problem; `detail` states the fault of this request and the remedy.
    pub(crate) fn new(kind: ProblemKind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into(), members: Map::new(), headers: Vec::new(), foreign: None }
    }

    /// 400 about a member of the request.
    pub(crate) fn malformed(detail: impl Into<String>) -> Self {
        Self::new(ProblemKind::MalformedRequest, detail)
    }

    /// 401.
    pub(crate) fn not_authenticated(detail: &str) -> Self {
        Self::new(ProblemKind::NotAuthenticated, detail).header(header::WWW_AUTHENTICATE, "Bearer")
    }

    /// 429.
    pub(crate) fn too_many_requests(detail: impl Into<String>) -> Self {
        Self::new(ProblemKind::TooManyRequests, detail).header(header::RETRY_AFTER, RETRY_AFTER_S)
    }

    /// 422, for an application that would have more than its quota.
    fn quota(quota: &QuotaExceeded) -> Self {
        Self::new(ProblemKind::QuotaExceeded, quota.to_string())
            .member("quota", quota_name(quota.resource))
            .member("limit", quota.max)
    }

    /// Adds the time after which to try again.
    pub(crate) fn retry_later(self) -> Self {
        self.header(header::RETRY_AFTER, RETRY_AFTER_S)
    }

    /// 503, from a gateway that is stopping.
    pub(crate) fn shutting_down() -> Self {
        Self::new(ProblemKind::ShuttingDown, "the gateway is stopping; try again when it is back")
            .header(header::RETRY_AFTER, RETRY_AFTER_S)
    }

    /// A peer's problem, passed on to the client.
    ///
    /// A failure of authentication between the gateways is not the client's, nor is a disagreement about the hub: both become
    /// `peer-unreachable`.
    fn of_peer(document: ProblemDocument) -> Self {
        // Earlier versions answer `not-hub` with 421.
        if matches!(document.status, 401 | 403 | 421) || document.kind() == Some(ProblemKind::NotHub) {
            let detail = format!("the gateway of that domain does not serve this one: {}", document.detail);
            return Self::new(ProblemKind::PeerUnreachable, detail);
        }
        let status = StatusCode::from_u16(document.status).unwrap_or(StatusCode::BAD_GATEWAY);
        let known = document.kind().filter(|kind| kind.about().status == document.status);
        let foreign = known
            .is_none()
            .then(|| Box::new(ForeignType { type_uri: document.r#type, title: document.title, status }));
        let kind = known.unwrap_or(ProblemKind::PeerUnreachable);
        // The client waits as long as the peer says.
        let peer_says = document.retry_after_s.map(|wait_s| wait_s.to_string());
        let or_else = |wait_s: &str| peer_says.unwrap_or_else(|| wait_s.to_owned());
        let problem = Self { members: document.members, foreign, ..Self::new(kind, document.detail) };
        match (status, kind) {
            (_, ProblemKind::TooManyWelcomes) => {
                problem.header(header::RETRY_AFTER, or_else(WELCOMES_RETRY_AFTER_S))
            }
            (StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE, _) => {
                problem.header(header::RETRY_AFTER, or_else(RETRY_AFTER_S))
            }
            _ => problem,
        }
    }

    /// 409: a peer has another ApplicationConfiguration. The members that differ are named if they are known.
    pub(crate) fn configuration_mismatch(detail: impl Into<String>, differing: Vec<String>) -> Self {
        Self::new(ProblemKind::ApplicationConfigurationMismatch, detail).member(DIFFERS, differing)
    }

    /// 500. The log has the cause; the answer does not.
    pub(crate) fn internal() -> Self {
        Self::new(ProblemKind::Internal, "the gateway failed; try again")
    }

    pub(crate) fn header(mut self, name: header::HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(crate) fn kind(&self) -> ProblemKind {
        self.kind
    }

    pub(crate) fn detail(&self) -> &str {
        &self.detail
    }

    fn member(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.members.insert(name.to_owned(), value.into());
        self
    }

    /// Names the proposal at fault, if there is one.
    fn proposal_ref(self, reference: Option<Vec<u8>>) -> Self {
        match reference {
            Some(reference) => {
                self.member("proposalRef", serde_json::to_value(Base64(reference)).unwrap_or_default())
            }
            None => self,
        }
    }

    /// The answer to the request for `instance`, a path.
    pub(crate) fn into_response(self, instance: &str, id: &RequestId) -> HttpResponse {
        let (status, headers, document) = self.into_document(Some(instance.to_owned()), id);
        let mut response = HttpResponse::build(status);
        for (name, value) in headers {
            response.insert_header((name, value));
        }
        response.insert_header((header::CONTENT_TYPE, PROBLEM_JSON)).json(document)
    }

    /// The bytes of an answer to malformed HTTP; the connection is closed after it.
    pub(crate) fn into_http(self) -> Vec<u8> {
        let id = RequestId::new();
        let (status, _, document) = self.into_document(None, &id);
        let json = serde_json::to_vec(&document).unwrap_or_default();
        let head = format!(
            "HTTP/1.1 {status}\r\nX-Request-Id: {id}\r\nContent-Type: {PROBLEM_JSON}\r\nContent-Length: {}\r\nConnection: close\r\n\
             X-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\n\r\n",
            json.len()
        );
        [head.into_bytes(), json].concat()
    }

    fn into_document(
        self,
        instance: Option<String>,
        id: &RequestId,
    ) -> (StatusCode, Vec<(header::HeaderName, String)>, ProblemDocument) {
        let about = self.kind.about();
        let (type_uri, title, status) = match self.foreign {
            Some(foreign) => (foreign.type_uri, foreign.title, foreign.status),
            None => (
                self.kind.type_uri(),
                about.title.to_owned(),
                StatusCode::from_u16(about.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            ),
        };
        let document = ProblemDocument {
            r#type: type_uri,
            title,
            status: status.as_u16(),
            detail: self.detail,
            instance,
            request_id: Some(id.to_string()),
            members: self.members,
            retry_after_s: None,
        };
        (status, self.headers, document)
    }
}

/// The time to the next try while the disk does not answer, in seconds.
const STALLED_RETRY_AFTER_S: &str = "10";
/// The time to the next try if a client must come online first, in seconds.
const WELCOMES_RETRY_AFTER_S: &str = "60";
/// The time to the next try after a refusal for lack of room, in seconds.
const RETRY_AFTER_S: &str = "1";

impl From<PathError> for Problem {
    fn from(error: PathError) -> Self {
        Self::new(error.kind, error.detail)
    }
}

impl From<DomainError> for Problem {
    fn from(error: DomainError) -> Self {
        Self::malformed(format!("domain: {error}"))
    }
}

impl From<PeerError> for Problem {
    fn from(error: PeerError) -> Self {
        let detail = error.to_string();
        match error {
            PeerError::Refused(document) => Self::of_peer(*document),
            PeerError::Differs { members, .. } => Self::configuration_mismatch(detail, members),
            PeerError::Unreachable { .. } => Self::new(ProblemKind::PeerUnreachable, detail),
            PeerError::Timeout { .. } => Self::new(ProblemKind::PeerTimeout, detail),
            PeerError::Busy { .. } => Self::too_many_requests(detail),
        }
    }
}

impl From<StorageError> for Problem {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::Unavailable => Self::new(
                ProblemKind::StorageUnavailable,
                "the gateway cannot write to its disk and is stopping; try again when it is back",
            ),
            StorageError::Changed => Self::new(ProblemKind::StorageUnavailable, error.to_string()),
            StorageError::Stalled { is_queued: true } => Self::new(
                ProblemKind::StorageUnavailable,
                "the gateway's disk does not answer, and it is unknown whether this was done: send the same request again, \
                 which is safe",
            )
            .header(header::RETRY_AFTER, STALLED_RETRY_AFTER_S),
            StorageError::Stalled { is_queued: false } => Self::new(
                ProblemKind::StorageUnavailable,
                "the gateway's disk does not answer; nothing was done; try again later",
            )
            .header(header::RETRY_AFTER, STALLED_RETRY_AFTER_S),
            StorageError::Unreadable => Self::internal(),
        }
    }
}

impl From<ClientError> for Problem {
    fn from(error: ClientError) -> Self {
        let detail = error.to_string();
        match error {
            ClientError::UnknownClient => Self::new(ProblemKind::UnknownClient, detail),
            ClientError::HandleTaken { client } => {
                Self::new(ProblemKind::ClientHandleTaken, detail).member("clientId", client.to_string())
            }
            ClientError::Invalid(_) => Self::malformed(detail),
            ClientError::Domain(error) => error.into(),
            ClientError::TooLarge { .. } => Self::new(ProblemKind::TooLarge, detail),
            ClientError::Quota(quota) => Self::quota(&quota),
            ClientError::Busy => Self::too_many_requests(detail),
            ClientError::Stopping => Self::shutting_down(),
            ClientError::Storage(error) => error.into(),
        }
    }
}

impl From<KeyQueueError> for Problem {
    fn from(error: KeyQueueError) -> Self {
        let detail = error.to_string();
        match error {
            KeyQueueError::UnknownClient => Self::new(ProblemKind::UnknownClient, detail),
            KeyQueueError::UnknownKeyQueue => Self::new(ProblemKind::UnknownKeyQueue, detail),
            KeyQueueError::QueueExists { queue } => {
                Self::new(ProblemKind::KeyQueueExists, detail).member("keyQueueId", queue.to_string())
            }
            KeyQueueError::Unusable(_) => Self::malformed(detail),
            KeyQueueError::TooManyInRequest { .. } => Self::new(ProblemKind::TooLarge, detail),
            KeyQueueError::TooManyQueues { .. }
            | KeyQueueError::TooManyKeyPackages { .. }
            | KeyQueueError::TooManyBytes { .. } => Self::new(ProblemKind::LimitReached, detail),
            KeyQueueError::InvalidKeyPackages(refused) => {
                let errors: Vec<RefusedKeyPackage> = refused
                    .into_iter()
                    .map(|refused| RefusedKeyPackage { index: refused.index, detail: refused.detail })
                    .collect();
                Self::new(ProblemKind::InvalidKeyPackage, detail)
                    .member("errors", serde_json::to_value(errors).unwrap_or_default())
            }
            KeyQueueError::NoKeyPackage => Self::new(ProblemKind::NoKeyPackage, detail),
            KeyQueueError::Domain(error) => error.into(),
            KeyQueueError::Quota(quota) => Self::quota(&quota),
            KeyQueueError::Busy => Self::too_many_requests(detail),
            KeyQueueError::Stopping => Self::shutting_down(),
            KeyQueueError::Storage(error) => error.into(),
        }
    }
}

impl From<GroupError> for Problem {
    fn from(error: GroupError) -> Self {
        let detail = error.to_string();
        match error {
            GroupError::UnknownGroup => Self::new(ProblemKind::UnknownGroup, detail),
            GroupError::GroupExists => Self::new(ProblemKind::GroupExists, detail),
            GroupError::MalformedMessage(MalformedMessage { member, field, offset, .. }) => {
                Self::new(ProblemKind::MalformedMlsMessage, detail)
                    .member("member", member.name())
                    .member("field", field)
                    .member("offset", offset)
            }
            GroupError::UnknownKind { kind, value, .. } => {
                Self::new(ProblemKind::UnknownKind, detail).member("kind", kind.name()).member("value", value)
            }
            GroupError::TooLarge { .. } => Self::new(ProblemKind::TooLarge, detail),
            GroupError::InvalidGroupInfo(_) | GroupError::GroupInfoLifetime { .. } => {
                Self::new(ProblemKind::InvalidGroupInfo, detail)
            }
            GroupError::StaleEpoch { current, .. } => {
                Self::new(ProblemKind::StaleEpoch, detail).member("currentEpochId", current.0)
            }
            GroupError::FutureEpoch { current, .. } => {
                Self::new(ProblemKind::FutureEpoch, detail).member("currentEpochId", current.0)
            }
            GroupError::InvalidProposal { rule, .. } => {
                Self::new(ProblemKind::InvalidProposal, detail).member("rule", rule.to_string())
            }
            GroupError::InvalidCommit { rule, proposal, .. } => Self::new(ProblemKind::InvalidCommit, detail)
                .member("rule", rule.to_string())
                .proposal_ref(proposal),
            GroupError::TooManyProposals { .. } => Self::new(ProblemKind::TooManyProposals, detail),
            GroupError::GroupInfoMismatch(_) => Self::new(ProblemKind::GroupInfoMismatch, detail),
            GroupError::WelcomeMissing { .. } => Self::new(ProblemKind::WelcomeMissing, detail),
            GroupError::WelcomeMismatch(_) => Self::new(ProblemKind::WelcomeMismatch, detail),
            GroupError::ExpiredMembers { leaves } => {
                Self::new(ProblemKind::ExpiredMembers, detail).member("leafIndices", leaves)
            }
            GroupError::KeyPackageReused { proposal, .. } => {
                Self::new(ProblemKind::KeyPackageReused, detail).proposal_ref(proposal)
            }
            GroupError::TooManyWelcomes { handle, counted_for_s, .. } => {
                let retry_after_s =
                    counted_for_s.map_or_else(|| WELCOMES_RETRY_AFTER_S.to_owned(), |wait| wait.to_string());
                Self::new(ProblemKind::TooManyWelcomes, detail)
                    .member("clientHandle", HandleText(handle).to_string())
                    .header(header::RETRY_AFTER, retry_after_s)
            }
            GroupError::EpochsPruned { floor } => {
                Self::new(ProblemKind::EpochsPruned, detail).member("floorEpochId", floor.0)
            }
            GroupError::Quota(quota) => Self::quota(&quota),
            GroupError::InvalidReport(_) => Self::new(ProblemKind::InvalidReport, detail),
            GroupError::NotHub { hub } => {
                Self::new(ProblemKind::NotHub, detail).member("hubDomain", hub.to_string())
            }
            GroupError::TooManyGroups { .. } => Self::new(ProblemKind::LimitReached, detail),
            GroupError::NotFromHub(_) => Self::new(ProblemKind::NotPermitted, detail),
            GroupError::Busy => Self::too_many_requests(detail),
            GroupError::Stopping => Self::shutting_down(),
            GroupError::Storage(error) => error.into(),
        }
    }
}

/// The name of a resource in the API.
const fn quota_name(resource: Resource) -> &'static str {
    match resource {
        Resource::Clients => "clients",
        Resource::Groups => "groups",
        Resource::KeyPackages => "keyPackages",
        Resource::Bytes => "storedBytes",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(problem: impl Into<Problem>, kind: ProblemKind, says: &str, says_not: &[&str]) {
        let problem = problem.into();
        assert_eq!(problem.kind(), kind);
        assert!(problem.detail().contains(says), "{}", problem.detail());
        for part in says_not {
            assert!(!problem.detail().contains(part), "{part:?} in {}", problem.detail());
        }
    }

    #[test]
    fn a_write_that_lost_a_race_is_not_told_that_the_gateway_stops() {
        let kind = ProblemKind::StorageUnavailable;
        check(StorageError::Changed, kind, "nothing was done; try again", &["stopping", "disk"]);
        check(
            StorageError::Unavailable,
            kind,
            "is stopping; try again when it is back",
            &["nothing was done"],
        );
        check(
            StorageError::Stalled { is_queued: true },
            kind,
            "it is unknown whether",
            &["nothing was done"],
        );
        check(StorageError::Stalled { is_queued: false }, kind, "nothing was done", &["unknown"]);
    }

    #[test]
    fn busy_does_not_blame_the_number_of_requests() {
        // It is answered as well when other writes came first, or when all places for validation are taken.
        let kind = ProblemKind::TooManyRequests;
        check(KeyQueueError::Busy, kind, "busy with other requests", &["too many"]);
        check(GroupError::Busy, kind, "busy with other requests", &["too many"]);
        check(ClientError::Busy, kind, "busy with other changes", &["too many"]);
    }
}
