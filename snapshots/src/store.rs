//! The store's interface: append, view, close. [`Store::open`] is in `tables/schema.rs`, which knows the tables.

use std::{
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Wake, Waker},
    thread::{JoinHandle, Thread},
    time::Duration,
};

use tokio::sync::watch;

#[cfg(feature = "simulation")]
use crate::engine::{SimulatedDisk, SimulatedWrite, simulated::SteppedCommitter};
use crate::{
    away::away_for_long,
    engine::{
        Appended, Batch, Feed, Schema, StoreCounts, View,
        append_queue::{AppendQueue, Life},
        committer::{self, Committer},
        counters::WriteCounters,
        disk::{self, Disk},
        start::OnLoss,
    },
    errors::{AppendError, OpenError, ReadError},
    options::{Durability, Location, StoreOptions},
};

/// The store: it takes atomic batches with preconditions and gives consistent views. Clones share it; the last one closes it.
///
/// Its directory is free for another process when the last clone and the last [`View`] are gone.
#[derive(Clone)]
pub struct Store(Arc<Shared>);

struct Shared {
    disk: Arc<Disk>,
    queue: Arc<AppendQueue>,
    feed: Arc<Feed>,
    counters: Arc<WriteCounters>,
    batch_bytes_max: usize,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// The committer of a store on a simulated disk, which has no threads.
    #[cfg(feature = "simulation")]
    stepped: Option<Arc<SteppedCommitter>>,
}

impl Store {
    /// The largest batch, in bytes: no value can be larger.
    pub fn batch_bytes_max(&self) -> usize {
        self.0.batch_bytes_max
    }

    /// Opens a store with these tables, for [`Store::open`].
    pub(crate) fn open_with(options: &StoreOptions, schema: &'static Schema) -> Result<Self, OpenError> {
        // Without a sync before each answer, a loss of power may take what was acknowledged.
        let on_loss = match options.durability {
            _ if options.accepts_loss => OnLoss::Accept,
            Durability::Buffer => OnLoss::AcceptAtEnd,
            Durability::Sync => OnLoss::Refuse,
        };
        let disk = Arc::new(Disk::open(&options.location, options.cache_bytes, on_loss, schema)?);
        let path = match &options.location {
            Location::Directory(path) => path.clone(),
            Location::Temporary => std::env::temp_dir(),
        };
        let damaged = |error: ReadError| OpenError::Damaged { path: path.clone(), what: error.to_string() };
        let stamp = disk.batch_stamp().map_err(damaged)?;
        let queue = Arc::new(AppendQueue::new(options.queue_length_max, options.queue_bytes_max));
        let persist = disk::persistence(&options.location, options.durability);
        let feed = Arc::<Feed>::default();
        let counters = Arc::<WriteCounters>::default();
        let store = Self(Arc::new(Shared {
            disk: Arc::clone(&disk),
            queue: Arc::clone(&queue),
            feed: Arc::clone(&feed),
            counters: Arc::clone(&counters),
            // The engine's values are shorter than 4 GiB.
            batch_bytes_max: options.batch_bytes_max.min(1 << 30),
            threads: Mutex::new(Vec::new()),
            #[cfg(feature = "simulation")]
            stepped: None,
        }));
        let committer =
            Committer { disk: Arc::clone(&disk), queue: Arc::clone(&queue), feed, counters, persist, stamp };
        let started = committer.start().and_then(|thread| {
            store.0.keep(thread);
            let thread = committer::watch(disk, Arc::clone(&queue))?;
            store.0.keep(thread);
            committer::watch_stalls(Arc::clone(&queue), options.stalled_after)
        });
        match started {
            Ok(thread) => store.0.keep(thread),
            Err(source) => {
                queue.fail("its threads could not be started");
                return Err(OpenError::Io { path, source });
            }
        }
        Ok(store)
    }

