//! Options of a store.

use std::{path::PathBuf, time::Duration};

/// The place of a store's files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// In this directory, which is created if it is missing.
    Directory(PathBuf),
    /// In a directory of its own that is removed with the last [`Store`](crate::Store) and [`View`](crate::View); `:memory:` in the configuration.
    Temporary,
}

/// The failure that an acknowledged batch survives. A [`Location::Temporary`] store is never synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// A power failure: a batch is on disk (`fdatasync`) before it is answered.
    Sync,
    /// A crash of the process: the operating system has a batch before it is answered.
    Buffer,
}

/// Options of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreOptions {
    /// The place of its files.
    pub location: Location,
    /// The failure that an acknowledged batch survives.
    pub durability: Durability,
    /// Whether it opens although writes are missing that were acknowledged, instead of [`OpenError::Lost`](crate::OpenError::Lost)
    /// or, for damage in a journal, [`OpenError::DamagedJournal`](crate::OpenError::DamagedJournal). [`Durability::Buffer`] implies it.
    pub accepts_loss: bool,
    /// The size of the read cache, in bytes.
    pub cache_bytes: u64,
    /// The number of batches that may wait for the committer; an append beyond it waits for room.
    pub queue_length_max: usize,
    /// The total size of the batches that may wait, in bytes; an append beyond it waits for room.
    pub queue_bytes_max: usize,
    /// The greatest size of one batch, in bytes; a larger one gets [`AppendError::TooLarge`](crate::AppendError::TooLarge).
    pub batch_bytes_max: usize,
    /// The time after which a disk batch counts as stalled; writes are then refused until the disk answers.
    pub stalled_after: Duration,
}

impl Default for StoreOptions {
    /// A temporary store with a 32 MiB cache, 1024 batches or 64 MiB waiting, batches of up to 64 MiB, ten seconds for
    /// the disk to answer.
    fn default() -> Self {
        Self {
            location: Location::Temporary,
            durability: Durability::Sync,
            accepts_loss: false,
            cache_bytes: 32 << 20,
            queue_length_max: 1024,
            queue_bytes_max: 64 << 20,
            batch_bytes_max: 64 << 20,
            stalled_after: Duration::from_secs(10),
        }
    }
}
