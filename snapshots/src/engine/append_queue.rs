//! The queue before the committer: bounded, and every entry is answered even if the committer fails.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::{Semaphore, oneshot, watch};

use super::{batch::Appended, overlay::Operation};
use crate::errors::AppendError;

/// The most batches in one disk batch.
const TAKEN_LENGTH_MAX: usize = 256;
/// The size at which a disk batch takes no further batch, in bytes. A single batch may be larger.
const TAKEN_BYTES_MAX: usize = 8 << 20;
/// Bytes are counted in steps of this size, since a semaphore counts to `u32::MAX` at once.
const BYTES_PER_PERMIT: usize = 1024;

pub(crate) type Outcome = Result<Appended, AppendError>;

/// A batch and the channel of its answer.
pub(crate) struct Waiting {
    pub(crate) operations: Vec<Operation>,
    pub(crate) bytes: usize,
    pub(crate) reply: oneshot::Sender<Outcome>,
}

/// The states of a store. It only moves down this list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    /// Takes batches.
    Open,
    /// Takes no more, and writes those that wait.
    Closing,
    /// Everything is written.
    Closed,
    /// A write failed, for this reason; nothing more is written.
    Failed(String),
}

pub(crate) struct AppendQueue {
    state: Mutex<State>,
    /// A batch arrived, or the state changed: for the committer alone.
    arrived: Condvar,
    #[cfg(feature = "simulation")]
    arrived_in_simulation: tokio::sync::Notify,
    /// The state changed.
    moved: Condvar,
    life: watch::Sender<Life>,
    /// The time at which the present disk batch began.
    writing_since: Mutex<Option<Instant>>,
    /// Whether it takes longer than it may.
    stalled: watch::Sender<bool>,
    length_free: Semaphore,
    bytes_free: Semaphore,
    bytes_permits: usize,
}

struct State {
    waiting: VecDeque<Waiting>,
    life: Life,
}

impl AppendQueue {
    pub(crate) fn new(length_max: usize, bytes_max: usize) -> Self {
        let length = length_max.clamp(1, Semaphore::MAX_PERMITS);
        let bytes_permits = (bytes_max / BYTES_PER_PERMIT).clamp(1, u32::MAX as usize);
        Self {
            state: Mutex::new(State { waiting: VecDeque::new(), life: Life::Open }),
            arrived: Condvar::new(),
            #[cfg(feature = "simulation")]
            arrived_in_simulation: tokio::sync::Notify::new(),
            moved: Condvar::new(),
            life: watch::Sender::new(Life::Open),
            writing_since: Mutex::new(None),
            stalled: watch::Sender::new(false),
            length_free: Semaphore::new(length),
            bytes_free: Semaphore::new(bytes_permits),
            bytes_permits,
        }
    }

