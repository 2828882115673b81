//! The endpoints under `/operator/v1`: applications and their tokens.

use actors::{AppId, Application};

use super::{
    edge::Edge,
    operator::Operators,
    problem::Problem,
    route::{Answer, Call, Handle},
};
use crate::api::{
    Nothing,
    operator::{
        ListOperatedApplications, ListTokens, ListedTokens, MadeTokenBody, MakeToken, OperatedApplication,
        OperatedApplications, RevokeToken,
    },
    problem::ProblemKind,
};

impl Handle<Operators> for ListOperatedApplications {
    async fn handle(call: Call<Self, Operators>) -> Result<Answer<OperatedApplications>, Problem> {
        let described = |application: &Application| OperatedApplication {
            id: application.id,
            federates_with: application.federates_with.iter().cloned().collect(),
        };
        let mut applications: Vec<_> = call.edge.gateway.applications().map(described).collect();
        applications.sort_by_key(|application| application.id);
        Ok(Answer::Ok(OperatedApplications { applications }))
    }
}

impl Handle<Operators> for ListTokens {
    async fn handle(call: Call<Self, Operators>) -> Result<Answer<ListedTokens>, Problem> {
        check_known(&call.edge, call.path.app)?;
        Ok(Answer::Ok(ListedTokens { tokens: call.edge.authority().book.list(call.path.app).await }))
    }
}

impl Handle<Operators> for MakeToken {
    async fn handle(call: Call<Self, Operators>) -> Result<Answer<MadeTokenBody>, Problem> {
        let app = call.path.app;
        check_known(&call.edge, app)?;
        let token = call.edge.authority().book.make(app, call.body.access).await?;
        let token_id = token.hash().id();
        tracing::info!(application = %app, token = token_id, "an operator made a token");
        Ok(Answer::Created(MadeTokenBody { token_id, token: token.reveal().to_owned() }))
    }
}

impl Handle<Operators> for RevokeToken {
    async fn handle(call: Call<Self, Operators>) -> Result<Answer<Nothing>, Problem> {
        let (app, token) = (call.path.app, &call.path.token);
        check_known(&call.edge, app)?;
        call.edge.authority().book.revoke(app, token).await?;
        tracing::info!(application = %app, token, "an operator revoked a token");
        Ok(Answer::NoContent)
    }
}

fn check_known(edge: &Edge<Operators>, app: AppId) -> Result<(), Problem> {
    match edge.gateway.application(app) {
        Some(_) => Ok(()),
        None => {
            Err(Problem::new(ProblemKind::UnknownApplication, "this gateway has no application of this id"))
        }
    }
}
