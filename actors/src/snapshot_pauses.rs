//! Pauses between tries of failing snapshots. They grow, outlast the passivation of the actor, and are counted for operators.

use std::{
    fmt::Display,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use dashmap::DashMap;
use snapshots::{LogId, Timestamp};

/// The pause after a failed snapshot. It doubles with each further failure, up to about an hour.
const RETRY_AFTER: Duration = Duration::from_secs(60);

/// The number of times that the pause doubles.
const DOUBLED_MAX: u32 = 6;

/// The number of actors whose pauses are remembered.
const PAUSES_MAX: usize = 100_000;

/// The rate of snapshots that are too large for one batch, in bytes per second: the next one waits for as long as this one
/// takes at that rate.
const LARGE_BYTES_PER_S: usize = 1 << 20;

/// The state of the snapshots of groups and key queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotStatus {
    /// Snapshots that could not be written since the start. The records that they cover are kept.
    pub failures: u64,
    /// Groups and key queues whose last snapshot could not be written. Each is tried again after a pause.
    pub failing: usize,
    /// Snapshots that were written since the start.
    pub written: u64,
    /// The newest of them.
    pub newest: Option<WrittenSnapshot>,
}

/// A snapshot that was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WrittenSnapshot {
    /// The time at which it was on disk.
    pub at: Timestamp,
    /// How long it took to write, its encoding excluded.
    pub took: Duration,
}

/// The pause before the next snapshot of an actor.
#[derive(Clone, Copy, Debug)]
struct Pause {
    /// Snapshots in a row that failed.
    failures: u32,
    /// By the monotonic clock.
    until: Duration,
}

/// The pauses of actors, which outlast passivation.
#[derive(Debug, Default)]
pub(crate) struct SnapshotPauses {
    pauses: DashMap<LogId, Pause>,
    failures: AtomicU64,
    written: AtomicU64,
    newest: Mutex<Option<WrittenSnapshot>>,
}

impl SnapshotPauses {
    pub(crate) fn status(&self) -> SnapshotStatus {
        SnapshotStatus {
            failures: self.failures.load(Ordering::Relaxed),
            failing: self.pauses.iter().filter(|pause| pause.failures > 0).count(),
            written: self.written.load(Ordering::Relaxed),
            newest: *self.newest.lock().unwrap_or_else(PoisonError::into_inner),
        }
    }

    pub(crate) fn is_over(&self, log: &LogId, now: Duration) -> bool {
        self.pauses.get(log).is_none_or(|pause| pause.until <= now)
    }

    /// Counts and logs a failed snapshot, and begins a pause.
    pub(crate) fn failed(&self, log: &LogId, now: Duration, error: &dyn Display) {
        let (failures_in_a_row, pause) = self.begin(log, now);
        tracing::warn!(
            %error,
            ?log,
            failures_in_a_row,
            next_attempt_in_s = pause.as_secs(),
            "a snapshot was not written; the records that it covers stay",
        );
    }

    /// Begins a pause after a failure; returns the number of failures in a row, and the pause.
    fn begin(&self, log: &LogId, now: Duration) -> (u32, Duration) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        let before = self.pauses.get(log).map_or(0, |pause| pause.failures);
        let length = RETRY_AFTER.saturating_mul(2_u32.saturating_pow(before.min(DOUBLED_MAX)));
        let failures = before.saturating_add(1);
        self.remember(log, Pause { failures, until: now.saturating_add(length) }, now);
        (failures, length)
    }

    /// Counts a written snapshot.
    pub(crate) fn count(&self, written: WrittenSnapshot) {
        self.written.fetch_add(1, Ordering::Relaxed);
        *self.newest.lock().unwrap_or_else(PoisonError::into_inner) = Some(written);
    }

    /// Ends the pauses after a written snapshot; one that was too large for a batch is followed by a pause too.
    pub(crate) fn written(&self, log: &LogId, bytes: usize, batch_bytes_max: usize, now: Duration) {
        if bytes <= batch_bytes_max {
            self.forget(log);
        } else {
            let milliseconds = bytes.saturating_mul(1000) / LARGE_BYTES_PER_S;
            let length = Duration::from_millis(u64::try_from(milliseconds).unwrap_or(u64::MAX));
            let until = now.saturating_add(length);
            self.remember(log, Pause { failures: 0, until }, now);
        }
    }

    fn remember(&self, log: &LogId, pause: Pause, now: Duration) {
        if self.pauses.len() >= PAUSES_MAX {
            self.pauses.retain(|_, pause| pause.until > now);
        }
        if self.pauses.len() < PAUSES_MAX || self.pauses.contains_key(log) {
            self.pauses.insert(log.clone(), pause);
        }
    }

    /// Forgets the pause of a deleted actor.
    pub(crate) fn forget(&self, log: &LogId) {
        self.pauses.remove(log);
    }
}

#[cfg(test)]
mod tests {
    use snapshots::{AppId, KeyQueueId};

    use super::*;

    const BATCH_BYTES_MAX: usize = 4 << 20;

    fn counted(failures: u64, failing: usize) -> SnapshotStatus {
        SnapshotStatus { failures, failing, written: 0, newest: None }
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn pauses_grow_with_failures_and_end_with_a_snapshot() {
        let pauses = SnapshotPauses::default();
        let log = LogId::KeyQueue(AppId::random(), KeyQueueId::random());
        assert!(pauses.is_over(&log, at(0)));
        for (failures, length) in
            [(1, 60), (2, 120), (3, 240), (4, 480), (5, 960), (6, 1920), (7, 3840), (8, 3840)]
        {
            assert_eq!(pauses.begin(&log, at(1000)), (failures, at(length)));
            assert!(!pauses.is_over(&log, at(999 + length)), "{failures}");
            assert!(pauses.is_over(&log, at(1000 + length)), "{failures}");
            assert_eq!(pauses.status(), counted(failures.into(), 1));
        }
        let other = LogId::KeyQueue(AppId::random(), KeyQueueId::random());
        assert!(pauses.is_over(&other, at(1000)), "a pause is one actor's");
        pauses.written(&log, BATCH_BYTES_MAX, BATCH_BYTES_MAX, at(1000));
        assert!(pauses.is_over(&log, at(1000)));
        assert_eq!(pauses.status(), counted(8, 0));
        assert_eq!(pauses.begin(&log, at(1000)), (1, at(60)), "they are counted in a row");
    }

    #[test]
    fn the_newest_snapshot_is_shown() {
        let pauses = SnapshotPauses::default();
        let newest = |seconds| WrittenSnapshot { at: Timestamp(seconds * 1000), took: at(seconds) };
        pauses.count(newest(1));
        pauses.count(newest(2));
        let status = pauses.status();
        assert_eq!((status.written, status.newest), (2, Some(newest(2))));
    }

    #[test]
    fn a_snapshot_of_several_batches_is_followed_by_a_pause_by_its_size() {
        let pauses = SnapshotPauses::default();
        let log = LogId::KeyQueue(AppId::random(), KeyQueueId::random());
        pauses.begin(&log, at(0));
        pauses.written(&log, 10 * LARGE_BYTES_PER_S, BATCH_BYTES_MAX, at(100));
        assert_eq!(pauses.status().failing, 0);
        assert!(!pauses.is_over(&log, at(109)));
        assert!(pauses.is_over(&log, at(110)));
    }
}