    /// Opens a store on a simulated disk. It has no threads: [`Store::begin_write`] writes what waits.
    #[cfg(feature = "simulation")]
    pub(crate) fn open_simulated_with(
        options: &StoreOptions,
        disk: &SimulatedDisk,
        schema: &'static Schema,
    ) -> Result<Self, ReadError> {
        let opened = Arc::new(Disk::open_simulated(disk, schema));
        let queue = Arc::new(AppendQueue::new(options.queue_length_max, options.queue_bytes_max));
        let (feed, counters) = (Arc::<Feed>::default(), Arc::<WriteCounters>::default());
        let committer = Committer {
            disk: Arc::clone(&opened),
            queue: Arc::clone(&queue),
            feed: Arc::clone(&feed),
            counters: Arc::clone(&counters),
            persist: None,
            stamp: opened.batch_stamp()?,
        };
        Ok(Self(Arc::new(Shared {
            disk: opened,
            queue: Arc::clone(&queue),
            feed,
            counters,
            batch_bytes_max: options.batch_bytes_max.min(1 << 30),
            threads: Mutex::new(Vec::new()),
            stepped: Some(SteppedCommitter::new(disk.clone(), committer, queue)),
        })))
    }

    /// Waits until a batch arrives, or has arrived since the last call: for a simulation.
    #[cfg(feature = "simulation")]
    pub async fn arrival(&self) {
        self.0.queue.arrival().await;
    }

    /// Begins to write what waits, if it is a store on a simulated disk and something waits.
    #[cfg(feature = "simulation")]
    pub fn begin_write(&self) -> Option<SimulatedWrite> {
        self.0.stepped.as_ref()?.begin()
    }

    /// Writes a batch, all of it or nothing. Once it returns, the batch survives the failure that
    /// [`Durability`] names, and every later view shows it.
    ///
    /// A caller that stops waiting does not undo a batch that the committer has taken; one that it has not taken yet is never
    /// written.
    ///
    /// # Errors
    /// [`AppendError::Precondition`] when a precondition failed, [`AppendError::TooLarge`] over a limit,
    /// [`AppendError::Closed`] after [`Store::close`], [`AppendError::Stalled`] when the disk does not answer,
    /// [`AppendError::Storage`] when it failed.
    pub async fn append(&self, batch: Batch) -> Result<Appended, AppendError> {
        let bytes = batch.bytes();
        let operations = batch.into_operations(self.0.batch_bytes_max)?;
        if self.is_stalled() {
            return Err(AppendError::Stalled { is_queued: false });
        }
        let mut stalled = self.0.queue.stalled();
        let answer = tokio::select! {
            biased;
            answer = self.0.queue.push(operations, bytes) => answer?,
            () = until_stalled(&mut stalled) => return Err(AppendError::Stalled { is_queued: false }),
        };
        tokio::select! {
            biased;
            answer = answer => answer.unwrap_or_else(|_| {
                // The committer is unwinding: report it before the committer does.
                self.0.queue.fail("the committer panicked");
                Err(AppendError::Storage("the committer panicked".to_owned()))
            }),
            () = until_stalled(&mut stalled) => Err(AppendError::Stalled { is_queued: true }),
        }
    }

    /// Waits until every earlier batch is written or refused, however long the disk takes: for a caller that got
    /// [`AppendError::Stalled`] and must know what is stored.
    pub async fn settled(&self) {
        let mut stalled = self.0.queue.stalled();
        while stalled.wait_for(|stalled| !stalled).await.is_ok() {
            // An empty batch, queued behind all of them.
            if !matches!(self.append(Batch::new()).await, Err(AppendError::Stalled { .. })) {
                return;
            }
        }
    }

    /// As [`Store::append`], blocking the thread: for start-up and tests.
    ///
    /// # Errors
    /// As [`Store::append`].
    pub fn append_blocking(&self, batch: Batch) -> Result<Appended, AppendError> {
        let append = tokio::task::unconstrained(self.append(batch));
        #[cfg(feature = "simulation")]
        if self.0.stepped.is_some() {
            return block_on(async {
                let mut append = std::pin::pin!(append);
                std::future::poll_fn(|cx| {
                    let queued = append.as_mut().poll(cx);
                    while queued.is_pending()
                        && let Some(mut write) = self.begin_write()
                    {
                        write.reach_disk();
                        write.answer();
                    }
                    queued
                })
                .await
            });
        }
        block_on(append)
    }

    /// One moment of all tables: everything that was answered before, and maybe more, each batch whole.
    pub fn view(&self) -> View {
        View::new(Arc::clone(&self.0.disk))
    }

