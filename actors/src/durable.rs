//! The durable state of an actor: a state, the log from which it is restored, and the snapshots that shorten the log.
//!
//! An accepted change is appended to the log first and applied to the state afterwards. A snapshot is written when there are
//! new records and when the actor is passivated, and retried after ever longer pauses when writing fails.

use std::{
    future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
};

use actix::{
    Actor, ActorContext as _, ActorFuture, ActorFutureExt as _, AsyncContext as _, AtomicResponse, Context,
    WrapFuture as _, fut,
};
use snapshots::{AppendError, Batch, GroupRow, LogId, ReadError, Store, Unmet, View};

use crate::{
    activity::{Activity, ActorState, Upkeep},
    codec::CodecError,
    error::StorageError,
    services::Services,
    snapshot_pauses::WrittenSnapshot,
};

/// Records since the last snapshot after which an actor writes one by itself, so that loading stays quick.
const RECORDS_PER_SNAPSHOT: u64 = 512;

/// The weight, in bytes, above which a state is encoded away from the actors' threads.
const LARGE_BYTES: usize = 256 << 10;

/// A state that is stored as a snapshot and the records after it.
pub(crate) trait DurableState: Sized + Send + 'static {
    /// The state as it is stored.
    ///
    /// # Errors
    /// None is known.
    fn to_snapshot(&self) -> Result<Vec<u8>, CodecError>;

    /// The encoding of a large state as it is now, for another thread, while the state changes; `None` if a copy costs about as much
    /// as encoding it, so that the state is encoded while the actor waits.
    fn frozen(&self) -> Option<Encoding> {
        None
    }

    /// How far the state is, for [`Self::snapshot_written`].
    fn mark(&self) -> u64 {
        0
    }

    /// Learns that a snapshot of the state at an earlier mark is written.
    fn snapshot_written(&mut self, _: u64) {}

    /// Restores a state from its snapshot, if there is one, and the records after it with their numbers.
    ///
    /// # Errors
    /// Bytes that are damaged, or that a newer version wrote.
    fn restore<'a>(
        snapshot: Option<&'a [u8]>,
        records: impl IntoIterator<Item = (u64, &'a [u8])>,
    ) -> Result<Self, CodecError>;

    /// The approximate memory that it takes, in bytes.
    fn weight(&self) -> usize;
}

/// A snapshot that is still to be encoded.
pub(crate) type Encoding = Box<dyn FnOnce() -> Result<Vec<u8>, CodecError> + Send>;

/// A batch that is made from what is in the store by then, on another thread; `None` if there is nothing to write.
pub(crate) type LateBatch = Box<dyn FnOnce(&View) -> Result<Option<Batch>, ReadError> + Send>;

/// A loaded state.
#[derive(Debug)]
pub(crate) struct Loaded<S> {
    pub(crate) state: S,
    /// The last record of its log.
    sequence: u64,
    /// The last record that its snapshot covers.
    snapshot_sequence: u64,
}

/// The reason why a state could not be loaded. It is logged when it becomes a [`StorageError`].
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    /// There is no log.
    #[error("there is no log")]
    NoLog,
    /// The store cannot read it.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Its bytes are not understood.
    #[error("the stored state of {log:?} cannot be restored: {fault}")]
    Restore { log: LogId, fault: String },
}

impl From<LoadError> for StorageError {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::NoLog => {}
            LoadError::Read(error) => return Self::from(error),
            LoadError::Restore { log, fault } => {
                tracing::error!(?log, error = %fault, "stored state cannot be restored");
            }
        }
        Self::Unreadable
    }
}

/// Loads a state; blocks.
///
/// # Errors
/// The reason, which is not logged yet.
pub(crate) fn load<S: DurableState>(view: &View, log: &LogId) -> Result<Loaded<S>, LoadError> {
    let stored = view.load_log(log)?.ok_or(LoadError::NoLog)?;
    let snapshot = stored.snapshot.as_ref().map(|(_, snapshot)| snapshot.as_ref());
    let records = stored.records.iter().map(|(number, record)| (*number, record.as_ref()));
    let unreadable =
        |fault: &dyn std::fmt::Display| LoadError::Restore { log: log.clone(), fault: fault.to_string() };
    let state = catch_unwind(AssertUnwindSafe(|| S::restore(snapshot, records)))
        .map_err(|_| unreadable(&"restoring it panicked"))?
        .map_err(|error| unreadable(&error))?;
    let snapshot_sequence = stored.snapshot.map_or(0, |(sequence, _)| sequence);
    Ok(Loaded { state, sequence: stored.head, snapshot_sequence })
}

