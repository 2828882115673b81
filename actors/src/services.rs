//! Services of the gateway for its actors: the store, the clocks, the limits, cryptography, the applications, and notices
//! to other actors. An actor knows these and no other part of the gateway.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use snapshots::{
    AppId, AssignedLimits, ClaimLimits, DomainName, GroupId, KeyPackageRef, KeyQueueId, Store, Timestamp,
};

use crate::{
    application::{Application, Source},
    clock::Clock,
    deletions::Deletions,
    disagreements::Disagreements,
    limits::{Limits, RecentLimits},
    lost_commits::LostCommits,
    mls::ValidationContext,
    replica_count::ReplicaCount,
    revocation_searches::RevocationSearches,
    snapshot_pauses::SnapshotPauses,
    trusted_time::TrustedTime,
    validation::ValidationPool,
};

/// Key packages that were used, with the queue that held each.
pub(crate) type UsedPackages = Vec<(KeyQueueId, KeyPackageRef)>;

/// Notices to other actors after a durable write. A notice may be lost: an actor that missed it finds the change in the store.
pub(crate) trait Notices: Send + Sync {
    /// Tells these peers that the log of a group has grown.
    fn log_grew(&self, peers: &BTreeSet<DomainName>, app: AppId, group: &GroupId);

    /// Tells key queues that packages of theirs were used.
    fn key_packages_used(&self, app: AppId, used: UsedPackages);
}

/// The services.
pub(crate) struct Services {
    pub(crate) store: Store,
    pub(crate) applications: HashMap<AppId, Application>,
    pub(crate) limits: Limits,
    /// Limits on the recent epochs that a group keeps in memory.
    pub(crate) recent: RecentLimits,
    pub(crate) clock: Clock,
    /// The time up to which data may be deleted because of its age.
    pub(crate) trusted_time: TrustedTime,
    /// Threads for validations that may take long.
    pub(crate) validation: ValidationPool,
    pub(crate) snapshot_pauses: SnapshotPauses,
    /// Commits that lost their epoch, for operators.
    pub(crate) lost_commits: LostCommits,
    /// The number of replicas of each other gateway's groups.
    pub(crate) replicas: ReplicaCount,
    pub(crate) deletions: Deletions,
    /// Searches for revoked members.
    pub(crate) revocation: RevocationSearches,
    /// Epochs that enough members have reported since the start.
    pub(crate) epochs_reported: AtomicU64,
    /// The limits of the audit log of each application.
    pub(crate) audit: ClaimLimits,
    /// The time after its assignment for which a key package waits to be used; `None` for no end.
    pub(crate) assignment_age_max: Option<Duration>,
    /// The dropped key packages of one client that are remembered.
    pub(crate) dropped_per_client_max: u64,
    /// Groups whose logs here and at a peer differ.
    pub(crate) disagreements: Disagreements,
    pub(crate) notices: Box<dyn Notices>,
    pub(crate) is_stopping: AtomicBool,
}

impl Services {
    pub(crate) fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Acquire)
    }

    /// The time up to which data may be deleted because of its age: the clock's time, unless the clock has jumped.
    pub(crate) fn delete_until(&self) -> Timestamp {
        self.trusted_time.look(&self.clock).delete_until
    }

    /// The time before which assignments have expired; `None` if they do not expire.
    pub(crate) fn oldest_assignment_kept(&self) -> Option<Timestamp> {
        self.assignment_age_max.map(|age_max| self.delete_until().saturating_sub(age_max))
    }

    /// The present time for an age that begins now: not before the last time that was trusted, so that a clock that is set back for
    /// a while makes nothing older.
    pub(crate) fn age_begins(&self) -> Timestamp {
        let trusted = self.trusted_time.look(&self.clock).remembered.newest;
        self.clock.now().max(trusted.unwrap_or(Timestamp(0)))
    }

    /// The number of assigned key packages of one client that are remembered.
    pub(crate) fn assigned_limits(&self) -> AssignedLimits {
        AssignedLimits {
            per_client_max: self.limits.assigned_key_packages_per_client_max as u64,
            per_peer_max: self.limits.key_packages_per_peer_max as u64,
        }
    }

    /// The validation context of messages from a source.
    pub(crate) fn validation_context<'a>(
        &'a self,
        application: &'a Application,
        source: &'a Source,
    ) -> ValidationContext<'a> {
        ValidationContext { limits: &self.limits, application, source }
    }
}

impl fmt::Debug for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Services")
    }
}
