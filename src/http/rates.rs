//! The rates of callers: which request counts for which, and the header fields that tell of them (draft-ietf-httpapi-ratelimit-headers-11).

use std::{fmt::Write as _, time::Duration};

use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use actors::{AppId, ClientId, GroupId};

use super::{
    auth::{Authenticator as _, Tokens, app_id},
    peer_auth::PEERS,
    problem::Problem,
};
use crate::{
    api::{percent, problem::ProblemKind, text::GroupIdText},
    config::{FederationSettings, TokenRateSettings},
    rates::{Bucket, RateStanding, RequestRate, TargetBuckets},
};

/// A rate, as header fields and metrics name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RatePolicy {
    /// Requests with one token.
    Token,
    /// Requests of one peer.
    Peer,
    /// Requests of one peer for the key packages of one client.
    Client,
    /// Requests of one peer about one group.
    Group,
}

impl RatePolicy {
    /// All, in the order of their numbers.
    pub(super) const ALL: [Self; 4] = [Self::Token, Self::Peer, Self::Client, Self::Group];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Peer => "peer",
            Self::Client => "client",
            Self::Group => "group",
        }
    }

    /// Whether callers of a listener have it.
    pub(super) fn is_of(self, listener: &str) -> bool {
        match self {
            Self::Token => listener == Tokens::LISTENER,
            Self::Peer | Self::Client | Self::Group => listener == PEERS,
        }
    }

    /// What a request of this policy is, for messages.
    const fn of_what(self) -> &'static str {
        match self {
            Self::Token => "requests with one token",
            Self::Peer => "requests of one peer",
            Self::Client => "requests of one peer for the key packages of one client",
            Self::Group => "requests of one peer for one group",
        }
    }
}

/// The rates of one caller.
#[derive(Debug, Default)]
pub(crate) struct CallerRates {
    own: Option<(RatePolicy, Bucket)>,
    clients: Option<TargetBuckets<(AppId, ClientId)>>,
    groups: Option<TargetBuckets<(AppId, GroupId)>>,
}

/// What a peer's request is about.
#[derive(Clone, Debug, PartialEq, Eq)]
enum RateTarget {
    Client(AppId, ClientId),
    Group(AppId, GroupId),
}

/// The rates that a request counts for, and what they have left.
#[derive(Debug, Default)]
pub(super) struct RateFields(Vec<(RatePolicy, RequestRate, RateStanding)>);

/// The policy that a request exceeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RateExceeded {
    pub(super) policy: RatePolicy,
    rate: RequestRate,
    wait_s: u64,
}

impl CallerRates {
    /// Those of a token.
    pub(super) fn of_token(rate: Option<RequestRate>) -> Self {
        Self { own: rate.map(|rate| (RatePolicy::Token, Bucket::new(rate))), ..Self::default() }
    }

    /// Those of a peer.
    pub(super) fn of_peer(settings: &FederationSettings) -> Self {
        let targets_max = settings.rate_targets_max;
        let own = RequestRate::new(settings.peer_rate_requests_max, settings.peer_rate_window_s);
        let clients = RequestRate::new(settings.client_rate_requests_max, settings.client_rate_window_s);
        let groups = RequestRate::new(settings.group_rate_requests_max, settings.group_rate_window_s);
        Self {
            own: own.map(|rate| (RatePolicy::Peer, Bucket::new(rate))),
            clients: clients.map(|rate| TargetBuckets::new(rate, targets_max)),
            groups: groups.map(|rate| TargetBuckets::new(rate, targets_max)),
        }
    }

    /// Whether a request would exceed the caller's own rate; it is not counted.
    ///
    /// # Errors
    /// The rate that it would exceed.
    pub(super) fn look(&self, now: Duration, fields: &mut RateFields) -> Result<(), RateExceeded> {
        match &self.own {
            Some((policy, bucket)) => fields.note(*policy, bucket.rate(), bucket.look(now)),
            None => Ok(()),
        }
    }

    /// Counts a request to a route, whose members are still percent-encoded.
    ///
    /// # Errors
    /// The rate that it exceeds.
    pub(super) fn count(
        &self,
        (template, members): (&str, &[&str]),
        now: Duration,
        fields: &mut RateFields,
    ) -> Result<(), RateExceeded> {
        if let Some((policy, bucket)) = &self.own {
            fields.note(*policy, bucket.rate(), bucket.take(now))?;
        }
        if self.clients.is_none() && self.groups.is_none() {
            return Ok(());
        }
        match (RateTarget::of(template, members), &self.clients, &self.groups) {
            (Some(RateTarget::Client(app, client)), Some(clients), _) => {
                fields.note(RatePolicy::Client, clients.rate(), clients.take((app, client), now))
            }
            (Some(RateTarget::Group(app, group)), _, Some(groups)) => {
                fields.note(RatePolicy::Group, groups.rate(), groups.take((app, group), now))
            }
            (Some(_) | None, _, _) => Ok(()),
        }
    }
}

impl TokenRateSettings {
    /// The rate of each token, if there is one.
    pub(super) fn rate(&self) -> Option<RequestRate> {
        self.requests_max.and_then(|requests_max| RequestRate::new(requests_max, self.window_s))
    }
}

impl RateTarget {
    /// The target of a request: the application is the first member of every template, and the target the second. An id that
    /// cannot be read has no target: the request will be refused.
    fn of(template: &str, members: &[&str]) -> Option<Self> {
        let app = app_id(members.first()?)?;
        let target = String::from_utf8(percent::decode(members.get(1)?)?).ok()?;
        if template.contains("/{clientId}") {
            target.parse().ok().map(|client| Self::Client(app, client))
        } else if template.contains("/{groupId}") {
            target.parse().ok().map(|GroupIdText(group)| Self::Group(app, group))
        } else {
            None
        }
    }
}

