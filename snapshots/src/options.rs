//! How a store is opened.

use std::{path::PathBuf, time::Duration};

/// Where a store keeps its files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// In this directory, which is made when it is missing.
    Directory(PathBuf),
    /// In a directory of its own that is removed with the last [`Store`](crate::Store) and [`View`](crate::View); `:memory:` in the configuration.
    Temporary,
}

/// What an acknowledged batch survives. A [`Location::Temporary`] store is never synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// A power failure: the batch is on disk (`fdatasync`) before it is answered.
    Sync,
    /// The end of the process, however it comes: the operating system has the batch before it is answered.
    Buffer,
}

/// How a store is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreOptions {
    /// Where its files are.
    pub location: Location,
    /// What an acknowledged batch survives.
    pub durability: Durability,
    /// How much of what is on disk is kept in memory for reading, in bytes.
    pub cache_bytes: u64,
    /// How many batches may wait for the committer; whoever appends one more waits for room.
    pub queue_length_max: usize,
    /// How large all batches that wait may be together, in bytes; whoever appends more waits for room.
    pub queue_bytes_max: usize,
    /// How large one batch may be, in bytes; a larger one gets [`AppendError::TooLarge`](crate::AppendError::TooLarge).
    pub batch_bytes_max: usize,
    /// How long the disk may take for one disk batch before it counts as hanging: writes are then refused until it
    /// answers.
    pub stalled_after: Duration,
}

impl Default for StoreOptions {
    /// A temporary store with a 32 MiB cache, 1024 batches or 64 MiB waiting, batches of up to 64 MiB, ten seconds for
    /// the disk to answer.
    fn default() -> Self {
        Self {
            location: Location::Temporary,
            durability: Durability::Sync,
            cache_bytes: 32 << 20,
            queue_length_max: 1024,
            queue_bytes_max: 64 << 20,
            batch_bytes_max: 64 << 20,
            stalled_after: Duration::from_secs(10),
        }
    }
}
