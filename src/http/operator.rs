//! The operators' listener: its tokens and its endpoints.

use std::sync::Arc;

use actix_http::{HttpMessage as _, Request};
use actix_web::{HttpResponse, http::header};
use serde_json::json;

use super::{
    auth::{Admitted, Authenticator, check_access, presented},
    callers::{CallerShares, ListenerShares},
    openapi::Description,
    pages,
    problem::Problem,
    route::Route,
};
use crate::{
    api::{Access, problem::ProblemKind},
    config::{TokenAccess, TokenSettings},
    token::TokenHash,
};

/// Every route of the operators' listener.
static OPERATOR_ROUTES: &[Route<Operators>] = &[ROOT, pages::healthz(), pages::readyz(), APPLICATIONS];

/// The text of `/`.
const CONTENTS: &str = "\
The operators' listener of a MIMI gateway.

/healthz                     the process is up
/readyz                      requests are answered
/operator/v1/applications    the applications; needs a token of an operator
";

/// `GET /`: what there is.
const ROOT: Route<Operators> = pages::page(
    "/",
    |_| {
        let contents = HttpResponse::Ok()
            .insert_header((header::CONTENT_TYPE, "text/plain; charset=utf-8"))
            .body(CONTENTS);
        Box::pin(std::future::ready(Ok(contents)))
    },
    Description::Page {
        name: "contents",
        summary: "The paths of this listener",
        text: "Plain text.",
        media_types: &["text/plain"],
        problems: &[],
    },
);

/// `GET /operator/v1/applications`.
const APPLICATIONS: Route<Operators> = Route {
    access: Access::Read,
    ..pages::page(
        "/operator/v1/applications",
        |arrived| {
            let mut applications: Vec<_> = arrived.edge.gateway.applications().collect();
            applications.sort_by_key(|application| application.id);
            let applications: Vec<_> = applications
                .into_iter()
                .map(|application| {
                    json!({ "id": application.id, "federatesWith": application.federates_with })
                })
                .collect();
            let answer = HttpResponse::Ok().json(json!({ "applications": applications }));
            Box::pin(std::future::ready(Ok(answer)))
        },
        Description::Page {
            name: "listApplications",
            summary: "The applications of this gateway",
            text: "Each with its id and the domains that it federates with.",
            media_types: &["application/json"],
            problems: &[ProblemKind::NotAuthenticated, ProblemKind::NotPermitted],
        },
    )
};

/// The tokens of operators.
#[derive(Debug)]
pub(crate) struct Operators(Vec<KnownOperator>);

#[derive(Debug)]
struct KnownOperator {
    hash: TokenHash,
    access: TokenAccess,
    shares: Arc<CallerShares>,
}

impl Operators {
    /// The operators of these tokens, each with its share.
    pub(crate) fn new(tokens: &[TokenSettings], shares: &ListenerShares) -> Self {
        let known = |token: &TokenSettings| KnownOperator {
            hash: token.sha256,
            access: token.access,
            shares: Arc::new(shares.caller()),
        };
        Self(tokens.iter().map(known).collect())
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
        let mut found = None;
        for known in &self.0 {
            if bool::from(known.hash.matches(&hash)) {
                found = Some(known);
            }
        }
        let known = found.ok_or_else(|| Problem::not_authenticated("the token is not one of an operator"))?;
        check_access(route.access, known.access)?;
        Ok(((), Some(Arc::clone(&known.shares))))
    }
}
