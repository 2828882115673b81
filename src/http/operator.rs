//! The operators' listener: its tokens and its endpoints.

use std::{
    sync::{Arc, LazyLock, Mutex, PoisonError, RwLock},
    time::{Duration, Instant},
};

use actix_http::{HttpMessage as _, Request};
use actix_web::{HttpResponse, http::header, web::Bytes};

use super::{
    activity::Sampler,
    auth::{Admitted, Authenticator, check_access, presented},
    callers::{CallerShares, ListenerShares},
    console::{self, CONSOLE_FILE},
    counts::{self, ListenerCounts},
    edge::Edge,
    openapi::{self, AboutListener, Description},
    pages::{self, SharedPage},
    problem::Problem,
    route::{Arrived, Route, apart},
    token_book::TokenBook,
};
use crate::{
    api::{
        Access,
        activity::WatchActivity,
        audit::ListAudit,
        backups::{ListBackups, MakeBackup},
        operated_clients::ListOperatedClients,
        operated_groups::{
            DeleteOperatedGroup, InspectGroup, ListGroupEpochs, ListOperatedGroups, ListPeers,
        },
        operator::{ListOperatedApplications, ListTokens, MakeToken, RevokeToken},
        problem::ProblemKind,
        reports::ListReportedEpochs,
    },
    backups::Backups,
    config::{TokenAccess, TokenSettings},
    metrics::{
        Observed,
        text::{MEDIA_TYPE, MetricsText},
    },
    token::TokenHash,
};

/// Every route of the operators' listener.
static OPERATOR_ROUTES: &[Route<Operators>] = &[
    ROOT,
    CONSOLE_FILE,
    pages::healthz(),
    pages::readyz(),
    METRICS,
    OPENAPI,
    Route::of::<ListOperatedApplications>(),
    Route::of::<ListTokens>(),
    Route::of::<MakeToken>(),
    Route::of::<RevokeToken>(),
    Route::of::<ListOperatedClients>(),
    Route::of::<ListOperatedGroups>(),
    Route::of::<InspectGroup>(),
    Route::of::<DeleteOperatedGroup>(),
    Route::of::<ListGroupEpochs>(),
    Route::of::<ListReportedEpochs>(),
    Route::of::<ListAudit>(),
    Route::of::<ListPeers>(),
    Route::of::<ListBackups>(),
    Route::of::<MakeBackup>(),
    Route::of::<WatchActivity>(),
];

/// The text of `/`.
const CONTENTS: &str = "\
The operators' listener of a MIMI gateway. Open it in a browser: it shows a console.

/healthz                     the process is up
/readyz                      requests are answered
/metrics                     figures for Prometheus
/operator/v1/openapi.json    what there is under /operator/v1; needs a token of an operator
/operator/v1/applications    the applications, and under each its tokens, clients, groups, reports and audit log; needs such a token
/operator/v1/peers           the gateways of other domains; needs such a token
/operator/v1/backups         the backups, and making one; needs such a token
/operator/v1/activity        the present activity, as a stream; needs such a token
";

/// `GET /`: the console in a browser, else what there is.
const ROOT: Route<Operators> = pages::page(
    "/",
    |arrived| Box::pin(std::future::ready(root(&arrived))),
    Description::Page {
        name: "contents",
        summary: "The console, or the paths of this listener",
        text: "The console if `Accept` names HTML, as browsers do: a page that holds no data and asks for a token. Else plain \
               text.",
        media_types: &["text/html", "text/plain"],
        problems: &[],
    },
);

fn root(arrived: &Arrived<Operators>) -> Result<HttpResponse, Problem> {
    let mut response = if arrived.fields.takes_html() {
        console::index(arrived)?
    } else {
        HttpResponse::Ok().insert_header((header::CONTENT_TYPE, "text/plain; charset=utf-8")).body(CONTENTS)
    };
    response.headers_mut().append(header::VARY, header::HeaderValue::from_static("accept"));
    Ok(response)
}

/// `GET /metrics`: figures for Prometheus.
const METRICS: Route<Operators> = pages::page(
    "/metrics",
    |arrived| Box::pin(metrics(arrived)),
    Description::Page {
        name: "metrics",
        summary: "Figures for Prometheus",
        text: "In its text format. They are at most a second old.",
        media_types: &["text/plain"],
        problems: &[],
    },
);

async fn metrics(arrived: Arrived<Operators>) -> Result<HttpResponse, Problem> {
    let edge = Arc::clone(&arrived.edge);
    let text = apart(move || edge.authority().metrics.read(&edge)).await?;
    Ok(HttpResponse::Ok().insert_header((header::CONTENT_TYPE, MEDIA_TYPE)).body(text))
}

/// `GET /operator/v1/openapi.json`.
const OPENAPI: Route<Operators> = Route {
    access: Access::Read,
    ..pages::page(
        "/operator/v1/openapi.json",
        |_| Box::pin(std::future::ready(openapi_json())),
        Description::Page {
            name: "openapi",
            summary: "This document",
            text: "OpenAPI 3.1, for generators of clients and for tools.",
            media_types: &["application/json"],
            problems: &[ProblemKind::NotAuthenticated],
        },
    )
};

fn openapi_json() -> Result<HttpResponse, Problem> {
    static DOCUMENT: LazyLock<Option<SharedPage>> =
        LazyLock::new(|| SharedPage::json(&document().ok()?).ok());
    Ok(DOCUMENT.as_ref().ok_or_else(Problem::internal)?.answer())
}