/// A state with its log. The state is absent until it is loaded, and while it is validated or encoded on another thread.
#[derive(Debug)]
pub(crate) struct Durable<S> {
    services: Arc<Services>,
    log: LogId,
    activity: Arc<Activity>,
    state: Option<S>,
    /// The last record that is applied to the state.
    sequence: u64,
    /// The last record that a snapshot covers, or will once it is written.
    snapshot_sequence: u64,
    is_writing_snapshot: bool,
}

impl<S: DurableState> Durable<S> {
    /// A durable state that is still to be loaded from this log.
    pub(crate) fn new(services: Arc<Services>, log: LogId, activity: Arc<Activity>) -> Self {
        Self {
            services,
            log,
            activity,
            state: None,
            sequence: 0,
            snapshot_sequence: 0,
            is_writing_snapshot: false,
        }
    }

    pub(crate) fn log(&self) -> &LogId {
        &self.log
    }

    /// The last record that is applied to the state.
    pub(crate) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Takes a loaded state.
    pub(crate) fn loaded(&mut self, Loaded { state, sequence, snapshot_sequence }: Loaded<S>) {
        self.activity.set_weight(state.weight());
        self.activity.set_dirty(sequence != snapshot_sequence);
        self.state = Some(state);
        (self.sequence, self.snapshot_sequence) = (sequence, snapshot_sequence);
    }

    /// # Errors
    /// [`StorageError::Unreadable`] when there is no state.
    pub(crate) fn state(&self) -> Result<&S, StorageError> {
        self.state.as_ref().ok_or(StorageError::Unreadable)
    }

    /// The state, for changes without a record: expired or used packages can be dropped at any time.
    ///
    /// # Errors
    /// [`StorageError::Unreadable`] when there is no state.
    pub(crate) fn state_mut(&mut self) -> Result<&mut S, StorageError> {
        self.state.as_mut().ok_or(StorageError::Unreadable)
    }

    /// Takes the state out, for another thread. It must be put back before the actor handles another message.
    ///
    /// # Errors
    /// [`StorageError::Unreadable`] when there is no state.
    pub(crate) fn take(&mut self) -> Result<S, StorageError> {
        self.state.take().ok_or(StorageError::Unreadable)
    }

    /// Puts back a state that was taken out.
    pub(crate) fn put_back(&mut self, state: S) {
        self.state = Some(state);
    }

    /// Drops the state; the next request loads it again.
    pub(crate) fn unload(&mut self) {
        self.state = None;
    }

    /// Applies a record that is now in the log; returns whether a snapshot is due.
    ///
    /// # Errors
    /// The error of the change; memory and store then differ.
    pub(crate) fn apply(
        &mut self,
        change: impl FnOnce(&mut S) -> Result<(), CodecError>,
    ) -> Result<bool, CodecError> {
        self.sequence = self.sequence.saturating_add(1);
        self.activity.set_dirty(true);
        if let Some(state) = self.state.as_mut() {
            change(state)?;
            self.activity.set_weight(state.weight());
        }
        // At every multiple only, so that a snapshot that cannot be written is not retried at every record.
        Ok(self.sequence.saturating_sub(self.snapshot_sequence).is_multiple_of(RECORDS_PER_SNAPSHOT))
    }

    /// Notes that the actor is used now.
    pub(crate) fn touch(&self) {
        self.activity.touch(self.services.clock.now());
    }

    /// Notes the actor's estimated memory, if it keeps more than its state, in bytes.
    pub(crate) fn set_weight(&self, bytes: usize) {
        self.activity.set_weight(bytes);
    }

