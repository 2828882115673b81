//! The number of replicas of each other gateway's groups, bounded so that no peer fills the store. The id of a deleted one counts
//! for as long as it stays taken.

use std::sync::Arc;

use dashmap::DashMap;
use snapshots::{AppId, DomainName};
use tokio::sync::OnceCell;

use crate::{error::StorageError, services::Services};

/// The number of groups read at a time while replicas are counted.
const READ_AT_ONCE: usize = 512;

/// The reason why there is no room for a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NoRoom {
    /// The hub has the largest allowed number.
    Full {
        /// The hub.
        hub: DomainName,
        /// The number.
        max: usize,
    },
    /// The replicas could not be counted.
    Uncounted(StorageError),
}

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
    /// [`NoRoom`].
    pub(crate) async fn take(
        &self,
        services: &Arc<Services>,
        app: AppId,
        hub: &DomainName,
    ) -> Result<Room<'_>, NoRoom> {
        let max = services.limits.groups_per_peer_max;
        let of = (app, hub.clone());
        let counts = self.0.get_or_try_init(|| counted(services)).await.map_err(NoRoom::Uncounted)?;
        let mut count = counts.entry(of.clone()).or_default();
        if *count >= max {
            return Err(NoRoom::Full { hub: hub.clone(), max });
        }
        *count += 1;
        drop(count);
        Ok(Room { counts, of, is_used: false })
    }

    /// Returns the room of a replica that is replaced, or of a deleted one whose id is free again.
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
    snapshots::away(move || count(&services)).await.map_err(|_| StorageError::Unreadable)?
}

fn count(services: &Services) -> Result<Counts, StorageError> {
    let counts = Counts::new();
    for application in services.applications.values().filter(|application| application.supports_domains) {
        let app = application.id;
        let add = |hub: &Option<DomainName>| {
            if let Some(hub) = hub.as_ref().filter(|hub| !application.is_hub(Some(hub))) {
                *counts.entry((app, hub.clone())).or_default() += 1;
            }
        };
        // A new view for each page, so that none is held for long.
        let mut after = None;
        loop {
            let groups = services.store.view().groups(app, after, READ_AT_ONCE)?;
            groups.iter().for_each(|(_, row)| add(&row.hub));
            let Some((last, _)) = groups.into_iter().last() else { break };
            after = Some(last);
        }
        let mut after = None;
        loop {
            let deleted = services.store.view().deleted_groups(app, after, READ_AT_ONCE)?;
            deleted.iter().for_each(|(_, row)| add(&row.hub));
            let Some((last, _)) = deleted.into_iter().last() else { break };
            after = Some(last);
        }
    }
    Ok(counts)
}
