//! Snapshots of actors: written when an actor has changed or is passivated, on another thread if its state is large,
//! and after growing pauses if writing fails.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use actix::{
    Actor, ActorFuture, ActorFutureExt as _, AsyncContext as _, AtomicResponse, Context, WrapFuture as _, fut,
};
use dashmap::DashMap;
use snapshots::{AppendError, LogId, Unmet};

use crate::{
    core::Core,
    mls::ValueError,
    router::{Activity, Rest, Rested},
};

/// Records since the last snapshot after which an actor takes one by itself, so that waking up stays quick.
const RECORDS_PER_SNAPSHOT: u64 = 512;

/// States that weigh more are encoded away from the thread that other actors share, in bytes.
const LARGE_BYTES: usize = 256 << 10;

/// How long an actor waits after a snapshot that was not written; twice as long after each further one, up to an hour or so.
const RETRY_AFTER: Duration = Duration::from_secs(60);

/// How often the pause is doubled.
const DOUBLED_MAX: u32 = 6;

/// Actors whose pauses are remembered.
const PAUSES_MAX: usize = 100_000;

/// How fast snapshots are written that are too large for one batch, in bytes a second: the next one waits as long as this
/// one would have taken.
const LARGE_BYTES_PER_S: usize = 1 << 20;

/// How it goes with the snapshots of groups and key queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotStatus {
    /// Snapshots that could not be written since the start. What they stood for is kept as records.
    pub failures: u64,
    /// Groups and key queues whose last snapshot could not be written. Each is tried again after a pause.
    pub failing: usize,
}

/// When the snapshot of an actor may be written next.
#[derive(Clone, Copy, Debug)]
struct Pause {
    /// Snapshots in a row that failed.
    failures: u32,
    /// By the monotonic clock.
    until: Duration,
}

/// The pauses of actors, which outlast their sleep.
#[derive(Debug, Default)]
pub(crate) struct SnapshotPauses {
    pauses: DashMap<LogId, Pause>,
    failures: AtomicU64,
}

impl SnapshotPauses {
    pub(crate) fn status(&self) -> SnapshotStatus {
        SnapshotStatus {
            failures: self.failures.load(Ordering::Relaxed),
            failing: self.pauses.iter().filter(|pause| pause.failures > 0).count(),
        }
    }

    fn is_over(&self, log: &LogId, now: Duration) -> bool {
        self.pauses.get(log).is_none_or(|pause| pause.until <= now)
    }

    /// Begins a pause after a failure; answers how many there were in a row, and how long it is.
    fn begin(&self, log: &LogId, now: Duration) -> (u32, Duration) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        let before = self.pauses.get(log).map_or(0, |pause| pause.failures);
        let length = RETRY_AFTER.saturating_mul(2_u32.saturating_pow(before.min(DOUBLED_MAX)));
        let failures = before.saturating_add(1);
        self.remember(log, Pause { failures, until: now.saturating_add(length) }, now);
        (failures, length)
    }

    /// Ends the pauses after a snapshot that was written; one that was too large for a batch is followed by a pause too.
    fn end(&self, log: &LogId, bytes: usize, batch_bytes_max: usize, now: Duration) {
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

    /// Forgets what there was of an actor that is no more.
    pub(crate) fn forget(&self, log: &LogId) {
        self.pauses.remove(log);
    }
}

/// A state that can be at rest.
pub(crate) trait Restable: Send + 'static {
    /// The state at rest.
    fn to_snapshot(&self) -> Result<Vec<u8>, ValueError>;

    /// About how many bytes of memory it takes.
    fn weight(&self) -> usize;
}

/// How far an actor's log has come, and its snapshot.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// The last record that the state has.
    pub(crate) sequence: u64,
    /// The last record that a snapshot has, or is about to have.
    pub(crate) snapshot_sequence: u64,
    /// A snapshot is being written.
    pub(crate) is_writing: bool,
}

