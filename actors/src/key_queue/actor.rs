//! The actor that owns one key queue: it serialises uploads and assignments without a lock.

mod assignments;

use std::sync::Arc;

use actix::{
    Actor, ActorFutureExt as _, AsyncContext as _, AtomicResponse, Context, Handler, WrapFuture as _, fut,
};
use snapshots::{
    AppId, AppendError, AssignedRow, Batch, Claim, ClaimedQueue, ClientId, ClientRow, Event, KeyPackageRef,
    KeyPackageRow, KeyPackagesChange, KeyQueueId, LogId, QueueRow, Store, Timestamp, Unmet,
};
use tokio::sync::OwnedSemaphorePermit;

use self::assignments::{UnusedPackage, take_out_dropped};
use super::{
    AssignedKeyPackage, KeyQueueError, NewPackage, PoolCounts, Receiver,
    messages::{AddKeyPackages, Advance, Assign, Attempt, Close, Count, LookFor},
    record::QueueRecord,
    state::{Candidate, Choice, DroppedPackages, KeyQueueState},
};
use crate::{
    activity::{Activity, ActorState, Upkeep},
    durable::{Durable, DurableActor, Loaded, load},
    error::StorageError,
    mls::{CipherSuite, CredentialCheck, LeafChecks, RefusedCredentials, check_fit},
    services::Services,
};

/// The owner of one key queue.
pub(crate) struct KeyQueueActor {
    services: Arc<Services>,
    app: AppId,
    client: ClientId,
    queue: KeyQueueId,
    durable: Durable<KeyQueueState>,
    refused: RefusedCredentials,
    /// The number of the client's dropped packages when they were last taken out of the state.
    dropped_seen: u64,
}

type QueueReply<T> = AtomicResponse<KeyQueueActor, Result<T, KeyQueueError>>;

fn assigned(key_package: Vec<u8>, is_final_key: bool) -> AssignedKeyPackage {
    AssignedKeyPackage { key_package, is_final_key }
}

fn answer<T: 'static>(result: Result<T, KeyQueueError>) -> QueueReply<T> {
    AtomicResponse::new(Box::pin(fut::ready(result)))
}

impl KeyQueueActor {
    pub(crate) fn new(
        services: Arc<Services>,
        app: AppId,
        client: ClientId,
        queue: KeyQueueId,
        activity: Arc<Activity>,
    ) -> Self {
        let durable = Durable::new(Arc::clone(&services), LogId::KeyQueue(app, queue), activity);
        Self {
            services,
            app,
            client,
            queue,
            durable,
            refused: RefusedCredentials::default(),
            dropped_seen: 0,
        }
    }

    /// The current state, without packages that have certainly expired, belong to an older handle of the client, or were dropped.
    /// Packages that have expired only by a clock that is not trusted remain, but are neither counted nor handed out.
    fn current(&mut self) -> Result<(&mut KeyQueueState, ClientRow), KeyQueueError> {
        self.durable.touch();
        let view = self.services.store.view();
        let client = view.client(self.app, self.client).map_err(StorageError::from)?;
        let client = client.ok_or(KeyQueueError::UnknownClient)?;
        let dropped = view.dropped_key_packages(self.app, self.client).map_err(StorageError::from)?;
        let until = self.services.delete_until();
        let state = self.durable.state_mut()?;
        state.retire(until, client.handle_generation);
        // The store decides which ones are dropped. A number that is the same by chance is noticed later; until then the packages
        // stay their receivers'.
        if dropped != self.dropped_seen {
            take_out_dropped(state, &view, self.app)?;
            self.dropped_seen = dropped;
        }
        Ok((state, client))
    }

    fn counts(&mut self) -> Result<PoolCounts, KeyQueueError> {
        let now = self.services.clock.now();
        Ok(self.current()?.0.counts(now))
    }

