//! Traces of requests: their spans, and their way to a collector by OpenTelemetry's protocol.
//!
//! The spans are those of the crate `tracing` with the target [`TRACES`]. Requests carry the place in a trace as the header
//! `traceparent` (W3C Trace Context): a trace goes from an application's server through the gateway to the gateways of other
//! domains. A span has the template of its route, and neither a path nor anything of a message.

use std::{fmt, time::Duration};

use actix_web::http::{
    StatusCode,
    header::{HeaderMap, HeaderName},
};
use actors::{AppId, DomainName, TRACES};
use async_trait::async_trait;
use opentelemetry::{
    Context, KeyValue,
    propagation::{Extractor, Injector, TextMapPropagator as _},
    trace::{Link, SpanContext, SpanKind, TraceContextExt as _, TraceFlags, TraceId, TracerProvider as _},
};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::{
    Resource,
    propagation::TraceContextPropagator,
    trace::{
        BatchConfigBuilder, BatchSpanProcessor, Sampler, SamplingDecision, SamplingResult, SdkTracerProvider,
        ShouldSample,
    },
};
use rustls::ClientConfig;
use tokio::runtime::{self, Runtime};
use tracing::{Span, Subscriber, field};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::{Layer, filter::filter_fn, registry::LookupSpan};

use crate::{
    client::in_words,
    config::TracesSettings,
    tls::{self, TlsFileError},
};

/// The spans that wait to be sent; further ones are dropped.
const WAITING_SPANS_MAX: usize = 8192;
/// The spans that are sent together.
const SENT_TOGETHER: usize = 1024;
/// The period of sending.
const PERIOD: Duration = Duration::from_secs(2);
/// The time limit of one request to the collector.
const COLLECTOR_TIMEOUT: Duration = Duration::from_secs(5);
/// The time limit of sending the last spans when the gateway stops.
const END_TIMEOUT: Duration = Duration::from_secs(2);

/// The traces of this process. When they are dropped, the spans that wait are sent.
pub(crate) struct TraceExport(SdkTracerProvider);

/// The reason why there are no traces.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TracesError {
    /// A file with certificate authorities cannot be used.
    #[error("traces.ca: {0}")]
    Authorities(#[from] TlsFileError),
    /// The HTTP client cannot be built.
    #[error("traces: {0}")]
    Client(Box<dyn std::error::Error>),
}

impl TraceExport {
    /// Begins to send spans to a collector. Whether it can be reached shows later, in the log.
    pub(crate) fn start(settings: &TracesSettings) -> Result<Self, TracesError> {
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(Collector::new(settings)?)
            .with_protocol(Protocol::HttpBinary)
            .with_timeout(COLLECTOR_TIMEOUT)
            .with_endpoint(format!("{}/v1/traces", settings.collector))
            .build()
            .map_err(|error| TracesError::Client(error.into()))?;
        let batches = BatchConfigBuilder::default()
            .with_max_queue_size(WAITING_SPANS_MAX)
            .with_max_export_batch_size(SENT_TOGETHER)
            .with_scheduled_delay(PERIOD)
            .build();
        let gateway = Resource::builder_empty()
            .with_service_name(settings.service_name.clone())
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .build();
        let provider = SdkTracerProvider::builder()
            .with_span_processor(BatchSpanProcessor::builder(exporter).with_batch_config(batches).build())
            .with_sampler(OneIn::new(settings.one_in))
            .with_resource(gateway)
            .build();
        Ok(Self(provider))
    }

    /// The layer of the log that makes spans of the target [`TRACES`] into those of traces.
    pub(crate) fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        tracing_opentelemetry::layer()
            .with_tracer(self.0.tracer("mimi-gateway"))
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_level(false)
            .with_tracked_inactivity(false)
            .with_filter(filter_fn(|span| span.target() == TRACES))
    }
}

impl Drop for TraceExport {
    fn drop(&mut self) {
        if let Err(error) = self.0.shutdown_with_timeout(END_TIMEOUT) {
            tracing::warn!(%error, "the last traces were not sent");
        }
    }
}

