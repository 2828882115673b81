//! The table of routes, for serving and for the OpenAPI document.

use std::{future::Future, pin::Pin, rc::Rc, sync::Arc};

use actix_web::{
    HttpResponse,
    http::{
        StatusCode,
        header::{self, EntityTag, IfNoneMatch},
    },
};
use serde::Serialize;

use super::{
    auth::{Authenticator, Tokens},
    body::ReceivedBody,
    callers::ComputeTurn,
    edge::Edge,
    event_body::EventBody,
    json,
    openapi::{self, Description},
    pages,
    problem::Problem,
    query,
    unread::StreamShare,
};
use crate::{
    api::{
        self, Access, Body as _, Endpoint, Method,
        events::EVENT_STREAM,
        paths::{PathMembers as _, is_member},
        percent,
        problem::ProblemKind,
    },
    shares::HeldShare,
};

/// Every route of the internal listener.
pub(super) static ROUTES: &[Route] = &[
    Route::of::<api::federation::Discover>(),
    Route::of::<api::applications::ListApplications>(),
    Route::of::<api::external_senders::ListExternalSenders>(),
    Route::of::<api::clients::RegisterClient>(),
    Route::of::<api::clients::FindClients>(),
    Route::of::<api::clients::GetClient>(),
    Route::of::<api::clients::ChangeClient>(),
    Route::of::<api::clients::DeleteClient>(),
    Route::of::<api::clients::ListGroupsOfClient>(),
    Route::of::<api::key_packages::CreateKeyQueue>(),
    Route::of::<api::key_packages::ListKeyQueues>(),
    Route::of::<api::key_packages::UploadKeyPackages>(),
    Route::of::<api::key_packages::DeleteKeyQueue>(),
    Route::of::<api::key_packages::RetrieveKeyPackage>(),
    Route::of::<api::groups::CreateGroup>(),
    Route::of::<api::groups::ListGroups>(),
    Route::of::<api::groups::GetGroup>(),
    Route::of::<api::groups::DeleteGroup>(),
    Route::of::<api::groups::UploadProposal>(),
    Route::of::<api::groups::ListProposals>(),
    Route::of::<api::groups::UploadCommit>(),
    Route::of::<api::groups::ListControlMessages>(),
    Route::of::<api::reports::ReportEpoch>(),
    Route::of::<api::joining::GetGroupInfo>(),
    Route::of::<api::joining::ListWelcomes>(),
    Route::of::<api::joining::AcknowledgeWelcome>(),
    Route::of::<api::events::StreamApplicationEvents>(),
    Route::of::<api::events::StreamGroupEvents>(),
    pages::START,
    pages::ICON,
    pages::healthz(),
    pages::readyz(),
    pages::OPENAPI,
    pages::DOCS,
    pages::DOCS_FILE,
    pages::PROBLEMS,
    pages::PROBLEM,
];

/// One path and method.
pub(crate) struct Route<A: Authenticator = Tokens> {
    pub(super) method: Method,
    pub(super) template: &'static str,
    pub(super) access: Access,
    /// Whether it has a body.
    pub(super) has_body: bool,
    /// The greatest size of its body, in bytes, if that is less than the listener's limit.
    pub(super) body_bytes_max: usize,
    /// Whether it is answered even when there are too many requests and while the gateway stops.
    pub(super) is_probe: bool,
    pub(super) run: fn(Arrived<A>) -> PendingResponse,
    pub(super) description: Description,
}

/// The largest body or answer that is decoded or encoded on the thread of its connection, in bytes.
pub(super) const AT_ONCE_BYTES: usize = 128 << 10;

/// An answer in the making.
pub(super) type PendingResponse = Pin<Box<dyn Future<Output = Result<HttpResponse, Problem>>>>;

