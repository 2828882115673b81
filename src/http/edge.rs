//! What all requests share, and how one goes: route, caller, permission, body, answer.

use std::{
    any::Any,
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use actix_web::{
    HttpRequest, HttpResponse,
    body::{BodySize, BoxBody, MessageBody},
    http::header,
    web::{Bytes, Payload},
};
use actors::Gateway;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    auth::{Authority, Tokens},
    body::{BodyLimits, ReceivedBody},
    cursor::Cursors,
    problem::Problem,
    route::{self, Arrived, Route, Running},
};
use crate::{
    api::{applications::ApplicationConfiguration, federation::GatewayDescription, problem::ProblemKind},
    config::ListenerLimits,
    federation::Federation,
};

/// What handlers work with, on every listener.
#[derive(Clone)]
pub(crate) struct Served {
    pub(crate) gateway: Gateway,
    pub(crate) cursors: Arc<Cursors>,
    /// What `GET /apps` answers.
    pub(crate) public_applications: Arc<[ApplicationConfiguration]>,
    /// What `GET /.well-known/mimi-gateway` answers.
    pub(crate) description: Arc<GatewayDescription>,
    /// The gateways of other domains, where there are any.
    pub(crate) federation: Option<Arc<Federation>>,
}

/// What all requests of one listener share.
pub(crate) struct Edge<A: Authority = Tokens> {
    pub(crate) gateway: Gateway,
    pub(crate) cursors: Arc<Cursors>,
    pub(crate) public_applications: Arc<[ApplicationConfiguration]>,
    pub(crate) description: Arc<GatewayDescription>,
    pub(crate) federation: Option<Arc<Federation>>,
    authority: A,
    bodies: BodyLimits,
    header_bytes_max: usize,
    requests: Arc<Semaphore>,
    requests_max: usize,
    is_stopping: AtomicBool,
}

impl<A: Authority> Edge<A> {
    pub(crate) fn new(served: Served, authority: A, limits: &ListenerLimits) -> Self {
        let requests_max = limits.requests_in_flight_max.min(Semaphore::MAX_PERMITS);
        Self {
            gateway: served.gateway,
            cursors: served.cursors,
            public_applications: served.public_applications,
            description: served.description,
            federation: served.federation,
            authority,
            bodies: BodyLimits::new(
                limits.request_bytes_max,
                limits.requests_in_flight_bytes_max,
                Duration::from_secs(limits.request_body_timeout_s),
            ),
            header_bytes_max: limits.header_bytes_max,
            requests: Arc::new(Semaphore::new(requests_max)),
            requests_max,
            is_stopping: AtomicBool::new(false),
        }
    }

    /// Who may ask.
    pub(crate) fn authority(&self) -> &A {
        &self.authority
    }

    /// Takes no new requests from now on.
    pub(crate) fn refuse_new_requests(&self) {
        self.is_stopping.store(true, Ordering::Release);
    }

    /// Waits until every request in flight is answered.
    pub(crate) async fn finish_requests(&self) {
        let all = u32::try_from(self.requests_max).unwrap_or(u32::MAX);
        // It fails only when the semaphore is closed, and nobody closes it.
        let _ = self.requests.acquire_many(all).await;
    }

    /// Whether requests are answered: not when the gateway stops or its disk has failed.
    pub(crate) fn is_ready(&self) -> bool {
        !self.is_stopping.load(Ordering::Acquire) && self.gateway.is_ready()
    }

    /// Answers one request. Every error is a problem document.
    pub(crate) async fn answer(self: Arc<Self>, request: HttpRequest, payload: Payload) -> HttpResponse {
        let started = Instant::now();
        let path = request.uri().path();
        let found = self
            .check_headers(&request)
            .and_then(|()| route::find(A::routes(), request.method().as_str(), path));
        let (template, outcome) = match found {
            Ok((route, members)) => {
                (route.template, self.answer_on(route, &members, &request, payload).await)
            }
            Err(problem) => ("-", Err(problem)),
        };
        let mut response = outcome.unwrap_or_else(|problem| {
            if problem.kind().about().status >= 500 {
                tracing::warn!(
                    route = template,
                    problem = problem.kind().about().slug,
                    "{}",
                    problem.detail()
                );
            }
            problem.into_response(path)
        });
        response
            .headers_mut()
            .insert(header::X_CONTENT_TYPE_OPTIONS, header::HeaderValue::from_static("nosniff"));
        if !response.headers().contains_key(header::CACHE_CONTROL) {
            response
                .headers_mut()
                .insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
        }
        tracing::debug!(
            method = %request.method(),
            route = template,
            status = response.status().as_u16(),
            micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX),
            "answered"
        );
        response
    }

    async fn answer_on(
        self: Arc<Self>,
        route: &Route<A>,
        members: &[&str],
        request: &HttpRequest,
        payload: Payload,
    ) -> Result<HttpResponse, Problem> {
        let permit = if route.is_probe { None } else { Some(self.admit()?) };
        let caller = self.authority.admit(request, route, members)?;
        let body = if route.has_body {
            self.bodies.receive(request, payload).await?
        } else {
            ReceivedBody::default()
        };
        let accept = request.headers().get(header::ACCEPT).and_then(|value| value.to_str().ok());
        let arrived = Arrived {
            members: members.iter().map(|segment| (*segment).to_owned()).collect(),
            query: request.uri().query().unwrap_or_default().to_owned(),
            body,
            accept: accept.unwrap_or_default().to_owned(),
            caller,
            edge: self,
        };
        let response = caught((route.run)(arrived)).await?;
        Ok(response.map_body(|_, body| BoxBody::new(InFlight { body, _permit: permit })))
    }

    fn check_headers(&self, request: &HttpRequest) -> Result<(), Problem> {
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

    fn admit(&self) -> Result<OwnedSemaphorePermit, Problem> {
        if self.is_stopping.load(Ordering::Acquire) {
            return Err(Problem::shutting_down());
        }
        Arc::clone(&self.requests)
            .try_acquire_owned()
            .map_err(|_| Problem::too_many_requests("the gateway has as many requests at once as it takes"))
    }
}

/// The body of an answer, in flight until it is handed to the connection.
struct InFlight {
    body: BoxBody,
    _permit: Option<OwnedSemaphorePermit>,
}

impl MessageBody for InFlight {
    type Error = Box<dyn std::error::Error>;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        Pin::new(&mut self.get_mut().body).poll_next(cx)
    }
}

/// Runs a handler; a panic in it is an answer too, and no reason to drop the connection.
async fn caught(mut running: Running) -> Result<HttpResponse, Problem> {
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