/// The span of a request on a listener, which continues the caller's trace; disabled unless traces are collected. A caller
/// that `decides` has its trace recorded here if it records it itself.
pub(crate) fn request(
    method: &'static str,
    route: &'static str,
    (listener, decides): (&'static str, bool),
    headers: &HeaderMap,
) -> Span {
    let span = tracing::trace_span!(
        target: TRACES,
        "request",
        otel.name = field::Empty,
        otel.kind = "server",
        otel.status_code = field::Empty,
        http.request.method = method,
        http.route = route,
        http.response.status_code = field::Empty,
        error.type = field::Empty,
        mimi.listener = listener,
        mimi.application = field::Empty,
        mimi.request_id = field::Empty,
    );
    if span.is_disabled() {
        return span;
    }
    span.record("otel.name", format!("{method} {route}"));
    let mut caller = TraceContextPropagator::new().extract(&Fields(headers));
    if !decides {
        caller = undecided(&caller);
    }
    // It fails only for a span that is disabled or has begun.
    let _ = span.set_parent(caller);
    span
}

/// Notes the outcome of a request in its span.
pub(crate) fn answered(
    span: &Span,
    id: &dyn fmt::Display,
    application: Option<AppId>,
    status: StatusCode,
    problem: Option<&'static str>,
) {
    if span.is_disabled() {
        return;
    }
    span.record("mimi.request_id", field::display(id));
    span.record("mimi.application", application.map(field::display));
    span.record("http.response.status_code", status.as_u16());
    span.record("error.type", problem);
    if status.is_server_error() {
        span.record("otel.status_code", "ERROR");
    }
}

/// The span of a request to the gateway of another domain.
pub(crate) fn request_to_peer(peer: &DomainName, method: &str) -> Span {
    tracing::trace_span!(
        target: TRACES,
        "request to peer",
        otel.kind = "client",
        http.request.method = method,
        server.address = %peer,
    )
}

/// The header fields by which the receiver of a request continues the present trace; none unless traces are collected.
pub(crate) fn header_fields() -> Vec<(HeaderName, String)> {
    let span = Span::current();
    if span.is_disabled() {
        return Vec::new();
    }
    let mut fields = Injected(Vec::new());
    TraceContextPropagator::new().inject_context(&span.context(), &mut fields);
    fields.0
}

/// The same place in a trace without the caller's decision to record it.
fn undecided(caller: &Context) -> Context {
    let span = caller.span();
    let place = span.span_context();
    if !place.is_valid() {
        return caller.clone();
    }
    let (trace, state) = (place.trace_id(), place.trace_state().clone());
    let undecided = SpanContext::new(trace, place.span_id(), TraceFlags::NOT_SAMPLED, true, state);
    caller.with_remote_span_context(undecided)
}

/// The header field with the place in a trace (W3C Trace Context §3.2).
pub(crate) const TRACEPARENT: &str = "traceparent";

/// Header fields from which the place in a trace is read.
struct Fields<'a>(&'a HeaderMap);

impl Extractor for Fields<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        // `tracestate` may be long, and would be kept with every span and sent on.
        self.0.get(name).filter(|_| name == TRACEPARENT).and_then(|value| value.to_str().ok())
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }
}

/// Header fields into which the place in a trace is written.
struct Injected(Vec<(HeaderName, String)>);

impl Injector for Injected {
    fn set(&mut self, name: &str, value: String) {
        if let Ok(name) = name.parse()
            && !value.is_empty()
        {
            self.0.push((name, value));
        }
    }
}

/// Records a trace that its caller records, and one of so many others, chosen by the trace's id: gateways with the same share
/// choose the same traces.
#[derive(Clone, Debug)]
struct OneIn(Sampler);

impl OneIn {
    fn new(one_in: u64) -> Self {
        // Precise enough for a share.
        #[expect(clippy::cast_precision_loss, reason = "a share needs no more than 53 bits")]
        let share = 1.0 / one_in.max(1) as f64;
        Self(Sampler::TraceIdRatioBased(share))
    }
}

impl ShouldSample for OneIn {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let own = || self.0.should_sample(parent, trace, name, kind, attributes, links);
        let Some(parent) = parent.filter(|context| context.span().span_context().is_valid()) else {
            return own();
        };
        let span = parent.span();
        let parent = span.span_context();
        let decision = match (parent.is_sampled(), parent.is_remote()) {
            (true, _) => SamplingDecision::RecordAndSample,
            (false, true) => own().decision,
            (false, false) => SamplingDecision::Drop,
        };
        SamplingResult { decision, attributes: Vec::new(), trace_state: parent.trace_state().clone() }
    }
}

/// The HTTP client of the collector. The thread that sends spans has no runtime, so that it has one of its own.
struct Collector {
    http: reqwest::Client,
    runtime: Runtime,
    /// Whether the last request was answered well; it is logged when that changes.
    is_reached: std::sync::atomic::AtomicBool,
}