    /// The number of batches that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.lock().waiting.len()
    }

    /// Waits for room and queues a batch; the answer comes through the receiver.
    pub(crate) async fn push(
        &self,
        operations: Vec<Operation>,
        bytes: usize,
    ) -> Result<oneshot::Receiver<Outcome>, AppendError> {
        let permits = u32::try_from(self.permits(bytes)).unwrap_or(u32::MAX);
        let length = self.length_free.acquire().await.map_err(|_| self.refusal())?;
        let room = self.bytes_free.acquire_many(permits).await.map_err(|_| self.refusal())?;
        let (reply, answer) = oneshot::channel();
        let mut state = self.lock();
        if state.life != Life::Open {
            return Err(refusal(&state.life));
        }
        // No await between here and the push, because the permits are returned only when the batch is taken.
        length.forget();
        room.forget();
        state.waiting.push_back(Waiting { operations, bytes, reply });
        drop(state);
        self.arrived.notify_one();
        #[cfg(feature = "simulation")]
        self.arrived_in_simulation.notify_one();
        Ok(answer)
    }

    /// Waits until a batch arrives, or has arrived since the last call.
    #[cfg(feature = "simulation")]
    pub(crate) async fn arrival(&self) {
        self.arrived_in_simulation.notified().await;
    }

    /// Waits for batches and takes those that wait, the earliest first. `None` once the queue is closed and empty.
    pub(crate) fn take(&self) -> Option<Vec<Waiting>> {
        let mut state = self.lock();
        while state.waiting.is_empty() {
            if state.life != Life::Open {
                return None;
            }
            state = self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        Some(self.taken(state))
    }

    /// As [`AppendQueue::take`], without waiting: `None` if no batch waits.
    #[cfg(feature = "simulation")]
    pub(super) fn take_now(&self) -> Option<Vec<Waiting>> {
        let state = self.lock();
        (!state.waiting.is_empty()).then(|| self.taken(state))
    }

    fn taken(&self, mut state: MutexGuard<'_, State>) -> Vec<Waiting> {
        let mut taken = Vec::with_capacity(state.waiting.len().min(TAKEN_LENGTH_MAX));
        let mut bytes = 0_usize;
        let mut permits = 0_usize;
        while let Some(next) = state.waiting.front() {
            let grown = bytes.saturating_add(next.bytes);
            if taken.len() == TAKEN_LENGTH_MAX || (grown > TAKEN_BYTES_MAX && !taken.is_empty()) {
                break;
            }
            bytes = grown;
            permits = permits.saturating_add(self.permits(next.bytes));
            taken.extend(state.waiting.pop_front());
        }
        drop(state);
        self.length_free.add_permits(taken.len());
        self.bytes_free.add_permits(permits);
        taken
    }

    /// Notes that the committer begins to write.
    pub(crate) fn begin_write(&self) {
        *self.writing_since() = Some(Instant::now());
    }

    /// Notes that the committer has written.
    pub(crate) fn end_write(&self) {
        *self.writing_since() = None;
        // Only a change is sent; otherwise every waiting append would wake up after every batch.
        if self.stalled.send_if_modified(std::mem::take) {
            tracing::warn!("the disk answers again");
        }
    }

    /// Notes whether the committer has been writing for longer than this.
    pub(crate) fn look_for_stall(&self, stalled_after: Duration) {
        let writing_since = self.writing_since();
        let is_stalled = writing_since.is_some_and(|since| since.elapsed() > stalled_after);
        if is_stalled && !self.stalled.send_replace(true) {
            tracing::error!(
                after_s = stalled_after.as_secs_f32(),
                "the disk does not answer: writes are refused until it does"
            );
        }
    }

    /// Whether the disk does not answer.
    pub(crate) fn stalled(&self) -> watch::Receiver<bool> {
        self.stalled.subscribe()
    }

    /// Nothing can panic under this lock.
    fn writing_since(&self) -> MutexGuard<'_, Option<Instant>> {
        self.writing_since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes no more batches; those that wait are still written.
    pub(crate) fn begin_close(&self) {
        self.advance(Life::Closing);
        self.length_free.close();
        self.bytes_free.close();
    }

    /// Notes that everything is written.
    pub(crate) fn closed(&self) {
        self.advance(Life::Closed);
    }

    /// Fails the store permanently. Present and later callers get the reason.
    pub(crate) fn fail(&self, reason: &str) {
        if !self.advance(Life::Failed(reason.to_owned())) {
            return;
        }
        self.length_free.close();
        self.bytes_free.close();
        let waiting = std::mem::take(&mut self.lock().waiting);
        for batch in waiting {
            // A caller that has stopped waiting needs no answer.
            let _ = batch.reply.send(Err(AppendError::Storage(reason.to_owned())));
        }
    }

    pub(crate) fn life(&self) -> watch::Receiver<Life> {
        self.life.subscribe()
    }

    pub(crate) fn is_failed(&self) -> bool {
        matches!(*self.life.borrow(), Life::Failed(_))
    }

    /// Blocks until the store is closed or failed, or for the given time at most. Returns its state.
    pub(crate) fn wait_for_end(&self, time: Duration) -> Life {
        let going = |state: &mut State| matches!(state.life, Life::Open | Life::Closing);
        let waited = self.moved.wait_timeout_while(self.lock(), time, going);
        waited.unwrap_or_else(PoisonError::into_inner).0.life.clone()
    }

    /// The reason why nothing can be appended any more.
    fn refusal(&self) -> AppendError {
        refusal(&self.lock().life)
    }

    /// Changes to a later state; `false` if it is there or past it.
    fn advance(&self, next: Life) -> bool {
        let mut state = self.lock();
        let forward = match (&state.life, &next) {
            (Life::Failed(_) | Life::Closed, _) | (_, Life::Open) => false,
            (Life::Closing, Life::Closing) => false,
            (Life::Open | Life::Closing, Life::Closing | Life::Closed | Life::Failed(_)) => true,
        };
        if forward {
            state.life = next.clone();
            self.life.send_replace(next);
        }
        drop(state);
        self.arrived.notify_one();
        self.moved.notify_all();
        forward
    }

    fn permits(&self, bytes: usize) -> usize {
        (bytes / BYTES_PER_PERMIT).saturating_add(1).min(self.bytes_permits)
    }

    /// No panic under this lock separates changes that belong together, so poison can be ignored.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn refusal(life: &Life) -> AppendError {
    match life {
        Life::Failed(reason) => AppendError::Storage(reason.clone()),
        Life::Open | Life::Closing | Life::Closed => AppendError::Closed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A queue with these batches in it, by their sizes in bytes, and their answers.
    async fn waiting(sizes: &[usize]) -> (AppendQueue, Vec<oneshot::Receiver<Outcome>>) {
        let queue = AppendQueue::new(1000, 1 << 30);
        let mut answers = Vec::new();
        for bytes in sizes {
            answers.push(queue.push(Vec::new(), *bytes).await.unwrap());
        }
        (queue, answers)
    }

    async fn check(sizes: &[usize], taken: &[usize]) {
        let (queue, _answers) = waiting(sizes).await;
        queue.begin_close();
        let found: Vec<usize> = std::iter::from_fn(|| queue.take()).map(|taken| taken.len()).collect();
        assert_eq!(found, taken);
        assert_eq!(queue.length_free.available_permits(), 1000);
        assert_eq!(queue.bytes_free.available_permits(), (1 << 30) / BYTES_PER_PERMIT);
    }

    #[tokio::test]
    async fn a_disk_batch_takes_so_many_and_so_much() {
        check(&[], &[]).await;
        check(&[10], &[1]).await;
        check(&[10; 256], &[256]).await;
        check(&[10; 600], &[256, 256, 88]).await;
        check(&[3 << 20; 5], &[2, 2, 1]).await;
        check(&[1, 20 << 20, 1, 2], &[1, 1, 2]).await;
    }

    #[tokio::test]
    async fn a_failure_answers_all_who_wait() {
        let (queue, answers) = waiting(&[1, 2, 3]).await;
        queue.fail("the disk is gone");
        queue.fail("a second reason");
        for answer in answers {
            assert_eq!(answer.await.unwrap(), Err(AppendError::Storage("the disk is gone".to_owned())));
        }
        assert!(queue.take().is_none());
        let pushed = queue.push(Vec::new(), 1).await.map(|_| ());
        assert_eq!(pushed, Err(AppendError::Storage("the disk is gone".to_owned())));
        queue.begin_close();
        queue.closed();
        assert!(queue.is_failed());
    }
}
