//! The handle of an active actor: its address, its activity and its bounded queue.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
};

use actix::{Actor, Addr, Message};
use snapshots::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The activity of one actor, shared with the supervisor, which decides when to passivate it.
#[derive(Debug)]
pub(crate) struct Activity {
    /// There is something that no snapshot has yet.
    pub(crate) dirty: AtomicBool,
    last_used_ms: AtomicU64,
    /// The actor's estimated memory, in bytes.
    weight: AtomicUsize,
    waiting: Arc<Semaphore>,
    waiting_max: usize,
}

impl Activity {
    pub(crate) fn new(waiting_max: usize, now: Timestamp) -> Arc<Self> {
        Arc::new(Self {
            dirty: AtomicBool::new(false),
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
    pub(crate) fn weigh(&self, bytes: usize) {
        self.weight.store(bytes, Ordering::Relaxed);
    }

    /// The actor's estimated memory, in bytes; 0 before it has its state.
    pub(crate) fn weight(&self) -> usize {
        self.weight.load(Ordering::Relaxed)
    }

    pub(crate) fn is_dirty(&self) -> bool {
        self.dirty.load(Ordering::Relaxed)
    }

    /// A place in front of the actor, if there is one: a mailbox alone bounds nothing once its address is cloned.
    pub(crate) fn permit(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.waiting).try_acquire_owned().ok()
    }

    pub(crate) fn is_waited_for(&self) -> bool {
        self.waiting.available_permits() < self.waiting_max
    }
}

/// One awake actor.
pub(crate) struct Awake<A: Actor> {
    pub(crate) address: Addr<A>,
    pub(crate) activity: Arc<Activity>,
}

impl<A: Actor> Clone for Awake<A> {
    fn clone(&self) -> Self {
        Self { address: self.address.clone(), activity: Arc::clone(&self.activity) }
    }
}

/// Asks an actor to bring its snapshot up to date, and perhaps to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rest {
    /// Write a snapshot and stay active.
    Snapshot,
    /// Write a snapshot and stop; a request wakes it again.
    Sleep,
}

impl Message for Rest {
    type Result = Rested;
}

/// What an actor did about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, actix::MessageResponse)]
pub(crate) enum Rested {
    Awake,
    Asleep,
}
