//! The pipeline of every request of a listener: route, caller, permission, body, answer.

use std::{
    any::Any,
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    time::{Duration, Instant},
};

use actix_http::{HttpMessage as _, Payload, Request, Response, body::BoxBody};
use actix_web::{
    HttpResponse,
    http::{Method, Version, header},
};
use actors::Gateway;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::Instrument as _;

use super::{
    access_log::{self, AccessLine},
    auth::{Authenticator, Tokens},
    body::{BodyLimits, ReceivedBody},
    callers::{CallerShares, ComputeTurn, ListenerShares},
    compression,
    counts::ListenerCounts,
    cursor::Cursors,
    peer_auth::PEERS,
    problem::Problem,
    rates::RateFields,
    request_id::{REQUEST_ID, RequestId},
    route::{self, Arrived, PendingResponse, RequestFields, Route},
    unread::{self, StreamShare, Visit},
};
use crate::{
    api::{applications::ApplicationConfiguration, federation::GatewayDescription, problem::ProblemKind},
    config::ListenerSettings,
    federation::Federation,
    metrics::ReloadCounts,
    shares::{Full, HeldShare},
    traces,
};

/// Large bodies that are decoded at once, each on a thread of its own.
const DECODED_AT_ONCE: usize = 2;
/// The period of checks for unanswered requests while the gateway stops.
const FINISH_PERIOD: Duration = Duration::from_millis(5);

/// The context of handlers, on every listener.
#[derive(Clone)]
pub(crate) struct Served {
    pub(crate) gateway: Gateway,
    pub(crate) cursors: Arc<Cursors>,
    /// The answer to `GET /apps`.
    pub(crate) public_applications: Arc<[ApplicationConfiguration]>,
    /// The answer to `GET /.well-known/mimi-gateway`.
    pub(crate) description: Arc<GatewayDescription>,
    /// The gateways of other domains, where there are any.
    pub(crate) federation: Option<Arc<Federation>>,
    /// Whether the gateway is about to stop: it is not ready, and still answers.
    pub(crate) is_draining: Arc<AtomicBool>,
    pub(crate) reloads: Arc<ReloadCounts>,
}

/// The state that all requests of one listener share.
pub(crate) struct Edge<A: Authenticator = Tokens> {
    pub(crate) gateway: Gateway,
    pub(crate) cursors: Arc<Cursors>,
    pub(crate) public_applications: Arc<[ApplicationConfiguration]>,
    pub(crate) description: Arc<GatewayDescription>,
    pub(crate) federation: Option<Arc<Federation>>,
    authority: A,
    bodies: BodyLimits,
    header_bytes_max: usize,
    shares: ListenerShares,
    counts: Arc<ListenerCounts>,
    /// The shares of all callers without credentials.
    anonymous: Arc<CallerShares>,
    is_draining: Arc<AtomicBool>,
    is_stopping: AtomicBool,
    /// The moment from which the times of rates are counted.
    begun: Instant,
    /// Large bodies that are decoded at once.
    decoding: Arc<Semaphore>,
}

impl<A: Authenticator> Edge<A> {
    /// An edge whose callers get their shares from `shares`.
    pub(crate) fn new(
        served: Served,
        authority: A,
        shares: ListenerShares,
        limits: &ListenerSettings,
    ) -> Self {
        Self {
            gateway: served.gateway,
            cursors: served.cursors,
            public_applications: served.public_applications,
            description: served.description,
            federation: served.federation,
            authority,
            bodies: BodyLimits::new(
                limits.request_bytes_max,
                Duration::from_secs(limits.request_body_timeout_s),
            ),
            header_bytes_max: limits.header_bytes_max,
            anonymous: Arc::new(shares.anonymous()),
            counts: Arc::new(ListenerCounts::new::<A>(shares.clone())),
            shares,
            is_draining: served.is_draining,
            is_stopping: AtomicBool::new(false),
            begun: Instant::now(),
            decoding: Arc::new(Semaphore::new(DECODED_AT_ONCE)),
        }
    }