    /// Whether there are records that no snapshot covers, and no pause after a failed snapshot.
    fn is_snapshot_due(&self) -> bool {
        let is_new = self.sequence != self.snapshot_sequence && !self.is_writing_snapshot;
        is_new && self.services.snapshot_pauses.is_over(&self.log, self.services.clock.monotonic())
    }

    /// Counts and logs a failed snapshot, and begins a pause.
    fn snapshot_failed(&self, error: &dyn std::fmt::Display) {
        self.services.snapshot_pauses.failed(&self.log, self.services.clock.monotonic(), error);
    }
}

/// A snapshot, and the last record that it covers.
type Encoded = Option<(u64, Vec<u8>)>;

/// Work of an actor, which handles no other message meanwhile.
type Work<A, T> = Pin<Box<dyn ActorFuture<A, Output = T>>>;

/// An actor that owns a durable state.
pub(crate) trait DurableActor: Actor<Context = Context<Self>> {
    /// The state that it owns.
    type State: DurableState;

    fn durable(&mut self) -> &mut Durable<Self::State>;

    /// Tells readers that the published state is no longer current.
    fn withdraw(&mut self) {}

    /// What must be stored before a snapshot of the present state replaces its records.
    fn before_snapshot(&self) -> Vec<LateBatch> {
        Vec::new()
    }

    /// The row of the group whose state it is; `None` for an actor of another kind.
    fn group_row(&self) -> Option<GroupRow> {
        None
    }

    /// Drops the state and stops; the next request activates another actor, which loads it again.
    fn step_down(&mut self, ctx: &mut Context<Self>) {
        self.durable().unload();
        self.withdraw();
        ctx.stop();
    }

    /// Steps down after an unexpected failure of an append: memory and store may differ, or the store has failed.
    fn append_failed(&mut self, error: &AppendError, ctx: &mut Context<Self>) -> StorageError {
        if matches!(error, AppendError::Stalled { is_queued: true }) {
            // It may still be written, so the store is not read before that is settled.
            let store = self.durable().services.store.clone();
            let settled = async move { store.settled().await };
            ctx.wait(settled.into_actor(self).map(|(), actor, ctx| actor.step_down(ctx)));
        } else {
            self.step_down(ctx);
        }
        StorageError::from_append(error)
    }

    /// Writes a snapshot if one is due, and continues or stops.
    fn keep_up(&mut self, upkeep: Upkeep) -> AtomicResponse<Self, ActorState> {
        let durable = self.durable();
        if upkeep == Upkeep::Passivate && durable.is_writing_snapshot && !durable.services.is_stopping() {
            // The outcome would be unknown. The supervisor asks again later.
            return AtomicResponse::new(Box::pin(fut::ready(ActorState::Active)));
        }
        let is_due = durable.is_snapshot_due();
        if upkeep == Upkeep::Snapshot
            && is_due
            && let Some(encoding) = durable
                .state
                .as_ref()
                .filter(|state| state.weight() > LARGE_BYTES)
                .and_then(DurableState::frozen)
        {
            let writing = self.encode_meanwhile(encoding);
            return AtomicResponse::new(Box::pin(fut::ready(ActorState::Active).map(
                |state, _, ctx: &mut Context<Self>| {
                    ctx.spawn(writing);
                    state
                },
            )));
        }
        let encoded = if is_due { self.encode() } else { Box::pin(fut::ready(None)) };
        AtomicResponse::new(Box::pin(
            encoded.then(move |encoded, actor, ctx| actor.write_snapshot(encoded, upkeep, ctx)),
        ))
    }

    /// Encodes a frozen state on another thread and writes it; the actor continues meanwhile.
    fn encode_meanwhile(&mut self, encoding: Encoding) -> Work<Self, ()> {
        let durable = self.durable();
        let (services, log) = (Arc::clone(&durable.services), durable.log.clone());
        let encoded = async move {
            let failed = |error: &dyn std::fmt::Display| {
                services.snapshot_pauses.failed(&log, services.clock.monotonic(), error);
            };
            match snapshots::away(encoding).await {
                Ok(Ok(bytes)) => Some(bytes),
                Ok(Err(error)) => {
                    failed(&error);
                    None
                }
                Err(error) => {
                    failed(&error);
                    None
                }
            }
        };
        let sequence = durable.sequence;
        self.write_encoded(sequence, encoded)
    }

