//! Pages for people and probes: a start page, health, the OpenAPI document and its reader, and an explanation of each problem.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    future::ready,
    sync::{Arc, LazyLock, Mutex, PoisonError},
};

use actix_web::{
    HttpResponse,
    http::header::{self, EntityTag, HeaderValue},
    web::Bytes,
};
use actors::SnapshotStatus;
use serde_json::json;
use utoipa_swagger_ui::Config;

use super::{
    auth::Authenticator,
    compression, entity_tag,
    openapi::{self, Description},
    problem::Problem,
    route::{Arrived, PendingResponse, RequestFields, Route},
    unread::SharedBody,
};
use crate::api::{
    Access, Method, percent,
    problem::{ProblemKind, ProblemType},
};

const HTML: &str = "text/html; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const CSS: &str = "text/css; charset=utf-8";
const SVG: &str = "image/svg+xml";
/// The media types of texts that are shown to people, in browsers and terminals.
const EXPLANATIONS: &[&str] = &["text/html", "text/plain"];

/// The gateway's own styles of /docs, by the name of their file.
const DOCS_CSS: &str = "gateway.css";
/// The styles that all pages share, by the name of their file.
const SHARED_CSS: &str = "style.css";
/// The beginning of the page /docs. The page's width is that of the screen, and its files are in the directory.
const HEAD: &str = "<head>\n    <base href=\"/docs/\">\n    <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">";

/// The end of its head.
const STYLES: &str = "  <link rel=\"stylesheet\" href=\"./style.css\">\n    <link rel=\"stylesheet\" href=\"./gateway.css\">\n  </head>";

/// `GET /`: what runs here, and where to read on.
pub(super) const START: Route = page(
    "/",
    |arrived| shown(arrived, |arrived| Ok(start(arrived))),
    Description::Page {
        name: "start",
        summary: "What runs here, and where to read on",
        text: "HTML if `Accept` names it, as browsers do; plain text otherwise.",
        media_types: EXPLANATIONS,
        problems: &[],
    },
);

/// `GET /favicon.ico`, for which browsers ask.
pub(super) const ICON: Route = page(
    "/favicon.ico",
    |arrived| shown(arrived, |_| Ok(icon())),
    Description::Page {
        name: "icon",
        summary: "The icon of the pages",
        text: "For browsers.",
        media_types: &[SVG],
        problems: &[],
    },
);

/// `GET /healthz`: the process is up.
pub(super) const fn healthz<A: Authenticator>() -> Route<A> {
    Route {
        is_probe: true,
        ..page(
            "/healthz",
            |arrived| shown(arrived, |_| Ok(HttpResponse::Ok().json(json!({ "status": "up" })))),
            Description::Page {
                name: "healthz",
                summary: "The process is up",
                text: "For a liveness probe: while this is answered, the process runs.",
                media_types: &[JSON],
                problems: &[],
            },
        )
    }
}

/// `GET /readyz`: the gateway accepts requests and can write.
pub(super) const fn readyz<A: Authenticator>() -> Route<A> {
    Route {
        is_probe: true,
        ..page(
            "/readyz",
            |arrived| shown(arrived, readiness_of),
            Description::Page {
                name: "readyz",
                summary: "Requests are answered",
                text: "For a readiness probe and load balancers: 200 while the gateway accepts requests and can write. \
               `failingSnapshots` counts the snapshots that cannot be written; nothing is lost by it, but a \
               restart takes longer.",
                media_types: &[JSON],
                problems: &[ProblemKind::ShuttingDown, ProblemKind::StorageUnavailable],
            },
        )
    }
}

/// `GET /openapi.json`.
pub(super) const OPENAPI: Route = page(
    "/openapi.json",
    |arrived| shown(arrived, |_| openapi_json()),
    Description::Page {
        name: "openapi",
        summary: "This document",
        text: "OpenAPI 3.1, for generators of clients and for tools.",
        media_types: &[JSON],
        problems: &[],
    },
);

/// `GET /docs`: a reader of the OpenAPI document that loads nothing from elsewhere.
pub(super) const DOCS: Route = page(
    "/docs",
    |arrived| shown(arrived, |_| docs_file("")),
    Description::Page {
        name: "docs",
        summary: "This document, for reading and trying out",
        text: "Loads nothing from other servers.",
        media_types: &["text/html"],
        problems: &[],
    },
);

