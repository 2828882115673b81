//! Deletion of groups that are idle, erasure of what deleted groups leave, and the end of the time for which their ids stay
//! taken.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use snapshots::{
    AppId, AppendError, ClientHandle, GroupId, GroupRow, LogId, Retention, SweepError, Timestamp, View,
};

use super::registry::Registry;
use crate::{
    application::Application,
    deletions::DeletionCause,
    durable::DurableState as _,
    error::StorageError,
    group::{GroupMeta, GroupState, LoggedEntry, deletion},
    services::Services,
};

/// The groups that are looked at, or erased, at a time.
const AT_ONCE: usize = 256;

impl Registry {
    /// Deletes a group: one batch deletes its row and its log, and the rest is erased later. `unchanged_at` is the last entry that
    /// its log may have; `None` for any.
    ///
    /// # Errors
    /// [`AppendError`]; with a precondition when the group was deleted or replaced meanwhile, or has another entry.
    pub(crate) async fn delete_group(
        &self,
        meta: &GroupMeta,
        cause: DeletionCause,
        unchanged_at: Option<u64>,
    ) -> Result<(), AppendError> {
        let batch = deletion(meta, unchanged_at, self.services().clock.now());
        // What follows the write happens even if the caller has gone.
        let (registry, meta) = (self.clone(), meta.clone());
        let deleting = tokio::spawn(async move {
            let services = registry.services();
            match services.store.append(batch).await {
                Ok(appended) => {
                    // No request finds the owner from here on. It may be at work still; its appends require the row of the group.
                    registry.close_deleted(&meta);
                    drop(appended.announced);
                    services.deletions.note(cause);
                    tracing::info!(application = %meta.app, group = ?meta.group, ?cause, "a group was deleted");
                    Ok(())
                }
                Err(error) => {
                    if matches!(error, AppendError::Stalled { is_queued: true }) {
                        registry.close_when_deleted(meta, cause);
                    }
                    Err(error)
                }
            }
        });
        deleting.await.unwrap_or(Err(AppendError::Closed))
    }

    /// Ends the use of a group whose deletion is durable: its owner is closed, its followers are told, and the rest is erased.
    /// Doing so again is harmless.
    pub(crate) fn close_deleted(&self, meta: &GroupMeta) {
        self.close_group(meta.app, &meta.group);
        self.services().deletions.wake();
        meta.notify_peers(&*self.services().notices);
        for peer in
            self.services().applications.get(&meta.app).iter().flat_map(|app| app.federates_with.iter())
        {
            self.services().disagreements.clear(peer, meta.app, &meta.group);
        }
    }

    /// Waits for a disk that is slow, and then closes the group if its deletion was written.
    fn close_when_deleted(&self, meta: GroupMeta, cause: DeletionCause) {
        let registry = self.clone();
        tokio::spawn(async move {
            registry.services().store.settled().await;
            let view = registry.services().store.view();
            if let Ok(Some(_)) = view.deleted_group(meta.app, &meta.group) {
                registry.close_deleted(&meta);
                registry.services().deletions.note(cause);
            }
        });
    }
}

/// Erases what deleted groups leave, whenever some were deleted. Never ends.
pub(super) async fn erase_always(services: Arc<Services>) {
    loop {
        services.deletions.wait().await;
        if let Err(error) = erase_all(&services).await {
            // The next sweep tries again.
            tracing::error!(%error, "what deleted groups leave could not be erased");
        }
    }
}

async fn erase_all(services: &Arc<Services>) -> Result<(), SweepError> {
    while !services.is_stopping() {
        let view = services.store.view();
        let deleted: BTreeSet<_> = view.groups_to_erase(AT_ONCE)?.into_iter().collect();
        drop(view);
        if deleted.is_empty() {
            return Ok(());
        }
        for (app, group) in &deleted {
            let handles = members(services, *app, group).await;
            services.store.erase_memberships(*app, group, handles).await?;
        }
        services.store.erase_join_infos(&deleted).await?;
        for (app, group) in &deleted {
            services.store.erase_group(*app, group).await?;
        }
    }
    Ok(())
}

/// The handles of the members of a deleted group; `None` if they cannot be read. Those of a group whose memberships are erased are
/// none.
async fn members(services: &Arc<Services>, app: AppId, group: &GroupId) -> Option<Vec<ClientHandle>> {
    let (view, group) = (services.store.view(), group.clone());
    let reading = move || {
        let Some(log) = view.deleted_log(app, &group)? else { return Ok(Vec::new()) };
        let snapshot = log.snapshot.as_ref().map(|(_, snapshot)| snapshot.as_ref());
        let records = log.records.iter().map(|(number, record)| (*number, record.as_ref()));
        let state = GroupState::restore(snapshot, records).map_err(|error| {
            tracing::error!(?group, %error, "the members of a deleted group cannot be read");
            StorageError::Unreadable
        })?;
        Ok::<_, StorageError>(state.members().map(|member| member.handle.clone()).collect())
    };
    snapshots::away(reading).await.ok()?.ok()
}