    fn upload_batch(&mut self, upload: &AddKeyPackages) -> Result<(Batch, QueueRecord), KeyQueueError> {
        let max = self.services.limits.key_packages_per_queue_max;
        let now = self.services.clock.now();
        let bytes_max = self.services.limits.key_queue_bytes_max;
        let (packages, rows): (Vec<_>, Vec<_>) = self.with_receivers(&upload.packages)?.into_iter().unzip();
        let final_row =
            upload.final_key.as_ref().map(|package| self.former_final_key(package)).transpose()?;
        let (state, _) = self.current()?;
        if state.free_after(upload.is_reset, &packages, now) > max {
            return Err(KeyQueueError::TooManyKeyPackages { max });
        }
        let final_key = upload.final_key.as_ref().map(|package| (package, upload.generation, now));
        if state.bytes_after(upload.is_reset, &packages, final_key) > bytes_max {
            return Err(KeyQueueError::TooManyBytes { max: bytes_max });
        }
        let record = QueueRecord::Uploaded {
            is_reset: upload.is_reset,
            packages: packages.clone(),
            final_key: upload.final_key.clone(),
            generation: upload.generation,
            at: now,
        };
        let removed: Vec<KeyPackageRef> =
            if upload.is_reset { state.references().cloned().collect() } else { Vec::new() };
        let replaced: Vec<(KeyPackageRef, Timestamp)> = final_key
            .into_iter()
            .flat_map(|(new, generation, at)| state.replaced_by(new, generation, at))
            .map(|key| (key.reference.clone(), key.not_after))
            .collect();
        let mut batch = Batch::new();
        if let Some(application) = self.services.applications.get(&self.app) {
            batch.require_quotas(self.app, application.quotas);
        }
        batch.append_record(
            self.durable.log(),
            self.durable.sequence(),
            record.to_bytes().map_err(|_| StorageError::Unreadable)?,
        );
        if let Some(label) = &upload.app_label {
            let new = QueueRow { app_label: label.clone(), ..upload.row.clone() };
            batch.relabel_queue(self.app, &upload.row, &new);
        }
        for reference in &removed {
            batch.delete_key_package(self.app, self.queue, reference);
        }
        for (reference, not_after) in &replaced {
            batch.delete_key_package(self.app, self.queue, reference);
            let row = AssignedRow::of_final_key(self.client, *not_after);
            batch.assign_key_package(self.app, reference, &row, self.services.assigned_limits());
        }
        let packages = packages.iter().zip(rows).map(|(package, row)| (package, row, false));
        let final_key = upload.final_key.iter().zip(final_row).map(|(package, row)| (package, row, true));
        for (package, assigned, is_final) in packages.chain(final_key) {
            batch.require_assigned(self.app, &package.reference, assigned.as_ref());
            batch.require_unused(self.app, &package.reference);
            let row = KeyPackageRow { is_final, not_after: package.not_after, signer: package.signer };
            batch.require_holdable(self.app, self.queue, &package.reference, is_final);
            batch.put_key_package(self.app, self.queue, &package.reference, &row);
        }
        Ok((batch, record))
    }