    /// Encodes the state, on another thread if it is large.
    fn encode(&mut self) -> Work<Self, Encoded> {
        let durable = self.durable();
        let sequence = durable.sequence;
        let Ok(state) = durable.take() else { return Box::pin(fut::ready(None)) };
        if state.weight() <= LARGE_BYTES {
            let bytes = state.to_snapshot();
            durable.put_back(state);
            return Box::pin(fut::ready(self.encoded(sequence, bytes)));
        }
        let encoding = snapshots::away(move || (state.to_snapshot(), state));
        Box::pin(encoding.into_actor(self).map(move |encoded, actor, ctx| match encoded {
            Ok((bytes, state)) => {
                actor.durable().put_back(state);
                actor.encoded(sequence, bytes)
            }
            Err(error) => {
                actor.durable().snapshot_failed(&error);
                actor.step_down(ctx);
                None
            }
        }))
    }

    fn encoded(&mut self, sequence: u64, bytes: Result<Vec<u8>, CodecError>) -> Encoded {
        match bytes {
            Ok(bytes) => Some((sequence, bytes)),
            Err(error) => {
                self.durable().snapshot_failed(&error);
                None
            }
        }
    }

    /// Writes a snapshot once it is encoded; `None` if it could not be.
    fn write_encoded(
        &mut self,
        sequence: u64,
        encoded: impl Future<Output = Option<Vec<u8>>> + 'static,
    ) -> Work<Self, ()> {
        let durable = self.durable();
        let before = durable.snapshot_sequence;
        durable.snapshot_sequence = sequence;
        durable.is_writing_snapshot = true;
        durable.activity.set_dirty(false);
        let (services, log) = (Arc::clone(&durable.services), durable.log.clone());
        let mark = durable.state.as_ref().map_or(0, DurableState::mark);
        let (first, group) = (self.before_snapshot(), self.group_row());
        let written = async move {
            match encoded.await {
                Some(bytes) => write((services, log), first, (group, sequence, bytes)).await,
                None => false,
            }
        };
        Box::pin(written.into_actor(self).map(move |is_written, actor, _| {
            let durable = actor.durable();
            durable.is_writing_snapshot = false;
            if is_written {
                if let Some(state) = &mut durable.state {
                    state.snapshot_written(mark);
                }
            } else {
                durable.snapshot_sequence = before;
                durable.activity.set_dirty(true);
            }
        }))
    }

    fn write_snapshot(
        &mut self,
        encoded: Encoded,
        upkeep: Upkeep,
        ctx: &mut Context<Self>,
    ) -> Work<Self, ActorState> {
        let writing: Work<Self, ()> = match encoded {
            None => Box::pin(fut::ready(())),
            Some((sequence, bytes)) => self.write_encoded(sequence, future::ready(Some(bytes))),
        };
        match upkeep {
            Upkeep::Snapshot => {
                ctx.spawn(writing);
                Box::pin(fut::ready(ActorState::Active))
            }
            // The published state stays valid: nothing was accepted since, and the next owner publishes its own.
            Upkeep::Passivate => Box::pin(writing.map(|(), actor, ctx| {
                actor.durable().unload();
                ctx.stop();
                ActorState::Stopped
            })),
        }
    }
}

/// Writes a snapshot after what must be stored first; returns whether it was written or is no longer needed.
async fn write(
    (services, log): (Arc<Services>, LogId),
    first: Vec<LateBatch>,
    (group, sequence, bytes): (Option<GroupRow>, u64, Vec<u8>),
) -> bool {
    let Services { store, clock, snapshot_pauses, .. } = &*services;
    for batch in first {
        if let Err(error) = write_late(store, batch).await {
            if error == StorageError::Changed {
                snapshot_pauses.forget(&log);
                return true;
            }
            snapshot_pauses.failed(&log, clock.monotonic(), &error);
            return false;
        }
    }
    let began = clock.monotonic();
    match store.append_snapshot(&log, group.as_ref(), sequence, &bytes).await {
        Ok(()) => {
            let took = clock.monotonic().saturating_sub(began);
            snapshot_pauses.count(WrittenSnapshot { at: clock.now(), took });
            snapshot_pauses.written(&log, bytes.len(), store.batch_bytes_max(), clock.monotonic());
            true
        }
        // The log is gone or that of another group, or has a snapshot of a later record.
        Err(AppendError::Precondition(
            Unmet::LogMoved { at: None } | Unmet::GroupReplaced | Unmet::SnapshotOvertaken,
        )) => {
            snapshot_pauses.forget(&log);
            true
        }
        Err(error) => {
            snapshot_pauses.failed(&log, clock.monotonic(), &error);
            false
        }
    }
}

