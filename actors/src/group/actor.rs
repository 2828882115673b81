//! The actor that owns one group. It takes one entry at a time from validation to the store and into memory, so that the
//! first valid commit of an epoch wins without a lock.
//!
//! Uploads and entries of another gateway's log take the same path: [`GroupActor::accept`].

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
};

use actix::{
    Actor, ActorFuture, ActorFutureExt as _, AsyncContext as _, AtomicResponse, Context, Handler,
    WrapFuture as _, fut,
};
use snapshots::{AppendError, Appended, Batch, GroupRow, Invitation, KeyPackageRef, Timestamp, Unmet};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tracing::Span;

use super::{
    Accepted, AcceptedCommit, AcceptedProposal, EntryContent, EpochEntry, GroupError, GroupMeta, GroupState,
    LogEntry, Outcome, RecentEpochs, batch,
    guarded::{Broken, broken_commit, broken_proposal, guarded},
    history::accepted_before,
    inviters::{inviter, welcome_limits},
    loading::load_group,
    messages::{Published, Replicate, UploadEntry},
    package_use::{is_used_once, require_unused},
    state::{StagedChange, StagedEntry, unencodable},
};
use crate::{
    activity::{Activity, ActorState, Upkeep},
    application::{Application, Source},
    durable::{Durable, DurableActor, DurableState, LateBatch},
    error::StorageError,
    mls::{AddedMember, StagedEpoch, ValidationContext},
    services::Services,
    traces,
};

/// The number of other encodings of one proposal whose answer is kept.
const OTHER_BYTES_MAX: usize = 8;

/// The owner of one group.
pub(crate) struct GroupActor {
    pub(super) services: Arc<Services>,
    pub(super) application: Application,
    pub(super) meta: GroupMeta,
    pub(super) published: watch::Sender<Published>,
    pub(super) durable: Durable<GroupState>,
    /// The newest committed epochs, as far as they are kept in memory.
    recent: RecentEpochs,
}

/// Work of the actor that ends with a result. The actor handles nothing else meanwhile.
pub(super) type Pending<T> = Pin<Box<dyn ActorFuture<GroupActor, Output = Result<T, GroupError>>>>;

pub(super) fn ready<T: 'static>(result: Result<T, GroupError>) -> Pending<T> {
    Box::pin(fut::ready(result))
}

/// Entries that are about to be appended in one batch.
pub(super) struct Append {
    pub(super) batch: Batch,
    pub(super) staged: Vec<StagedEntry>,
    /// The reference of a proposal that is pending already and came with other bytes, which is answered and not staged. Only
    /// its membership tag can differ, which is not part of its reference.
    pub(super) repeated: Option<Vec<u8>>,
}

impl GroupActor {
    pub(crate) fn new(
        services: Arc<Services>,
        application: Application,
        meta: GroupMeta,
        activity: Arc<Activity>,
        published: watch::Sender<Published>,
    ) -> Self {
        let durable = Durable::new(Arc::clone(&services), meta.log(), activity);
        Self { services, application, meta, published, durable, recent: RecentEpochs::default() }
    }

    pub(super) fn next_sequence(&self) -> u64 {
        self.durable.sequence().saturating_add(1)
    }

    /// Validates an entry, appends it, applies it and shows it, as parts of the request with this span.
    fn accept(&mut self, entry: LogEntry, source: &Source, span: Span) -> Pending<Accepted> {
        let validation = traces::validation(&span);
        let broken = match entry.content {
            EntryContent::Proposal { .. } => broken_proposal,
            EntryContent::Creation(_) | EntryContent::Commit(_) => broken_commit,
        };
        let bytes = entry.content.validated_bytes();
        let (app, store) = (self.meta.app, self.services.store.clone());
        let staged = self.validate((bytes, broken), source, move |state, context| {
            // A package that cannot be looked up counts as unused; the commit of its proposal looks it up again.
            let is_used = |package: &KeyPackageRef| matches!(store.view().used(app, package), Ok(Some(_)));
            state.stage(context, entry, &is_used)
        });
        Box::pin(staged.then(move |staged, actor, _| {
            drop(validation);
            match staged.and_then(|staged| actor.prepare(staged)) {
                Ok(append) => actor.append(append, &span),
                Err(refused) => ready(Err(refused)),
            }
        }))
    }