    /// Appends a batch with its record. What is done then is answered, unless another write came first.
    fn append<T: 'static>(
        &self,
        batch: Batch,
        record: QueueRecord,
        permit: OwnedSemaphorePermit,
        answer: impl FnOnce(&mut Self) -> Result<T, KeyQueueError> + 'static,
    ) -> QueueReply<Attempt<T>> {
        let store = self.services.store.clone();
        let append = async move { store.append(batch).await };
        AtomicResponse::new(Box::pin(append.into_actor(self).map(move |result, actor, ctx| {
            drop(permit);
            Ok(match actor.appended(result, record, ctx)? {
                Attempt::Done(()) => Attempt::Done(answer(actor)?),
                Attempt::Overtaken => Attempt::Overtaken,
            })
        })))
    }

    fn appended(
        &mut self,
        result: Result<snapshots::Appended, AppendError>,
        record: QueueRecord,
        ctx: &mut Context<Self>,
    ) -> Result<Attempt<()>, KeyQueueError> {
        match result {
            // It is announced once it is applied.
            Ok(_appended) => {
                let applied = self.durable.apply(|state| {
                    state.apply(record);
                    Ok(())
                });
                if matches!(applied, Ok(true)) {
                    ctx.notify(Upkeep::Snapshot);
                }
                Ok(Attempt::Done(()))
            }
            Err(AppendError::Precondition(Unmet::QueueExists { queue })) => {
                Err(KeyQueueError::QueueExists { queue })
            }
            Err(AppendError::Precondition(
                Unmet::QueueChanged
                | Unmet::KeyPackageHeld { .. }
                | Unmet::KeyPackageAssigned { .. }
                | Unmet::PeerShareTaken { .. },
            )) => Ok(Attempt::Overtaken),
            Err(AppendError::Precondition(Unmet::KeyPackageUsed { reference })) => {
                self.durable.state_mut()?.advance(&reference);
                Ok(Attempt::Overtaken)
            }
            Err(AppendError::Precondition(
                Unmet::QueueMissing | Unmet::ClientMissing | Unmet::LogMoved { at: None },
            )) => {
                self.step_down(ctx);
                Err(KeyQueueError::UnknownKeyQueue)
            }
            Err(AppendError::Precondition(Unmet::QuotaExceeded(quota))) => Err(KeyQueueError::Quota(quota)),
            Err(AppendError::TooLarge { limit, .. }) => {
                Err(KeyQueueError::Unusable(format!("the upload is larger than {limit} bytes")))
            }
            Err(error) => Err(self.append_failed(&error, ctx).into()),
        }
    }

    /// The batch that assigns a package, and its record. The receiver's unused package, if it has one, is dropped.
    fn assignment_batch(
        &mut self,
        package: &NewPackage,
        receiver: Receiver,
        unused: Option<UnusedPackage>,
    ) -> Result<(Batch, QueueRecord), KeyQueueError> {
        let now = self.services.clock.now();
        let row = AssignedRow {
            client_id: self.client,
            peer: receiver.caller.peer().cloned(),
            receiver: receiver.id.clone(),
            not_after: package.not_after,
            at: Some(self.services.age_begins()),
            is_dropped: false,
        };
        let left = self.counts()?.available.saturating_sub(1);
        let is_low = left <= self.services.limits.key_packages_low && !self.durable.state()?.is_low_told();
        let reference = package.reference.clone();
        let record = QueueRecord::Assigned { reference, receiver, is_low };
        let mut batch = self.record_batch(&record)?;
        if let Some(UnusedPackage { reference, row }) = unused {
            batch.drop_unused(self.app, &reference, &row, self.services.dropped_per_client_max);
            batch.require_assigned(self.app, &reference, Some(&row.dropped()));
        }
        batch.require_unused(self.app, &package.reference);
        batch.assign_key_package(self.app, &package.reference, &row, self.services.assigned_limits());
        let handle = self.current()?.1.handle;
        let queue = ClaimedQueue { client: self.client, handle, queue: self.queue };
        let claim = Claim { peer: row.peer, queue, receiver: row.receiver, at: now };
        batch.audit_claim(self.app, claim, self.services.audit);
        if is_low || left == 0 {
            self.warn(&mut batch, KeyPackagesChange::Low, left)?;
        }
        Ok((batch, record))
    }

    /// The batch that notes that the final key is given out, and its record.
    fn final_key_batch(&mut self) -> Result<(Batch, QueueRecord), KeyQueueError> {
        let record = QueueRecord::FinalKeyUsed;
        let mut batch = self.record_batch(&record)?;
        let left = self.counts()?.available;
        self.warn(&mut batch, KeyPackagesChange::FinalKeyUsed, left)?;
        Ok((batch, record))
    }

    fn record_batch(&self, record: &QueueRecord) -> Result<Batch, KeyQueueError> {
        let bytes = record.to_bytes().map_err(|_| StorageError::Unreadable)?;
        let mut batch = Batch::new();
        batch.append_record(self.durable.log(), self.durable.sequence(), bytes);
        Ok(batch)
    }

    /// Announces that the queue runs out of packages.
    fn warn(
        &mut self,
        batch: &mut Batch,
        change: KeyPackagesChange,
        left: usize,
    ) -> Result<(), KeyQueueError> {
        let handle = self.current()?.1.handle;
        let (client, queue, available) = (self.client, self.queue, left as u64);
        batch.add_event(&Event::KeyPackages { client, handle, queue, available, change });
        batch.announce(self.app, self.services.clock.now());
        Ok(())
    }

    /// The receiver's package, or one to assign to it. A package that was used meanwhile is removed. One whose credential is
    /// not acceptable now is skipped but stays: the cause may be this gateway's roots, a late revocation list, or its clock.
    /// One that was not used in time is returned as well, and not chosen.
    fn choose(&mut self, receiver: &Receiver) -> Result<(Choice, Option<UnusedPackage>), KeyQueueError> {
        let services = Arc::clone(&self.services);
        let (view, app, now) = (services.store.view(), self.app, services.clock.now());
        let application = services.applications.get(&app).ok_or(KeyQueueError::UnknownClient)?;
        self.current()?;
        let unused = self.unused_package(&view, receiver)?;
        let share = self.services.assigned_limits().per_peer_max;
        let state = self.durable.state_mut()?;
        let mut credentials = CredentialCheck::new(&*application.identity, now, &mut self.refused);
        let (mut used, mut unreadable) = (Vec::new(), None);
        // The unused package counts in the queue, and in the store until it is dropped.
        let in_queue_max =
            services.limits.key_packages_per_peer_max.saturating_add(usize::from(unused.is_some()));
        let per_peer_max = match receiver.caller.peer() {
            Some(peer) => {
                let taken = view.assigned_to_peer(app, self.client, peer).map_err(StorageError::from)?;
                let is_counted = unused.as_ref().is_some_and(|unused| !unused.row.is_dropped);
                if taken.saturating_sub(u64::from(is_counted)) < share { in_queue_max } else { 0 }
            }
            None => in_queue_max,
        };
        let choice = state.choose(receiver, now, per_peer_max, |Candidate { package, is_final }| {
            if unreadable.is_some() || package.not_after <= now {
                return false;
            }
            if !is_final {
                if unused.as_ref().is_some_and(|unused| unused.reference == package.reference) {
                    return false;
                }
                match view.used(app, &package.reference) {
                    Ok(None) => {}
                    Ok(Some(_)) => {
                        used.push(package.reference.clone());
                        return false;
                    }
                    Err(error) => {
                        unreadable = Some(error);
                        return false;
                    }
                }
            }
            credentials.accepts(&package.message)
        });
        for reference in used {
            state.advance(&reference);
        }
        match unreadable {
            Some(error) => Err(StorageError::from(error).into()),
            None => Ok((choice, unused)),
        }
    }
}