/// Deletes groups in which nothing was accepted for too long, and frees the ids of groups that were deleted long ago.
pub(super) async fn sweep(
    registry: &Registry,
    retention: &Retention,
    now: Timestamp,
    progress: &mut IdleProgress,
) -> Result<(), SweepError> {
    if let Some(idle_max) = retention.group_idle_max {
        let applications: Vec<_> = registry.services().applications.values().cloned().collect();
        for application in applications {
            let after = progress.remove(&application.id);
            let since = now.saturating_sub(idle_max);
            if let Some(last) = delete_idle(registry, &application, since, after, retention.read_max).await? {
                progress.insert(application.id, last);
            }
        }
    }
    forget_old(registry.services(), now.saturating_sub(retention.deleted_age_max)).await?;
    // One that failed is tried again.
    registry.services().deletions.wake();
    Ok(())
}

/// The group of each application after which the next sweep goes on to look for idle ones; from the first if there is none.
pub(super) type IdleProgress = BTreeMap<AppId, GroupId>;

/// Deletes the groups that this gateway orders and in which nothing was accepted since a time. It looks at about `read_max` groups,
/// and returns the last of them if there may be more.
async fn delete_idle(
    registry: &Registry,
    application: &Application,
    since: Timestamp,
    mut after: Option<GroupId>,
    read_max: usize,
) -> Result<Option<GroupId>, SweepError> {
    let mut read = 0;
    loop {
        let (view, of, from) = (registry.services().store.view(), application.clone(), after.take());
        let found = snapshots::away(move || idle_groups(&view, &of, from, since));
        read += AT_ONCE;
        let (idle, last) = found.await.map_err(|_| unreadable())??;
        for (group, row, head) in idle {
            let meta = GroupMeta::new(application, group, row);
            match registry.delete_group(&meta, DeletionCause::Idle, Some(head)).await {
                // It is not idle any more, or was deleted.
                Ok(()) | Err(AppendError::Precondition(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        match last {
            Some(last) if read < read_max && !registry.services().is_stopping() => after = Some(last),
            last => return Ok(last),
        }
    }
}

/// An idle group, with the number of its newest entry.
type IdleGroup = (GroupId, GroupRow, u64);

/// The idle ones among the next groups, and the last of these if there may be more.
fn idle_groups(
    view: &View,
    application: &Application,
    after: Option<GroupId>,
    since: Timestamp,
) -> Result<(Vec<IdleGroup>, Option<GroupId>), SweepError> {
    let app = application.id;
    let groups = view.groups(app, after, AT_ONCE)?;
    let last = groups.last().filter(|_| groups.len() == AT_ONCE).map(|(group, _)| group.clone());
    let mut idle = Vec::new();
    for (group, row) in groups {
        if !application.is_hub(row.hub.as_ref()) || row.created_at >= since {
            continue;
        }
        let Some(head) = view.log_head(&LogId::Group(app, group.clone()))? else { continue };
        if last_accepted(view, app, &group, (&row, head))? < since {
            idle.push((group, row, head));
        }
    }
    Ok((idle, last))
}

/// When the newest entry of a group was accepted.
fn last_accepted(
    view: &View,
    app: AppId,
    group: &GroupId,
    (row, head): (&GroupRow, u64),
) -> Result<Timestamp, SweepError> {
    let entry = view.log_entry(app, group, head)?.and_then(|bytes| LoggedEntry::read(head, &bytes).ok());
    let of_epoch = view.epoch(app, group, row.epoch)?.map(|epoch| epoch.timestamp);
    let accepted = [Some(row.created_at), of_epoch, entry.map(|logged| logged.entry.timestamp)];
    Ok(accepted.into_iter().flatten().max().unwrap_or(row.created_at))
}

/// Frees the ids of groups that were deleted before a time, except those of which a follower is still to be told.
async fn forget_old(services: &Arc<Services>, before: Timestamp) -> Result<(), SweepError> {
    let mut after = None;
    loop {
        let (view, from) = (services.store.view(), after.take());
        let found = snapshots::away(move || view.groups_deleted_before(before, from.as_ref(), AT_ONCE));
        let found = found.await.map_err(|_| unreadable())??;
        let view = services.store.view();
        for (_, app, group) in &found {
            let Some(row) = view.deleted_group(*app, group)?.filter(|row| row.is_erased) else { continue };
            let application = services.applications.get(app);
            let peers = || application.into_iter().flat_map(|application| application.federates_with.iter());
            let waits = peers().map(|peer| view.is_in_outbox(peer, *app, group));
            if waits.collect::<Result<Vec<_>, _>>()?.contains(&true) {
                continue;
            }
            let mut batch = snapshots::Batch::new();
            batch.forget_deleted_group(*app, group);
            // Another group of this id begins anew at every peer.
            peers().for_each(|peer| _ = batch.forget_peer_of(peer, *app, group));
            services.store.append(batch).await?;
            let of_peer = row
                .hub
                .as_ref()
                .filter(|hub| application.is_some_and(|application| !application.is_hub(Some(hub))));
            if let Some(hub) = of_peer {
                services.replicas.give_back(*app, hub);
            }
        }
        drop(view);
        match found.into_iter().last() {
            Some(last) if !services.is_stopping() => after = Some(last),
            Some(_) | None => return Ok(()),
        }
    }
}

fn unreadable() -> SweepError {
    SweepError::Read(snapshots::ReadError::Storage("reading stopped".to_owned()))
}
