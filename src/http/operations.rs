//! The endpoints under `/operator/v1`: applications with their tokens and clients, groups, peers, backups.

use std::sync::Arc;

use actors::{AppId, ClientFigures, ClientId, ClientRow, EpochFigures, Gateway, StorageError};

use super::{
    clients,
    edge::Edge,
    groups::page_of_groups,
    operator::Operators,
    problem::Problem,
    route::{Answer, Call, Handle, apart, encoded},
};
use crate::api::{
    Nothing,
    backups::{ListBackups, ListedBackups, MadeBackup, MakeBackup},
    groups::Groups,
    operated_clients::{ListOperatedClients, OperatedClient, OperatedClients},
    operated_groups::{
        ComparedTrust, DeleteOperatedGroup, EpochLoser, GroupEpochs, GroupFollower, InspectGroup,
        InspectedEpoch, InspectedGroup, ListGroupEpochs, ListOperatedGroups, ListPeers, ListedPeer,
        ListedPeers,
    },
    operator::{
        ApplicationQuotas, BoundedCount, ListOperatedApplications, ListTokens, ListedTokens, MadeTokenBody,
        MakeToken, OperatedApplication, OperatedApplications, RevokeToken,
    },
    problem::ProblemKind,
    text::{GroupIdText, HandleText},
};
use crate::{
    backups::NoBackup,
    federation::{Federation, PeerTrust},
    metrics::LAG_GROUPS_MAX,
};

impl Handle<Operators> for ListOperatedApplications {
    async fn handle(call: Call<Self, Operators>) -> Result<Answer<OperatedApplications>, Problem> {
        let edge = call.edge;
        call.turn.begin().await?;
        let list = move || {
            let described = edge.gateway.applications().map(|application| {
                let figures = edge.gateway.application_figures(application.id, BoundedCount::MAX + 1)?;
                Ok(OperatedApplication {
                    id: application.id,
                    federates_with: application.federates_with.iter().cloned().collect(),
                    clients: BoundedCount::of(figures.clients),
                    groups: BoundedCount::of(figures.groups),
                    key_packages: BoundedCount::of(figures.key_packages),
                    quotas: ApplicationQuotas::of(&figures.usage, &application.quotas),
                })
            });
            let mut applications = described.collect::<Result<Vec<_>, Problem>>()?;
            applications.sort_by_key(|application| application.id);
            Ok(OperatedApplications { applications })
        };
        apart(list).await?.map(Answer::Ok)
    }
}

/// The number of key queues and key packages after which a page of clients ends.
const COUNTED_PER_PAGE: u64 = 10_000;

impl Handle<Operators> for ListOperatedClients {
    async fn handle(call: Call<Self, Operators>) -> Result<Answer<OperatedClients>, Problem> {
        let (edge, app) = (call.edge, call.path.app);
        check_known(&edge, app)?;
        let client = |id: &[u8]| uuid::Uuid::from_slice(id).ok().map(ClientId::new);
        let after = edge.cursors.take(&list_of_clients(&app), call.query.cursor.as_deref(), client)?;
        let limit = call.query.limit.get();
        call.turn.begin().await?;
        let inspect = move || {
            let mut rows = edge.gateway.clients_after(app, after, limit.saturating_add(1))?;
            let page = rows.iter().take(clients::fitting(&rows).min(limit));
            let figures = figures_of(page, |row| edge.gateway.client_figures(app, row.client_id))?;
            let next_cursor = edge.cursors.cut(&list_of_clients(&app), &mut rows, figures.len(), |row| {
                row.client_id.as_uuid().as_bytes()
            });
            let clients = rows.into_iter().zip(figures).map(operated_client).collect();
            Ok::<_, Problem>(OperatedClients { clients, next_cursor })
        };
        let found = apart(inspect).await??;
        let is_large = found.clients.len() > clients::IDENTITIES_AT_ONCE;
        encoded(found, is_large).await
    }
}

/// The figures of a page of clients. It ends with the client at which [`COUNTED_PER_PAGE`] is reached.
fn figures_of<'a, E>(
    page: impl Iterator<Item = &'a ClientRow>,
    figures: impl Fn(&ClientRow) -> Result<ClientFigures, E>,
) -> Result<Vec<ClientFigures>, E> {
    let (mut found, mut counted) = (Vec::new(), 0);
    for row in page {
        let figures = figures(row)?;
        counted += count(figures.queues) + figures.key_packages.held;
        found.push(figures);
        if counted >= COUNTED_PER_PAGE {
            break;
        }
    }
    Ok(found)
}

