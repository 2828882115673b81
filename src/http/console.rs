//! The console: a page for operators that holds no data, and asks for a token. Its files are in the binary.

use std::{collections::BTreeMap, sync::LazyLock};

use actix_web::{
    HttpResponse,
    http::header::{self, HeaderName, HeaderValue},
    web::Bytes,
};

use super::{
    openapi::Description,
    operator::Operators,
    pages::{self, SharedPage},
    problem::Problem,
    route::{Arrived, Route},
};
use crate::api::problem::ProblemKind;

/// What browsers are told of the console: it loads and sends nothing elsewhere, runs no script but its own files, and is shown in
/// no frame.
const HEADERS: [(HeaderName, HeaderValue); 3] = [
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; \
             form-action 'none'; frame-ancestors 'none'",
        ),
    ),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
];

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// The page.
const INDEX: &str = include_str!("console/index.html");

/// The files of the page, by their names.
const FILES: [(&str, &str, &str); 12] = [
    ("style.css", CSS, include_str!("style.css")),
    ("console.css", CSS, include_str!("console/console.css")),
    ("icon.svg", "image/svg+xml", include_str!("icon.svg")),
    ("dom.js", SCRIPT, include_str!("console/dom.js")),
    ("format.js", SCRIPT, include_str!("console/format.js")),
    ("group.js", SCRIPT, include_str!("console/group.js")),
    ("lists.js", SCRIPT, include_str!("console/lists.js")),
    ("loading.js", SCRIPT, include_str!("console/loading.js")),
    ("main.js", SCRIPT, include_str!("console/main.js")),
    ("overview.js", SCRIPT, include_str!("console/overview.js")),
    ("session.js", SCRIPT, include_str!("console/session.js")),
    ("spark.js", SCRIPT, include_str!("console/spark.js")),
];

/// The page and its files, the page without a name.
static PAGES: LazyLock<BTreeMap<&'static str, SharedPage>> = LazyLock::new(|| {
    let files = FILES.into_iter().chain([("", HTML, INDEX)]);
    let shared = files.filter_map(|(name, media_type, text)| {
        let page = SharedPage::new(media_type.to_owned(), Bytes::from_static(text.as_bytes())).ok()?;
        Some((name, page))
    });
    shared.collect()
});

/// `GET /console/{file}`.
pub(super) const CONSOLE_FILE: Route<Operators> = pages::page(
    "/console/{file}",
    |arrived| {
        let name = arrived.members.first().map_or("", String::as_str);
        Box::pin(std::future::ready(if name.is_empty() {
            Err(no_such_file())
        } else {
            answer(name, &arrived)
        }))
    },
    Description::Page {
        name: "consoleFile",
        summary: "A file of the console",
        text: "The scripts and styles of the page `/`.",
        media_types: &["*/*"],
        problems: &[ProblemKind::UnknownRoute],
    },
);

/// The console's page.
pub(super) fn index(arrived: &Arrived<Operators>) -> Result<HttpResponse, Problem> {
    answer("", arrived)
}

fn answer(name: &str, arrived: &Arrived<Operators>) -> Result<HttpResponse, Problem> {
    let page = PAGES.get(name).ok_or_else(no_such_file)?;
    let mut response = page.answer_unless_known(&arrived.fields);
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, value);
    }
    Ok(response)
}

fn no_such_file() -> Problem {
    Problem::new(ProblemKind::UnknownRoute, "the console has no such file")
}
