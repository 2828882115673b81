//! Requests from other gateways (*Operational Context*): the routes of the federation listener.

use std::sync::Arc;

use actors::{AppId, DomainError, DomainName, GroupError, Requester, Source};

use super::{
    auth::Authenticator,
    clients,
    edge::Edge,
    groups, key_packages,
    peer_auth::Peers,
    problem::Problem,
    route::{Answer, Call, Handle, Route, encoded},
};
use crate::{
    api::{
        clients::{FindClients, IdentitiesBody},
        federation::{
            CompareConfiguration, ConfigurationBody, Discover, GatewayDescription, MissingEntriesBody,
            ReplicateLog, ReplicationAckBody,
        },
        groups::{AcceptedCommitBody, AcceptedProposalBody, UploadCommit, UploadProposal},
        key_packages::{RetrieveKeyPackage, RetrievedKeyPackage},
        reports::ReportEpoch,
        text::Base64,
    },
    federation::differences,
};

/// Every route of the federation listener.
pub(super) static PEER_ROUTES: &[Route<Peers>] = &[
    Route::of::<Discover>(),
    Route::of::<CompareConfiguration>(),
    Route::of::<FindClients>(),
    Route::of::<RetrieveKeyPackage>(),
    Route::of::<UploadProposal>(),
    Route::of::<UploadCommit>(),
    Route::of::<ReportEpoch>(),
    Route::of::<ReplicateLog>(),
];

/// Handlers that are the same on both listeners.
impl<A: Authenticator> Handle<A> for Discover {
    async fn handle(call: Call<Self, A>) -> Result<Answer<GatewayDescription>, Problem> {
        Ok(Answer::Ok(call.edge.description.as_ref().clone()))
    }
}

impl Handle<Peers> for CompareConfiguration {
    async fn handle(call: Call<Self, Peers>) -> Result<Answer<ConfigurationBody>, Problem> {
        let (app, peers) = (call.path.app, call.edge.authority());
        let (application, domain) = peers.shared_with(Some(app), &call.caller)?;
        let ConfigurationBody(theirs) = call.body;
        let differing = differences(&application.configuration, &theirs);
        peers.federation.note_comparison(&domain, app, &differing);
        if differing.is_empty() {
            return Ok(Answer::Ok(ConfigurationBody(application.configuration.clone())));
        }
        let detail = format!("the configuration of the application here differs in {}", differing.join(", "));
        Err(Problem::configuration_mismatch(detail, differing))
    }
}

/// Only clients of this gateway: a peer asks other gateways for theirs.
impl Handle<Peers> for FindClients {
    async fn handle(call: Call<Self, Peers>) -> Result<Answer<IdentitiesBody>, Problem> {
        check_own_domain(&call.edge, call.path.app, call.query.domain.as_ref())?;
        call.turn.begin().await?;
        let found = clients::find_here(&call.edge, call.path.app, &call.query).await?;
        let is_large = found.identities.len() > clients::IDENTITIES_AT_ONCE;
        encoded(found, is_large).await
    }
}

/// A package is assigned to a receiver of the peer, so no peer can take a package that is assigned to another's receiver.
impl Handle<Peers> for RetrieveKeyPackage {
    async fn handle(call: Call<Self, Peers>) -> Result<Answer<RetrievedKeyPackage>, Problem> {
        check_own_domain(&call.edge, call.path.app, call.query.domain.as_ref())?;
        let (_, domain) = call.edge.authority().shared_with(Some(call.path.app), &call.caller)?;
        let caller = Requester::Peer(domain);
        key_packages::assign_here(&call.edge, &call.path, call.query, caller, call.fields.is_head).await
    }
}

impl Handle<Peers> for UploadProposal {
    async fn handle(call: Call<Self, Peers>) -> Result<Answer<AcceptedProposalBody>, Problem> {
        let source = Source::Peer(call.caller.domains);
        let Base64(packet) = call.body.packet;
        Ok(groups::upload_proposal_here(&call.edge, &call.path, packet.into(), source).await?)
    }
}

impl Handle<Peers> for UploadCommit {
    async fn handle(call: Call<Self, Peers>) -> Result<Answer<AcceptedCommitBody>, Problem> {
        let source = Source::Peer(call.caller.domains);
        Ok(groups::upload_commit_here(&call.edge, &call.path, Arc::new(call.body.into()), source).await?)
    }
}

impl Handle<Peers> for ReplicateLog {
    async fn handle(call: Call<Self, Peers>) -> Result<Answer<ReplicationAckBody>, Problem> {
        let (path, peer) = (call.path, call.caller);
        let delivery = call.body.into_delivery(path.app, path.group);
        let delivery = delivery.map_err(|error| Problem::malformed(error.to_string()))?;
        let (hub, group) = (delivery.hub.clone(), delivery.group.clone());
        match call.edge.gateway.receive(&peer.domains, delivery).await {
            Ok(held) => Ok(Answer::Ok(ReplicationAckBody {
                next: held.next,
                needs_transfer: held.needs_transfer,
                retry_after_ms: held
                    .retry_after
                    .map(|pause| u64::try_from(pause.as_millis()).unwrap_or(u64::MAX)),
                missing: held
                    .missing
                    .map(|missing| MissingEntriesBody { from: *missing.start(), through: *missing.end() }),
                revision: held.revision,
                store: held.store,
            })),
            Err(error) => {
                // The fault of an entry is in the log already.
                if matches!(error, GroupError::NotFromHub(_)) {
                    tracing::warn!(%hub, ?group, peer = ?peer.domains, "refused a delivery: {error}");
                }
                Err(error.into())
            }
        }
    }
}

fn check_own_domain<A: Authenticator>(
    edge: &Edge<A>,
    app: AppId,
    domain: Option<&DomainName>,
) -> Result<(), Problem> {
    let domain = domain.ok_or(DomainError::Required)?;
    let is_own =
        edge.gateway.application(app).is_some_and(|application| application.domains.contains(domain));
    if is_own { Ok(()) } else { Err(DomainError::NotAssigned { domain: domain.clone() }.into()) }
}
