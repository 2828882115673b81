//! Results of searches for members whose certificates are revoked, and the call that begins one.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use snapshots::{AppId, Timestamp};
use tokio::sync::Notify;

/// A search through the groups of an application that this gateway orders.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RevocationSearch {
    /// Groups that were looked through.
    pub groups: usize,
    /// Members of them whose certificates are revoked.
    pub revoked_members: usize,
    /// Groups that could not be read, or whose revoked members could not all be proposed for removal. They are tried again.
    pub failed_groups: usize,
    /// Whether groups are being looked through now, rather than waiting to be tried again.
    pub is_running: bool,
    /// The time at which it ended; `None` before.
    pub ended: Option<Timestamp>,
}

/// The latest searches.
#[derive(Debug, Default)]
pub(crate) struct RevocationSearches {
    wanted: Notify,
    latest: Mutex<HashMap<AppId, RevocationSearch>>,
}

impl RevocationSearches {
    /// Begins a search, after the present one if there is one.
    pub(crate) fn wake(&self) {
        self.wanted.notify_one();
    }

    /// Waits until a search is wanted.
    pub(crate) async fn wait(&self) {
        self.wanted.notified().await;
    }

    pub(crate) fn note(&self, app: AppId, search: RevocationSearch) {
        self.searches().insert(app, search);
    }

    /// Notes that nothing is revoked any more in an application, if members were sought there before.
    pub(crate) fn clear(&self, app: AppId, now: Timestamp) {
        if let Some(latest) = self.searches().get_mut(&app) {
            *latest = RevocationSearch { ended: Some(now), ..RevocationSearch::default() };
        }
    }

    pub(crate) fn latest(&self, app: AppId) -> Option<RevocationSearch> {
        self.searches().get(&app).copied()
    }

    /// Every value of the map is whole between any two statements.
    fn searches(&self) -> MutexGuard<'_, HashMap<AppId, RevocationSearch>> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
