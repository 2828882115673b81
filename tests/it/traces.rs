//! Traces, as a collector of OpenTelemetry receives them.

use std::{
    collections::HashMap,
    fs::File,
    net::Ipv4Addr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use actix_web::{
    App, HttpResponse, HttpServer,
    web::{self, Bytes, PayloadConfig},
};
use mimi_gateway::{client::plain_http, config::TracesSettings};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{KeyValue, any_value::Value},
    trace::v1::{Span, span::SpanKind, status::StatusCode},
};
use prost::Message as _;

use crate::{
    federation::world::World,
    support::process::{Process, binary},
};

/// How long a span may take before a test has failed.
const PATIENCE: Duration = Duration::from_secs(60);
/// The place of a caller in a trace that it records, and in one that it does not.
const RECORDED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const NOT_RECORDED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4737-00f067aa0ba902b7-00";

/// A collector that keeps what it gets.
struct Collector {
    url: String,
    received: Arc<Mutex<Vec<Bytes>>>,
}

/// A span, with the name of its gateway.
#[derive(Clone, Debug)]
struct Collected {
    service: String,
    span: Span,
}

impl Collector {
    fn start() -> Self {
        let received = Arc::new(Mutex::new(Vec::new()));
        let keeps = Arc::clone(&received);
        let server = HttpServer::new(move || {
            let keeps = Arc::clone(&keeps);
            let receive = move |body: Bytes| {
                keeps.lock().unwrap().push(body);
                async { HttpResponse::Ok().finish() }
            };
            App::new()
                .app_data(PayloadConfig::new(64 << 20))
                .route("/otlp/v1/traces", web::post().to(receive))
        })
        .workers(1)
        .bind((Ipv4Addr::LOCALHOST, 0))
        .unwrap();
        let url = format!("http://{}/otlp", server.addrs()[0]);
        actix_web::rt::spawn(server.run());
        Self { url, received }
    }

    fn spans(&self) -> Vec<Collected> {
        let received = self.received.lock().unwrap();
        let requests = received.iter().map(|body| ExportTraceServiceRequest::decode(&**body).unwrap());
        let mut spans = Vec::new();
        for resource in requests.flat_map(|request| request.resource_spans) {
            let service = text(&resource.resource.unwrap().attributes, "service.name").unwrap();
            for span in resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                spans.push(Collected { service: service.clone(), span });
            }
        }
        spans
    }

    /// All spans, once those are there that are wanted.
    async fn spans_with(&self, wanted: impl Fn(&[Collected]) -> bool) -> Vec<Collected> {
        let since = Instant::now();
        loop {
            let spans = self.spans();
            if wanted(&spans) {
                return spans;
            }
            assert!(since.elapsed() < PATIENCE, "they do not come: {spans:#?}");
            actix_web::rt::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Collected {
    fn attribute(&self, name: &str) -> Option<String> {
        text(&self.span.attributes, name)
    }

    fn children<'a>(&self, spans: &'a [Collected]) -> Vec<&'a Collected> {
        let is_child = |other: &&Collected| {
            other.span.trace_id == self.span.trace_id && other.span.parent_span_id == self.span.span_id
        };
        spans.iter().filter(is_child).collect()
    }

    fn child<'a>(&self, spans: &'a [Collected], name: &str) -> &'a Collected {
        let children = self.children(spans);
        let found = children.iter().find(|child| child.span.name == name);
        found.unwrap_or_else(|| panic!("{name} is not a child of {self:#?}: {children:#?}"))
    }
}