    /// The authentication of callers.
    pub(crate) fn authority(&self) -> &A {
        &self.authority
    }

    /// The counts of its requests.
    pub(crate) fn counts(&self) -> &Arc<ListenerCounts> {
        &self.counts
    }

    /// Waits for a turn to decode a large body.
    pub(super) async fn decoding(&self) -> Option<OwnedSemaphorePermit> {
        // It fails only when the semaphore is closed, which never happens.
        Arc::clone(&self.decoding).acquire_owned().await.ok()
    }

    /// Takes no new requests from now on.
    pub(crate) fn refuse_new_requests(&self) {
        self.is_stopping.store(true, Ordering::Release);
        self.gateway.end_streams();
    }

    /// Waits until every request in flight is answered and every answer is read.
    pub(crate) async fn finish_requests(&self) {
        while self.shares.is_any_held() {
            tokio::time::sleep(FINISH_PERIOD).await;
        }
    }

    /// Whether requests are answered: not when the gateway stops or its disk has failed.
    pub(crate) fn is_ready(&self) -> bool {
        let ends = self.is_stopping.load(Ordering::Acquire) || self.is_draining.load(Ordering::Acquire);
        !ends && self.gateway.is_ready()
    }

    /// Answers one request. Every error is a problem document.
    pub(crate) async fn answer(self: Arc<Self>, mut request: Request) -> Response<BoxBody> {
        let started = Instant::now();
        let id = RequestId::of(request.headers());
        let visit = Visit::of(&request);
        let payload = request.take_payload();
        visit.begin(!matches!(payload, Payload::None));
        let path = request.uri().path();
        let found = self
            .check_headers(&request)
            .and_then(|()| route::find(A::routes(), request.method().as_str(), path));
        let counts = Arc::clone(&self.counts);
        let mut access = AccessLine::new(&counts, &id, request.method(), started);
        let mut rates = RateFields::default();
        let outcome = match found {
            Ok((route, members)) => {
                access.found(route, &members);
                let decides = self.may_decide_traces(&request, route, &members);
                let span = access.begin_span(request.headers(), decides);
                let answering =
                    Arc::clone(&self).answer_on((route, &members), &request, payload, &visit, &mut rates);
                answering.instrument(span).await
            }
            Err(problem) => Err(problem),
        };
        let (mut response, held) = outcome.unwrap_or_else(|problem| {
            access.failed(&problem);
            (problem.into_response(path, &id), None)
        });
        rates.write(response.headers_mut());
        finish_headers(&mut response, &id);
        access.log(response.status());
        visit.answer(response, held)
    }

    /// Whether a client that waits for `100 Continue` should send the body of its request (RFC 9110 §10.1.1). If the headers
    /// show that the request will be refused, it is answered without its body.
    pub(crate) fn may_continue(&self, request: Request) -> Result<Request, Response<BoxBody>> {
        let (started, id) = (Instant::now(), RequestId::of(request.headers()));
        let path = request.uri().path();
        let mut access = AccessLine::new(&self.counts, &id, request.method(), started);
        let mut rates = RateFields::default();
        let outcome = self.check_headers(&request).and_then(|()| {
            let (route, members) = route::find(A::routes(), request.method().as_str(), path)?;
            access.found(route, &members);
            if let (_, Some(shares)) = self.authority.admit(&request, route, &members)? {
                let exceeded = shares.rates.look(self.begun.elapsed(), &mut rates);
                exceeded.inspect_err(|exceeded| self.counts.rate_exceeded(exceeded.policy))?;
            }
            if route.has_body {
                self.bodies.check_headers(request.headers(), route.body_bytes_max)
            } else {
                Ok(())
            }
        });
        match outcome {
            Ok(()) => Ok(request),
            Err(problem) => {
                let visit = Visit::of(&request);
                visit.begin(true);
                access.failed(&problem);
                let mut response = problem.into_response(path, &id);
                rates.write(response.headers_mut());
                finish_headers(&mut response, &id);
                access.log(response.status());
                Err(visit.answer(response, None))
            }
        }
    }