/// The clients of an application, as cursors name the list.
fn list_of_clients(app: &AppId) -> [&[u8]; 2] {
    [b"clients for operators", app.as_uuid().as_bytes()]
}

fn operated_client((row, figures): (ClientRow, ClientFigures)) -> OperatedClient {
    OperatedClient {
        client_id: row.client_id,
        client_handle: HandleText(row.handle),
        domain: row.domain,
        tags: row.tags.into_iter().collect(),
        key_queues: count(figures.queues),
        key_packages_available: figures.key_packages.available,
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

impl Handle<Operators> for ListOperatedGroups {
    async fn handle(call: Call<Self, Operators>) -> Result<Answer<Groups>, Problem> {
        let (edge, app) = (call.edge, call.path.app);
        check_known(&edge, app)?;
        page_of_groups(&edge, app, b"groups for operators", &call.query).await.map(Answer::Ok)
    }
}

impl Handle<Operators> for InspectGroup {
    async fn handle(call: Call<Self, Operators>) -> Result<Answer<InspectedGroup>, Problem> {
        let (edge, app, group) = (call.edge, call.path.application.app, call.path.group);
        check_known(&edge, app)?;
        call.turn.begin().await?;
        let view = edge.gateway.group(app, &group).await?;
        let inspect = move || {
            let figures = edge.gateway.group_figures(app, &group)?;
            let follower = |(domain, lag_entries)| GroupFollower { domain, lag_entries };
            Ok(InspectedGroup {
                epoch_id: view.epoch,
                hub_domain: view.hub.clone(),
                created_at: figures.created_at,
                cipher_suite: view.cipher_suite,
                members: count(view.members_count()),
                ratchet_tree_bytes: count(view.ratchet_tree().len()),
                proposals: count(view.proposals.len()),
                log_entries: figures.log_entries,
                oldest_epoch_id: figures.oldest_epoch,
                followers: figures.followers.into_iter().map(follower).collect(),
                group_id: GroupIdText(group),
            })
        };
        apart(inspect).await?.map(Answer::Ok)
    }
}

impl Handle<Operators> for DeleteOperatedGroup {
    async fn handle(call: Call<Self, Operators>) -> Result<Answer<Nothing>, Problem> {
        let (edge, app, group) = (call.edge, call.path.application.app, call.path.group);
        check_known(&edge, app)?;
        edge.gateway.delete_group(app, &group).await?;
        tracing::info!(application = %app, ?group, "an operator deleted a group");
        Ok(Answer::NoContent)
    }
}

impl Handle<Operators> for ListGroupEpochs {
    async fn handle(call: Call<Self, Operators>) -> Result<Answer<GroupEpochs>, Problem> {
        let (edge, app, group) = (call.edge, call.path.application.app, call.path.group);
        check_known(&edge, app)?;
        call.turn.begin().await?;
        let (before, limit) = (call.query.before, call.query.limit.get());
        let epochs = apart(move || edge.gateway.epochs_before(app, &group, before, limit)).await??;
        let inspected = |epoch: EpochFigures| InspectedEpoch {
            epoch_id: epoch.epoch,
            timestamp: epoch.timestamp,
            committer_leaf_index: epoch.committer,
            commit_bytes: count(epoch.commit_bytes),
            proposals: count(epoch.proposals),
            losers: epoch
                .lost
                .iter()
                .map(|lost| EpochLoser { leaf_index: lost.committer, at: lost.at })
                .collect(),
        };
        Ok(Answer::Ok(GroupEpochs { epochs: epochs.into_iter().map(inspected).collect() }))
    }
}

impl Handle<Operators> for ListPeers {
    async fn handle(call: Call<Self, Operators>) -> Result<Answer<ListedPeers>, Problem> {
        let Some(federation) = call.edge.federation.clone() else {
            return Ok(Answer::Ok(ListedPeers { peers: Vec::new() }));
        };
        call.turn.begin().await?;
        let list =
            move || Ok::<_, Problem>(ListedPeers { peers: listed_peers(&federation, &call.edge.gateway)? });
        apart(list).await?.map(Answer::Ok)
    }
}

impl Handle<Operators> for ListBackups {
    async fn handle(call: Call<Self, Operators>) -> Result<Answer<ListedBackups>, Problem> {
        let backups = Arc::clone(call.edge.authority().backups());
        call.turn.begin().await?;
        let directory = backups.directory().map(|directory| directory.display().to_string());
        let listed = apart(move || backups.list()).await?;
        let listed = listed.map_err(|error| {
            tracing::warn!(%error, "the backups cannot be listed");
            Problem::new(ProblemKind::StorageUnavailable, format!("the backups cannot be listed: {error}"))
        })?;
        Ok(Answer::Ok(ListedBackups { directory, backups: listed }))
    }
}

impl Handle<Operators> for MakeBackup {
    async fn handle(call: Call<Self, Operators>) -> Result<Answer<MadeBackup>, Problem> {
        let backups = Arc::clone(call.edge.authority().backups());
        call.turn.begin().await?;
        let directory = backups.directory().map(|directory| directory.display().to_string());
        let made = apart(move || backups.make()).await?;
        let (listed, summary) = made.map_err(|error| match error {
            NoBackup::Busy => Problem::new(ProblemKind::TooManyRequests, "another backup is being made"),
            NoBackup::NoDirectory | NoBackup::Stopping | NoBackup::Failed(_) => {
                Problem::new(ProblemKind::StorageUnavailable, format!("no backup was made: {error}"))
            }
        })?;
        Ok(Answer::Created(MadeBackup {
            directory: directory.unwrap_or_default(),
            name: listed.name,
            created_at: listed.created_at,
            bytes: listed.bytes,
            rows: summary.rows(),
        }))
    }
}

/// The gateways of other domains, with what each lacks. It reads the disk.
pub(super) fn listed_peers(
    federation: &Federation,
    gateway: &Gateway,
) -> Result<Vec<ListedPeer>, StorageError> {
    let listed = federation.peers().map(|(domain, status)| {
        let lag = gateway.peer_lag(domain, LAG_GROUPS_MAX)?;
        let disagreement = gateway.peer_disagreement(domain);
        Ok(ListedPeer {
            domain: domain.clone(),
            is_reachable: status.is_reachable,
            last_contact: status.answered_s.map(|at| at.saturating_mul(1000)),
            refusals: status.refusals,
            lag_groups: lag.groups,
            lag_entries: lag.entries,
            groups_lost_here: disagreement.lost_here,
            groups_lost_there: disagreement.lost_there,
            trust: federation.peer_trust(domain).into_iter().map(compared_trust).collect(),
        })
    });
    listed.collect()
}

fn compared_trust(PeerTrust { app, differs }: PeerTrust) -> ComparedTrust {
    ComparedTrust { application: app, differs }
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

pub(super) fn check_known(edge: &Edge<Operators>, app: AppId) -> Result<(), Problem> {
    match edge.gateway.application(app) {
        Some(_) => Ok(()),
        None => {
            Err(Problem::new(ProblemKind::UnknownApplication, "this gateway has no application of this id"))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, convert::Infallible};

    use actors::{ClientHandle, QueueCounts, Timestamp};

    use super::*;

    #[test]
    fn a_page_of_clients_ends_where_enough_was_counted() {
        let row = ClientRow {
            client_id: ClientId::random(),
            handle: ClientHandle::new("alice").unwrap(),
            domain: None,
            tags: BTreeSet::new(),
            handle_generation: 0,
            created_at: Timestamp(1),
        };
        let rows = vec![row; 30];
        let clients = |queues, held| {
            let key_packages = QueueCounts { held, available: 0 };
            let figures = |_: &ClientRow| Ok::<_, Infallible>(ClientFigures { queues, key_packages });
            figures_of(rows.iter(), figures).unwrap().len()
        };
        assert_eq!(clients(0, 0), 30);
        assert_eq!(clients(1, 999), 10);
        assert_eq!(clients(0, 999), 11);
        assert_eq!(clients(64, 100_000), 1, "a page has a client, however much it has");
    }

    #[test]
    fn what_is_beyond_the_bound_is_more() {
        let of = |found| {
            let BoundedCount { count, is_more } = BoundedCount::of(found);
            (count, is_more)
        };
        assert_eq!([of(0), of(9_999), of(10_000)], [(0, false), (9_999, false), (10_000, false)]);
        assert_eq!([of(10_001), of(usize::MAX)], [(10_000, true), (10_000, true)]);
    }
}