/// Loads a queue without used packages and without those that no group could add; blocks.
fn load_queue(store: &Store, app: AppId, queue: KeyQueueId) -> Result<Loaded<KeyQueueState>, StorageError> {
    let view = store.view();
    let mut loaded: Loaded<KeyQueueState> = load(&view, &LogId::KeyQueue(app, queue))?;
    let state = &mut loaded.state;
    let suite = view.queue_by_id(app, queue)?.and_then(|row| CipherSuite::from_number(row.cipher_suite));
    if let Some(cipher_suite) = suite {
        // The longest lifetime is a policy, which may change, so it is checked for uploads only.
        let checks = LeafChecks { cipher_suite, lifetime_s_max: None };
        if let Some(DroppedPackages { count, reason }) =
            state.retain_fit(|message| check_fit(checks, message))
        {
            tracing::info!(
                %queue,
                count,
                reason,
                "stored key packages are dropped because no group could accept them; the reason is that of the first",
            );
        }
    }
    let references: Vec<KeyPackageRef> = state.references().cloned().collect();
    for reference in references {
        if view.used(app, &reference)?.is_some() {
            state.advance(&reference);
        }
    }
    Ok(loaded)
}

impl DurableActor for KeyQueueActor {
    type State = KeyQueueState;

    fn durable(&mut self) -> &mut Durable<KeyQueueState> {
        &mut self.durable
    }
}

