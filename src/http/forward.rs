//! Forwarding to the gateways of other domains (*Client Discovery*, *Key Package Retrieval*, *Group Evolution*).

use std::time::Duration;

use actors::{AppId, DomainName, Epoch, Gateway};

use super::{auth::Tokens, edge::Edge, problem::Problem, route::Answer};
use crate::{
    api::{
        Endpoint, Nothing, Success,
        groups::{AcceptedCommitBody, AcceptedProposalBody, UploadCommit, UploadProposal},
        paths::GroupPath,
        problem::{ProblemDocument, ProblemKind},
    },
    federation::{Federation, PeerError},
};

/// A write to a group that can be forwarded to its hub.
pub(super) trait ForwardedWrite: Endpoint<Path = GroupPath, Query = Nothing> {
    /// Waits until the replica here shows the accepted write, or for the given time at most.
    async fn await_accepted(
        gateway: &Gateway,
        path: &GroupPath,
        sent: &Self::Body,
        accepted: &Self::Response,
        at_most: Duration,
    );
}

impl ForwardedWrite for UploadCommit {
    async fn await_accepted(
        gateway: &Gateway,
        path: &GroupPath,
        _: &Self::Body,
        accepted: &AcceptedCommitBody,
        at_most: Duration,
    ) {
        gateway.await_epoch(path.app, &path.group, accepted.epoch_id, at_most).await;
    }
}

impl ForwardedWrite for UploadProposal {
    async fn await_accepted(
        gateway: &Gateway,
        path: &GroupPath,
        sent: &Self::Body,
        accepted: &AcceptedProposalBody,
        at_most: Duration,
    ) {
        let proposal = (accepted.epoch_id, sent.packet.0.as_slice());
        gateway.await_proposal(path.app, &path.group, proposal, at_most).await;
    }
}

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
    /// that the writer, or the loser of a race, sees the result here.
    pub(super) async fn forward_to_hub<E: ForwardedWrite>(
        &self,
        hub: &DomainName,
        path: &GroupPath,
        body: &E::Body,
    ) -> Result<Answer<E::Response>, Problem> {
        let Some((federation, _)) = self.peer_of(path.app, Some(hub)) else {
            let reason = "the application does not federate with it any more".to_owned();
            return Err(PeerError::Unreachable { domain: hub.clone(), reason }.into());
        };
        let at_most = federation.replica_timeout();
        match federation.ask::<E>(hub, path.app, path, &Nothing {}, body).await {
            Ok(reply) => {
                E::await_accepted(&self.gateway, path, body, &reply.body, at_most).await;
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
