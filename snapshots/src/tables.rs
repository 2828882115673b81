//! The tables: every keyspace on disk, its rows and the memory that it may use.

use fjall::{Database, Keyspace, KeyspaceCreateOptions, KvSeparationOptions};

/// One ordered keyspace on disk. The layout of its keys is private to the file named here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Table {
    /// `meta.rs`: the format, the last delivery id, settings.
    Meta,
    /// `records.rs`: where each log stands.
    LogHeads,
    /// `records.rs`: the records of each log.
    Records,
    /// `actor_snapshots.rs`: the newest snapshot of each log's actor.
    ActorSnapshots,
    /// `groups.rs`: one row per group.
    Groups,
    /// `groups.rs`: the groups of each client handle.
    Memberships,
    /// `history.rs`: the commit that created each epoch, with its proposals.
    Epochs,
    /// `history.rs`: the answer to each accepted proposal.
    AcceptedProposals,
    /// `clients.rs`: one row per client.
    Clients,
    /// `clients.rs`: who has a handle.
    ClientHandles,
    /// `clients.rs`: who has a tag, and who is in a domain.
    ClientTags,
    /// `key_queues.rs`: one row per queue.
    Queues,
    /// `key_queues.rs`: whose a queue is.
    QueueOwners,
    /// `key_queues.rs`: which queue has a protocol version, cipher suite and label.
    QueueLabels,
    /// `key_packages.rs`: the queues that hold a key package.
    KeyPackages,
    /// `key_packages.rs`: the key packages that a queue holds.
    QueueKeyPackages,
    /// `key_packages.rs`: the key packages that were used.
    UsedKeyPackages,
    /// `welcomes.rs`: one welcome and tree per commit.
    Welcomes,
    /// `welcomes.rs`: how many join infos still point at a welcome.
    WelcomeReaders,
    /// `welcomes.rs`: what waits for each client handle.
    JoinInfos,
    /// `retention.rs`: what expires, the earliest first.
    Expiries,
    /// `outbox.rs`: the entries of logs, kept for peers in the stored form of their owner.
    LogEntries,
    /// `outbox.rs`: how far each peer is in each log.
    PeerPositions,
    /// `outbox.rs`: which logs have something for which peer.
    Outbox,
    /// `welcome_shares.rs`: how many join infos each inviter has for each client.
    WelcomeShares,
    /// `missed.rs`: the entries that replicas were never shown.
    MissedEntries,
    /// `assigned_key_packages.rs`: whose the key packages are that were assigned.
    AssignedKeyPackages,
    /// `snapshot_pieces.rs`: the pieces of snapshots that are too large for one batch.
    SnapshotPieces,
}

impl Table {
    pub(crate) const ALL: [Self; 28] = [
        Self::Meta,
        Self::LogHeads,
        Self::Records,
        Self::ActorSnapshots,
        Self::Groups,
        Self::Memberships,
        Self::Epochs,
        Self::AcceptedProposals,
        Self::Clients,
        Self::ClientHandles,
        Self::ClientTags,
        Self::Queues,
        Self::QueueOwners,
        Self::QueueLabels,
        Self::KeyPackages,
        Self::QueueKeyPackages,
        Self::UsedKeyPackages,
        Self::Welcomes,
        Self::WelcomeReaders,
        Self::JoinInfos,
        Self::Expiries,
        Self::LogEntries,
        Self::PeerPositions,
        Self::Outbox,
        Self::WelcomeShares,
        Self::MissedEntries,
        Self::AssignedKeyPackages,
        Self::SnapshotPieces,
    ];

    /// Its name on disk.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::LogHeads => "log_heads",
            Self::Records => "records",
            Self::ActorSnapshots => "actor_snapshots",
            Self::Groups => "groups",
            Self::Memberships => "memberships",
            Self::Epochs => "epochs",
            Self::AcceptedProposals => "accepted_proposals",
            Self::Clients => "clients",
            Self::ClientHandles => "client_handles",
            Self::ClientTags => "client_tags",
            Self::Queues => "queues",
            Self::QueueOwners => "queue_owners",
            Self::QueueLabels => "queue_labels",
            Self::KeyPackages => "key_packages",
            Self::QueueKeyPackages => "queue_key_packages",
            Self::UsedKeyPackages => "used_key_packages",
            Self::Welcomes => "welcomes",
            Self::WelcomeReaders => "welcome_readers",
            Self::JoinInfos => "join_infos",
            Self::Expiries => "expiries",
            Self::LogEntries => "log_entries",
            Self::PeerPositions => "peer_positions",
            Self::Outbox => "outbox",
            Self::WelcomeShares => "welcome_shares",
            Self::MissedEntries => "missed_entries",
            Self::AssignedKeyPackages => "assigned_key_packages",
            Self::SnapshotPieces => "snapshot_pieces",
        }
    }

    /// Packets, trees and snapshots are kept apart from their keys, so that compaction does not copy them.
    fn has_large_values(self) -> bool {
        matches!(
            self,
            Self::ActorSnapshots | Self::Epochs | Self::Welcomes | Self::LogEntries | Self::SnapshotPieces
        )
    }

    /// How much is kept in memory before it is sealed to be written out, in bytes: all tables together 184 MiB.
    fn memory_bytes_max(self) -> u64 {
        if self.has_large_values() || self == Self::Records { 16 << 20 } else { 4 << 20 }
    }

    fn options(self) -> KeyspaceCreateOptions {
        let separation = self.has_large_values().then(KvSeparationOptions::default);
        KeyspaceCreateOptions::default()
            .max_memtable_size(self.memory_bytes_max())
            .with_kv_separation(separation)
    }
}

/// All tables, open.
#[derive(Clone)]
pub(crate) struct Tables(Vec<Keyspace>);

impl Tables {
    /// Opens every table, creating those that are missing.
    pub(crate) fn open(database: &Database) -> fjall::Result<Self> {
        let open = |table: Table| database.keyspace(table.name(), || table.options());
        Table::ALL.into_iter().map(open).collect::<fjall::Result<_>>().map(Self)
    }

    #[expect(clippy::indexing_slicing, reason = "there is one keyspace per variant, in their order")]
    pub(crate) fn of(&self, table: Table) -> &Keyspace {
        &self.0[table as usize]
    }
}
