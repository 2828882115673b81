//! Counts of deleted groups, and the call that wakes their erasure.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

/// The cause of a deletion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DeletionCause {
    /// An application or an operator asked for it.
    Request,
    /// Nothing was accepted in the group for longer than a setting.
    Idle,
    /// The group's hub deleted it.
    Hub,
}

/// The number of groups that were deleted since the start, by cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeletionCounts {
    /// By a request of an application or an operator.
    pub requested: u64,
    /// Because nothing was accepted in them for longer than the setting allows.
    pub idle: u64,
    /// Replicas, because the hub deleted the group.
    pub by_hub: u64,
}

/// Deletions since the start.
#[derive(Debug, Default)]
pub(crate) struct Deletions {
    requested: AtomicU64,
    idle: AtomicU64,
    by_hub: AtomicU64,
    /// Woken when there are rows to erase.
    erasure: Notify,
}

impl Deletions {
    /// Counts a deletion and wakes the erasure.
    pub(crate) fn note(&self, cause: DeletionCause) {
        let count = match cause {
            DeletionCause::Request => &self.requested,
            DeletionCause::Idle => &self.idle,
            DeletionCause::Hub => &self.by_hub,
        };
        count.fetch_add(1, Ordering::Relaxed);
        self.wake();
    }

    /// Wakes the erasure, or lets it go on at once if it is at work.
    pub(crate) fn wake(&self) {
        self.erasure.notify_one();
    }

    /// Waits until there may be rows to erase.
    pub(crate) async fn wait(&self) {
        self.erasure.notified().await;
    }

    pub(crate) fn counts(&self) -> DeletionCounts {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        DeletionCounts {
            requested: read(&self.requested),
            idle: read(&self.idle),
            by_hub: read(&self.by_hub),
        }
    }
}