/// A request with its route that is allowed and has arrived completely.
pub(super) struct Arrived<A: Authenticator = Tokens> {
    pub(super) edge: Arc<Edge<A>>,
    /// The caller.
    pub(super) caller: A::Caller,
    /// The turn to compute an answer that may be large.
    pub(super) turn: Rc<ComputeTurn>,
    /// The raw segments at the template's members.
    pub(super) members: Vec<String>,
    /// The raw query string.
    pub(super) query: String,
    /// Empty if the route has no body.
    pub(super) body: ReceivedBody,
    /// The header fields that handlers use.
    pub(super) fields: RequestFields,
}

/// The header fields of a request that handlers use.
#[derive(Debug, Default)]
pub(super) struct RequestFields {
    /// Whether the method is HEAD.
    pub(super) is_head: bool,
    /// `Accept`, empty when there is none.
    pub(super) accept: String,
    /// `If-None-Match` (RFC 9110 §13.1.2), if it can be read.
    pub(super) if_none_match: Option<IfNoneMatch>,
    /// Whether the client takes gzip (RFC 9110 §12.5.3).
    pub(super) takes_gzip: bool,
    /// `Last-Event-ID` (WHATWG HTML).
    pub(super) last_event_id: Option<String>,
}

impl RequestFields {
    /// Whether the client asks for HTML, as browsers do. Other programs that show text accept everything.
    pub(super) fn takes_html(&self) -> bool {
        self.accept.to_ascii_lowercase().split(',').any(|range| {
            let mut parts = range.split(';').map(str::trim);
            let is_refused = |parameter: &str| {
                parameter.strip_prefix("q=").and_then(|weight| weight.parse().ok()) == Some(0.0_f32)
            };
            parts.next() == Some("text/html") && !parts.any(is_refused)
        })
    }
}

/// The route of a request, and the raw segments at its members.
pub(super) fn find<'a, A: Authenticator>(
    routes: &'static [Route<A>],
    method: &str,
    path: &'a str,
) -> Result<(&'static Route<A>, Vec<&'a str>), Problem> {
    let segments: Vec<&str> = path.split('/').collect();
    let serves = |route: &Route<A>| {
        route.method.as_str() == method || (method == "HEAD" && route.method == Method::Get)
    };
    // The method first, because it is compared faster than the path.
    if let Some(route) = routes.iter().find(|route| serves(route) && matches(route.template, &segments)) {
        return Ok((route, members(route.template, &segments)));
    }
    let mut allowed = Vec::new();
    for route in routes.iter().filter(|route| matches(route.template, &segments)) {
        allowed.push(route.method.as_str());
        if route.method == Method::Get {
            allowed.push("HEAD");
        }
    }
    if allowed.is_empty() {
        return Err(Problem::new(
            ProblemKind::UnknownRoute,
            "there is nothing at this path; /docs lists what there is",
        ));
    }
    let allow = allowed.join(", ");
    Err(Problem::new(ProblemKind::MethodNotAllowed, format!("this path accepts {allow}"))
        .header(header::ALLOW, allow))
}

/// Whether a path, by its segments, matches a template. Most templates do not, and most of those differ at the end, so the
/// comparison begins there and allocates only for escapes.
fn matches(template: &str, segments: &[&str]) -> bool {
    let is_same = |expected: &str, segment: &str| {
        is_member(expected)
            || segment == expected
            || (segment.contains('%') && percent::decode(segment).as_deref() == Some(expected.as_bytes()))
    };
    let mut segments = segments.iter().rev();
    template.rsplit('/').all(|expected| segments.next().is_some_and(|segment| is_same(expected, segment)))
        && segments.next().is_none()
}

/// The segments of a path at the members of a template that it matches.
fn members<'a>(template: &str, segments: &[&'a str]) -> Vec<&'a str> {
    let at_members = template.split('/').zip(segments).filter(|(expected, _)| is_member(expected));
    at_members.map(|(_, segment)| *segment).collect()
}

/// A request of the API, decoded.
pub(super) struct Call<E: Endpoint, A: Authenticator = Tokens> {
    pub(super) edge: Arc<Edge<A>>,
    /// The caller.
    pub(super) caller: A::Caller,
    /// The turn to compute an answer that may be large.
    pub(super) turn: Rc<ComputeTurn>,
    /// The header fields.
    pub(super) fields: RequestFields,
    pub(super) path: E::Path,
    pub(super) query: E::Query,
    pub(super) body: E::Body,
}