impl Progress {
    /// Counts a record; answers whether it is time for a snapshot.
    pub(crate) fn advance(&mut self) -> bool {
        self.sequence = self.sequence.saturating_add(1);
        // Once each so many: one that cannot be written now is not tried again at every record.
        self.sequence.saturating_sub(self.snapshot_sequence).is_multiple_of(RECORDS_PER_SNAPSHOT)
    }
}

/// A snapshot, and the record that it stands for.
type Encoded = Option<(u64, Vec<u8>)>;

/// An actor whose state is kept as a log with snapshots.
pub(crate) trait Resting: Actor<Context = Context<Self>> + actix::Handler<Rest> {
    type State: Restable;

    fn shared(&self) -> &Arc<Core>;

    fn log(&self) -> LogId;

    fn activity(&self) -> &Activity;

    fn progress(&mut self) -> &mut Progress;

    /// The state; none before it is read from disk.
    fn state(&mut self) -> &mut Option<Self::State>;

    /// Gives up the state and stops; the next request reads it from disk.
    fn step_down(&mut self, ctx: &mut Context<Self>);

    /// Writes a snapshot if there is anything new and no pause, and goes on or sleeps.
    fn rest(&mut self, rest: Rest) -> AtomicResponse<Self, Rested> {
        let is_written_already = self.progress().is_writing;
        if rest == Rest::Sleep && is_written_already && !self.shared().is_stopping() {
            // It would not be known how it went. It is asked again.
            return AtomicResponse::new(Box::pin(fut::ready(Rested::Awake)));
        }
        let encoded = if self.is_due() { self.encode() } else { Box::pin(fut::ready(None)) };
        AtomicResponse::new(Box::pin(
            encoded.then(move |encoded, actor, ctx| actor.write(encoded, rest, ctx)),
        ))
    }

    /// Whether there is anything new that may be written now.
    fn is_due(&mut self) -> bool {
        let Progress { sequence, snapshot_sequence, is_writing } = *self.progress();
        let core = self.shared();
        let is_new = sequence != snapshot_sequence && !is_writing;
        is_new && core.snapshot_pauses.is_over(&self.log(), core.clock.monotonic())
    }

    /// Encodes the state. A large one goes to another thread for that; nothing else is done with it before it is back.
    fn encode(&mut self) -> Pin<Box<dyn ActorFuture<Self, Output = Encoded>>> {
        let at = self.progress().sequence;
        let ready =
            |encoded| -> Pin<Box<dyn ActorFuture<Self, Output = Encoded>>> { Box::pin(fut::ready(encoded)) };
        let Some(state) = self.state().take() else { return ready(None) };
        if state.weight() <= LARGE_BYTES {
            let bytes = state.to_snapshot();
            *self.state() = Some(state);
            return ready(self.encoded(at, bytes));
        }
        let encoding = tokio::task::spawn_blocking(move || (state.to_snapshot(), state));
        Box::pin(encoding.into_actor(self).map(move |encoded, actor, ctx| match encoded {
            Ok((bytes, state)) => {
                *actor.state() = Some(state);
                actor.encoded(at, bytes)
            }
            Err(error) => {
                failed(actor.shared(), &actor.log(), &error);
                actor.step_down(ctx);
                None
            }
        }))
    }

    /// Notes that a state was encoded, and is about to be written.
    fn encoded(&mut self, at: u64, bytes: Result<Vec<u8>, ValueError>) -> Encoded {
        match bytes {
            Ok(bytes) => Some((at, bytes)),
            Err(error) => {
                failed(self.shared(), &self.log(), &error);
                None
            }
        }
    }