    /// Validates messages of `bytes` bytes: at once, or on another thread if it may take long, to which the state moves
    /// meanwhile.
    pub(super) fn validate<T: Send + 'static>(
        &mut self,
        (bytes, broken): (usize, Broken),
        source: &Source,
        validation: impl FnOnce(&GroupState, ValidationContext<'_>) -> Result<T, GroupError> + Send + 'static,
    ) -> Pending<T> {
        let Ok(state) = self.durable.take() else { return ready(Err(StorageError::Unreadable.into())) };
        let takes_long = state.takes_long(bytes);
        if !takes_long {
            let context = self.services.validation_context(&self.application, source);
            let validated = guarded(broken, || validation(&state, context));
            self.durable.put_back(state);
            return ready(validated);
        }
        let Some(place) = self.services.validation.place(self.meta.app) else {
            self.durable.put_back(state);
            return ready(Err(GroupError::Busy));
        };
        let (services, application) = (Arc::clone(&self.services), self.application.clone());
        let source = source.clone();
        let validating = place.run(move || {
            let context = services.validation_context(&application, &source);
            (guarded(broken, || validation(&state, context)), state)
        });
        Box::pin(validating.into_actor(self).map(|validated, actor, ctx| match validated {
            Some((verdict, state)) => {
                actor.durable.put_back(state);
                verdict
            }
            None => {
                actor.step_down(ctx);
                Err(StorageError::Unreadable.into())
            }
        }))
    }

    /// The write for a valid entry. Refuses Adds of used key packages if this gateway orders the group; a replica accepts what
    /// its hub accepted.
    fn prepare(&self, staged: StagedEntry) -> Result<Append, GroupError> {
        let mut batch = Batch::new();
        match (&staged.change, &staged.entry.content) {
            (StagedChange::Proposal(proposal), EntryContent::Proposal { packet }) => {
                let reference = &proposal.pending.reference;
                if !self.meta.is_replica && self.durable.state()?.has_pending(reference) {
                    batch::other_bytes(&mut batch, &self.meta, packet, reference, OTHER_BYTES_MAX);
                    let repeated = Some(reference.clone());
                    return Ok(Append { batch, staged: Vec::new(), repeated });
                }
                let view = self.services.store.view();
                let used_once = match &proposal.adds {
                    Some((package, last_resort)) if !self.meta.is_replica => {
                        require_unused(&view, self.meta.app, [package])?;
                        is_used_once(&view, self.meta.app, package, *last_resort)?.then_some(package)
                    }
                    Some(_) | None => None,
                };
                batch::proposal(&mut batch, &self.meta, &staged, (proposal, packet), used_once)
                    .map_err(|error| unencodable(&error))?;
            }
            (StagedChange::Commit(epoch), EntryContent::Commit(bundle)) => {
                let invitation = self.invitation(epoch)?;
                batch::commit(&mut batch, &self.meta, &staged, (epoch, bundle), invitation)
                    .map_err(|error| unencodable(&error))?;
            }
            (StagedChange::Proposal(_) | StagedChange::Commit(_), _) => {
                tracing::error!("an entry was staged as another kind of entry");
                return Err(StorageError::Unreadable.into());
            }
        }
        Ok(Append { batch, staged: vec![staged], repeated: None })
    }