/// An answer of the API, not yet encoded.
pub(super) enum Answer<T> {
    /// 200.
    Ok(T),
    /// 201.
    Created(T),
    /// 202.
    Accepted(T),
    /// 200, with the JSON of the answer, which its handler wrote itself.
    Encoded(Vec<u8>),
    /// 204.
    NoContent,
    /// The answer inside, with its entity tag.
    Tagged(EntityTag, Box<Answer<T>>),
    /// 304: the caller has what the tag is of.
    NotModified(EntityTag),
    /// 200, and then events for as long as the reader stays, which holds a share of the streams.
    Events(EventBody, HeldShare),
}

/// The handler of one request of the API on a listener.
pub(super) trait Handle<A: Authenticator = Tokens>: Endpoint {
    fn handle(call: Call<Self, A>) -> impl Future<Output = Result<Answer<Self::Response>, Problem>>;
}

impl<A: Authenticator> Route<A> {
    pub(super) const fn of<E: Handle<A>>() -> Self {
        Self {
            method: E::METHOD,
            template: E::PATH,
            access: E::ACCESS,
            has_body: E::Body::IS_SENT,
            body_bytes_max: E::Body::BYTES_MAX,
            is_probe: false,
            run: |arrived| Box::pin(run::<E, A>(arrived)),
            description: Description::Endpoint(openapi::describe::<E>),
        }
    }
}

async fn run<E: Handle<A>, A: Authenticator>(arrived: Arrived<A>) -> Result<HttpResponse, Problem> {
    let Arrived { edge, caller, turn, members, query, body, fields } = arrived;
    let segments: Vec<&str> = members.iter().map(String::as_str).collect();
    let path = E::Path::read(&segments)?;
    let query = query::read(&query)?;
    let ReceivedBody { bytes, room } = body;
    let decoded = decode::<E, A>(&edge, bytes).await?;
    let answer = E::handle(Call { edge, caller, turn, fields, path, query, body: decoded }).await?;
    // The body keeps its room until now, because the decoded value is about as large.
    drop(room);
    encode(answer)
}

/// Decodes the body; a large one on a thread where it delays no other connection.
async fn decode<E: Endpoint, A: Authenticator>(edge: &Edge<A>, bytes: Vec<u8>) -> Result<E::Body, Problem> {
    if !E::Body::IS_SENT {
        // It is `Nothing`, the empty object.
        return json::read(b"{}");
    }
    if bytes.len() <= AT_ONCE_BYTES {
        return json::read(&bytes);
    }
    let turn = edge.decoding().await;
    apart(move || {
        let decoded = json::read(&bytes);
        drop(turn);
        decoded
    })
    .await?
}

/// Runs long work on a thread where it delays no other connection.
pub(super) async fn apart<R: Send + 'static>(
    work: impl FnOnce() -> R + Send + 'static,
) -> Result<R, Problem> {
    actix_web::rt::task::spawn_blocking(work).await.map_err(|panic| {
        tracing::error!(%panic, "the work on a request panicked");
        Problem::internal()
    })
}

/// Encodes an answer, one that is large [`apart`].
pub(super) async fn encoded<T: Serialize + Send + 'static>(
    value: T,
    is_large: bool,
) -> Result<Answer<T>, Problem> {
    if !is_large {
        return Ok(Answer::Ok(value));
    }
    Ok(Answer::Encoded(apart(move || to_json(&value)).await??))
}

fn to_json(value: &impl Serialize) -> Result<Vec<u8>, Problem> {
    serde_json::to_vec(value).map_err(|error| {
        tracing::error!(%error, "an answer cannot be encoded");
        Problem::internal()
    })
}