/// `GET /docs/{file}`.
pub(super) const DOCS_FILE: Route = page(
    "/docs/{file}",
    |arrived| shown(arrived, |arrived| docs_file(arrived.members.first().map_or("", String::as_str))),
    Description::Page {
        name: "docsFile",
        summary: "A file of the page /docs",
        text: "The scripts and styles of the page.",
        media_types: &["*/*"],
        problems: &[ProblemKind::UnknownRoute],
    },
);

/// `GET /problems`: all problems.
pub(super) const PROBLEMS: Route = page(
    "/problems",
    |arrived| shown(arrived, |arrived| Ok(explain("Problems", ProblemKind::ALL, arrived))),
    Description::Page {
        name: "problems",
        summary: "The types of problems",
        text: "HTML if `Accept` names it, as browsers do; plain text otherwise.",
        media_types: EXPLANATIONS,
        problems: &[],
    },
);

/// `GET /problems/{slug}`: the explanation to which a problem's `type` points.
pub(super) const PROBLEM: Route = page(
    "/problems/{slug}",
    |arrived| shown(arrived, problem),
    Description::Page {
        name: "problem",
        summary: "What a type of problem means and what to do about it",
        text: "The `type` of every problem document leads here. HTML if `Accept` names it, as browsers do; plain text \
               otherwise.",
        media_types: EXPLANATIONS,
        problems: &[ProblemKind::UnknownRoute],
    },
);

/// A public route that returns a page.
pub(super) const fn page<A: Authenticator>(
    template: &'static str,
    run: fn(Arrived<A>) -> PendingResponse,
    description: Description,
) -> Route<A> {
    Route {
        method: Method::Get,
        template,
        access: Access::Public,
        has_body: false,
        body_bytes_max: 0,
        is_probe: false,
        run,
        description,
    }
}

fn shown<A: Authenticator>(
    arrived: Arrived<A>,
    show: fn(&Arrived<A>) -> Result<HttpResponse, Problem>,
) -> PendingResponse {
    Box::pin(ready(show(&arrived)))
}

fn readiness_of<A: Authenticator>(arrived: &Arrived<A>) -> Result<HttpResponse, Problem> {
    if arrived.edge.is_ready() {
        return Ok(HttpResponse::Ok().json(readiness(arrived.edge.gateway.snapshots())));
    }
    if arrived.edge.gateway.store().is_failed() {
        return Err(Problem::new(
            ProblemKind::StorageUnavailable,
            "the gateway cannot write to its disk and is stopping",
        ));
    }
    if arrived.edge.gateway.store().is_stalled() {
        return Err(Problem::new(ProblemKind::StorageUnavailable, "the gateway's disk does not answer"));
    }
    Err(Problem::shutting_down())
}

/// The answer of a ready gateway.
fn readiness(snapshots: SnapshotStatus) -> serde_json::Value {
    match snapshots.failing {
        0 => json!({ "status": "ready" }),
        failing => json!({ "status": "ready", "failingSnapshots": failing }),
    }
}

fn openapi_json() -> Result<HttpResponse, Problem> {
    static DOCUMENT: LazyLock<Option<SharedPage>> =
        LazyLock::new(|| SharedPage::json(&openapi::document().ok()?).ok());
    Ok(DOCUMENT.as_ref().ok_or_else(Problem::internal)?.answer())
}

/// A page whose bytes all answers share, plain and compressed.
#[derive(Clone)]
pub(super) struct SharedPage {
    media_type: String,
    bytes: Bytes,
    gzip: Bytes,
    tag: EntityTag,
}

impl SharedPage {
    /// A page with these bytes.
    pub(super) fn new(media_type: String, bytes: Bytes) -> Result<Self, Problem> {
        let (gzip, tag) = (compression::gzip(&bytes)?, entity_tag::of_bytes(&bytes));
        Ok(Self { media_type, bytes, gzip, tag })
    }

    /// A page of JSON.
    pub(super) fn json(document: &serde_json::Value) -> Result<Self, Problem> {
        Self::new(JSON.to_owned(), document.to_string().into())
    }

    /// The page with its entity tag, or 304 if the caller has it already.
    pub(super) fn answer_unless_known(&self, fields: &RequestFields) -> HttpResponse {
        let mut response = if entity_tag::is_known(&self.tag, fields.if_none_match.as_ref()) {
            // As the page would have it (RFC 9110 §15.4.5).
            HttpResponse::NotModified().insert_header((header::VARY, "accept-encoding")).finish()
        } else {
            self.answer()
        };
        if let Ok(tag) = HeaderValue::from_str(&self.tag.to_string()) {
            response.headers_mut().insert(header::ETAG, tag);
        }
        response
    }

