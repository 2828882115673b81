//! Counts of a listener's requests, by route, and their metrics. Counting takes no lock.

use std::{
    ptr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use actix_web::http::StatusCode;
use snapshots::{Distribution, Histogram};

use super::{auth::Authenticator, callers::ListenerShares, rates::RatePolicy, route::Route};
use crate::{
    api::{
        Endpoint, Method,
        groups::{UploadCommit, UploadProposal},
        key_packages::RetrieveKeyPackage,
        problem::ProblemKind,
    },
    metrics::text::{Metric, MetricKind, MetricsText},
};

/// The bounds of the times until an answer is ready.
static ANSWER_BOUNDS: [Duration; 15] = [
    Duration::from_micros(250),
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_micros(2500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_millis(2500),
    Duration::from_secs(5),
    Duration::from_secs(10),
];

/// The classes of statuses (RFC 9110 §15).
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];
/// The class of a success.
const SUCCESS: usize = 1;
/// The class of a failure of the gateway.
const FAILURE: usize = 4;
/// The label of an unknown route and of the method of a request for it.
const UNKNOWN: &str = "-";

/// The requests of one listener.
#[derive(Debug)]
pub(crate) struct ListenerCounts {
    /// The name of the listener.
    pub(super) listener: &'static str,
    shares: ListenerShares,
    /// For each route its own method and HEAD, and at the end all requests without a route.
    routes: Box<[RouteCounts]>,
    /// Requests that exceeded a rate.
    rates_exceeded: [AtomicU64; RatePolicy::ALL.len()],
}

/// The outcomes of the requests of an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Outcomes {
    /// Accepted ones.
    pub(super) accepted: u64,
    /// Those for an epoch that was over.
    pub(super) late: u64,
    /// Those that were refused for another reason.
    pub(super) refused: u64,
    /// Those that failed because of the gateway or a peer.
    pub(super) failed: u64,
}

/// The place of a route and method in the counts of its listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CountedRoute(usize);

/// The requests of one route and method.
#[derive(Debug)]
struct RouteCounts {
    method: &'static str,
    template: &'static str,
    by_class: [Histogram; CLASSES.len()],
    by_problem: [AtomicU64; ProblemKind::ALL.len()],
}