    fn write(
        &mut self,
        encoded: Encoded,
        rest: Rest,
        ctx: &mut Context<Self>,
    ) -> Pin<Box<dyn ActorFuture<Self, Output = Rested>>> {
        let before = self.progress().snapshot_sequence;
        let writing: Pin<Box<dyn ActorFuture<Self, Output = ()>>> = match encoded {
            None => Box::pin(fut::ready(())),
            Some((at, bytes)) => {
                let progress = self.progress();
                progress.snapshot_sequence = at;
                progress.is_writing = true;
                self.activity().dirty.store(false, Ordering::Relaxed);
                let written = write(Arc::clone(self.shared()), self.log(), at, bytes);
                Box::pin(written.into_actor(self).map(move |is_written, actor, _| {
                    actor.progress().is_writing = false;
                    if !is_written {
                        actor.progress().snapshot_sequence = before;
                        actor.activity().dirty.store(true, Ordering::Relaxed);
                    }
                }))
            }
        };
        match rest {
            Rest::Snapshot => {
                ctx.spawn(writing);
                Box::pin(fut::ready(Rested::Awake))
            }
            Rest::Sleep => Box::pin(writing.map(|(), actor, ctx| {
                actor.step_down(ctx);
                Rested::Asleep
            })),
        }
    }
}

/// Writes a snapshot; answers whether it is written, or not needed any more.
async fn write(core: Arc<Core>, log: LogId, at: u64, bytes: Vec<u8>) -> bool {
    match core.store.append_snapshot(&log, at, &bytes).await {
        Ok(()) => {
            let (max, now) = (core.store.batch_bytes_max(), core.clock.monotonic());
            core.snapshot_pauses.end(&log, bytes.len(), max, now);
            true
        }
        // The log is gone, or has a snapshot of a later record.
        Err(AppendError::Precondition(Unmet::LogMoved { at: None } | Unmet::SnapshotOvertaken)) => true,
        Err(error) => {
            failed(&core, &log, &error);
            false
        }
    }
}

/// Counts a snapshot that was not written, says so, and begins a pause.
fn failed(core: &Core, log: &LogId, error: &dyn std::fmt::Display) {
    let (failures_in_a_row, pause) = core.snapshot_pauses.begin(log, core.clock.monotonic());
    tracing::warn!(
        %error,
        ?log,
        failures_in_a_row,
        next_attempt_in_s = pause.as_secs(),
        "a snapshot was not written; the records that it stands for stay",
    );
}

#[cfg(test)]
mod tests {
    use snapshots::{AppId, KeyQueueId};

    use super::*;

    const BATCH_BYTES_MAX: usize = 4 << 20;

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
            assert_eq!(pauses.status(), SnapshotStatus { failures: failures.into(), failing: 1 });
        }
        let other = LogId::KeyQueue(AppId::random(), KeyQueueId::random());
        assert!(pauses.is_over(&other, at(1000)), "a pause is one actor's");
        pauses.end(&log, BATCH_BYTES_MAX, BATCH_BYTES_MAX, at(1000));
        assert!(pauses.is_over(&log, at(1000)));
        assert_eq!(pauses.status(), SnapshotStatus { failures: 8, failing: 0 });
        assert_eq!(pauses.begin(&log, at(1000)), (1, at(60)), "they are counted in a row");
    }

    #[test]
    fn a_snapshot_of_several_batches_is_followed_by_a_pause_by_its_size() {
        let pauses = SnapshotPauses::default();
        let log = LogId::KeyQueue(AppId::random(), KeyQueueId::random());
        pauses.begin(&log, at(0));
        pauses.end(&log, 10 * LARGE_BYTES_PER_S, BATCH_BYTES_MAX, at(100));
        assert_eq!(pauses.status().failing, 0);
        assert!(!pauses.is_over(&log, at(109)));
        assert!(pauses.is_over(&log, at(110)));
    }

    #[test]
    fn a_snapshot_is_due_each_so_many_records() {
        let mut progress = Progress { sequence: 7, snapshot_sequence: 7, is_writing: false };
        let due: Vec<u64> = (1..=3 * RECORDS_PER_SNAPSHOT).filter(|_| progress.advance()).collect();
        assert_eq!(due, [RECORDS_PER_SNAPSHOT, 2 * RECORDS_PER_SNAPSHOT, 3 * RECORDS_PER_SNAPSHOT]);
    }
}
