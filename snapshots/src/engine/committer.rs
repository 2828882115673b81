//! The writing thread: it checks and runs the waiting batches in order, writes them as one disk batch, syncs once and
//! answers all.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread::{Builder, JoinHandle},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use fjall::PersistMode;
use tokio::sync::oneshot;

use super::{
    Announcement, Appended, Feed, Slice,
    append_queue::{AppendQueue, Life, Outcome, Waiting},
    counters::{WriteCounters, bytes_of},
    disk::{Changes, Disk},
    meta::{self, META},
    overlay::Overlay,
    witness::BatchStamp,
};
use crate::{
    errors::{AppendError, Refusal},
    ids::Timestamp,
};

/// The interval between checks for failed background writes of the engine.
const WATCH_PERIOD: Duration = Duration::from_secs(1);
/// The number of batches in a disk batch from which writers are many: each sync costs as much as several batches, so the
/// committer then waits for more of them before the next.
const GATHERING_FROM: usize = 4;
/// How long it waits then. It does not answer earlier to anybody, so this is added to the time of a write on a busy machine.
const GATHERING_TIME: Duration = Duration::from_micros(500);

/// The state of the thread. It is the only writer, so a precondition that it has checked holds until it writes.
pub(crate) struct Committer {
    pub(crate) disk: Arc<Disk>,
    pub(crate) queue: Arc<AppendQueue>,
    pub(crate) feed: Arc<Feed>,
    pub(crate) counters: Arc<WriteCounters>,
    /// The persistence of each disk batch before it is answered; `None` leaves it in memory.
    pub(crate) persist: Option<PersistMode>,
    /// The newest disk batch.
    pub(crate) stamp: BatchStamp,
}

/// The outcome of each batch of a disk batch, and where to answer it.
type Outcomes = Vec<(oneshot::Sender<Outcome>, Result<(Appended, Vec<Announcement>), Refusal>)>;

/// A disk batch on its way: checked, then written, then answered.
pub(crate) struct Writing {
    pub(super) outcomes: Outcomes,
    pub(super) changes: Changes,
    stamp: BatchStamp,
}

impl Committer {
    /// Starts the thread. It ends when the queue is closed and empty, or failed.
    pub(crate) fn start(mut self) -> std::io::Result<JoinHandle<()>> {
        Builder::new().name("committer".to_owned()).spawn(move || {
            let queue = Arc::clone(&self.queue);
            match catch_unwind(AssertUnwindSafe(|| self.run())) {
                Ok(Ok(())) => queue.closed(),
                Ok(Err(reason)) => queue.fail(&reason),
                Err(_) => queue.fail("the committer panicked"),
            }
        })
    }

    fn run(&mut self) -> Result<(), String> {
        while let Some(waiting) = self.queue.take() {
            let are_many = waiting.len() >= GATHERING_FROM;
            self.queue.begin_write();
            let written = self.write(waiting);
            self.queue.end_write();
            written?;
            if are_many {
                // Not a wait for arrivals, which would wake this thread for each of them.
                std::thread::sleep(GATHERING_TIME);
            }
        }
        if self.persist.is_some() {
            self.disk.persist(PersistMode::SyncAll).map_err(|error| report(&error))?;
            if let Some(watched) = &self.disk.watched
                && let Err(error) = watched.witness.sync()
            {
                tracing::warn!(%error, "the witness of the data directory cannot be synced");
            }
        }
        Ok(())
    }

    fn write(&mut self, waiting: Vec<Waiting>) -> Result<(), String> {
        let mut writing = self.begin(waiting);
        let failed = self.put(&mut writing).err();
        if let Some(reason) = &failed {
            // Before the answers, so that a caller that gets one finds the store failed.
            self.queue.fail(reason);
        }
        self.answer(writing.outcomes, failed.as_deref());
        failed.map_or(Ok(()), Err)
    }