impl RouteCounts {
    fn new(method: &'static str, template: &'static str) -> Self {
        Self {
            method,
            template,
            by_class: std::array::from_fn(|_| Histogram::new(&ANSWER_BOUNDS)),
            by_problem: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    /// The problems that were answered, and how often.
    fn problems(&self) -> impl Iterator<Item = (ProblemKind, u64)> {
        let counts = self.by_problem.iter().map(|count| count.load(Ordering::Relaxed));
        ProblemKind::ALL.iter().copied().zip(counts).filter(|(_, count)| *count > 0)
    }
}

impl ListenerCounts {
    /// The counts of a listener whose callers have these shares.
    pub(super) fn new<A: Authenticator>(shares: ListenerShares) -> Self {
        let routes = A::routes().iter().flat_map(|route| {
            [route.method.as_str(), "HEAD"].map(|method| RouteCounts::new(method, route.template))
        });
        let unknown = RouteCounts::new(UNKNOWN, UNKNOWN);
        Self {
            listener: A::LISTENER,
            shares,
            routes: routes.chain([unknown]).collect(),
            rates_exceeded: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    /// The place of requests without a route.
    pub(super) fn unknown(&self) -> CountedRoute {
        CountedRoute(self.routes.len().saturating_sub(1))
    }

    /// The place of a route of this listener, for requests by its own method or by HEAD.
    pub(super) fn place<A: Authenticator>(&self, route: &Route<A>, is_head: bool) -> CountedRoute {
        let place = A::routes().iter().position(|known| ptr::eq(known, route));
        let is_other = is_head && route.method == Method::Get;
        place.map_or(self.unknown(), |place| CountedRoute(2 * place + usize::from(is_other)))
    }

    /// Counts a request whose answer is ready.
    pub(super) fn answered(
        &self,
        CountedRoute(place): CountedRoute,
        status: StatusCode,
        problem: Option<ProblemKind>,
        took: Duration,
    ) {
        let Some(route) = self.routes.get(place) else { return };
        let class = usize::from(status.as_u16() / 100).saturating_sub(1);
        if let Some(times) = route.by_class.get(class) {
            times.add(took);
        }
        if let Some(count) = problem.and_then(|problem| route.by_problem.get(problem as usize)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts a request that exceeded a rate.
    pub(super) fn rate_exceeded(&self, policy: RatePolicy) {
        if let Some(count) = self.rates_exceeded.get(policy as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The outcomes of the requests of an endpoint so far.
    pub(super) fn outcomes<E: Endpoint>(&self) -> Outcomes {
        let mut outcomes = Outcomes::default();
        let Some(route) = self.of::<E>() else { return outcomes };
        outcomes.accepted = route.by_class.get(SUCCESS).map_or(0, |times| times.read().count);
        for (problem, count) in route.problems() {
            let about = problem.about();
            if problem == ProblemKind::StaleEpoch {
                outcomes.late += count;
            } else if about.status >= 500 {
                outcomes.failed += count;
            } else {
                outcomes.refused += count;
            }
        }
        outcomes
    }

    /// The times of the successes of an endpoint so far.
    pub(super) fn success_times<E: Endpoint>(&self) -> Option<Distribution> {
        Some(self.of::<E>()?.by_class.get(SUCCESS)?.read())
    }

    /// The times of the requests of all routes so far for whose templates the condition holds: all of them, and those that
    /// failed here.
    pub(super) fn times(&self, holds: impl Fn(&str) -> bool) -> impl Iterator<Item = (Distribution, bool)> {
        let routes = self.routes.iter().filter(move |route| holds(route.template));
        routes.flat_map(|route| {
            route.by_class.iter().enumerate().map(|(class, times)| (times.read(), class == FAILURE))
        })
    }

    /// The shares of its callers.
    pub(super) fn shares(&self) -> &ListenerShares {
        &self.shares
    }

    /// The counts of an endpoint, by its own method.
    fn of<E: Endpoint>(&self) -> Option<&RouteCounts> {
        let is_it = |route: &&RouteCounts| route.template == E::PATH && route.method == E::METHOD.as_str();
        self.routes.iter().find(is_it)
    }
}

/// Writes the metrics of these listeners.
pub(super) fn write(listeners: &[Arc<ListenerCounts>], text: &mut MetricsText) {
    write_requests(listeners, text);
    write_pools(listeners, text);
    write_rates(listeners, text);
    let help = "Commits uploaded, by outcome and the problem that answered them.";
    write_outcomes::<UploadCommit>(listeners, text, "mimi_gateway_commits_total", help);
    let help = "Proposals uploaded, by outcome and the problem that answered them.";
    write_outcomes::<UploadProposal>(listeners, text, "mimi_gateway_proposals_total", help);
    let help = "Key packages asked for, by outcome and the problem that answered.";
    write_outcomes::<RetrieveKeyPackage>(listeners, text, "mimi_gateway_key_package_claims_total", help);
}

fn write_requests(listeners: &[Arc<ListenerCounts>], text: &mut MetricsText) {
    let mut family = text.family(Metric {
        name: "mimi_gateway_http_request_duration_seconds",
        kind: MetricKind::Histogram,
        help: "Time from the header of a request until its answer is ready; of a stream, until it begins.",
    });
    for counts in listeners {
        for route in &counts.routes {
            for (class, times) in CLASSES.into_iter().zip(&route.by_class) {
                let times = times.read();
                if times.count > 0 {
                    let labels = [
                        ("listener", counts.listener),
                        ("method", route.method),
                        ("route", route.template),
                        ("status", class),
                    ];
                    family.histogram(&labels, &times);
                }
            }
        }
    }
    let mut family = text.family(Metric {
        name: "mimi_gateway_http_problems_total",
        kind: MetricKind::Counter,
        help: "Requests that a problem document answered, by its type.",
    });
    for counts in listeners {
        for route in &counts.routes {
            for (problem, count) in route.problems() {
                let labels = [
                    ("listener", counts.listener),
                    ("method", route.method),
                    ("route", route.template),
                    ("problem", problem.about().slug),
                ];
                family.sample(&labels, count);
            }
        }
    }
}

/// Writes the amounts that callers hold now, and the most that they may hold.
fn write_pools(listeners: &[Arc<ListenerCounts>], text: &mut MetricsText) {
    type Amount = fn(&ListenerShares) -> usize;
    let families: [(&str, &str, Amount); 6] = [
        ("mimi_gateway_http_requests_in_flight", "Requests in flight.", |shares| shares.requests().held()),
        ("mimi_gateway_http_requests_in_flight_max", "The limit on requests in flight.", |shares| {
            shares.requests().max()
        }),
        ("mimi_gateway_http_event_streams", "Open event streams.", |shares| shares.streams().held()),
        ("mimi_gateway_http_event_streams_max", "The limit on event streams.", |shares| {
            shares.streams().max()
        }),
        ("mimi_gateway_http_unread_bytes", "Bytes of answers that clients have not read.", |shares| {
            shares.unread().held()
        }),
        ("mimi_gateway_http_unread_max_bytes", "The limit on these bytes.", |shares| shares.unread().max()),
    ];
    for (name, help, amount) in families {
        let mut family = text.family(Metric { name, kind: MetricKind::Gauge, help });
        for counts in listeners {
            family.sample(&[("listener", counts.listener)], amount(&counts.shares));
        }
    }
}

/// Writes how many requests exceeded each of the rates of a listener.
fn write_rates(listeners: &[Arc<ListenerCounts>], text: &mut MetricsText) {
    let mut family = text.family(Metric {
        name: "mimi_gateway_http_rate_exceeded_total",
        kind: MetricKind::Counter,
        help: "Requests that were refused because they exceeded a rate, by its policy.",
    });
    for counts in listeners {
        for (policy, count) in RatePolicy::ALL.into_iter().zip(&counts.rates_exceeded) {
            if policy.is_of(counts.listener) {
                let labels = [("listener", counts.listener), ("policy", policy.name())];
                family.sample(&labels, count.load(Ordering::Relaxed));
            }
        }
    }
}

/// Writes the outcomes of the requests of one endpoint.
fn write_outcomes<E: Endpoint>(
    listeners: &[Arc<ListenerCounts>],
    text: &mut MetricsText,
    name: &'static str,
    help: &'static str,
) {
    let mut family = text.family(Metric { name, kind: MetricKind::Counter, help });
    for counts in listeners {
        let Some(route) = counts.of::<E>() else { continue };
        let accepted = route.by_class.get(SUCCESS).map_or(0, |times| times.read().count);
        let labels = [("listener", counts.listener), ("outcome", "accepted"), ("reason", "")];
        family.sample(&labels, accepted);
        for (problem, count) in route.problems() {
            let about = problem.about();
            let outcome = if about.status >= 500 { "failed" } else { "refused" };
            let labels = [("listener", counts.listener), ("outcome", outcome), ("reason", about.slug)];
            family.sample(&labels, count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::ListenerSettings,
        http::{auth::Tokens, route::ROUTES},
    };

    #[test]
    fn requests_are_counted_at_their_route_class_and_problem() {
        let counts = ListenerCounts::new::<Tokens>(ListenerShares::new(&ListenerSettings::default()));
        let commits = ROUTES.iter().find(|route| route.template == UploadCommit::PATH).unwrap();
        let healthz = ROUTES.iter().find(|route| route.template == "/healthz").unwrap();
        let ms = Duration::from_millis;
        for _ in 0..3 {
            counts.answered(counts.place(commits, false), StatusCode::CREATED, None, ms(2));
        }
        let stale = Some(ProblemKind::StaleEpoch);
        counts.answered(counts.place(commits, false), StatusCode::CONFLICT, stale, ms(1));
        let storage = Some(ProblemKind::StorageUnavailable);
        counts.answered(counts.place(commits, false), StatusCode::SERVICE_UNAVAILABLE, storage, ms(1));
        counts.answered(counts.place(healthz, true), StatusCode::OK, None, ms(1));
        let unknown = Some(ProblemKind::UnknownRoute);
        counts.answered(counts.unknown(), StatusCode::NOT_FOUND, unknown, ms(1));

        let mut text = MetricsText::default();
        write(&[Arc::new(counts)], &mut text);
        let text = text.finish();
        for line in [
            r#"mimi_gateway_commits_total{listener="internal",outcome="accepted",reason=""} 3"#,
            r#"mimi_gateway_commits_total{listener="internal",outcome="refused",reason="stale-epoch"} 1"#,
            r#"mimi_gateway_commits_total{listener="internal",outcome="failed",reason="storage-unavailable"} 1"#,
            r#"mimi_gateway_proposals_total{listener="internal",outcome="accepted",reason=""} 0"#,
            r#"mimi_gateway_http_request_duration_seconds_count{listener="internal",method="PUT",route="/apps/{appId}/groups/{groupId}/epochs",status="2xx"} 3"#,
            r#"mimi_gateway_http_request_duration_seconds_sum{listener="internal",method="PUT",route="/apps/{appId}/groups/{groupId}/epochs",status="2xx"} 0.006"#,
            r#"mimi_gateway_http_request_duration_seconds_count{listener="internal",method="HEAD",route="/healthz",status="2xx"} 1"#,
            r#"mimi_gateway_http_request_duration_seconds_count{listener="internal",method="-",route="-",status="4xx"} 1"#,
            r#"mimi_gateway_http_problems_total{listener="internal",method="-",route="-",problem="unknown-route"} 1"#,
            r#"mimi_gateway_http_requests_in_flight{listener="internal"} 0"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in {text}");
        }
        assert!(!text.contains(r#"method="GET",route="/healthz""#), "{text}");
    }

    #[test]
    fn the_number_of_a_problem_is_its_place() {
        for (place, problem) in ProblemKind::ALL.iter().enumerate() {
            assert_eq!(*problem as usize, place);
        }
    }
}
