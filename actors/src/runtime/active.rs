//! Active actors of one kind, by the item that each owns. A request activates an actor; it is forgotten once it has stopped,
//! and the next request activates another.

use std::{hash::Hash, sync::Arc, time::Duration};

use actix::{Actor, Addr, Context, Handler, MailboxError, Message};
use dashmap::{DashMap, mapref::entry::Entry};
use snapshots::Timestamp;
use tokio::sync::OwnedSemaphorePermit;
use tracing::Instrument as _;

use crate::{
    activity::{Activity, ActorState, AskError, Upkeep},
    traces,
};

/// The pause before an actor that is writing a snapshot is asked again to stop.
const WRITING_PAUSE: Duration = Duration::from_millis(5);

/// The number of tries of a request whose actor stops before it answers.
const ATTEMPTS: usize = 4;

/// An actor that owns one of many items of a kind.
pub(crate) trait Owner: Actor<Context = Context<Self>> + Handler<Upkeep> {
    /// The name of what it owns.
    type Key: Clone + Ord + Hash + Send + Sync + 'static;
    /// The state that it publishes to readers.
    type Watch: Clone + Send + Sync + 'static;
}

/// An active actor.
pub(crate) struct Active<A: Owner> {
    pub(crate) address: Addr<A>,
    pub(crate) activity: Arc<Activity>,
    pub(crate) watch: A::Watch,
}

impl<A: Owner> Clone for Active<A> {
    fn clone(&self) -> Self {
        Self {
            address: self.address.clone(),
            activity: Arc::clone(&self.activity),
            watch: self.watch.clone(),
        }
    }
}

/// The number and size of the active actors of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AwakeActors {
    /// Their number.
    pub count: usize,
    /// Their estimated memory, in bytes.
    pub bytes: usize,
    /// The most requests that wait for one of them.
    pub waiting_max: usize,
}

/// The active actors of one kind.
pub(crate) struct ActiveActors<A: Owner>(DashMap<A::Key, Active<A>>);

impl<A: Owner> Default for ActiveActors<A> {
    fn default() -> Self {
        Self(DashMap::new())
    }
}

impl<A: Owner> ActiveActors<A> {
    /// The number of active actors.
    pub(crate) fn len(&self) -> usize {
        self.0.iter().filter(|active| active.address.connected()).count()
    }

    /// Their number and size.
    pub(crate) fn awake(&self) -> AwakeActors {
        let connected = self.0.iter().filter(|active| active.address.connected());
        connected.fold(AwakeActors::default(), |awake, active| AwakeActors {
            count: awake.count + 1,
            bytes: awake.bytes.saturating_add(active.activity.weight()),
            waiting_max: awake.waiting_max.max(active.activity.waiting()),
        })
    }

    /// The actor of `key`, if it is active.
    pub(crate) fn get(&self, key: &A::Key) -> Option<Active<A>> {
        let active = self.0.get(key)?;
        active.address.connected().then(|| active.clone())
    }

    /// The actor of `key`, started if none is active. Two callers get the same one.
    pub(crate) fn get_or_start(&self, key: A::Key, start: impl FnOnce() -> Active<A>) -> Active<A> {
        match self.0.entry(key) {
            Entry::Occupied(mut active) => {
                if !active.get().address.connected() {
                    active.insert(start());
                }
                active.get().clone()
            }
            Entry::Vacant(place) => place.insert(start()).clone(),
        }
    }

    /// Forgets the actor of `key`, unless another one has been started since.
    pub(crate) fn forget(&self, key: &A::Key, address: &Addr<A>) {
        self.0.remove_if(key, |_, active| active.address == *address);
    }

    /// Sends a message to the actor that `activate` returns, and again to another one if the actor stops before it answers.
    ///
    /// # Errors
    /// The error of `activate` or of the actor, and [`AskError`].
    pub(crate) async fn ask<M, T, E>(
        &self,
        key: &A::Key,
        activate: impl Fn() -> Result<Active<A>, E>,
        message: impl Fn(OwnedSemaphorePermit) -> M,
    ) -> Result<T, E>
    where
        M: Message<Result = Result<T, E>> + Send + 'static,
        A: Handler<M>,
        T: Send + 'static,
        E: From<AskError> + Send + 'static,
    {
        for _ in 0..ATTEMPTS {
            let active = activate()?;
            let permit = active.activity.permit().ok_or(AskError::Busy)?;
            let span = traces::ask();
            let message = span.in_scope(|| message(permit));
            match active.address.send(message).instrument(span).await {
                Ok(answer) => return answer,
                Err(MailboxError::Closed | MailboxError::Timeout) => self.forget(key, &active.address),
            }
        }
        Err(AskError::NoAnswer.into())
    }

    /// Sends a notice to the actor of `key` if it is active.
    pub(crate) fn notify<M>(&self, key: &A::Key, notice: M)
    where
        M: Message<Result = ()> + Send + 'static,
        A: Handler<M>,
    {
        if let Some(active) = self.get(key) {
            active.address.do_send(notice);
        }
    }

