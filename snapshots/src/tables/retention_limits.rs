//! The limits of retention: ages and numbers beyond which a sweep deletes.

use std::time::Duration;

/// Retention limits. Data over any one limit is deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retention {
    /// The number of epochs of a group's history that are kept; the newest always is.
    pub history_epochs_max: u64,
    /// The time for which an epoch of a group's history is kept; the newest always is.
    pub history_age_max: Duration,
    /// The time for which a join info waits. [`WelcomeLimits`](crate::WelcomeLimits) limits their number.
    pub welcome_age_max: Duration,
    /// The time for which a held or used key package is remembered after the end of its lifetime.
    pub expired_age_max: Duration,
    /// The time after its assignment for which a key package waits to be used; then it is dropped. `None` for no end.
    pub assignment_age_max: Option<Duration>,
    /// The dropped key packages of one client that are remembered until their lifetimes end. At this number, no further ones are
    /// dropped.
    pub dropped_per_client_max: u64,
    /// The number of rows of events that are kept for each application.
    pub event_rows_max: u64,
    /// The time for which events are kept.
    pub event_age_max: Duration,
    /// The number of entries that are kept in the audit log of each application.
    pub audit_rows_max: u64,
    /// The time for which they are kept.
    pub audit_age_max: Duration,
    /// The queues of which one claimant's key packages are entries of their own in one day of the audit log; those of further
    /// queues are one entry.
    pub audit_queues_per_day_max: u64,
    /// The time for which the id of a deleted group stays taken, at least: until every follower was told.
    pub deleted_age_max: Duration,
    /// The time after which the disk gives back the space of what was deleted, at most, once it is deleted.
    pub compaction_period: Duration,
    /// The groups, the join infos, and the assigned key packages that one sweep looks at. The next sweep goes on after them, so
    /// that the cost of a sweep does not grow with their number.
    pub read_max: usize,
    /// The time without an accepted entry after which a group is deleted; `None` for no end.
    pub group_idle_max: Option<Duration>,
}

impl Default for Retention {
    /// 10,000 epochs for a year; join infos for 90 days; key packages for a day after they expired; a million rows of events for
    /// a week; 100,000 entries of an audit log for 90 days, of up to 1000 queues for each claimant and day; the ids of deleted groups for a year. Space is given back once a day. A sweep looks at
    /// 50,000 groups, join infos and assigned key packages. Idle groups and unused assignments are kept.
    fn default() -> Self {
        let day = Duration::from_secs(24 * 60 * 60);
        Self {
            history_epochs_max: 10_000,
            history_age_max: day * 365,
            welcome_age_max: day * 90,
            expired_age_max: day,
            assignment_age_max: None,
            dropped_per_client_max: 2048,
            event_rows_max: 1_000_000,
            event_age_max: day * 7,
            audit_rows_max: 100_000,
            audit_age_max: day * 90,
            audit_queues_per_day_max: 1_000,
            deleted_age_max: day * 365,
            compaction_period: day,
            read_max: 50_000,
            group_idle_max: None,
        }
    }
}
