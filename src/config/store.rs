//! Storage settings: the data directory, `[retention]`, `[durability]` and `[passivation]`.

use std::{fmt, path::PathBuf, time::Duration};

use actors::{
    Durability, Limits, Location, Retention, StoreOptions,
    settings::{
        Accepts,
        Bound::{Is, Of},
    },
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Config;

actors::settings! {
    /// Retention of history and welcomes.
    #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
    pub struct RetentionSettings {
        /// Epochs of one group.
        pub history_epochs_max: u64 = Retention::default().history_epochs_max => Accepts::from_to(1, u64::MAX >> 1);
        /// Age of an epoch, in seconds.
        pub history_age_s_max: u64 = Retention::default().history_age_max.as_secs() => Accepts::SECONDS;
        /// Age of a welcome that was not acknowledged, in seconds.
        pub welcome_age_s_max: u64 = Retention::default().welcome_age_max.as_secs() => Accepts::SECONDS;
        /// How long the use of a key package is remembered after the end of its lifetime, in seconds.
        pub expired_age_s_max: u64 = Retention::default().expired_age_max.as_secs() => Accepts::SECONDS;
        /// The time after which a key package that was assigned and not used is dropped, in seconds: the same request then gets another
        /// one, and no receiver gets the dropped one. 0 keeps it for its receiver until it is used or the end of its lifetime. It
        /// applies to assignments of this version and later ones.
        pub assignment_age_s_max: u64 = 0 => Accepts::from_to(0, Accepts::SECONDS_MAX);
        /// Rows of events of one application; each has the events of one write.
        pub event_rows_max: u64 = Retention::default().event_rows_max => Accepts::from_to(1, u64::MAX >> 1);
        /// Age of an event, in seconds. An event stream cannot continue after an event that is older.
        pub event_age_s_max: u64 = Retention::default().event_age_max.as_secs() => Accepts::SECONDS;
        /// Entries in the audit log of one application.
        pub audit_rows_max: u64 = Retention::default().audit_rows_max => Accepts::from_to(1, u64::MAX >> 1);
        /// Age of an entry of the audit log, in seconds.
        pub audit_age_s_max: u64 = Retention::default().audit_age_max.as_secs() => Accepts::SECONDS;
        /// Key queues of which the key packages that one claimant was assigned in a day are an entry of their own in the audit log;
        /// those of all further queues are one entry. The claimants are the application and the gateways of other domains.
        pub audit_queues_per_day_max: u64 = Retention::default().audit_queues_per_day_max => Accepts::from_to(0, u64::MAX >> 1);
        /// How long the id of a deleted group stays taken, in seconds; longer while a follower is to be told of the deletion.
        pub deleted_group_age_s_max: u64 = Retention::default().deleted_age_max.as_secs() => Accepts::SECONDS;
        /// The time after the last accepted proposal or commit of a group after which it is deleted, in seconds; 0 keeps idle
        /// groups.
        pub group_idle_s_max: u64 = 0 => Accepts::from_to(0, Accepts::SECONDS_MAX);
        /// How often the disk gives back the space of what was deleted, in seconds. It reads and writes the tables in which something
        /// was deleted.
        pub compaction_period_s: u64 = Retention::default().compaction_period.as_secs() => Accepts::SECONDS;
        /// The period of deletions, in seconds.
        pub period_s: u64 = 300 => Accepts::SECONDS;
    }
}

actors::settings! {
    /// The durability of acknowledged writes, and the resources of the store.
    #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
    pub struct DurabilitySettings {
        /// The point at which a write is acknowledged. With "sync", once it is on the disk: it survives a loss of power. With
        /// "buffer", once the operating system has it: it survives a crash of the gateway but not of the machine.
        pub mode: DurabilityMode = DurabilityMode::Sync => DurabilityMode::ACCEPTS;
        /// The read cache of the store, in bytes.
        pub cache_bytes: u64 = StoreOptions::default().cache_bytes => Accepts::from_to(1 << 20, Accepts::BYTES_MAX);
        /// Writes that may wait for the disk.
        pub queue_length_max: usize = StoreOptions::default().queue_length_max => Accepts::from_to(1, 1 << 20);
        /// Largest single write, in bytes.
        pub batch_bytes_max: usize = StoreOptions::default().batch_bytes_max => Accepts::from_to(1 << 20, 1 << 30);
        /// Writes that may wait for the disk, in bytes.
        pub queue_bytes_max: usize = StoreOptions::default().queue_bytes_max
            => Accepts::Number(Of("batch_bytes_max"), Is(Accepts::BYTES_MAX));
        /// How long a write to the disk may take, in seconds. After that, writes are answered 503 and the gateway is not ready
        /// until the disk answers.
        pub write_timeout_s: u64 = StoreOptions::default().stalled_after.as_secs() => Accepts::SECONDS;
    }
}

actors::settings! {
    /// Snapshots and passivation of groups and key queues.
    #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
    pub struct PassivationSettings {
        /// How long a group or key queue is idle before it is passivated, in seconds.
        pub after_s: u64 = 600 => Accepts::SECONDS;
        /// How often changed groups and key queues are written as snapshots, in seconds.
        pub snapshot_period_s: u64 = 60 => Accepts::SECONDS;
    }
}

actors::choices! {
    /// When a write is acknowledged.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub enum DurabilityMode {
        /// Once it is on the disk: it survives a loss of power.
        #[default]
        Sync = "sync",
        /// Once the operating system has it: it survives a crash of the gateway but not of the machine.
        Buffer = "buffer",
    }
}