fn text(attributes: &[KeyValue], name: &str) -> Option<String> {
    let value = attributes.iter().find(|attribute| attribute.key == name)?.value.clone()?.value?;
    if let Value::IntValue(number) = value {
        return Some(number.to_string());
    }
    let Value::StringValue(text) = value else { panic!("{name} is {value:?}") };
    Some(text)
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A gateway that sends traces there.
fn traced(collector: &str, one_in: u64, log: File) -> Process {
    let mut command = binary(&["--listen", "127.0.0.1:0", "--data-dir", ":memory:"]);
    command
        .env("MIMI_GATEWAY__TRACES__COLLECTOR", collector)
        .env("MIMI_GATEWAY__TRACES__ONE_IN", one_in.to_string())
        .env("MIMI_GATEWAY__LOG", "warn,mimi_gateway=info");
    Process::start(command.stderr(log))
}

async fn stop(mut process: Process) {
    process.signal("TERM");
    let code = actix_web::rt::task::spawn_blocking(move || process.ended()).await.unwrap();
    assert_eq!(code, Some(0));
}

/// Lists clients with a limit that is no number, at this place in a trace, with the token or without.
async fn ask(gateway: &Process, traceparent: &str, with_token: bool) {
    let url = format!("{}/apps/{}/clients?limit=x", gateway.internal(), printed(gateway, "application"));
    let mut request = plain_http().build().unwrap().get(url).header("traceparent", traceparent);
    request = request.header("tracestate", "vendor=secret");
    if with_token {
        request = request.bearer_auth(printed(gateway, "token"));
    }
    let answer = request.send().await.unwrap();
    assert_eq!(answer.status(), if with_token { 400 } else { 401 });
}

/// What a gateway prints at its first start.
fn printed<'a>(gateway: &'a Process, name: &str) -> &'a str {
    let line = |line: &'a str| line.strip_prefix(name)?.strip_prefix(": ");
    gateway.printed.lines().find_map(line).expect(&gateway.printed)
}

#[actix_web::test]
async fn a_request_continues_the_trace_of_its_caller() {
    let collector = Collector::start();
    let gateway = traced(&collector.url, 1, tempfile::tempfile().unwrap());
    let application = printed(&gateway, "application").to_owned();
    ask(&gateway, RECORDED, true).await;
    // The last spans are sent before it ends.
    stop(gateway).await;
    let spans = collector.spans();
    let [request] = &spans[..] else { panic!("{spans:#?}") };
    assert_eq!(request.service, "mimi-gateway");
    assert_eq!(request.span.name, "GET /apps/{appId}/clients");
    assert_eq!(request.span.kind(), SpanKind::Server);
    assert_eq!(hexadecimal(&request.span.trace_id), &RECORDED[3..35]);
    assert_eq!(hexadecimal(&request.span.parent_span_id), &RECORDED[36..52]);
    let expected = HashMap::from([
        ("http.request.method", "GET"),
        ("http.route", "/apps/{appId}/clients"),
        ("http.response.status_code", "400"),
        ("error.type", "malformed-request"),
        ("mimi.listener", "internal"),
        ("mimi.application", application.as_str()),
    ]);
    for (name, value) in expected {
        assert_eq!(request.attribute(name).as_deref(), Some(value), "{name}");
    }
    assert!(request.attribute("mimi.request_id").is_some());
    assert_eq!(request.span.trace_state, "");
    assert_ne!(request.span.status.as_ref().map(|status| status.code()), Some(StatusCode::Error));
    let names = ["http.", "error.type", "mimi."];
    for attribute in &request.span.attributes {
        assert!(names.iter().any(|name| attribute.key.starts_with(name)), "{attribute:?}");
    }
}

#[actix_web::test]
async fn of_many_requests_those_are_traced_whose_caller_records_them() {
    let collector = Collector::start();
    let gateway = traced(&collector.url, 1_000_000_000, tempfile::tempfile().unwrap());
    for _ in 0..20 {
        ask(&gateway, NOT_RECORDED, true).await;
        ask(&gateway, "", true).await;
        // Who has no token decides nothing.
        ask(&gateway, &RECORDED.replace("4736", "4738"), false).await;
    }
    ask(&gateway, RECORDED, true).await;
    stop(gateway).await;
    let spans = collector.spans();
    let [request] = &spans[..] else { panic!("{spans:#?}") };
    assert_eq!(hexadecimal(&request.span.trace_id), &RECORDED[3..35]);
}