    /// Forgets the actor of `key` at once, and sends it a notice, after which it stops.
    pub(crate) fn close<M>(&self, key: &A::Key, notice: M)
    where
        M: Message<Result = ()> + Send + 'static,
        A: Handler<M>,
    {
        if let Some((_, active)) = self.0.remove(key) {
            active.address.do_send(notice);
        }
    }

    /// Passivates the actor of `key` if it is active, and returns once it writes nothing any more: a snapshot of it that was
    /// written later could become that of another log in the same place. The next request activates another one.
    pub(crate) async fn passivate(&self, key: &A::Key) {
        if let Some(active) = self.get(key) {
            while self.keep_up(key, &active.address, Upkeep::Passivate).await == ActorState::Active {
                tokio::time::sleep(WRITING_PAUSE).await;
            }
        }
    }

    /// Makes an actor do its upkeep, and forgets it if it stops.
    pub(crate) async fn keep_up(&self, key: &A::Key, address: &Addr<A>, upkeep: Upkeep) -> ActorState {
        // One that has stopped already has nothing to write.
        let state = address.send(upkeep).await.unwrap_or(ActorState::Stopped);
        if state == ActorState::Stopped {
            self.forget(key, address);
        }
        state
    }

    /// The actors for which `upkeep` returns a task, with the task.
    pub(crate) fn due(&self, upkeep: impl Fn(&Activity) -> Option<Upkeep>) -> Vec<(A::Key, Addr<A>, Upkeep)> {
        let due = |active: dashmap::mapref::multiple::RefMulti<'_, A::Key, Active<A>>| {
            let upkeep = upkeep(&active.activity)?;
            Some((active.key().clone(), active.address.clone(), upkeep))
        };
        #[cfg_attr(not(feature = "simulation"), expect(unused_mut, reason = "only a simulation sorts them"))]
        let mut due: Vec<_> = self.0.iter().filter_map(due).collect();
        // The table's order differs from process to process.
        #[cfg(feature = "simulation")]
        due.sort_by(|(left, ..), (right, ..)| left.cmp(right));
        due
    }

    /// The time of each actor's last use, and its weight in bytes.
    pub(crate) fn uses_and_weights(&self) -> impl Iterator<Item = (Timestamp, usize)> + '_ {
        self.0.iter().map(|active| (active.activity.last_used(), active.activity.weight()))
    }
}

#[cfg(test)]
mod tests {
    use actix::ActorContext as _;

    use super::*;

    /// An actor that is writing a snapshot when it is asked to stop for the first times.
    struct Writing {
        times: usize,
        ended: Arc<tokio::sync::Semaphore>,
    }

    impl Actor for Writing {
        type Context = Context<Self>;
    }

    impl Owner for Writing {
        type Key = u8;
        type Watch = ();
    }

    impl Handler<Upkeep> for Writing {
        type Result = ActorState;

        fn handle(&mut self, _: Upkeep, ctx: &mut Context<Self>) -> ActorState {
            let Some(times) = self.times.checked_sub(1) else {
                self.ended.add_permits(1);
                ctx.stop();
                return ActorState::Stopped;
            };
            self.times = times;
            ActorState::Active
        }
    }

    #[test]
    fn awake_actors_are_counted_with_their_size_and_the_longest_wait() {
        actix::System::new().block_on(async {
            let (actors, ended) = (ActiveActors::default(), Arc::new(tokio::sync::Semaphore::new(0)));
            assert_eq!(actors.awake(), AwakeActors::default());
            let mut permits = Vec::new();
            for (key, bytes, waiting) in [(1, 10, 0), (2, 20, 3), (3, 5, 1)] {
                let activity = Activity::new(8, Timestamp(0));
                activity.set_weight(bytes);
                permits.extend((0..waiting).map(|_| activity.permit().unwrap()));
                let address = Writing { times: 0, ended: Arc::clone(&ended) }.start();
                actors.get_or_start(key, || Active { address, activity, watch: () });
            }
            assert_eq!(actors.awake(), AwakeActors { count: 3, bytes: 35, waiting_max: 3 });
            drop(permits);
            actors.passivate(&2).await;
            assert_eq!(actors.awake(), AwakeActors { count: 2, bytes: 15, waiting_max: 0 });
        });
    }

    #[test]
    fn passivation_returns_once_nothing_is_written_any_more() {
        actix::System::new().block_on(async {
            let (actors, ended) = (ActiveActors::default(), Arc::new(tokio::sync::Semaphore::new(0)));
            let start = || Active {
                address: Writing { times: 3, ended: Arc::clone(&ended) }.start(),
                activity: Activity::new(1, Timestamp(0)),
                watch: (),
            };
            actors.get_or_start(1, start);
            actors.passivate(&1).await;
            assert_eq!(ended.available_permits(), 1);
            assert!(actors.get(&1).is_none());
            actors.passivate(&1).await;
        });
    }
}