    /// The feed of what batches announce.
    pub(crate) fn feed(&self) -> &Feed {
        &self.0.feed
    }

    /// The writes since it was opened.
    pub fn counts(&self) -> StoreCounts {
        self.0.counters.read(self.0.queue.waiting())
    }

    /// Whether the disk has not answered for longer than [`StoreOptions::stalled_after`]. It may answer again.
    pub fn is_stalled(&self) -> bool {
        *self.0.queue.stalled().borrow()
    }

    /// The least number of acknowledged disk batches that were missing when the store was opened; see
    /// [`StoreOptions::accepts_loss`].
    pub fn lost_batches(&self) -> u64 {
        let loss = self.0.disk.watched.as_ref().and_then(|watched| watched.loss);
        loss.map_or(0, |loss| loss.acknowledged.number.saturating_sub(loss.kept.number))
    }

    /// The disk batches before its end that were missing or damaged when the store was opened, and are left out; see
    /// [`StoreOptions::accepts_loss`]. Tables on disk may have rows of them.
    pub fn left_out_batches(&self) -> u64 {
        self.0.disk.watched.as_ref().map_or(0, |watched| watched.missing)
    }

    /// Whether a write has failed, which is permanent. The process must end; the next one finds what was written.
    pub fn is_failed(&self) -> bool {
        self.0.queue.is_failed()
    }

    /// Runs work of the engine on a thread of its own, since the end of the process must not wait for it. It is told whether to go on.
    pub(crate) async fn in_background(
        &self,
        work: impl FnOnce(&Disk, &dyn Fn() -> bool) -> Result<(), ReadError> + Send + 'static,
    ) -> Result<(), ReadError> {
        let (disk, queue) = (Arc::clone(&self.0.disk), Arc::clone(&self.0.queue));
        let run = move || work(&disk, &|| matches!(*queue.life().borrow(), Life::Open));
        let done = away_for_long("store-space", run).await;
        done.unwrap_or_else(|error| Err(ReadError::Storage(error.to_string())))
    }

    /// The bytes that its files have on disk.
    ///
    /// # Errors
    /// [`ReadError`] when the disk fails.
    pub fn disk_bytes(&self) -> Result<u64, ReadError> {
        self.0.disk.bytes()
    }

    /// Waits until a write fails, perhaps forever. A failed background write of the engine is noticed within about a second,
    /// even when nothing is appended.
    pub async fn failed(&self) {
        let mut life = self.0.queue.life();
        if life.wait_for(|life| matches!(life, Life::Failed(_))).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Takes no more batches, writes those that wait, syncs, and ends the committer. Views remain usable. Closing again does
    /// nothing. It blocks the thread; see [`Store::shutdown`].
    pub fn close(&self) {
        self.0.close();
    }

    /// As [`Store::close`], without blocking the thread.
    pub async fn shutdown(&self) {
        self.0.queue.begin_close();
        let mut life = self.0.queue.life();
        // The sender is in `self`, so this can only end with the store.
        let _ = life.wait_for(|life| matches!(life, Life::Closed | Life::Failed(_))).await;
        self.0.close();
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("life", &*self.0.queue.life().borrow()).finish_non_exhaustive()
    }
}

impl Shared {
    fn keep(&self, thread: JoinHandle<()>) {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
    }

    fn close(&self) {
        self.queue.begin_close();
        #[cfg(feature = "simulation")]
        if self.stepped.is_some() {
            // What still waits is lost: a simulated store ends with its process.
            return self.queue.closed();
        }
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match self.queue.wait_for_end(Duration::from_secs(3600)) {
                Life::Open | Life::Closing => {}
                Life::Closed => break,
                // A committer that hangs on a broken disk may never return.
                Life::Failed(_) => return,
            }
        }
        for thread in threads.drain(..) {
            // A panic in it was caught and reported there.
            let _ = thread.join();
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.close();
    }
}

/// Waits until the disk does not answer, perhaps forever.
async fn until_stalled(stalled: &mut watch::Receiver<bool>) {
    if stalled.wait_for(|stalled| *stalled).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Runs a future that needs no runtime to its end. Unlike tokio's blocking calls, it may be called anywhere.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}

#[cfg(test)]
mod tests;