/// The place of the gateway's data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DataDir {
    /// A directory, created if it is missing.
    Directory(PathBuf),
    /// `:memory:`: nothing is kept.
    Memory,
}

/// The `data_dir` that keeps nothing.
const MEMORY: &str = ":memory:";

impl RetentionSettings {
    /// The retention in the form of the store.
    pub(crate) fn retention(&self, limits: &Limits) -> Retention {
        Retention {
            history_epochs_max: self.history_epochs_max,
            history_age_max: Duration::from_secs(self.history_age_s_max),
            welcome_age_max: Duration::from_secs(self.welcome_age_s_max),
            expired_age_max: Duration::from_secs(self.expired_age_s_max),
            assignment_age_max: Some(self.assignment_age_s_max)
                .filter(|max| *max > 0)
                .map(Duration::from_secs),
            // Half, so that those that are not dropped are remembered as well.
            dropped_per_client_max: limits.assigned_key_packages_per_client_max as u64 / 2,
            event_rows_max: self.event_rows_max,
            event_age_max: Duration::from_secs(self.event_age_s_max),
            audit_rows_max: self.audit_rows_max,
            audit_age_max: Duration::from_secs(self.audit_age_s_max),
            audit_queues_per_day_max: self.audit_queues_per_day_max,
            deleted_age_max: Duration::from_secs(self.deleted_group_age_s_max),
            compaction_period: Duration::from_secs(self.compaction_period_s),
            read_max: Retention::default().read_max,
            group_idle_max: Some(self.group_idle_s_max).filter(|max| *max > 0).map(Duration::from_secs),
        }
    }
}

impl Config {
    /// The options of the store.
    pub(crate) fn store_options(&self) -> StoreOptions {
        let durability = &self.durability;
        StoreOptions {
            location: match &self.data_dir {
                DataDir::Directory(path) => Location::Directory(path.clone()),
                DataDir::Memory => Location::Temporary,
            },
            durability: match durability.mode {
                DurabilityMode::Sync => Durability::Sync,
                DurabilityMode::Buffer => Durability::Buffer,
            },
            accepts_loss: false,
            cache_bytes: durability.cache_bytes,
            queue_length_max: durability.queue_length_max,
            queue_bytes_max: durability.queue_bytes_max,
            batch_bytes_max: durability.batch_bytes_max,
            stalled_after: Duration::from_secs(durability.write_timeout_s),
        }
    }
}

impl fmt::Display for DataDir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => path.display().fmt(f),
            Self::Memory => f.write_str(MEMORY),
        }
    }
}

impl From<PathBuf> for DataDir {
    fn from(path: PathBuf) -> Self {
        if path.as_os_str() == MEMORY { Self::Memory } else { Self::Directory(path) }
    }
}

impl Serialize for DataDir {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Directory(path) => path.serialize(serializer),
            Self::Memory => serializer.serialize_str(MEMORY),
        }
    }
}

impl<'de> Deserialize<'de> for DataDir {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        PathBuf::deserialize(deserializer).map(Self::from)
    }
}