fn encode<T: Serialize>(answer: Answer<T>) -> Result<HttpResponse, Problem> {
    let (status, json) = match answer {
        Answer::Ok(value) => (StatusCode::OK, to_json(&value)?),
        Answer::Created(value) => (StatusCode::CREATED, to_json(&value)?),
        Answer::Accepted(value) => (StatusCode::ACCEPTED, to_json(&value)?),
        Answer::Encoded(json) => (StatusCode::OK, json),
        Answer::NoContent => return Ok(HttpResponse::NoContent().finish()),
        Answer::Tagged(tag, answer) => {
            let mut response = encode(*answer)?;
            set_tag(&mut response, &tag);
            return Ok(response);
        }
        Answer::NotModified(tag) => {
            let mut response = HttpResponse::NotModified().finish();
            set_tag(&mut response, &tag);
            // As the answer would have it (RFC 9110 §15.4.5).
            response.headers_mut().insert(header::VARY, header::HeaderValue::from_static("accept-encoding"));
            return Ok(response);
        }
        Answer::Events(body, share) => {
            let mut response =
                HttpResponse::Ok().insert_header((header::CONTENT_TYPE, EVENT_STREAM)).body(body);
            response.extensions_mut().insert(StreamShare(share));
            return Ok(response);
        }
    };
    Ok(HttpResponse::build(status).insert_header((header::CONTENT_TYPE, "application/json")).body(json))
}

fn set_tag(response: &mut HttpResponse, tag: &EntityTag) {
    if let Ok(value) = header::HeaderValue::from_str(&tag.to_string()) {
        response.headers_mut().insert(header::ETAG, value);
    }
    // A client may keep it, and asks each time whether it is still good.
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, header::HeaderValue::from_static("private, no-cache"));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(method: &str, path: &str, expected: Result<(&str, &[&str]), ProblemKind>) {
        let found = find(ROUTES, method, path).map(|(route, members)| (route.template, members));
        match (found, expected) {
            (Ok((template, members)), Ok(expected)) => {
                assert_eq!((template, &members[..]), expected, "{method} {path}")
            }
            (Err(problem), Err(kind)) => assert_eq!(problem.kind(), kind, "{method} {path}"),
            (found, expected) => panic!("{method} {path}: {found:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn routes_are_found_by_raw_segments() {
        use ProblemKind::{MethodNotAllowed, UnknownRoute};
        check("GET", "/apps", Ok(("/apps", &[])));
        check("GET", "/%61pps", Ok(("/apps", &[])));
        check("GET", "/apps/", Err(UnknownRoute));
        check("GET", "//apps", Err(UnknownRoute));
        check("GET", "", Err(UnknownRoute));
        check("GET", "*", Err(UnknownRoute));
        check("GET", "/apps%2F", Err(UnknownRoute));
        check("GET", "/apps/a/clients/", Ok(("/apps/{appId}/clients/{clientId}", &["a", ""])));
        check("GET", "/apps/a/clients/b%2Fc", Ok(("/apps/{appId}/clients/{clientId}", &["a", "b%2Fc"])));
        check(
            "GET",
            "/apps/a/clients/b/groups",
            Ok(("/apps/{appId}/clients/{clientHandle}/groups", &["a", "b"])),
        );
        check("GET", "/apps/a/clients/b/c/groups", Err(UnknownRoute));
        check(
            "GET",
            "/apps/a/clients/../groups",
            Ok(("/apps/{appId}/clients/{clientHandle}/groups", &["a", ".."])),
        );
        check("POST", "/apps", Err(MethodNotAllowed));
        check("get", "/apps", Err(MethodNotAllowed));
        check("HEAD", "/healthz", Ok(("/healthz", &[])));
        check("HEAD", "/apps/a/clients/b/queues/c", Err(MethodNotAllowed));
    }

    #[test]
    fn no_path_has_two_routes_of_one_method() {
        for (place, route) in ROUTES.iter().enumerate() {
            let path = route.template.replace(['{', '}'], "");
            let (found, _) = find(ROUTES, route.method.as_str(), &path).unwrap();
            let first = ROUTES.iter().position(|other| std::ptr::eq(other, found));
            assert_eq!(first, Some(place), "{} {}", route.method.as_str(), route.template);
        }
    }
}