async fn write_late(store: &Store, batch: LateBatch) -> Result<(), StorageError> {
    let view = store.view();
    let made = snapshots::away(move || batch(&view)).await;
    let batch = made.map_err(|_| StorageError::Unreadable)??;
    match batch {
        Some(batch) => store.append(batch).await.map(drop).map_err(|error| StorageError::from_append(&error)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Mutex,
            atomic::{AtomicUsize, Ordering},
            mpsc,
        },
        time::Duration,
    };

    use actix::{Handler, Message, ResponseActFuture};
    use snapshots::{AppId, Batch, GroupId};

    use super::*;
    use crate::{
        application::Application,
        group::tests::{Heard, services},
    };

    /// Where the encoder of a state waits for its result.
    #[derive(Debug)]
    struct Gate {
        begun: AtomicUsize,
        results: Mutex<mpsc::Receiver<Result<(), &'static str>>>,
    }

    /// A large state that counts its records.
    #[derive(Debug)]
    struct Count(u64, Option<Arc<Gate>>);

    impl DurableState for Count {
        fn to_snapshot(&self) -> Result<Vec<u8>, CodecError> {
            Ok(self.0.to_be_bytes().to_vec())
        }

        fn frozen(&self) -> Option<Encoding> {
            let (count, gate) = (self.0, self.1.clone()?);
            Some(Box::new(move || {
                gate.begun.fetch_add(1, Ordering::SeqCst);
                gate.results.lock().unwrap().recv().unwrap().unwrap();
                Ok(count.to_be_bytes().to_vec())
            }))
        }

        fn restore<'a>(
            snapshot: Option<&'a [u8]>,
            records: impl IntoIterator<Item = (u64, &'a [u8])>,
        ) -> Result<Self, CodecError> {
            let before = snapshot.map_or(0, |bytes| u64::from_be_bytes(bytes.try_into().unwrap()));
            Ok(Self(before + records.into_iter().count() as u64, None))
        }

        fn weight(&self) -> usize {
            LARGE_BYTES + 1
        }
    }

    struct Counting(Durable<Count>);

    impl Actor for Counting {
        type Context = Context<Self>;
    }

    impl DurableActor for Counting {
        type State = Count;

        fn durable(&mut self) -> &mut Durable<Count> {
            &mut self.0
        }
    }

    impl Handler<Upkeep> for Counting {
        type Result = AtomicResponse<Self, ActorState>;

        fn handle(&mut self, upkeep: Upkeep, _: &mut Context<Self>) -> Self::Result {
            self.keep_up(upkeep)
        }
    }

    #[derive(Message)]
    #[rtype(result = "()")]
    struct Append;

    impl Handler<Append> for Counting {
        type Result = ResponseActFuture<Self, ()>;

        fn handle(&mut self, Append: Append, _: &mut Context<Self>) -> Self::Result {
            let mut batch = Batch::new();
            batch.append_record(self.0.log(), self.0.sequence(), "a record");
            let store = self.0.services.store.clone();
            let appended = async move { store.append(batch).await.unwrap() };
            Box::pin(appended.into_actor(self).map(|_, actor, _| {
                let change = |state: &mut Count| {
                    state.0 += 1;
                    Ok(())
                };
                actor.0.apply(change).unwrap();
            }))
        }
    }

    struct Scene {
        services: Arc<Services>,
        log: LogId,
        actor: actix::Addr<Counting>,
        gate: Arc<Gate>,
        open: mpsc::Sender<Result<(), &'static str>>,
    }

    impl Scene {
        /// An actor with two records that no snapshot covers, while its state is being encoded.
        async fn begin() -> Self {
            let services = services(&Application::basic(AppId::random()), Heard::default());
            let log = LogId::Group(AppId::random(), GroupId::new(b"group").unwrap());
            let mut batch = Batch::new();
            batch.create_log(&log);
            services.store.append(batch).await.unwrap();
            let (open, results) = mpsc::channel();
            let gate = Arc::new(Gate { begun: AtomicUsize::new(0), results: Mutex::new(results) });
            let activity = Activity::new(8, services.clock.now());
            let mut durable = Durable::new(Arc::clone(&services), log.clone(), activity);
            let state = Count(0, Some(Arc::clone(&gate)));
            durable.loaded(Loaded { state, sequence: 0, snapshot_sequence: 0 });
            let actor = Counting(durable).start();
            let scene = Self { services, log, actor, gate, open };
            scene.append().await;
            scene.append().await;
            assert_eq!(scene.keep_up(Upkeep::Snapshot).await, ActorState::Active);
            scene
        }

        async fn append(&self) {
            self.actor.send(Append).await.unwrap();
        }

        async fn keep_up(&self, upkeep: Upkeep) -> ActorState {
            self.actor.send(upkeep).await.unwrap()
        }

        async fn stop(&self) {
            while self.keep_up(Upkeep::Passivate).await == ActorState::Active {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }

        /// The record that the stored snapshot covers, and what is restored.
        fn stored(&self) -> (Option<u64>, u64) {
            let stored = self.services.store.view().load_log(&self.log).unwrap().unwrap();
            let restored: Loaded<Count> = load(&self.services.store.view(), &self.log).unwrap();
            (stored.snapshot.map(|(at, _)| at), restored.state.0)
        }
    }

    #[test]
    fn an_actor_goes_on_while_its_state_is_encoded() {
        actix::System::new().block_on(async {
            let scene = Scene::begin().await;
            scene.append().await;
            // No second snapshot begins, and the actor does not stop before the first has ended.
            assert_eq!(scene.keep_up(Upkeep::Snapshot).await, ActorState::Active);
            assert_eq!(scene.keep_up(Upkeep::Passivate).await, ActorState::Active);
            assert_eq!(scene.stored(), (None, 3));
            scene.open.send(Ok(())).unwrap();
            while scene.stored().0.is_none() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            // It is of the records that there were when it began.
            assert_eq!(scene.stored(), (Some(2), 3));
            assert_eq!(scene.gate.begun.load(Ordering::SeqCst), 1);
            scene.stop().await;
            assert_eq!(scene.stored(), (Some(3), 3));
            assert_eq!(scene.services.snapshot_pauses.status().failures, 0);
        });
    }

    #[test]
    fn an_encoder_that_panics_costs_a_snapshot_and_nothing_else() {
        actix::System::new().block_on(async {
            let scene = Scene::begin().await;
            scene.append().await;
            scene.open.send(Err("on purpose")).unwrap();
            while scene.services.snapshot_pauses.status().failures == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            scene.append().await;
            // The pause after the failure is not over.
            assert_eq!(scene.keep_up(Upkeep::Snapshot).await, ActorState::Active);
            scene.stop().await;
            assert_eq!(scene.stored(), (None, 4));
            assert_eq!(scene.gate.begun.load(Ordering::SeqCst), 1);
        });
    }

    #[test]
    fn a_stop_does_not_wait_for_the_encoder() {
        actix::System::new().block_on(async {
            let scene = Scene::begin().await;
            scene.append().await;
            scene.services.is_stopping.store(true, Ordering::Release);
            assert_eq!(scene.keep_up(Upkeep::Passivate).await, ActorState::Stopped);
            // What it encodes late is not written: the encoder has ended, and the store has done what it was asked before.
            scene.open.send(Ok(())).unwrap();
            while Arc::strong_count(&scene.gate) > 1 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            scene.services.store.append(Batch::new()).await.unwrap();
            assert_eq!(scene.stored(), (None, 3));
        });
    }
}