impl Actor for KeyQueueActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let (store, app, queue) = (self.services.store.clone(), self.app, self.queue);
        let loading = snapshots::away(move || load_queue(&store, app, queue));
        ctx.wait(loading.into_actor(self).map(|loaded, actor, ctx| match loaded {
            Ok(Ok(loaded)) => actor.durable.loaded(loaded),
            Ok(Err(_)) | Err(_) => actor.step_down(ctx),
        }));
    }
}

impl Handler<AddKeyPackages> for KeyQueueActor {
    type Result = QueueReply<Attempt<PoolCounts>>;

    fn handle(&mut self, upload: AddKeyPackages, _: &mut Context<Self>) -> Self::Result {
        let (batch, record) = match self.upload_batch(&upload) {
            Ok(staged) => staged,
            Err(refused) => return answer(Err(refused)),
        };
        self.append(batch, record, upload.permit, Self::counts)
    }
}

impl Handler<Assign> for KeyQueueActor {
    type Result = QueueReply<Attempt<AssignedKeyPackage>>;

    fn handle(&mut self, Assign { receiver, permit }: Assign, _: &mut Context<Self>) -> Self::Result {
        let write = match self.choose(&receiver) {
            Ok((Choice::Assigned(package), _)) => {
                return answer(Ok(Attempt::Done(assigned(package.message, false))));
            }
            Ok((Choice::Nothing, _)) => return answer(Err(KeyQueueError::NoKeyPackage)),
            Ok((Choice::Final(package), _)) => match self.durable.state() {
                Ok(state) if state.is_final_key_used() => {
                    return answer(Ok(Attempt::Done(assigned(package.message, true))));
                }
                Ok(_) => self.final_key_batch().map(|write| (write, assigned(package.message, true))),
                Err(error) => Err(error.into()),
            },
            Ok((Choice::Assignable(package), unused)) => {
                let write = self.assignment_batch(&package, receiver, unused);
                write.map(|write| (write, assigned(package.message, false)))
            }
            Err(refused) => Err(refused),
        };
        let ((batch, record), done) = match write {
            Ok(write) => write,
            Err(refused) => return answer(Err(refused)),
        };
        self.append(batch, record, permit, |_| Ok(done))
    }
}

impl Handler<LookFor> for KeyQueueActor {
    type Result = Result<(), KeyQueueError>;

    fn handle(&mut self, LookFor { receiver, permit }: LookFor, _: &mut Context<Self>) -> Self::Result {
        drop(permit);
        match self.choose(&receiver)?.0 {
            Choice::Nothing => Err(KeyQueueError::NoKeyPackage),
            Choice::Assigned(_) | Choice::Assignable(_) | Choice::Final(_) => Ok(()),
        }
    }
}

impl Handler<Count> for KeyQueueActor {
    type Result = Result<PoolCounts, KeyQueueError>;

    fn handle(&mut self, Count { permit }: Count, _: &mut Context<Self>) -> Self::Result {
        drop(permit);
        self.counts()
    }
}

impl Handler<Advance> for KeyQueueActor {
    type Result = ();

    fn handle(&mut self, Advance { reference }: Advance, _: &mut Context<Self>) {
        if let Ok(state) = self.durable.state_mut() {
            state.advance(&reference);
        }
    }
}

impl Handler<Close> for KeyQueueActor {
    type Result = ();

    fn handle(&mut self, _: Close, ctx: &mut Context<Self>) {
        self.step_down(ctx);
    }
}

impl Handler<Upkeep> for KeyQueueActor {
    type Result = AtomicResponse<Self, ActorState>;

    fn handle(&mut self, upkeep: Upkeep, _: &mut Context<Self>) -> Self::Result {
        self.keep_up(upkeep)
    }
}