    /// The page.
    pub(super) fn answer(&self) -> HttpResponse {
        let mut response = HttpResponse::Ok()
            .insert_header((header::CONTENT_TYPE, self.media_type.clone()))
            .body(self.bytes.clone());
        response.extensions_mut().insert(SharedBody { gzip: self.gzip.clone() });
        response
    }
}

/// A file of the vendored Swagger UI, with the URL of the gateway's document.
fn docs_file(file: &str) -> Result<HttpResponse, Problem> {
    let page = shared_docs_file(file)?
        .ok_or_else(|| Problem::new(ProblemKind::UnknownRoute, "the page /docs has no such file"))?;
    let mut response = page.answer();
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'",
        ),
    );
    Ok(response)
}

/// A file of the page /docs.
fn shared_docs_file(file: &str) -> Result<Option<SharedPage>, Problem> {
    static CONFIG: LazyLock<Arc<Config<'static>>> = LazyLock::new(|| {
        // Its validator would load data from elsewhere.
        Arc::new(Config::from("/openapi.json").use_base_layout().deep_linking(true).validator_url("none"))
    });
    // Only existing files are cached, so requests cannot make it grow.
    static FILES: LazyLock<Mutex<BTreeMap<String, SharedPage>>> = LazyLock::new(Mutex::default);
    let mut files = FILES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(shared) = files.get(file) {
        return Ok(Some(shared.clone()));
    }
    let own: Option<&'static [u8]> = match file {
        DOCS_CSS => Some(include_bytes!("docs.css")),
        SHARED_CSS => Some(include_bytes!("style.css")),
        _ => None,
    };
    if let Some(own) = own {
        let shared = SharedPage::new(CSS.to_owned(), Bytes::from_static(own))?;
        files.insert(file.to_owned(), shared.clone());
        return Ok(Some(shared));
    }
    let found = utoipa_swagger_ui::serve(file, Arc::clone(&CONFIG)).map_err(|error| {
        tracing::error!(%error, "a file of /docs cannot be served");
        Problem::internal()
    })?;
    let Some(found) = found else { return Ok(None) };
    let mut bytes = found.bytes.into_owned();
    if file.is_empty()
        && let Ok(html) = std::str::from_utf8(&bytes)
    {
        let html = html.replacen("<html", "<html class=\"inverted\"", 1).replacen("<head>", HEAD, 1);
        let html = html.replacen("</head>", STYLES, 1);
        bytes =
            html.replacen("<title>Swagger UI</title>", "<title>MIMI gateway: API</title>", 1).into_bytes();
    }
    let shared = SharedPage::new(found.content_type, Bytes::from(bytes))?;
    files.insert(file.to_owned(), shared.clone());
    Ok(Some(shared))
}

/// The pages of the gateway, with what they are.
const PAGES: [(&str, &str); 5] = [
    ("/docs", "The API, for reading and trying out"),
    ("/openapi.json", "The API, for programs"),
    ("/problems", "What each type of problem means, and what to do about it"),
    ("/healthz", "Is the gateway up?"),
    ("/readyz", "Does it accept requests, and can it write?"),
];

fn start(arrived: &Arrived) -> HttpResponse {
    let title = concat!("MIMI gateway ", env!("CARGO_PKG_VERSION"));
    let about = "A delivery service for MLS (RFC 9420). Application servers talk to it over HTTP.";
    if arrived.fields.takes_html() {
        let items = PAGES.iter().fold(String::new(), |mut html, (path, about)| {
            // Writing to a string cannot fail.
            let _ = write!(html, "<li><a href=\"{path}\">{path}</a><br>{about}</li>");
            html
        });
        explanation(
            HTML,
            as_page(title, &format!("<h1>{title}</h1><p>{about}</p>"), &format!("<ul>{items}</ul>")),
        )
    } else {
        let lines = PAGES.iter().fold(String::new(), |mut text, (path, about)| {
            let _ = writeln!(text, "  {path:<14}{about}");
            text
        });
        explanation(TEXT, format!("{title}\n{about}\n{lines}"))
    }
}