impl Collector {
    fn new(settings: &TracesSettings) -> Result<Self, TracesError> {
        let failed = |error: Box<dyn std::error::Error>| TracesError::Client(error);
        let tls = match &settings.ca {
            Some(ca) => ClientConfig::builder_with_provider(tls::provider())
                .with_safe_default_protocol_versions()
                .map_err(|error| failed(error.into()))?
                .with_root_certificates(tls::roots(ca)?)
                .with_no_client_auth(),
            None => tls::trusting_nobody().map_err(|error| failed(error.into()))?,
        };
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(COLLECTOR_TIMEOUT)
            // Nobody sees that an idle connection is closed, because the runtime stands still between two requests.
            .pool_max_idle_per_host(0)
            .build()
            .map_err(|error| failed(error.into()))?;
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| failed(error.into()))?;
        Ok(Self { http, runtime, is_reached: true.into() })
    }

    fn note(&self, failed: Option<&dyn fmt::Display>) {
        let was_reached = self.is_reached.swap(failed.is_none(), std::sync::atomic::Ordering::Relaxed);
        match (failed, was_reached) {
            (Some(reason), true) => {
                tracing::warn!(%reason, "traces are lost until the collector takes them again");
            }
            (None, false) => tracing::info!("the collector takes traces again"),
            (Some(_), false) | (None, true) => {}
        }
    }
}

impl fmt::Debug for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Collector")
    }
}

#[async_trait]
impl HttpClient for Collector {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let sent = self.runtime.block_on(async {
            let answer = self.http.execute(request.try_into()?).await?.error_for_status()?;
            let status = answer.status();
            // The answer to a good request is empty or small; nothing in it is used.
            drop(answer);
            Ok::<_, reqwest::Error>(status)
        });
        match sent {
            Ok(status) if !status.is_success() => {
                let reason = format!("it answered {status}");
                self.note(Some(&reason));
                Err(reason.into())
            }
            Ok(status) => {
                self.note(None);
                Ok(Response::builder().status(status).body(Bytes::new())?)
            }
            Err(error) => {
                let error = error.without_url();
                let reason = in_words(&error);
                self.note(Some(&match error.status() {
                    Some(status) => format!("it answered {status}"),
                    None => reason,
                }));
                Err(error.into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: u128 = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736;

    fn decision(sampler: &OneIn, parent: Option<(TraceFlags, bool)>) -> SamplingDecision {
        let trace = TraceId::from(TRACE);
        let parent = parent.map(|(flags, is_remote)| {
            let place = SpanContext::new(trace, 7.into(), flags, is_remote, Default::default());
            Context::new().with_remote_span_context(place)
        });
        sampler.should_sample(parent.as_ref(), trace, "request", &SpanKind::Server, &[], &[]).decision
    }

    #[test]
    fn callers_decide_for_their_own_traces_only() {
        let (all, few) = (OneIn::new(1), OneIn::new(1_000_000_000));
        let (sampled, not) = (TraceFlags::SAMPLED, TraceFlags::NOT_SAMPLED);
        let (recorded, dropped) = (SamplingDecision::RecordAndSample, SamplingDecision::Drop);
        for (parent, of_all, of_few) in [
            (None, &recorded, &dropped),
            (Some((sampled, true)), &recorded, &recorded),
            (Some((not, true)), &recorded, &dropped),
            (Some((sampled, false)), &recorded, &recorded),
            (Some((not, false)), &dropped, &dropped),
        ] {
            assert_eq!(&decision(&all, parent), of_all, "{parent:?}");
            assert_eq!(&decision(&few, parent), of_few, "{parent:?}");
        }
    }

    #[test]
    fn a_peer_keeps_its_place_and_loses_its_decision() {
        let given = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let mut headers = HeaderMap::new();
        headers.insert(HeaderName::from_static("traceparent"), given.parse().unwrap());
        let caller = TraceContextPropagator::new().extract(&Fields(&headers));
        assert!(caller.span().span_context().is_sampled());
        let undecided = undecided(&caller);
        let span = undecided.span();
        let place = span.span_context();
        assert_eq!((place.trace_id(), place.is_sampled()), (TraceId::from(TRACE), false));
        assert_eq!(format!("{:016x}", place.span_id()), "00f067aa0ba902b7");
        // Anything else begins a trace.
        for bad in ["", "00-0-0-01", "00-00000000000000000000000000000000-00f067aa0ba902b7-01", "\u{7f}"] {
            let mut headers = HeaderMap::new();
            let value = actix_web::http::header::HeaderValue::from_bytes(bad.as_bytes());
            let Ok(value) = value else { continue };
            headers.insert(HeaderName::from_static("traceparent"), value);
            let caller = TraceContextPropagator::new().extract(&Fields(&headers));
            assert!(!caller.span().span_context().is_valid(), "{bad}");
        }
    }
}