    /// The inviter and the limits of a commit's welcomes; a replica accepts what its hub accepted. Refuses Adds of used key
    /// packages.
    fn invitation(&self, epoch: &StagedEpoch) -> Result<Invitation, GroupError> {
        if epoch.added.is_empty() || self.meta.is_replica {
            return Ok(Invitation::AcceptedElsewhere);
        }
        let view = self.services.store.view();
        require_unused(&view, self.meta.app, epoch.added.iter().map(|added| &added.reference))
            .map_err(|refused| name_proposal(refused, &epoch.added))?;
        let Some(committer) = &epoch.committer else { return Ok(Invitation::AcceptedElsewhere) };
        let limits = welcome_limits(&self.services.limits);
        let invited = batch::invited_clients(&epoch.added);
        let by = inviter(&view, &self.application, committer, &invited, limits)?;
        Ok(Invitation::Accepted { by, limits })
    }

    /// Appends entries, then applies and shows them; answers for the last one.
    pub(super) fn append(
        &self,
        Append { mut batch, staged, repeated }: Append,
        span: &Span,
    ) -> Pending<Accepted> {
        batch.announce(self.meta.app, self.services.clock.now());
        let store = self.services.store.clone();
        let span = traces::append(span);
        let append = async move {
            let appended = store.append(batch).await;
            drop(span);
            appended
        };
        Box::pin(append.into_actor(self).map(move |result, actor, ctx| {
            let Appended { advanced, announced, .. } = actor.appended(result, &staged, ctx)?;
            if let Some(reference) = repeated {
                return Ok(actor.repeated(reference));
            }
            let mut accepted = Err(StorageError::Unreadable.into());
            for staged in staged {
                accepted = Ok(actor.apply(staged, ctx));
            }
            // Readers see the new view from here on.
            drop(announced);
            actor.services.notices.key_packages_used(actor.meta.app, advanced);
            actor.meta.notify_peers(&*actor.services.notices);
            accepted
        }))
    }

    /// The answer to a proposal that is pending already.
    fn repeated(&self, reference: Vec<u8>) -> Accepted {
        let epoch = self.meta.row.epoch;
        Accepted::Proposal(AcceptedProposal { reference, epoch, outcome: Outcome::Repeated })
    }

    fn appended(
        &mut self,
        result: Result<Appended, AppendError>,
        staged: &[StagedEntry],
        ctx: &mut Context<Self>,
    ) -> Result<Appended, GroupError> {
        result.map_err(|error| match error {
            AppendError::Precondition(Unmet::KeyPackageUsed { reference }) => {
                let refused = GroupError::KeyPackageReused { reference, proposal: None };
                let added = staged.iter().find_map(StagedEntry::added);
                name_proposal(refused, added.unwrap_or_default())
            }
            AppendError::Precondition(Unmet::TooManyWelcomes {
                handle,
                domain,
                of_inviter,
                max,
                counted_until,
            }) => {
                let now = self.services.clock.now();
                let seconds = |until: Timestamp| until.0.saturating_sub(now.0).div_ceil(1000);
                let counted_for_s = counted_until.map(seconds);
                GroupError::TooManyWelcomes { handle, domain, of_inviter, max, counted_for_s }
            }
            AppendError::TooLarge { limit, .. } => {
                let what = if staged.iter().any(|staged| staged.added().is_some()) {
                    "the commit with its group info and welcome"
                } else {
                    "the proposal"
                };
                GroupError::TooLarge { what, max: limit }
            }
            AppendError::Precondition(Unmet::QuotaExceeded(quota)) => GroupError::Quota(quota),
            AppendError::Precondition(Unmet::GroupReplaced) if self.is_deleted() => {
                self.stop_as(Published::Deleted, ctx);
                GroupError::UnknownGroup
            }
            error @ (AppendError::Precondition(_)
            | AppendError::Closed
            | AppendError::Stalled { .. }
            | AppendError::Storage(_)) => self.append_failed(&error, ctx).into(),
        })
    }

    /// Whether the group was deleted since it was loaded.
    fn is_deleted(&self) -> bool {
        matches!(self.services.store.view().group(self.meta.app, &self.meta.group), Ok(None))
    }