fn icon() -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, SVG))
        .insert_header((header::CACHE_CONTROL, "max-age=86400"))
        .body(include_str!("icon.svg"))
}

fn problem(arrived: &Arrived) -> Result<HttpResponse, Problem> {
    // The list, with a slash at its end.
    if arrived.members.first().is_some_and(String::is_empty) {
        return Ok(explain("Problems", ProblemKind::ALL, arrived));
    }
    let slug = arrived.members.first().and_then(|segment| String::from_utf8(percent::decode(segment)?).ok());
    let kind = slug.as_deref().and_then(ProblemKind::of_slug).ok_or_else(|| {
        Problem::new(ProblemKind::UnknownRoute, "no problem has this name; /problems lists them")
    })?;
    Ok(explain(kind.about().title, &[kind], arrived))
}

/// A page about problems.
fn explain(title: &str, kinds: &[ProblemKind], arrived: &Arrived) -> HttpResponse {
    let abouts = kinds.iter().map(|kind| kind.about());
    if arrived.fields.takes_html() {
        explanation(HTML, as_page(title, &navigation(kinds), &abouts.map(as_html).collect::<String>()))
    } else {
        explanation(TEXT, abouts.map(as_text).collect::<Vec<_>>().join("\n"))
    }
}

fn explanation(media_type: &'static str, page: String) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((header::VARY, "Accept"))
        .insert_header((header::CONTENT_TYPE, media_type))
        .insert_header((
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; img-src 'self'; style-src 'self'",
        ))
        .body(page)
}

fn as_text(about: &ProblemType) -> String {
    let mut text =
        format!("{} ({} {})\n{}\n{}\n", about.title, about.status, about.slug, about.meaning, about.remedy);
    for (name, meaning) in about.members {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  {name}: {meaning}");
    }
    text
}

fn as_html(about: &ProblemType) -> String {
    let members = about.members.iter().fold(String::new(), |mut html, (name, meaning)| {
        let _ = write!(html, "<dt><code>{name}</code></dt><dd>{}</dd>", escaped(meaning));
        html
    });
    format!(
        "<section id=\"{slug}\"><h1>{title}</h1><p><code>{status} {slug}</code></p><p>{meaning}</p>\
         <h2>What to do</h2><p>{remedy}</p><dl>{members}</dl></section>",
        slug = about.slug,
        title = about.title,
        status = about.status,
        meaning = escaped(about.meaning),
        remedy = escaped(about.remedy),
    )
}

/// The contents of the list of problems; above a single one, the way there.
fn navigation(kinds: &[ProblemKind]) -> String {
    if let [_] = kinds {
        return "<nav><a href=\"/problems\">All problems</a></nav>".to_owned();
    }
    let items = kinds.iter().fold(String::new(), |mut html, kind| {
        let ProblemType { slug, title, status, .. } = kind.about();
        let _ = write!(html, "<li><a href=\"#{slug}\">{title}</a><br><code>{status} {slug}</code></li>");
        html
    });
    format!("<h1>Problems</h1><nav><ul>{items}</ul></nav>")
}

fn as_page(title: &str, navigation: &str, sections: &str) -> String {
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><title>{title}</title>\
         <link rel=\"stylesheet\" href=\"/docs/style.css\"></head>\
         <body><main class=\"text-page\">{navigation}{sections}</main></body></html>"
    )
}

/// The gateway's own texts as HTML, with text in backticks as code.
fn escaped(text: &str) -> String {
    let html = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let parts = html.split('`').enumerate();
    parts
        .map(|(place, part)| if place % 2 == 1 { format!("<code>{part}</code>") } else { part.to_owned() })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_that_is_ready_says_how_many_snapshots_fail() {
        let body = |failing| {
            readiness(SnapshotStatus { failures: 7, failing, written: 1, newest: None }).to_string()
        };
        assert_eq!(body(0), r#"{"status":"ready"}"#);
        assert_eq!(body(2), r#"{"failingSnapshots":2,"status":"ready"}"#);
    }

    #[test]
    fn explanations_are_escaped() {
        assert_eq!(escaped("send `Bearer <token>` & go"), "send <code>Bearer &lt;token&gt;</code> &amp; go");
        for kind in ProblemKind::ALL {
            let about = kind.about();
            for text in [about.meaning, about.remedy] {
                assert_eq!(text.matches('`').count() % 2, 0, "{}", about.slug);
            }
        }
    }
}
