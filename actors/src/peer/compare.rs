//! Comparison of a peer's positions with the logs, at start and after the peer has lost its store: it finds the entries
//! and the deletions that the peer lacks.

use std::sync::Arc;

use snapshots::{AppId, Batch, DomainName, GroupId, LogId};

use crate::{application::Application, error::StorageError, services::Services};

/// Groups whose marks are compared with the peer's positions at once, at the start.
const COMPARED_AT_ONCE: usize = 512;

/// Marks every group of this hub whose entries the peer lacks: the peer may be new, or not have been configured for a
/// time.
fn compare(
    services: &Services,
    peer: &DomainName,
    trust: Trust,
    app: AppId,
    after: Option<&GroupId>,
) -> Result<Compared, StorageError> {
    let Some(application) = services.applications.get(&app) else { return Ok(Compared::default()) };
    let view = services.store.view();
    let groups = view.groups(app, after.cloned(), COMPARED_AT_ONCE)?;
    let mut compared = Compared::of_page(&groups);
    for (group, row) in groups {
        if !is_followed(application, row.hub.as_ref()) {
            continue;
        }
        let head = view.log_head(&LogId::Group(app, group.clone()))?;
        let next = match trust {
            Trust::Positions => view.peer_position(peer, app, &group)?.unwrap_or(0),
            Trust::Nothing => 0,
        };
        if head.is_some_and(|head| next <= head) {
            compared.batch.mark_outbox(peer, app, &group);
            if trust == Trust::Nothing {
                compared.batch.put_peer_position(peer, app, &group, 0);
            }
        }
    }
    Ok(compared)
}

/// Marks the deleted groups of this hub whose deletion the peer may not know: one that it was not told of, and every one if
/// it has lost its replicas, or has them from a backup.
fn compare_deleted(
    services: &Services,
    peer: &DomainName,
    trust: Trust,
    app: AppId,
    after: Option<&GroupId>,
) -> Result<Compared, StorageError> {
    let Some(application) = services.applications.get(&app) else { return Ok(Compared::default()) };
    let view = services.store.view();
    let deleted = view.deleted_groups(app, after.cloned(), COMPARED_AT_ONCE)?;
    let mut compared = Compared::of_page(&deleted);
    for (group, row) in deleted {
        if !is_followed(application, row.hub.as_ref()) {
            continue;
        }
        // The position is forgotten once the peer was told.
        if trust == Trust::Nothing || view.peer_position(peer, app, &group)?.is_some() {
            compared.batch.mark_outbox(peer, app, &group);
        }
    }
    Ok(compared)
}

#[derive(Default)]
struct Compared {
    batch: Batch,
    /// The group to continue after, if there are more.
    last: Option<GroupId>,
}

impl Compared {
    /// Nothing yet of a page of groups.
    fn of_page<T>(groups: &[(GroupId, T)]) -> Self {
        let last = groups.last().filter(|_| groups.len() == COMPARED_AT_ONCE);
        Self { batch: Batch::new(), last: last.map(|(group, _)| group.clone()) }
    }
}

/// Whether peers follow a group of this gateway. One without a hub was created when the application had no domains; no peer
/// follows it.
fn is_followed(application: &Application, hub: Option<&DomainName>) -> bool {
    hub.is_some() && application.is_hub(hub)
}

/// One page of a comparison.
type Comparison =
    fn(&Services, &DomainName, Trust, AppId, Option<&GroupId>) -> Result<Compared, StorageError>;

/// The known position of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trust {
    /// The position that it reported.
    Positions,
    /// None: it has lost its replicas.
    Nothing,
}

pub(super) async fn compare_all(
    services: Arc<Services>,
    peer: DomainName,
    trust: Trust,
) -> Result<(), StorageError> {
    let federating: Vec<AppId> = services
        .applications
        .values()
        .filter(|application| application.federates_with.contains(&peer))
        .map(|application| application.id)
        .collect();
    let kinds: [Comparison; 2] = [compare, compare_deleted];
    for (app, compare) in federating.into_iter().flat_map(|app| kinds.map(|compare| (app, compare))) {
        let mut after = None;
        loop {
            let (services_there, peer_there) = (Arc::clone(&services), peer.clone());
            let comparing = move || compare(&services_there, &peer_there, trust, app, after.as_ref());
            let compared = snapshots::away(comparing).await.map_err(|_| StorageError::Unreadable)??;
            if !compared.batch.is_empty() {
                services
                    .store
                    .append(compared.batch)
                    .await
                    .map_err(|error| StorageError::from_append(&error))?;
            }
            match compared.last {
                Some(last) => after = Some(last),
                None => break,
            }
        }
    }
    Ok(())
}
