//! The one thread that writes: it takes what waits, checks and runs each batch in order, writes them as one disk
//! batch, syncs once and answers everyone.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use fjall::PersistMode;

use crate::append_queue::{AppendQueue, Life, Waiting};
use crate::batch::Appended;
use crate::disk::Disk;
use crate::draft::Draft;
use crate::errors::AppendError;
use crate::ids::DeliveryId;

/// How often the engine is asked whether a write in its background failed.
const WATCH_PERIOD: Duration = Duration::from_secs(1);

/// What the thread owns. Nobody else writes, so what it reads while it checks stays true until it writes.
pub(crate) struct Committer {
    pub(crate) disk: Arc<Disk>,
    pub(crate) queue: Arc<AppendQueue>,
    /// How each disk batch is persisted before it is answered; `None` leaves it in memory.
    pub(crate) persist: Option<PersistMode>,
    pub(crate) next_delivery: DeliveryId,
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
            self.write(waiting)?;
        }
        if self.persist.is_some() {
            self.disk.database.persist(PersistMode::SyncAll).map_err(|error| self.report(&error))?;
        }
        Ok(())
    }

    fn write(&mut self, waiting: Vec<Waiting>) -> Result<(), String> {
        let mut draft = Draft::new(&self.disk, self.next_delivery);
        let run = |Waiting { steps, reply, .. }| (reply, draft.run(steps));
        let outcomes: Vec<_> = waiting.into_iter().map(run).collect();
        let next_delivery = draft.next_delivery();
        let written = if draft.is_empty() { Ok(()) } else { draft.write(self.persist) };
        let failed = written.map_err(|error| self.report(&error)).err();
        if let Some(reason) = &failed {
            // Before the answers: whoever gets one finds the store failed.
            self.queue.fail(reason);
        }
        self.next_delivery = next_delivery;
        for (reply, outcome) in outcomes {
            let answer = match &failed {
                Some(reason) => Err(AppendError::Storage(reason.clone())),
                None => outcome.map(|deliveries| Appended { deliveries }).map_err(AppendError::from),
            };
            // Whoever has stopped listening needs no answer.
            let _ = reply.send(answer);
        }
        failed.map_or(Ok(()), Err)
    }

    fn report(&self, error: &fjall::Error) -> String {
        tracing::error!(%error, "a write failed; the store takes no more");
        error.to_string()
    }
}

/// Starts a thread that fails the store when the engine's own background writes fail. The committer alone would notice
/// only at the next batch, and not at all while the engine holds it back to wait for such a write.
pub(crate) fn watch(disk: Arc<Disk>, queue: Arc<AppendQueue>) -> std::io::Result<JoinHandle<()>> {
    Builder::new().name("store-watch".to_owned()).spawn(move || {
        while matches!(queue.wait_for_end(WATCH_PERIOD), Life::Open | Life::Closing) {
            // Hands buffered bytes to the operating system, if there are any, and says whether the engine is well.
            if let Err(error) = disk.database.persist(PersistMode::Buffer) {
                tracing::error!(%error, "a background write failed; the store takes no more");
                queue.fail(&error.to_string());
            }
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