    /// Whether the caller may decide that its trace is recorded here: one with a token, and no gateway of another domain.
    fn may_decide_traces(&self, request: &Request, route: &Route<A>, members: &[&str]) -> bool {
        request.headers().contains_key(traces::TRACEPARENT)
            && A::LISTENER != PEERS
            && self.authority.admit(request, route, members).is_ok_and(|(_, shares)| shares.is_some())
    }

    async fn answer_on(
        self: Arc<Self>,
        (route, members): (&Route<A>, &[&str]),
        request: &Request,
        payload: Payload,
        visit: &Visit,
        rates: &mut RateFields,
    ) -> Result<(HttpResponse, Option<HeldShare>), Problem> {
        check_expectation(request)?;
        check_upgrade(request, route.has_body)?;
        let (caller, shares) = self.authority.admit(request, route, members)?;
        let shares = shares.unwrap_or_else(|| Arc::clone(&self.anonymous));
        let counted = shares.rates.count((route.template, members), self.begun.elapsed(), rates);
        counted.inspect_err(|exceeded| self.counts.rate_exceeded(exceeded.policy))?;
        let permit = if route.is_probe { None } else { Some(self.admit(&shares, visit)?) };
        let body = if route.has_body {
            visit.receive();
            let body = self
                .bodies
                .receive(request.headers(), payload, route.body_bytes_max, &shares.received)
                .await?;
            visit.serve();
            body
        } else {
            ReceivedBody::default()
        };
        let turn = Rc::new(ComputeTurn::new(Arc::clone(&shares)));
        let fields = fields(request);
        let takes_gzip = fields.takes_gzip;
        let arrived = Arrived {
            members: members.iter().map(|segment| (*segment).to_owned()).collect(),
            query: request.uri().query().unwrap_or_default().to_owned(),
            body,
            fields,
            caller,
            turn: Rc::clone(&turn),
            edge: Arc::clone(&self),
        };
        let mut response = caught((route.run)(arrived)).await?;
        self.authority.complete(members, response.headers_mut());
        let stream = response.extensions_mut().remove();
        if let Some(StreamShare(share)) = stream {
            return Ok((response, Some(share)));
        }
        let response = compression::compressed(response, takes_gzip).await?;
        // The answer is computed. From now on its bytes are counted, until the client has read them.
        let bytes = unread::bytes_held(&response);
        let held = match permit {
            Some(permit) => match shares.unread.take(bytes) {
                Ok(held) => Some(held),
                // The write may be done already, so the answer is not refused: it keeps its share of the requests.
                Err(_) if bytes <= unread::SMALL_ANSWER_BYTES => Some(permit),
                Err(_) => Some(shares.room_for_answer(bytes).await.map_err(too_much_unread)?),
            },
            None => None,
        };
        drop(turn);
        Ok((response, held))
    }

    fn check_headers(&self, request: &Request) -> Result<(), Problem> {
        let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
        let fields = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len());
        if target + fields.sum::<usize>() <= self.header_bytes_max {
            return Ok(());
        }
        let max = self.header_bytes_max;
        Err(Problem::new(
            ProblemKind::HeadersTooLarge,
            format!("the request line and the header fields have at most {max} bytes together"),
        ))
    }

    /// Admits a request, within the shares of its caller.
    fn admit(&self, shares: &CallerShares, visit: &Visit) -> Result<HeldShare, Problem> {
        if self.is_stopping.load(Ordering::Acquire) {
            return Err(Problem::shutting_down());
        }
        if visit.is_reserve() {
            return Err(Problem::too_many_requests(
                "the gateway has reached its limit of connections; try again in a moment",
            ));
        }
        if !visit.is_held_by(shares.holder) {
            return Err(Problem::too_many_requests(
                "the caller has reached the limit of connections for one caller, and all of them are in use; use \
                 fewer, and keep them open",
            ));
        }
        shares.requests.take(1).map_err(|full| match full {
            Full::Share { max } => Problem::too_many_requests(format!(
                "the caller has {max} requests in flight, the limit for one caller; wait for answers"
            )),
            Full::Pool { .. } => Problem::too_many_requests(
                "the gateway has reached its limit of requests in flight; try again in a moment",
            ),
        })
    }
}