    /// Applies a durable entry and publishes the new view. The store is authoritative: if the entry cannot be applied,
    /// the actor gives up its state, and the next request loads it again.
    fn apply(&mut self, staged: StagedEntry, ctx: &mut Context<Self>) -> Accepted {
        let timestamp = staged.entry.timestamp;
        let accepted = match &staged.change {
            StagedChange::Proposal(proposal) => Accepted::Proposal(AcceptedProposal {
                reference: proposal.pending.reference.clone(),
                epoch: self.meta.row.epoch,
                outcome: Outcome::New,
            }),
            StagedChange::Commit(staged_epoch) => {
                let epoch = staged_epoch.epoch;
                self.meta.row.epoch = epoch;
                self.recent.push(EpochEntry::of(&staged.entry, staged_epoch), self.services.recent);
                Accepted::Commit(AcceptedCommit { epoch, timestamp, outcome: Outcome::New })
            }
        };
        let applied = self.durable.apply(|state| {
            catch_unwind(AssertUnwindSafe(|| state.apply(staged))).map_err(|_| {
                tracing::error!("applying a durable entry panicked");
                crate::codec::CodecError::damaged("log")
            })
        });
        match applied {
            Ok(is_snapshot_due) => {
                self.publish();
                if is_snapshot_due {
                    ctx.notify(Upkeep::Snapshot);
                }
            }
            Err(error) => {
                tracing::error!(%error, "a durable entry could not be applied; the group is loaded again");
                self.step_down(ctx);
            }
        }
        accepted
    }

    pub(super) fn publish(&self) {
        if let Ok(state) = self.durable.state() {
            self.durable.set_weight(state.weight().saturating_add(self.recent.weight()));
            let view = state.view(self.durable.sequence(), self.recent.shown());
            self.published.send_replace(Published::Ready(Arc::new(view)));
        }
    }

    /// The entry that an upload would become now.
    fn stamped(&self, content: EntryContent) -> Result<LogEntry, GroupError> {
        let timestamp = self.services.clock.now().max(self.durable.state()?.stamp());
        Ok(LogEntry { sequence: self.next_sequence(), timestamp, content })
    }

    /// The answer to an upload, after it was accepted or refused. An upload for an older epoch is either a repetition of an
    /// accepted one, or stale.
    fn answer(
        &mut self,
        accepted: Result<Accepted, GroupError>,
        content: &EntryContent,
        source: &Source,
    ) -> Pending<Accepted> {
        match accepted {
            Err(GroupError::StaleEpoch { packet, current }) => {
                let stale = GroupError::StaleEpoch { packet, current };
                let view = self.services.store.view();
                let before = accepted_before(&view, self.meta.app, &self.meta.group, packet, content);
                ready(before.and_then(|accepted| accepted.ok_or(stale)))
            }
            Ok(_) if matches!(content, EntryContent::Proposal { .. }) => ready(accepted),
            accepted @ (Ok(_) | Err(GroupError::ExpiredMembers { .. })) => {
                Box::pin(self.propose_removals(source).map(move |proposed, _, _| {
                    if let Err(error) = proposed {
                        tracing::warn!(%error, "the removal of members whose credentials have ended was not proposed");
                    }
                    accepted
                }))
            }
            Err(refused) => ready(Err(refused)),
        }
    }

    /// Checks an entry of another gateway before its content is validated.
    fn check_entry(&self, entry: &LogEntry, preceding: Option<Timestamp>) -> Result<(), GroupError> {
        if !self.meta.is_replica {
            return Err(GroupError::NotFromHub("this gateway orders the group itself".into()));
        }
        let stamp = self.durable.state()?.stamp();
        if preceding.is_some_and(|preceding| preceding != stamp) {
            return Err(GroupError::NotFromHub(format!(
                "the hub has another entry before number {} than this replica: their histories are not the same",
                entry.sequence
            )));
        }
        if entry.timestamp < stamp {
            return Err(GroupError::NotFromHub(format!(
                "entry {} was accepted at {}, before the entry that precedes it ({stamp})",
                entry.sequence, entry.timestamp
            )));
        }
        Ok(())
    }
}

