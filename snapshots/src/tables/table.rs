//! The tables by name. `meta` is the engine's own.

use crate::{
    engine::{Counting, Table, TableDefinition, Values},
    quotas::Resource,
};

macro_rules! tables {
    ($(
        $(#[$doc:meta])*
        $name:ident = $number:literal, $on_disk:literal, $values:ident $(, $resource:ident by the id at $app_at:literal)?;
    )*) => {
        $(
            $(#[$doc])*
            pub(crate) const $name: Table = Table::new(&TableDefinition {
                number: $number,
                name: $on_disk,
                values: Values::$values,
                counting: tables!(@counting $($resource $app_at)?),
            });
        )*

        /// All tables, in the order of their numbers.
        pub(super) const ALL: &[Table] = &[$($name),*];
    };
    (@counting) => { None };
    (@counting $resource:ident $app_at:literal) => {
        Some(Counting { resource: Resource::$resource, app_at: $app_at })
    };
}

// What a row counts as is said with the place of its application in the key. The layout of a table's keys is private to the file named here.
tables! {
    /// `records.rs`: the position of each log.
    LOG_HEADS = 1, "log_heads", Small;
    /// `records.rs`: the records of the logs of key queues.
    RECORDS = 2, "records", Frequent, Bytes by the id at 1;
    /// `actor_snapshots.rs`: the newest snapshot of each log's actor.
    ACTOR_SNAPSHOTS = 3, "actor_snapshots", Large, Bytes by the id at 1;
    /// `groups.rs`: one row per group.
    GROUPS = 4, "groups", Small, Groups by the id at 0;
    /// `groups.rs`: the groups of each client handle.
    MEMBERSHIPS = 5, "memberships", Small;
    /// `history.rs`: where the messages of each epoch are.
    EPOCHS = 6, "epochs", Large;
    /// `history.rs`: the answer to each accepted proposal.
    ACCEPTED_PROPOSALS = 7, "accepted_proposals", Small;
    /// `clients.rs`: one row per client.
    CLIENTS = 8, "clients", Small, Clients by the id at 0;
    /// `clients.rs`: the client of each handle.
    CLIENT_HANDLES = 9, "client_handles", Small;
    /// `clients.rs`: the clients of each tag and of each domain.
    CLIENT_TAGS = 10, "client_tags", Small;
    /// `key_queues.rs`: one row per queue.
    QUEUES = 11, "queues", Small;
    /// `key_queues.rs`: the client of each queue.
    QUEUE_OWNERS = 12, "queue_owners", Small;
    /// `key_queues.rs`: the queue of each protocol version, cipher suite and label.
    QUEUE_LABELS = 13, "queue_labels", Small;
    /// `key_packages.rs`: the queues that hold a key package.
    KEY_PACKAGES = 14, "key_packages", Small;
    /// `key_packages.rs`: the key packages that a queue holds.
    QUEUE_KEY_PACKAGES = 15, "queue_key_packages", Small, KeyPackages by the id at 0;
    /// `key_packages.rs`: the key packages that were used.
    USED_KEY_PACKAGES = 16, "used_key_packages", Small;
    /// `welcomes.rs`: one welcome and tree per commit.
    WELCOMES = 17, "welcomes", Large, Bytes by the id at 0;
    /// `welcomes.rs`: the number of join infos that point at each welcome.
    WELCOME_READERS = 18, "welcome_readers", Small;
    /// `welcomes.rs`: the join infos of each client handle.
    JOIN_INFOS = 19, "join_infos", Small;
    /// `retention.rs`: the times of expiry, the earliest first.
    EXPIRIES = 20, "expiries", Small;
    /// `log_entries.rs`: the entries of groups' logs, in the stored form of their owner.
    LOG_ENTRIES = 21, "log_entries", Large, Bytes by the id at 0;
    /// `outbox.rs`: the position of each peer in each log.
    PEER_POSITIONS = 22, "peer_positions", Small;
    /// `outbox.rs`: the logs with entries for each peer.
    OUTBOX = 23, "outbox", Small;
    /// `welcome_shares.rs`: the number of join infos of each inviter for each client.
    WELCOME_SHARES = 24, "welcome_shares", Small;
    /// `missed.rs`: the entries that replicas were never shown.
    MISSED_ENTRIES = 25, "missed_entries", Small;
    /// `assigned_key_packages.rs`: the receivers of assigned key packages.
    ASSIGNED_KEY_PACKAGES = 26, "assigned_key_packages", Small;
    /// `snapshot_pieces.rs`: the pieces of snapshots that are too large for one batch.
    SNAPSHOT_PIECES = 27, "snapshot_pieces", Large, Bytes by the id at 1;
    /// `events.rs`: the events of each application.
    EVENTS = 28, "events", Frequent;
    /// `events.rs`: the position of the newest event of each application.
    EVENT_HEADS = 29, "event_heads", Small;
    /// `deleted_groups.rs`: the groups that were deleted, as long as their ids stay taken.
    DELETED_GROUPS = 30, "deleted_groups", Small;
    /// `reports.rs`: epochs that members cannot open.
    REPORTS = 31, "reports", Small;
    /// `audit.rs`: the audit log of each application.
    AUDIT = 32, "audit", Small;
}
