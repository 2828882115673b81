//! Reports of members that cannot open an epoch: of applications, of other gateways, and the list for operators.

use actors::{Epoch, GroupId, NewReport, ReportedEpoch, Source};

use super::{
    edge::Edge,
    operations::check_known,
    operator::Operators,
    peer_auth::Peers,
    problem::Problem,
    route::{Answer, Call, Handle, apart},
};
use crate::api::{
    reports::{
        ListReportedEpochs, ListedReport, ListedReports, ReportBody, ReportEpoch, Reporters, cursor_of,
        of_cursor,
    },
    text::GroupIdText,
};

impl Handle for ReportEpoch {
    async fn handle(call: Call<Self>) -> Result<Answer<Reporters>, Problem> {
        let (edge, path) = (&call.edge, &call.path);
        let domain = edge.gateway.reporter_domain(path.app, call.body.domain.clone())?;
        let body = ReportBody { domain, ..call.body };
        let report = NewReport::from(body.clone());
        match edge.gateway.report_epoch(path.app, &path.group, report, &Source::Application).await {
            Err(actors::GroupError::NotHub { hub }) => {
                edge.forward_to_hub::<Self>(&hub, path, &body, async |_, _| {}).await.map(accepted)
            }
            outcome => Ok(Answer::Accepted(Reporters { reporters: outcome? })),
        }
    }
}

/// The hub's answer, as it was given there.
fn accepted(answer: Answer<Reporters>) -> Answer<Reporters> {
    match answer {
        Answer::Ok(reporters) | Answer::Created(reporters) => Answer::Accepted(reporters),
        answer @ (Answer::Accepted(_)
        | Answer::Encoded(_)
        | Answer::NoContent
        | Answer::Tagged(..)
        | Answer::NotModified(_)
        | Answer::Events(..)) => answer,
    }
}

/// A peer reports for its own members.
impl Handle<Peers> for ReportEpoch {
    async fn handle(call: Call<Self, Peers>) -> Result<Answer<Reporters>, Problem> {
        let source = Source::Peer(call.caller.domains);
        let (path, report) = (call.path, NewReport::from(call.body));
        let reporters = call.edge.gateway.report_epoch(path.app, &path.group, report, &source).await?;
        Ok(Answer::Accepted(Reporters { reporters }))
    }
}

impl Handle<Operators> for ListReportedEpochs {
    async fn handle(call: Call<Self, Operators>) -> Result<Answer<ListedReports>, Problem> {
        let (edge, app, query) = (call.edge, call.path.app, call.query);
        check_known(&edge, app)?;
        let list: [&[u8]; 2] = [b"reports for operators", app.as_uuid().as_bytes()];
        let after = edge.cursors.take(&list, query.cursor.as_deref(), of_cursor)?;
        let limit = query.limit.get();
        call.turn.begin().await?;
        let edge_there = std::sync::Arc::clone(&edge);
        let read = move || edge_there.gateway.reported_epochs(app, after, limit.saturating_add(1));
        let mut found = apart(read).await??;
        let next_cursor = next_cursor(&edge, &list, &mut found, limit);
        Ok(Answer::Ok(ListedReports { epochs: found.into_iter().map(listed).collect(), next_cursor }))
    }
}

type Found = (GroupId, Epoch, ReportedEpoch);

fn next_cursor(
    edge: &Edge<Operators>,
    list: &[&[u8]],
    found: &mut Vec<Found>,
    limit: usize,
) -> Option<String> {
    let has_more = found.len() > limit;
    found.truncate(limit);
    let (group, epoch, _) = found.last().filter(|_| has_more)?;
    Some(edge.cursors.give(list, &cursor_of(group, *epoch)))
}

fn listed((group, epoch, row): Found) -> ListedReport {
    ListedReport {
        group_id: GroupIdText(group),
        epoch_id: epoch,
        reporters: row.reporters,
        first_at: row.first_at,
        told_at: row.told.map(|told| told.at),
        committer: row.committer.map(Into::into),
    }
}