/// Names the Add that carries a used key package, if the commit includes it by reference.
fn name_proposal(refused: GroupError, added: &[AddedMember]) -> GroupError {
    let GroupError::KeyPackageReused { reference, .. } = refused else { return refused };
    let carrying = added.iter().find(|added| added.reference == reference);
    GroupError::KeyPackageReused { proposal: carrying.and_then(|added| added.proposal.clone()), reference }
}

/// Answers when the work is done; the request counts as waiting until then.
pub(super) fn answered<T: 'static>(
    work: Pending<T>,
    permit: OwnedSemaphorePermit,
) -> AtomicResponse<GroupActor, Result<T, GroupError>> {
    AtomicResponse::new(Box::pin(work.map(move |result, _, _| {
        drop(permit);
        result
    })))
}

impl DurableActor for GroupActor {
    type State = GroupState;

    fn durable(&mut self) -> &mut Durable<GroupState> {
        &mut self.durable
    }

    fn withdraw(&mut self) {
        self.published.send_replace(Published::Loading);
    }

    fn group_row(&self) -> Option<GroupRow> {
        Some(self.meta.row.clone())
    }

    fn before_snapshot(&self) -> Vec<LateBatch> {
        let Ok(state) = self.durable.state() else { return Vec::new() };
        state.welcome_trees().map(|(epoch, tree)| batch::welcome_tree(&self.meta, epoch, tree)).collect()
    }
}

impl Actor for GroupActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let (store, app, group) = (self.services.store.clone(), self.meta.app, self.meta.group.clone());
        let loading =
            snapshots::away(move || load_group(&store.view(), app, &group).map_err(StorageError::from));
        ctx.wait(loading.into_actor(self).map(|loaded, actor, ctx| {
            actor.loaded(loaded.unwrap_or(Err(StorageError::Unreadable)), ctx);
        }));
    }
}

impl Handler<UploadEntry> for GroupActor {
    type Result = AtomicResponse<Self, Result<Accepted, GroupError>>;

    fn handle(
        &mut self,
        UploadEntry { content, source, span, permit }: UploadEntry,
        _: &mut Context<Self>,
    ) -> Self::Result {
        self.durable.touch();
        if let EntryContent::Proposal { packet } = &content
            && let Ok(state) = self.durable.state()
            && let Some(reference) = state.pending_reference(packet)
        {
            return answered(ready(Ok(self.repeated(reference.to_vec()))), permit);
        }
        let entry = match self.stamped(content.clone()) {
            Ok(entry) => entry,
            Err(error) => return answered(ready(Err(error)), permit),
        };
        let answering = self.find_revoked().then(move |found, actor, _| {
            let accepting = match found {
                Ok(()) => actor.accept(entry, &source, span),
                Err(error) => ready(Err(error)),
            };
            accepting.then(move |accepted, actor: &mut Self, _| actor.answer(accepted, &content, &source))
        });
        answered(Box::pin(answering), permit)
    }
}

impl Handler<Replicate> for GroupActor {
    type Result = AtomicResponse<Self, Result<u64, GroupError>>;

    fn handle(
        &mut self,
        Replicate { entry, preceding, span, permit }: Replicate,
        _: &mut Context<Self>,
    ) -> Self::Result {
        self.durable.touch();
        // An entry that is held already, or is not the next one: the acknowledgement says where to continue.
        if entry.sequence != self.next_sequence() {
            return answered(ready(Ok(self.next_sequence())), permit);
        }
        if let Err(refused) = self.check_entry(&entry, preceding) {
            return answered(ready(Err(refused)), permit);
        }
        let accepting = self.accept(entry, &Source::Hub, span);
        answered(
            Box::pin(accepting.map(|accepted, actor, _| accepted.map(|_| actor.next_sequence()))),
            permit,
        )
    }
}

impl Handler<Upkeep> for GroupActor {
    type Result = AtomicResponse<Self, ActorState>;

    fn handle(&mut self, upkeep: Upkeep, _: &mut Context<Self>) -> Self::Result {
        self.keep_up(upkeep)
    }
}
