//! The access log: a line for each request, with the target `access`. The request is counted at the same time.
//!
//! A line names the application, the template of the route and the problem, and nothing else that the caller chose except a
//! plain request id: no path, header field, body or answer.

use std::time::{Duration, Instant};

use actix_web::http::{Method, StatusCode, header::HeaderMap};
use actors::AppId;
use tracing::Span;

use super::{
    auth::{Authenticator, app_id},
    counts::{CountedRoute, ListenerCounts},
    problem::Problem,
    request_id::RequestId,
    route::Route,
};
use crate::{
    api::{
        paths::is_member,
        problem::{ProblemKind, ProblemType},
    },
    logging::ACCESS,
    traces,
};

/// The text for an unknown route, and for a method that HTTP does not define.
const UNKNOWN: &str = "-";
/// The member of a template that names an application.
const APPLICATION: &str = "{appId}";

/// A request, for its line in the log and the counts of its listener.
pub(super) struct AccessLine<'a> {
    counts: &'a ListenerCounts,
    counted: CountedRoute,
    id: &'a RequestId,
    method: &'static str,
    started: Instant,
    app: Option<AppId>,
    route: &'static str,
    is_probe: bool,
    problem: Option<ProblemKind>,
    span: Span,
}

impl<'a> AccessLine<'a> {
    pub(super) fn new(
        counts: &'a ListenerCounts,
        id: &'a RequestId,
        method: &Method,
        started: Instant,
    ) -> Self {
        Self {
            counts,
            counted: counts.unknown(),
            id,
            method: known(method),
            started,
            app: None,
            route: UNKNOWN,
            is_probe: false,
            problem: None,
            span: Span::none(),
        }
    }

    /// The span of the request, whose route is known by now if it has one. A caller that `decides` says whether it is recorded.
    pub(super) fn begin_span(&mut self, headers: &HeaderMap, decides: bool) -> Span {
        self.span = traces::request(self.method, self.route, (self.counts.listener, decides), headers);
        self.span.clone()
    }

    /// Notes the route and its members, which are still percent-encoded.
    pub(super) fn found<A: Authenticator>(&mut self, route: &Route<A>, members: &[&str]) {
        self.counted = self.counts.place(route, self.method == Method::HEAD.as_str());
        self.route = route.template;
        self.is_probe = route.is_probe;
        if route.template.split('/').find(|segment| is_member(segment)) == Some(APPLICATION) {
            self.app = members.first().and_then(|segment| app_id(segment));
        }
    }

    /// Notes the problem that answers it, and logs it if it is the gateway's fault.
    pub(super) fn failed(&mut self, problem: &Problem) {
        let ProblemType { slug, status, .. } = *problem.kind().about();
        self.problem = Some(problem.kind());
        if status >= 500 {
            tracing::warn!(id = %self.id, route = self.route, problem = slug, "{}", problem.detail());
        }
    }

    /// Logs and counts it, when its answer is ready. A stream is logged when it begins.
    pub(super) fn log(&self, status: StatusCode) {
        let took = self.started.elapsed();
        self.counts.answered(self.counted, status, self.problem, took);
        let (application, ms) = (self.app.map(tracing::field::display), milliseconds(took));
        let problem = self.problem.map(|problem| problem.about().slug);
        traces::answered(&self.span, self.id, self.app, status, problem);
        macro_rules! log {
            ($level:ident) => {
                tracing::$level!(
                    target: ACCESS,
                    id = %self.id,
                    listener = self.counts.listener,
                    application,
                    method = self.method,
                    route = self.route,
                    status = status.as_u16(),
                    problem,
                    ms,
                    "answered"
                )
            };
        }
        if self.is_probe { log!(debug) } else { log!(info) }
    }
}

/// Logs a request that the HTTP/1.1 parser refused.
pub(super) fn log_malformed(status: u16, problem: &Problem) {
    tracing::info!(target: ACCESS, status, problem = problem.kind().about().slug, "refused");
}

fn milliseconds(took: Duration) -> f64 {
    let micros = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
    f64::from(micros) / 1000.0
}

/// A method by its name in HTTP; others are the caller's own text.
fn known(method: &Method) -> &'static str {
    let known = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE"];
    known.into_iter().find(|name| *name == method.as_str()).unwrap_or(UNKNOWN)
}