/// The description of this listener.
pub(super) fn document() -> Result<serde_json::Value, serde_json::Error> {
    openapi::document_of::<Operators>(&AboutListener {
        title: "MIMI gateway, for operators",
        introduction: "\
The interface for the people who run a MIMI gateway. A token of an operator is no token of an application, nor the reverse; `/`, \
the console with its files, `/healthz`, `/readyz` and `/metrics` need none. Every error is a problem document (RFC 9457), whose `type` the listener for \
application servers explains. A `HEAD` is answered wherever `GET` is. No answer holds a token, except the one that makes it, a key \
or a message.",
        token: "A token of an operator, for reading or for reading and writing.",
        sections: &[
            ("Applications and tokens", "The applications of this gateway, and the tokens of their servers."),
            ("Clients", "Clients, and the key packages that each has left."),
            ("Groups", "Sizes and epochs of groups, and their deletion."),
            ("Audit", "What happened to whom, for questions that come later."),
            ("Peers", "The gateways of other domains."),
            ("Backups", "Files with all that the store holds."),
            ("This gateway", "Health, metrics and this document."),
        ],
    })
}

/// The age up to which metrics are shown again, so that callers without a token cause little work.
const METRICS_AGE: Duration = Duration::from_secs(1);

/// The metrics of the gateway and its listeners, as they were read last.
pub(crate) struct ShownMetrics {
    observed: Observed,
    /// The requests of the other listeners.
    others: Vec<Arc<ListenerCounts>>,
    last: Mutex<Option<(Instant, Bytes)>>,
}

impl ShownMetrics {
    /// The metrics of a gateway and of its listeners other than the one that shows them.
    pub(crate) fn new(observed: Observed, others: Vec<Arc<ListenerCounts>>) -> Self {
        Self { observed, others, last: Mutex::default() }
    }

    /// The backups of the gateway.
    fn backups(&self) -> &Arc<Backups> {
        &self.observed.backups
    }

    /// The metrics as text. It reads the disk, for one caller at a time.
    fn read(&self, edge: &Edge<Operators>) -> Bytes {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, text)) = last.as_ref()
            && at.elapsed() < METRICS_AGE
        {
            return text.clone();
        }
        let mut text = MetricsText::default();
        self.observed.write(edge.is_ready(), &mut text);
        let listeners: Vec<_> = self.others.iter().chain([edge.counts()]).map(Arc::clone).collect();
        counts::write(&listeners, &mut text);
        let text = Bytes::from(text.finish());
        *last = Some((Instant::now(), text.clone()));
        text
    }
}

/// The tokens of operators, and what they see.
pub(crate) struct Operators {
    tokens: RwLock<Vec<KnownOperator>>,
    shares: ListenerShares,
    metrics: ShownMetrics,
    pub(super) sampler: Arc<Sampler>,
    /// The tokens of applications.
    pub(super) book: Arc<TokenBook>,
}

#[derive(Debug)]
struct KnownOperator {
    hash: TokenHash,
    access: TokenAccess,
    shares: Arc<CallerShares>,
}

impl Operators {
    /// The operators of these tokens, each with its share.
    pub(crate) fn new(
        tokens: &[TokenSettings],
        shares: &ListenerShares,
        (metrics, sampler): (ShownMetrics, Sampler),
        book: Arc<TokenBook>,
    ) -> Self {
        let (tokens_known, sampler) = (RwLock::default(), Arc::new(sampler));
        let operators = Self { tokens: tokens_known, shares: shares.clone(), metrics, sampler, book };
        operators.replace_tokens(tokens);
        operators
    }

    /// The backups of the gateway.
    pub(super) fn backups(&self) -> &Arc<Backups> {
        self.metrics.backups()
    }

    /// Accepts these tokens and no others from now on. One that was accepted before keeps its share; the streams of one that is
    /// no longer accepted end.
    pub(crate) fn replace_tokens(&self, tokens: &[TokenSettings]) {
        let mut known = self.tokens.write().unwrap_or_else(PoisonError::into_inner);
        let next = tokens.iter().map(|token| {
            let before = known.iter().find(|known| bool::from(known.hash.matches(&token.sha256)));
            let shares = match before {
                Some(before) => Arc::clone(&before.shares),
                None => Arc::new(self.shares.caller()),
            };
            KnownOperator { hash: token.sha256, access: token.access, shares }
        });
        let next: Vec<KnownOperator> = next.collect();
        for before in
            known.iter().filter(|known| !next.iter().any(|next| bool::from(next.hash.matches(&known.hash))))
        {
            before.shares.revoke();
        }
        *known = next;
    }
}

impl Authenticator for Operators {
    const LISTENER: &'static str = "operator";

    type Caller = ();

    fn routes() -> &'static [Route<Self>] {
        OPERATOR_ROUTES
    }

    /// It takes the same time for every token of the same length: the hash is compared with all known ones.
    fn admit(&self, request: &Request, route: &Route<Self>, _: &[&str]) -> Result<Admitted<()>, Problem> {
        if route.access == Access::Public {
            return Ok(((), None));
        }
        let hash = presented(request.headers())?;
        let tokens = self.tokens.read().unwrap_or_else(PoisonError::into_inner);
        let mut found = None;
        for known in tokens.iter() {
            if bool::from(known.hash.matches(&hash)) {
                found = Some(known);
            }
        }
        let known = found.ok_or_else(|| Problem::not_authenticated("the token is not one of an operator"))?;
        check_access(route.access, known.access)?;
        Ok(((), Some(Arc::clone(&known.shares))))
    }
}
