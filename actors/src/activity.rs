//! Activity of an actor: unwritten records, last use, memory and waiting requests; and the messages for its upkeep.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
};

use actix::Message;
use snapshots::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The activity of one actor, shared with the supervisor.
#[derive(Debug)]
pub(crate) struct Activity {
    is_dirty: AtomicBool,
    last_used_ms: AtomicU64,
    weight: AtomicUsize,
    waiting: Arc<Semaphore>,
    waiting_max: usize,
}

impl Activity {
    /// The activity of an actor that is being activated; at most `waiting_max` requests may wait for it.
    pub(crate) fn new(waiting_max: usize, now: Timestamp) -> Arc<Self> {
        Arc::new(Self {
            is_dirty: AtomicBool::new(false),
            last_used_ms: AtomicU64::new(now.0),
            weight: AtomicUsize::new(0),
            waiting: Arc::new(Semaphore::new(waiting_max)),
            waiting_max,
        })
    }

    pub(crate) fn touch(&self, now: Timestamp) {
        self.last_used_ms.store(now.0, Ordering::Relaxed);
    }

    pub(crate) fn last_used(&self) -> Timestamp {
        Timestamp(self.last_used_ms.load(Ordering::Relaxed))
    }

    /// Notes the actor's estimated memory, in bytes.
    pub(crate) fn set_weight(&self, bytes: usize) {
        self.weight.store(bytes, Ordering::Relaxed);
    }

    /// The actor's estimated memory, in bytes; 0 until its state is loaded.
    pub(crate) fn weight(&self) -> usize {
        self.weight.load(Ordering::Relaxed)
    }

    /// Notes whether the actor has records that no snapshot covers.
    pub(crate) fn set_dirty(&self, is_dirty: bool) {
        self.is_dirty.store(is_dirty, Ordering::Relaxed);
    }

    /// Whether the actor has records that no snapshot covers.
    pub(crate) fn is_dirty(&self) -> bool {
        self.is_dirty.load(Ordering::Relaxed)
    }

    /// Permission to send the actor a request, unless too many wait. A mailbox alone limits nothing once its address is cloned.
    pub(crate) fn permit(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.waiting).try_acquire_owned().ok()
    }

    /// The number of requests that wait for the actor.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting_max.saturating_sub(self.waiting.available_permits())
    }

    /// Whether a request waits for the actor.
    pub(crate) fn is_waited_for(&self) -> bool {
        self.waiting() > 0
    }
}

/// Asks an actor to bring its snapshot up to date, and perhaps to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Message)]
#[rtype(result = "ActorState")]
pub(crate) enum Upkeep {
    /// Write a snapshot and continue.
    Snapshot,
    /// Write a snapshot and stop; the next request activates the actor again.
    Passivate,
}

/// The state of an actor after its upkeep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, actix::MessageResponse)]
pub(crate) enum ActorState {
    Active,
    Stopped,
}

/// The reason why an actor did not answer a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AskError {
    /// Too many requests wait for the actor.
    Busy,
    /// The actor stopped again and again before it answered.
    NoAnswer,
}
