//! The writing thread: it checks and runs the waiting batches in order, writes them as one disk batch, syncs once and
//! answers all.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fjall::{PersistMode, Slice};

use crate::append_queue::{AppendQueue, Life, Waiting};
use crate::disk::Disk;
use crate::draft::Draft;
use crate::errors::AppendError;
use crate::ids::{DeliveryId, Timestamp};
use crate::meta;
use crate::tables::Table;
use crate::witness::BatchStamp;

/// How often the engine is asked whether a write in its background failed.
const WATCH_PERIOD: Duration = Duration::from_secs(1);

/// What the thread owns. Nobody else writes, so what it reads while it checks stays true until it writes.
pub(crate) struct Committer {
    pub(crate) disk: Arc<Disk>,
    pub(crate) queue: Arc<AppendQueue>,
    /// How each disk batch is persisted before it is answered; `None` leaves it in memory.
    pub(crate) persist: Option<PersistMode>,
    pub(crate) next_delivery: DeliveryId,
    /// The newest disk batch.
    pub(crate) stamp: BatchStamp,
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
            self.queue.begin_write();
            let written = self.write(waiting);
            self.queue.end_write();
            written?;
        }
        if self.persist.is_some() {
            self.disk.database.persist(PersistMode::SyncAll).map_err(|error| report(&error))?;
        }
        Ok(())
    }

    fn write(&mut self, waiting: Vec<Waiting>) -> Result<(), String> {
        let disk = Arc::clone(&self.disk);
        let mut draft = Draft::new(&disk, self.next_delivery);
        let run = |Waiting { steps, reply, .. }| (reply, draft.run(steps));
        let outcomes: Vec<_> = waiting.into_iter().map(run).collect();
        let next_delivery = draft.next_delivery();
        let failed = if draft.is_empty() { None } else { self.write_draft(draft).err() };
        if let Some(reason) = &failed {
            // Before the answers: whoever gets one finds the store failed.
            self.queue.fail(reason);
        }
        self.next_delivery = next_delivery;
        for (reply, outcome) in outcomes {
            let answer = match &failed {
                Some(reason) => Err(AppendError::Storage(reason.clone())),
                None => outcome.map_err(AppendError::from),
            };
            // Whoever has stopped listening needs no answer.
            let _ = reply.send(answer);
        }
        failed.map_or(Ok(()), Err)
    }

    /// Writes the draft and makes sure that it is where it will be looked for.
    fn write_draft(&mut self, mut draft: Draft<'_>) -> Result<(), String> {
        let stamp = self.stamp.next(now());
        draft.put(Table::Meta, &meta::batch_stamp_key(), Slice::from(stamp.to_bytes()));
        draft.write(self.persist).map_err(|error| report(&error))?;
        self.disk.check_presence().inspect_err(|reason| report_absence(reason))?;
        self.stamp = stamp;
        if let Some(watched) = &self.disk.watched
            && let Err(error) = watched.witness.note(stamp)
        {
            // What is acknowledged is in the store; a later loss would not be noticed, and no more.
            tracing::warn!(%error, "the witness of the data directory cannot be written");
        }
        Ok(())
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
            // Hands buffered bytes to the operating system, if there are any, and says whether the engine is well.
            if let Err(error) = disk.database.persist(PersistMode::Buffer) {
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

/// Starts a thread that says when a write hangs. It has nothing to do with the disk, so it cannot hang itself.
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

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Instant;

    use super::*;
    use crate::batch::Batch;
    use crate::store::{Store, StoreOptions};

    fn store() -> Store {
        Store::open(&StoreOptions::default()).unwrap()
    }

    fn setting(name: &str) -> Batch {
        let mut batch = Batch::new();
        batch.put_setting(name, "value");
        batch
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_panic_in_the_committer_fails_the_store_and_answers_everyone() {
        let store = store();
        store.append(setting("before")).await.unwrap();
        let mut panicking = Batch::new();
        // What is behind it in the queue waits until the panic.
        panicking.put_setting("never", "value").step(|_| {
            std::thread::sleep(Duration::from_millis(100));
            panic!("a step of a test")
        });
        let mut waiting = Vec::new();
        for batch in [panicking, setting("behind"), setting("behind as well")] {
            let store = store.clone();
            waiting.push(tokio::spawn(async move { store.append(batch).await }));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        for answer in waiting {
            let answer = answer.await.unwrap();
            assert!(matches!(answer, Err(AppendError::Storage(_))), "{answer:?}");
        }
        store.failed().await;
        assert!(store.is_failed());
        assert!(matches!(store.append(setting("later")).await, Err(AppendError::Storage(_))));
        let view = store.view();
        assert_eq!(view.setting("never").unwrap(), None);
        assert!(view.setting("before").unwrap().is_some());
        store.shutdown().await;
        assert!(store.is_failed());
    }

    /// A batch that holds the committer up: it says when it has begun, and ends when it is let go.
    fn held(name: &str) -> (Batch, mpsc::Receiver<()>, mpsc::Sender<()>) {
        let ((begin, begun), (let_go, ending)) = (mpsc::channel(), mpsc::channel());
        let mut batch = setting(name);
        batch.step(move |_| {
            begin.send(()).unwrap();
            ending.recv().unwrap();
            Ok(())
        });
        (batch, begun, let_go)
    }

    #[test]
    fn closing_writes_what_waits_and_refuses_the_rest() {
        let store = store();
        let append = |batch: Batch| {
            let store = store.clone();
            std::thread::spawn(move || store.append_blocking(batch))
        };
        let (batch, begun, let_go) = held("slow");
        let slow = append(batch);
        begun.recv().unwrap();
        let waiting = append(setting("waiting"));
        while store.waiting() == 0 {
            std::thread::yield_now();
        }
        let closing = std::thread::spawn({
            let store = store.clone();
            move || store.close()
        });
        while store.is_open() {
            std::thread::yield_now();
        }
        let_go.send(()).unwrap();
        closing.join().unwrap();
        assert_eq!(store.append_blocking(setting("late")), Err(AppendError::Closed));
        assert!(slow.join().unwrap().is_ok());
        assert!(waiting.join().unwrap().is_ok());
        store.close();
        assert!(!store.is_failed());
        let view = store.view();
        assert!(view.setting("waiting").unwrap().is_some());
        assert_eq!(view.setting("late").unwrap(), None);
    }

    #[tokio::test]
    async fn whoever_waits_for_room_is_told_that_the_store_closed() {
        let store = Store::open(&StoreOptions { queue_length_max: 1, ..StoreOptions::default() }).unwrap();
        let append = |batch: Batch| {
            let store = store.clone();
            tokio::spawn(async move { store.append(batch).await })
        };
        let (slow, begun, let_go) = held("slow");
        let slow = append(slow);
        while begun.try_recv().is_err() {
            tokio::task::yield_now().await;
        }
        let queued = append(setting("queued"));
        while store.waiting() == 0 {
            tokio::task::yield_now().await;
        }
        let without_room = append(setting("without room"));
        tokio::task::yield_now().await;
        let closing = tokio::spawn({
            let store = store.clone();
            async move { store.shutdown().await }
        });
        tokio::task::yield_now().await;
        let_go.send(()).unwrap();
        closing.await.unwrap();
        assert!(slow.await.unwrap().is_ok());
        assert!(queued.await.unwrap().is_ok());
        assert_eq!(without_room.await.unwrap(), Err(AppendError::Closed));
    }

    #[tokio::test]
    async fn giving_up_does_not_undo() {
        let store = store();
        let mut slow = setting("slow");
        slow.step(|_| {
            std::thread::sleep(Duration::from_millis(50));
            Ok(())
        });
        let given_up = tokio::time::timeout(Duration::from_millis(10), store.append(slow)).await;
        assert!(given_up.is_err());
        // It waits behind the one that was given up.
        store.append(setting("next")).await.unwrap();
        assert!(store.view().setting("slow").unwrap().is_some());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn who_waits_for_a_disk_that_hangs_is_told() {
        let stalled_after = Duration::from_millis(50);
        let store = Store::open(&StoreOptions { stalled_after, ..StoreOptions::default() }).unwrap();
        let append = |batch: Batch| {
            let store = store.clone();
            tokio::spawn(async move { store.append(batch).await })
        };
        let (batch, begun, let_go) = held("hanging");
        let hanging = append(batch);
        while begun.try_recv().is_err() {
            tokio::task::yield_now().await;
        }
        let behind = append(setting("behind"));
        // It is not known of either whether it will be written.
        for waiting in [hanging, behind] {
            assert_eq!(waiting.await.unwrap(), Err(AppendError::Stalled { is_queued: true }));
        }
        assert!(store.is_stalled() && !store.is_failed());
        // What comes now is not even queued.
        let refused = store.append(setting("refused")).await;
        assert_eq!(refused, Err(AppendError::Stalled { is_queued: false }));
        let_go.send(()).unwrap();
        while store.is_stalled() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        store.append(setting("after")).await.unwrap();
        let view = store.view();
        for (name, is_there) in [("hanging", true), ("behind", true), ("refused", false), ("after", true)] {
            assert_eq!(view.setting(name).unwrap().is_some(), is_there, "{name}");
        }
    }

    #[test]
    fn a_lone_append_waits_for_no_timer() {
        let store = store();
        let started = Instant::now();
        for _ in 0..200 {
            store.append_blocking(setting("one")).unwrap();
        }
        // Ten milliseconds for each would take longer.
        assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    }
}