#[actix_web::test]
async fn a_collector_that_cannot_be_reached_is_logged_once_and_harms_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    // A port that is bound and not listened on refuses connections.
    let bound = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    let gateway = traced(&format!("http://{bound}"), 1, File::create(&log).unwrap());
    let lost = || std::fs::read_to_string(&log).unwrap().matches("traces are lost").count();
    let since = Instant::now();
    while lost() == 0 {
        ask(&gateway, RECORDED, true).await;
        assert!(since.elapsed() < PATIENCE, "it is not logged");
        actix_web::rt::time::sleep(Duration::from_millis(50)).await;
    }
    // Another period of sending.
    ask(&gateway, RECORDED, true).await;
    actix_web::rt::time::sleep(Duration::from_secs(3)).await;
    ask(&gateway, RECORDED, true).await;
    stop(gateway).await;
    assert_eq!(lost(), 1);
}

#[actix_web::test]
async fn a_commit_is_one_trace_from_the_follower_to_the_disk_of_the_hub() {
    let collector = Collector::start();
    let world = World::with(&["a.example", "b.example"], true, &|domain, config| {
        let collector = collector.url.parse().unwrap();
        let service_name = domain.to_owned();
        config.traces = Some(TracesSettings { collector, service_name, ..TracesSettings::default() });
    })
    .await;
    let mut members = world.group_of_all(0, "traced").await;
    let (_, member) = members.last_mut().unwrap();
    let commit = member.make_update();
    member.commit(&commit).await;
    let group = member.id();

    let is_commit = |span: &&Collected| span.span.name == "PUT /apps/{appId}/groups/{groupId}/epochs";
    let at_b = |span: &&Collected| is_commit(span) && span.service == "b.example";
    let at_a = |span: &&Collected| {
        is_commit(span)
            && span.service == "a.example"
            && span.attribute("mimi.listener").unwrap() == "federation"
    };
    let spans = collector
        .spans_with(|spans| spans.iter().any(|span| at_a(&span)) && spans.iter().any(|span| at_b(&span)))
        .await;
    let received = spans.iter().find(at_b).unwrap();
    assert_eq!(received.attribute("mimi.listener").as_deref(), Some("internal"));
    assert!(received.span.parent_span_id.is_empty(), "the client traces nothing");
    let forwarded = received.child(&spans, "request to peer");
    assert_eq!(forwarded.span.kind(), SpanKind::Client);
    assert_eq!(forwarded.attribute("server.address").as_deref(), Some("a.example"));
    let ordered = forwarded.child(&spans, "PUT /apps/{appId}/groups/{groupId}/epochs");
    assert_eq!(ordered.service, "a.example");
    assert_eq!(ordered.attribute("http.response.status_code").as_deref(), Some("201"));
    let asked = ordered.child(&spans, "ask actor");
    let (validated, appended) = (asked.child(&spans, "validate"), asked.child(&spans, "append"));
    let (start, end) = (&asked.span.start_time_unix_nano, &asked.span.end_time_unix_nano);
    for part in [validated, appended] {
        let Span { start_time_unix_nano: from, end_time_unix_nano: to, .. } = &part.span;
        assert!(start <= from && from < to && to <= end, "{part:#?} in {asked:#?}");
    }
    assert!(validated.span.end_time_unix_nano <= appended.span.start_time_unix_nano);

    // Neither a group nor a member is named, in whatever form.
    let names: [&[u8]; 3] = [group.as_bytes(), b"traced-creator", b"traced-guest"];
    for body in collector.received.lock().unwrap().iter() {
        for name in names {
            assert!(!body.windows(name.len()).any(|window| window == name), "{name:?}");
        }
    }
    world.stop().await;
}
