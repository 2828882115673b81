//! Forwarding to the gateways of other domains (*Client Discovery*, *Key Package Retrieval*, *Group Evolution*).

use std::time::Duration;

use actors::{AppId, DomainName, Epoch};

use super::{auth::Tokens, edge::Edge, problem::Problem, route::Answer};
use crate::{
    api::{
        Endpoint, Nothing, Success,
        paths::GroupPath,
        problem::{ProblemDocument, ProblemKind},
    },
    federation::{Federation, PeerError},
};

impl Edge<Tokens> {
    /// The domain that a request names, if it belongs to another gateway with which the application federates.
    pub(super) fn peer_of<'a>(
        &self,
        app: AppId,
        domain: Option<&'a DomainName>,
    ) -> Option<(&Federation, &'a DomainName)> {
        let domain = domain?;
        let application = self.gateway.application(app)?;
        let federation = self.federation.as_deref()?;
        application.federates_with.contains(domain).then_some((federation, domain))
    }

    /// Forwards a write to the gateway that orders the group. The answer comes back once the replica here has caught up, so
    /// that the writer, or the loser of a race, sees the result here. `await_accepted` waits until the replica shows the
    /// accepted write, or for the given time at most.
    pub(super) async fn forward_to_hub<E: Endpoint<Path = GroupPath, Query = Nothing>>(
        &self,
        hub: &DomainName,
        path: &GroupPath,
        body: &E::Body,
        await_accepted: impl AsyncFnOnce(&E::Response, Duration),
    ) -> Result<Answer<E::Response>, Problem> {
        let Some((federation, _)) = self.peer_of(path.app, Some(hub)) else {
            let reason = "the application does not federate with it any more".to_owned();
            return Err(PeerError::Unreachable { domain: hub.clone(), reason }.into());
        };
        let at_most = federation.replica_timeout();
        match federation.ask::<E>(hub, path.app, path, &Nothing {}, body).await {
            Ok(reply) => {
                await_accepted(&reply.body, at_most).await;
                let is_new = reply.status == Success::Created.status();
                Ok(if is_new { Answer::Created(reply.body) } else { Answer::Ok(reply.body) })
            }
            Err(error) => {
                if let PeerError::Refused(problem) = &error
                    && let Some(current) = epoch_ahead(problem)
                {
                    self.gateway.await_epoch(path.app, &path.group, current, at_most).await;
                }
                Err(error.into())
            }
        }
    }
}

/// The hub's current epoch, from its answer to a packet for an earlier one.
fn epoch_ahead(problem: &ProblemDocument) -> Option<Epoch> {
    if problem.kind() != Some(ProblemKind::StaleEpoch) {
        return None;
    }
    problem.members.get("currentEpochId")?.as_u64().map(Epoch)
}