impl RateFields {
    fn note(
        &mut self,
        policy: RatePolicy,
        rate: RequestRate,
        taken: Result<RateStanding, RateStanding>,
    ) -> Result<(), RateExceeded> {
        let (Ok(standing) | Err(standing)) = taken;
        self.0.push((policy, rate, standing));
        taken.map(drop).map_err(|RateStanding { wait_s, .. }| RateExceeded { policy, rate, wait_s })
    }

    /// Adds the header fields to an answer; none if no rate is set.
    pub(super) fn write(&self, headers: &mut HeaderMap) {
        let (mut policies, mut limits) = (String::new(), String::new());
        for (policy, rate, standing) in &self.0 {
            let (name, comma) = (policy.name(), if policies.is_empty() { "" } else { ", " });
            // Writing to a String does not fail.
            let _ = write!(policies, "{comma}\"{name}\";q={};w={}", rate.requests_max(), rate.window_s());
            let _ = write!(limits, "{comma}\"{name}\";r={};t={}", standing.left, standing.wait_s);
        }
        if policies.is_empty() {
            return;
        }
        for (name, value) in [("ratelimit-policy", policies), ("ratelimit", limits)] {
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(HeaderName::from_static(name), value);
            }
        }
    }
}

impl From<RateExceeded> for Problem {
    fn from(RateExceeded { policy, rate, wait_s }: RateExceeded) -> Self {
        let (requests_max, window_s) = (rate.requests_max(), rate.window_s());
        let detail = format!(
            "the limit is {requests_max} {} in {window_s} s; send this one again in {wait_s} s",
            policy.of_what()
        );
        Self::new(ProblemKind::TooManyRequests, detail).header(RETRY_AFTER, wait_s.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const APP: &str = "7c0c7b44-5a0f-4a43-9a51-0a9f6b9c7e11";
    const CLIENT: &str = "00000000-0000-4000-8000-000000000001";

    #[test]
    fn a_target_is_the_same_however_it_is_written() {
        let of_client =
            |segment: &str| RateTarget::of("/apps/{appId}/clients/{clientId}/keyPackage", &[APP, segment]);
        let client = of_client(CLIENT);
        assert_eq!(client, Some(RateTarget::Client(APP.parse().unwrap(), CLIENT.parse().unwrap())));
        assert_eq!(of_client(&CLIENT.replace("-4", "%2D4")), client);
        assert_eq!(of_client("nobody"), None);
        let group = RateTarget::of("/apps/{appId}/groups/{groupId}/epochs", &[APP, "Zw"]);
        assert_eq!(group, Some(RateTarget::Group(APP.parse().unwrap(), GroupId::new(b"g").unwrap())));
        assert_eq!(RateTarget::of("/apps/{appId}/groups/{groupId}/epochs", &[APP, "%5aw"]), group);
        assert_eq!(RateTarget::of("/apps/{appId}/clients", &[APP]), None);
        assert_eq!(RateTarget::of("/.well-known/mimi-gateway", &[]), None);
    }

    #[test]
    fn by_default_a_peer_asks_for_one_client_as_often_as_it_may_ask_at_all() {
        let rates = CallerRates::of_peer(&FederationSettings::default());
        let template = "/apps/{appId}/clients/{clientId}/keyPackage";
        for number in 0..50_000 {
            let counted = rates.count((template, &[APP, CLIENT]), Duration::ZERO, &mut RateFields::default());
            assert_eq!(counted, Ok(()), "request {number}");
        }
    }

    #[test]
    fn header_fields_are_those_of_the_draft() {
        let rates = CallerRates::of_peer(&FederationSettings {
            peer_rate_requests_max: 100,
            peer_rate_window_s: 60,
            client_rate_requests_max: 1,
            client_rate_window_s: 5,
            ..FederationSettings::default()
        });
        let template = "/apps/{appId}/clients/{clientId}/keyPackage";
        let check = |at_s, expected: Result<&str, (&str, &str)>| {
            let mut fields = RateFields::default();
            let counted = rates.count((template, &[APP, CLIENT]), Duration::from_secs(at_s), &mut fields);
            let mut headers = HeaderMap::new();
            fields.write(&mut headers);
            let field = |name: &str| headers.get(name).unwrap().to_str().unwrap().to_owned();
            assert_eq!(field("RateLimit-Policy"), "\"peer\";q=100;w=60, \"client\";q=1;w=5");
            let (limits, says) = match expected {
                Ok(limits) => (limits, None),
                Err((limits, says)) => (limits, Some(says)),
            };
            assert_eq!(field("RateLimit"), limits);
            assert_eq!(counted.is_err(), says.is_some());
            if let (Err(exceeded), Some(says)) = (counted, says) {
                assert_eq!(exceeded.policy, RatePolicy::Client);
                assert!(Problem::from(exceeded).detail().ends_with(says));
            }
        };
        check(0, Ok("\"peer\";r=99;t=60, \"client\";r=0;t=5"));
        check(2, Err(("\"peer\";r=99;t=60, \"client\";r=0;t=3", "again in 3 s")));
        check(5, Ok("\"peer\";r=99;t=60, \"client\";r=0;t=5"));
        let mut fields = RateFields::default();
        let unlimited = CallerRates::of_token(None);
        assert_eq!(unlimited.count((template, &[APP, CLIENT]), Duration::ZERO, &mut fields), Ok(()));
        let mut headers = HeaderMap::new();
        fields.write(&mut headers);
        assert!(headers.is_empty());
    }
}
