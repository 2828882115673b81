//! Counters of the committer, for operators.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use super::disk::Changes;
use crate::histogram::{Distribution, Histogram};

/// The bounds of the times of writes.
static WRITE_BOUNDS: [Duration; 15] = [
    Duration::from_micros(100),
    Duration::from_micros(250),
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_micros(2500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_millis(2500),
    Duration::from_secs(10),
];

/// Writes of a store since it was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreCounts {
    /// Batches of callers that were written.
    pub appended: u64,
    /// Batches of callers that a precondition refused.
    pub refused: u64,
    /// The bytes of the keys and values that were written.
    pub bytes: u64,
    /// Batches of callers that wait to be written.
    pub waiting: usize,
    /// The time of each disk batch, its sync included; a disk batch holds the batches of callers that waited together.
    pub writes: Distribution,
}

/// The counters behind [`StoreCounts`].
#[derive(Debug)]
pub(crate) struct WriteCounters {
    appended: AtomicU64,
    refused: AtomicU64,
    bytes: AtomicU64,
    writes: Histogram,
}

impl Default for WriteCounters {
    fn default() -> Self {
        Self {
            appended: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            writes: Histogram::new(&WRITE_BOUNDS),
        }
    }
}

impl WriteCounters {
    /// Counts a batch of a caller that was answered.
    pub(crate) fn answered(&self, is_appended: bool) {
        let counter = if is_appended { &self.appended } else { &self.refused };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a disk batch that was written.
    pub(crate) fn written(&self, bytes: u64, took: Duration) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.writes.add(took);
    }

    pub(crate) fn read(&self, waiting: usize) -> StoreCounts {
        StoreCounts {
            appended: self.appended.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            waiting,
            writes: self.writes.read(),
        }
    }
}

/// The bytes of the keys and values of a disk batch.
pub(crate) fn bytes_of(changes: &Changes) -> u64 {
    let row = |((_, key), value): (&(_, super::Slice), &Option<super::Slice>)| {
        key.len() + value.as_ref().map_or(0, |value| value.len())
    };
    changes.iter().map(row).map(|bytes| bytes as u64).sum()
}