    /// Checks and runs batches; nothing is written yet.
    pub(super) fn begin(&self, waiting: Vec<Waiting>) -> Writing {
        let mut overlay = Overlay::new(&self.disk);
        let run = |Waiting { operations, reply, .. }| (reply, overlay.run(operations));
        let outcomes: Vec<_> = waiting.into_iter().map(run).collect();
        let stamp = self.stamp.next(now());
        if !overlay.is_empty() {
            overlay.put(META, &meta::batch_stamp_key(), Slice::from(stamp.to_bytes()));
            let sequence = self.disk.sequence();
            overlay.put(META, &meta::batch_sequence_key(), Slice::from(sequence.to_be_bytes()));
        }
        Writing { outcomes, changes: overlay.into_changes(), stamp }
    }

    /// Writes the changes, if there are any, and makes sure that the next process will find them.
    pub(super) fn put(&mut self, writing: &mut Writing) -> Result<(), String> {
        let changes = std::mem::take(&mut writing.changes);
        if changes.is_empty() {
            return Ok(());
        }
        let (bytes, since) = (bytes_of(&changes), Instant::now());
        self.disk.write(changes, self.persist).map_err(|error| report(&error))?;
        self.counters.written(bytes, since.elapsed());
        self.disk.check_presence().inspect_err(|reason| report_absence(reason))?;
        self.stamp = writing.stamp;
        if let Some(watched) = &self.disk.watched
            && let Err(error) = watched.witness.note(self.stamp)
        {
            // The batch is in the store all the same: without the witness, only a later loss would go unnoticed.
            tracing::warn!(%error, "the witness of the data directory cannot be written");
        }
        Ok(())
    }

    /// Answers everybody: with the outcome of their batch or, if the disk batch was not written, with the reason.
    pub(super) fn answer(&self, outcomes: Outcomes, failed: Option<&str>) {
        for (reply, outcome) in outcomes {
            if failed.is_none() {
                self.counters.answered(outcome.is_ok());
            }
            let answer = match failed {
                Some(reason) => Err(AppendError::Storage(reason.to_owned())),
                None => outcome.map_err(AppendError::from).map(|(mut appended, announcements)| {
                    appended.announced = self.feed.add(announcements);
                    appended
                }),
            };
            // A caller that has stopped waiting needs no answer.
            let _ = reply.send(answer);
        }
    }
}

/// The machine's time.
fn now() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
}

fn report_absence(reason: &str) {
    tracing::error!(reason, "the data directory is gone; the store takes no more");
}

fn report(error: &fjall::Error) -> String {
    tracing::error!(%error, "a write failed; the store takes no more");
    error.to_string()
}

/// Starts a thread that fails the store when the engine's own background writes fail, or when its directory is gone. The
/// committer alone would notice only at the next batch, and not at all while the engine holds it back to wait for such
/// a write.
pub(crate) fn watch(disk: Arc<Disk>, queue: Arc<AppendQueue>) -> std::io::Result<JoinHandle<()>> {
    Builder::new().name("store-watch".to_owned()).spawn(move || {
        while matches!(queue.wait_for_end(WATCH_PERIOD), Life::Open | Life::Closing) {
            // Flushes buffered bytes to the operating system, and fails if the engine has failed.
            if let Err(error) = disk.persist(PersistMode::Buffer) {
                tracing::error!(%error, "a background write failed; the store takes no more");
                queue.fail(&error.to_string());
            }
            if let Err(reason) = disk.check_presence() {
                report_absence(&reason);
                queue.fail(&reason);
            }
        }
    })
}

/// Starts a thread that reports writes that hang. It does not touch the disk, so it cannot hang itself.
pub(crate) fn watch_stalls(
    queue: Arc<AppendQueue>,
    stalled_after: Duration,
) -> std::io::Result<JoinHandle<()>> {
    let period = (stalled_after / 4).clamp(Duration::from_millis(10), WATCH_PERIOD);
    Builder::new().name("store-stalls".to_owned()).spawn(move || {
        while matches!(queue.wait_for_end(period), Life::Open | Life::Closing) {
            queue.look_for_stall(stalled_after);
        }
    })
}