/// The header fields that handlers use.
fn fields(request: &Request) -> RequestFields {
    let text = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
    // What is not text is no id either.
    let last_event_id = request.headers().get("last-event-id").map(|value| value.to_str().unwrap_or("?"));
    RequestFields {
        is_head: request.method() == Method::HEAD,
        accept: text(header::ACCEPT).unwrap_or_default().to_owned(),
        if_none_match: request.get_header::<header::IfNoneMatch>(),
        takes_gzip: compression::takes_gzip(request.headers()),
        last_event_id: last_event_id.map(str::to_owned),
    }
}

/// The headers of every answer.
fn finish_headers(response: &mut HttpResponse, id: &RequestId) {
    if let Some(id) = id.header() {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
        .headers_mut()
        .insert(header::X_CONTENT_TYPE_OPTIONS, header::HeaderValue::from_static("nosniff"));
    if !response.headers().contains_key(header::CACHE_CONTROL) {
        response.headers_mut().insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    }
}

/// The only defined expectation is `100-continue` (RFC 9110 §10.1.1); HTTP/1.0 has none.
fn check_expectation(request: &Request) -> Result<(), Problem> {
    let is_met = |value: &header::HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"100-continue");
    if request.version() == Version::HTTP_10 || request.headers().get_all(header::EXPECT).all(is_met) {
        return Ok(());
    }
    Err(Problem::new(
        ProblemKind::ExpectationFailed,
        "the only expectation that the gateway meets is `Expect: 100-continue`",
    ))
}

/// The gateway upgrades no connection. It ignores `Upgrade` (RFC 9110 §7.8), except when the HTTP/1.1 parser then does not know
/// the end of the body.
fn check_upgrade(request: &Request, has_body: bool) -> Result<(), Problem> {
    let headers = request.headers();
    let has_length =
        headers.contains_key(header::CONTENT_LENGTH) || headers.contains_key(header::TRANSFER_ENCODING);
    let asks = headers.get_all(header::UPGRADE).next().is_some();
    if asks && (has_body || has_length) {
        return Err(Problem::malformed(
            "a request with a body cannot ask to upgrade the connection; send it without the Upgrade header",
        ));
    }
    Ok(())
}

fn too_much_unread(full: Full) -> Problem {
    match full {
        Full::Share { max } => Problem::too_many_requests(format!(
            "the caller has not read {max} bytes or more of answers; read them first"
        )),
        Full::Pool { .. } => Problem::too_many_requests(
            "the gateway has reached its limit of unread answers; try again in a moment",
        ),
    }
}

/// The answer to a request that the HTTP/1.1 parser refused: a problem document, like every other error.
pub(crate) fn refusal_of_parser(status: u16) -> Vec<u8> {
    let is_of = |kind: ProblemKind| status == kind.about().status;
    let problem = if is_of(ProblemKind::HeadersTooLarge) {
        Problem::new(
            ProblemKind::HeadersTooLarge,
            "the request line and the header fields exceed the gateway's limit in number or size",
        )
    } else if is_of(ProblemKind::TooManyRequests) {
        Problem::too_many_requests("the gateway has reached its limit of long headers; try again in a moment")
    } else {
        Problem::malformed("this is not a request in HTTP/1.1 (RFC 9112); the connection is closed")
    };
    access_log::log_malformed(status, &problem);
    problem.into_http()
}

/// Runs a handler; a panic in it becomes an answer, and the connection stays open.
async fn caught(mut running: PendingResponse) -> Result<HttpResponse, Problem> {
    poll_fn(move |cx| {
        catch_unwind(AssertUnwindSafe(|| running.as_mut().poll(cx))).unwrap_or_else(|panic| {
            tracing::error!(panic = message(panic.as_ref()), "a request handler panicked");
            Poll::Ready(Err(Problem::internal()))
        })
    })
    .await
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("not a text")
}
