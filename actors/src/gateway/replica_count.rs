//! The number of replicas of each other gateway's groups, bounded so that no peer fills the store.

use std::sync::Arc;

use dashmap::DashMap;
use snapshots::{AppId, DomainName};
use tokio::sync::OnceCell;

use crate::{error::StorageError, group::GroupError, services::Services};

/// The number of groups read at a time while replicas are counted.
const READ_AT_ONCE: usize = 512;

type Counts = DashMap<(AppId, DomainName), usize>;

/// The number of replicas by application and hub, counted when the first replica after the start is created.
#[derive(Debug, Default)]
pub(crate) struct ReplicaCount(OnceCell<Counts>);

/// Room for one more replica; dropping it returns the room unless [`Room::keep`] was called.
#[derive(Debug)]
pub(crate) struct Room<'a> {
    counts: &'a Counts,
    of: (AppId, DomainName),
    is_used: bool,
}

impl ReplicaCount {
    /// Reserves room for one more replica of a hub.
    ///
    /// # Errors
    /// [`GroupError::TooManyGroups`], or that the store cannot be read.
    pub(crate) async fn take(
        &self,
        services: &Arc<Services>,
        app: AppId,
        hub: &DomainName,
    ) -> Result<Room<'_>, GroupError> {
        let max = services.limits.groups_per_peer_max;
        let of = (app, hub.clone());
        let counts = self.0.get_or_try_init(|| counted(services)).await?;
        let mut count = counts.entry(of.clone()).or_default();
        if *count >= max {
            return Err(GroupError::TooManyGroups { hub: hub.clone(), max });
        }
        *count += 1;
        drop(count);
        Ok(Room { counts, of, is_used: false })
    }

    /// Returns the room of a deleted replica.
    pub(crate) fn give_back(&self, app: AppId, hub: &DomainName) {
        if let Some(counts) = self.0.get() {
            less(counts, &(app, hub.clone()));
        }
    }
}

impl Room<'_> {
    /// Keeps the room: the replica was created.
    pub(crate) fn keep(mut self) {
        self.is_used = true;
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        if !self.is_used {
            less(self.counts, &self.of);
        }
    }
}

fn less(counts: &Counts, of: &(AppId, DomainName)) {
    if let Some(mut count) = counts.get_mut(of) {
        *count = count.saturating_sub(1);
    }
}

async fn counted(services: &Arc<Services>) -> Result<Counts, StorageError> {
    let services = Arc::clone(services);
    tokio::task::spawn_blocking(move || count(&services)).await.map_err(|_| StorageError::Unreadable)?
}

fn count(services: &Services) -> Result<Counts, StorageError> {
    let counts = Counts::new();
    for application in services.applications.values().filter(|application| application.supports_domains) {
        let mut after = None;
        loop {
            // A new view for each page, so that none is held for long.
            let groups = services.store.view().groups(application.id, after, READ_AT_ONCE)?;
            for (_, row) in &groups {
                if let Some(hub) = row.hub.as_ref().filter(|hub| !application.is_hub(Some(hub))) {
                    *counts.entry((application.id, hub.clone())).or_default() += 1;
                }
            }
            match groups.into_iter().last() {
                Some((last, _)) => after = Some(last),
                None => break,
            }
        }
    }
    Ok(counts)
}
