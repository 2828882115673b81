//! The actor that owns one group. It stages, appends and applies one upload at a time, so the first valid commit of an
//! epoch wins without a lock.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{Arc, atomic::Ordering},
};

use actix::{
    Actor, ActorContext as _, ActorFuture, ActorFutureExt as _, AsyncContext as _, AtomicResponse, Context,
    Handler, Message, WrapFuture as _, fut,
};
use snapshots::{AppendError, Appended, Batch, Epoch, Invitation, LogId, Timestamp, Unmet, View};
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::{
    AcceptedCommit, AcceptedProposal, CommitUpload, EpochEntry, GroupError, GroupState, GroupView, Outcome,
    RecentEpochs,
    history::{accepted_before, winner_again},
    inviters::{inviter, welcome_limits},
    state::{StagedCommitUpload, StagedProposalUpload, unencodable},
    writes::{self, GroupOrigin, PackageUse, UsedPackages},
};
use crate::{
    application::{Application, ExpiredMembers, Source},
    core::Core,
    mls::{AddedMember, Rule, Rules, ValueError},
    peer::{EntryContent, LogEntry},
    resting::{Progress, Restable, Resting},
    router::{Activity, Rest, Rested},
    storage::StorageError,
};

/// What a group's actor shows to readers.
#[derive(Clone, Debug)]
pub(crate) enum Published {
    /// The state is being read from disk.
    Loading,
    Ready(Arc<GroupView>),
    Failed(StorageError),
}

/// Uploads a commit; answered when it is durable, or refused.
pub(crate) struct UploadCommit {
    pub(crate) upload: Arc<CommitUpload>,
    pub(crate) source: Source,
    pub(crate) permit: OwnedSemaphorePermit,
}

impl Message for UploadCommit {
    type Result = Result<AcceptedCommit, GroupError>;
}

/// Uploads a proposal; answered when it is durable, or refused.
pub(crate) struct UploadProposal {
    pub(crate) packet: Vec<u8>,
    pub(crate) source: Source,
    pub(crate) permit: OwnedSemaphorePermit,
}

impl Message for UploadProposal {
    type Result = Result<AcceptedProposal, GroupError>;
}

/// Takes an entry of the hub's log into this replica; answered with the number that is needed next.
pub(crate) struct ApplyEntry {
    pub(crate) entry: LogEntry,
    /// When the hub accepted the entry before it, if the hub says so.
    pub(crate) preceding: Option<Timestamp>,
    pub(crate) permit: OwnedSemaphorePermit,
}

impl Message for ApplyEntry {
    type Result = Result<u64, GroupError>;
}

/// How many other forms of one proposal an answer is kept for.
const OTHER_BYTES_MAX: usize = 8;

/// A commit that passed every check, with what its key packages and welcomes count as.
struct JudgedCommit {
    staged: StagedCommitUpload,
    packages: Vec<PackageUse>,
    invitation: Invitation,
}

/// The owner of one group.
pub(crate) struct GroupActor {
    core: Arc<Core>,
    application: Application,
    origin: GroupOrigin,
    activity: Arc<Activity>,
    published: watch::Sender<Published>,
    /// `None` until it is read from disk.
    state: Option<GroupState>,
    progress: Progress,
    /// What was committed since the group woke up, as far as it is kept.
    recent: RecentEpochs,
}

impl GroupActor {
    pub(crate) fn new(
        core: Arc<Core>,
        application: Application,
        origin: GroupOrigin,
        activity: Arc<Activity>,
        published: watch::Sender<Published>,
    ) -> Self {
        Self {
            core,
            application,
            origin,
            activity,
            published,
            state: None,
            progress: Progress::default(),
            recent: RecentEpochs::default(),
        }
    }

    fn rules<'a>(&'a self, source: &'a Source) -> Rules<'a> {
        Rules { crypto: &self.core.crypto, limits: &self.core.limits, application: &self.application, source }
    }

    /// Validates messages of this many bytes: at once, or on another thread if it may take long. The state moves to that
    /// thread; the group handles no other message before it is back.
    fn judged<T: Send + 'static>(
        &mut self,
        (bytes, broken): (usize, Broken),
        source: &Source,
        judgement: impl FnOnce(&GroupState, Rules<'_>) -> Result<T, GroupError> + Send + 'static,
    ) -> Judged<T> {
        let ready = |result| -> Judged<T> { Box::pin(fut::ready(result)) };
        if !self.state.as_ref().is_some_and(|state| state.takes_long(bytes)) {
            let state = self.state.as_ref().ok_or(GroupError::Storage(StorageError::Unreadable));
            return ready(state.and_then(|state| guarded(broken, || judgement(state, self.rules(source)))));
        }
        let Some(place) = self.core.judging.place(self.origin.app) else {
            return ready(Err(GroupError::Busy));
        };
        let Some(state) = self.state.take() else {
            return ready(Err(StorageError::Unreadable.into()));
        };
        let (core, application) = (Arc::clone(&self.core), self.application.clone());
        let source = source.clone();
        let judging = place.run(move || {
            let (crypto, limits) = (&core.crypto, &core.limits);
            let rules = Rules { crypto, limits, application: &application, source: &source };
            (guarded(broken, || judgement(&state, rules)), state)
        });
        Box::pin(judging.into_actor(self).map(|judged, actor, ctx| match judged {
            Some((verdict, state)) => {
                actor.state = Some(state);
                verdict
            }
            None => {
                actor.step_down(ctx);
                Err(StorageError::Unreadable.into())
            }
        }))
    }

    fn judged_commit(
        &mut self,
        upload: &Arc<CommitUpload>,
        source: &Source,
        now: Timestamp,
    ) -> Judged<StagedCommitUpload> {
        let upload = Arc::clone(upload);
        let bytes = upload.judged_bytes();
        self.judged((bytes, broken_commit), source, move |state, rules| {
            state.stage_commit(rules, &upload, now)
        })
    }

    fn judged_proposal(
        &mut self,
        packet: Vec<u8>,
        source: &Source,
        now: Timestamp,
    ) -> Judged<StagedProposalUpload> {
        let bytes = packet.len();
        self.judged((bytes, broken_proposal), source, move |state, rules| {
            state.stage_proposal(rules, &packet, now)
        })
    }

    /// Refuses a commit that adds a package that was used, and tells how each package is held.
    fn check_packages(&self, staged: StagedCommitUpload) -> Result<JudgedCommit, GroupError> {
        let added = staged.staged.added.as_slice();
        if added.is_empty() {
            return Ok(JudgedCommit {
                staged,
                packages: Vec::new(),
                invitation: Invitation::AcceptedElsewhere,
            });
        }
        let view = self.core.store.view();
        if !self.origin.is_replica {
            let references = added.iter().map(|added| &added.reference);
            PackageUse::require_unused(&view, self.origin.app, references)
                .map_err(|refused| name_proposal(refused, added))?;
        }
        let packages = PackageUse::look_up_all(&view, self.origin.app, added)?;
        let invitation = self.invitation(&view, &staged)?;
        Ok(JudgedCommit { staged, packages, invitation })
    }

    /// What the welcomes of a commit count as: a replica takes what its hub accepted.
    fn invitation(&self, view: &View, staged: &StagedCommitUpload) -> Result<Invitation, GroupError> {
        let Some(committer) = staged.staged.committer.as_ref().filter(|_| !self.origin.is_replica) else {
            return Ok(Invitation::AcceptedElsewhere);
        };
        let limits = welcome_limits(&self.core.limits);
        let invited = writes::invited_clients(&staged.staged.added);
        let by = inviter(view, &self.application, committer, &invited, limits)?;
        Ok(Invitation::Accepted { by, limits })
    }

    fn write_commit(
        &self,
        upload: &CommitUpload,
        judged: JudgedCommit,
    ) -> Result<(StagedCommitUpload, Batch, UsedPackages), GroupError> {
        let JudgedCommit { staged, packages, invitation } = judged;
        let written =
            writes::commit(&self.origin, self.progress.sequence, upload, &staged, &packages, invitation);
        written.map(|(batch, used)| (staged, batch, used)).map_err(|error| unencodable(&error))
    }

    /// A commit of an older epoch is either its winner, sent again, or stale.
    fn stale(
        &self,
        upload: &CommitUpload,
        packet: Epoch,
        current: Epoch,
    ) -> Result<AcceptedCommit, GroupError> {
        let view = self.core.store.view();
        winner_again(&view, self.origin.app, &self.origin.group, packet, &upload.digest())?
            .ok_or(GroupError::StaleEpoch { packet, current })
    }

    fn commit_appended(
        &mut self,
        result: Result<Appended, AppendError>,
        upload: &CommitUpload,
        staged: StagedCommitUpload,
        used: UsedPackages,
        ctx: &mut Context<Self>,
    ) -> Result<AcceptedCommit, GroupError> {
        self.check_appended(result, "the commit with its companions", ctx)
            .map_err(|refused| name_proposal(refused, &staged.staged.added))?;
        let accepted =
            AcceptedCommit { epoch: staged.staged.epoch, timestamp: staged.stamp, outcome: Outcome::New };
        self.origin.row.epoch = accepted.epoch;
        let entry = EpochEntry {
            epoch: accepted.epoch,
            timestamp: accepted.timestamp,
            proposals: staged.staged.referenced.iter().map(|packet| packet.to_vec()).collect(),
            commit: upload.commit.clone(),
        };
        self.recent.push(entry, self.core.recent);
        self.apply(|state| state.apply_commit(staged), ctx);
        self.core.wake_key_queues(self.origin.app, used);
        self.core.wake_peers(&self.origin);
        Ok(accepted)
    }

    fn proposal_appended(
        &mut self,
        result: Result<Appended, AppendError>,
        staged: StagedProposalUpload,
        ctx: &mut Context<Self>,
    ) -> Result<AcceptedProposal, GroupError> {
        self.check_appended(result, "the proposal", ctx)?;
        let accepted = AcceptedProposal {
            reference: staged.staged.pending.reference.clone(),
            epoch: self.origin.row.epoch,
            outcome: Outcome::New,
        };
        self.apply(|state| state.apply_proposal(staged), ctx);
        self.core.wake_peers(&self.origin);
        Ok(accepted)
    }

    /// Proposes the removal of the members whose credentials have expired, where this gateway orders the group, may
    /// propose in it and is to. What cannot be proposed now will be at the next commit.
    fn propose_removals(&mut self, source: &Source) -> Pin<Box<dyn ActorFuture<Self, Output = ()>>> {
        let is_wanted = self.application.expired_members != ExpiredMembers::Ignore && *source != Source::Hub;
        if !is_wanted {
            return Box::pin(fut::ready(()));
        }
        Box::pin(self.stage_removals().then(|removals, actor, _| match removals {
            Ok(removals) if !removals.is_empty() => actor.record_removals(removals),
            Ok(_) | Err(_) => Box::pin(fut::ready(())),
        }))
    }

    fn record_removals(
        &self,
        removals: Vec<StagedProposalUpload>,
    ) -> Pin<Box<dyn ActorFuture<Self, Output = ()>>> {
        let mut batch = Batch::new();
        for (after, staged) in (self.progress.sequence..).zip(&removals) {
            if let Err(error) = writes::proposal(&mut batch, &self.origin, after, staged, None) {
                tracing::error!(%error, "the removal of expired members cannot be written");
                return Box::pin(fut::ready(()));
            }
        }
        let store = self.core.store.clone();
        let append = async move { store.append(batch).await };
        Box::pin(append.into_actor(self).map(move |result, actor, ctx| {
            match actor.check_appended(result, "the removal of expired members", ctx) {
                Ok(()) => {
                    for staged in removals {
                        actor.apply(|state| state.apply_proposal(staged), ctx);
                    }
                    actor.core.wake_peers(&actor.origin);
                }
                Err(error) => tracing::warn!(%error, "the removal of expired members was not proposed"),
            }
        }))
    }

    /// Proposals as if they had been uploaded: the group's own rules apply to them. None if nobody's credential has
    /// expired.
    fn stage_removals(&mut self) -> Judged<Vec<StagedProposalUpload>> {
        let now = self.core.clock.now();
        let expired = self.state.as_ref().map_or(0, |state| state.expired_members(now));
        if expired == 0 {
            return Box::pin(fut::ready(Ok(Vec::new())));
        }
        let keys = self.application.external_senders.clone();
        let bytes = expired.saturating_mul(REMOVAL_BYTES);
        self.judged((bytes, broken_proposal), &Source::Application, move |state, rules| {
            let packets = state.removals(&keys, rules.limits, now);
            Ok(packets.iter().map_while(|packet| state.stage_proposal(rules, packet, now).ok()).collect())
        })
    }

    fn check_appended(
        &mut self,
        result: Result<Appended, AppendError>,
        what: &'static str,
        ctx: &mut Context<Self>,
    ) -> Result<(), GroupError> {
        match result {
            Ok(_) => Ok(()),
            Err(AppendError::Precondition(Unmet::KeyPackageUsed { reference })) => {
                Err(GroupError::KeyPackageReused { reference, proposal: None })
            }
            Err(AppendError::Precondition(Unmet::TooManyWelcomes {
                handle,
                domain,
                of_inviter,
                max,
                counted_until,
            })) => {
                let now = self.core.clock.now();
                let seconds = |until: Timestamp| until.0.saturating_sub(now.0).div_ceil(1000);
                let counted_for_s = counted_until.map(seconds);
                Err(GroupError::TooManyWelcomes { handle, domain, of_inviter, max, counted_for_s })
            }
            Err(AppendError::TooLarge { limit, .. }) => Err(GroupError::TooLarge { what, max: limit }),
            // Memory and disk no longer agree, or the disk is gone: the next request starts from disk.
            Err(
                error @ (AppendError::Precondition(_)
                | AppendError::Closed
                | AppendError::Stalled { is_queued: false }
                | AppendError::Storage(_)),
            ) => {
                self.step_down(ctx);
                Err(StorageError::from_append(&error).into())
            }
            // It may still be written: what is on disk is not read before that is known.
            Err(error @ AppendError::Stalled { is_queued: true }) => {
                let store = self.core.store.clone();
                let settled = async move { store.settled().await };
                ctx.wait(settled.into_actor(self).map(|(), actor, ctx| actor.step_down(ctx)));
                Err(StorageError::from_append(&error).into())
            }
        }
    }

    /// Takes what is durable into memory and shows it. What is on disk counts: if it cannot be applied, the actor
    /// gives up its state and the next request reads it from disk.
    fn apply(
        &mut self,
        change: impl FnOnce(&mut GroupState) -> Result<(), ValueError>,
        ctx: &mut Context<Self>,
    ) {
        let is_snapshot_due = self.progress.advance();
        self.activity.dirty.store(true, Ordering::Relaxed);
        let applied = match self.state.as_mut() {
            Some(state) => catch_unwind(AssertUnwindSafe(|| change(state))),
            None => return,
        };
        match applied {
            Ok(Ok(())) => {
                self.publish();
                if is_snapshot_due {
                    ctx.notify(Rest::Snapshot);
                }
            }
            Ok(Err(error)) => {
                tracing::error!(%error, "a durable change could not be applied; reading the group again");
                self.step_down(ctx);
            }
            Err(_) => {
                tracing::error!("applying a durable change panicked; reading the group again");
                self.step_down(ctx);
            }
        }
    }

    fn publish(&self) {
        if let Some(state) = &self.state {
            self.activity.weigh(state.weight().saturating_add(self.recent.weight()));
            let view = state.view(self.progress.sequence, self.recent.shown());
            self.published.send_replace(Published::Ready(Arc::new(view)));
        }
    }

    fn loaded(&mut self, result: Result<(GroupState, u64, u64), StorageError>, ctx: &mut Context<Self>) {
        match result {
            Ok((state, sequence, snapshot_sequence)) => {
                self.origin.row.epoch = state.epoch();
                self.state = Some(state);
                self.progress = Progress { sequence, snapshot_sequence, is_writing: false };
                self.activity.dirty.store(sequence != snapshot_sequence, Ordering::Relaxed);
                self.publish();
            }
            Err(error) => {
                self.published.send_replace(Published::Failed(error));
                self.step_down(ctx);
            }
        }
    }
}

/// Reads a group from disk: snapshot, then the records after it.
fn load(core: &Core, origin: &GroupOrigin) -> Result<(GroupState, u64, u64), StorageError> {
    let log = core.store.view().load_log(&origin.log())?.ok_or(StorageError::Unreadable)?;
    let Some((snapshot_sequence, snapshot)) = log.snapshot else {
        tracing::error!("a group has no snapshot");
        return Err(StorageError::Unreadable);
    };
    let records = log.records.iter().map(|(_, record)| record.as_ref());
    let restored = catch_unwind(AssertUnwindSafe(|| GroupState::restore(&snapshot, records)));
    match restored {
        Ok(Ok(state)) => Ok((state, log.head, snapshot_sequence)),
        Ok(Err(error)) => {
            tracing::error!(%error, "a group could not be restored");
            Err(StorageError::Unreadable)
        }
        Err(_) => {
            tracing::error!("restoring a group panicked");
            Err(StorageError::Unreadable)
        }
    }
}

impl Actor for GroupActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let (core, origin) = (Arc::clone(&self.core), self.origin.clone());
        let loading = tokio::task::spawn_blocking(move || load(&core, &origin));
        ctx.wait(loading.into_actor(self).map(|result, actor, ctx| {
            actor.loaded(result.unwrap_or(Err(StorageError::Unreadable)), ctx);
        }));
    }
}

/// About how many bytes a proposal to remove a member has.
const REMOVAL_BYTES: usize = 320;

/// What comes of a judgement.
type Judged<T> = Pin<Box<dyn ActorFuture<GroupActor, Output = Result<T, GroupError>>>>;

/// Makes the error of a packet that breaks a rule: of a commit, or of a proposal.
type Broken = fn(Rule, String) -> GroupError;

fn broken_commit(rule: Rule, detail: String) -> GroupError {
    GroupError::InvalidCommit { rule, detail, proposal: None }
}

fn broken_proposal(rule: Rule, detail: String) -> GroupError {
    GroupError::InvalidProposal { rule, detail }
}

/// Validates a packet. A panic changes nothing and is the packet's fault.
fn guarded<T>(broken: Broken, judgement: impl FnOnce() -> Result<T, GroupError>) -> Result<T, GroupError> {
    catch_unwind(AssertUnwindSafe(judgement)).unwrap_or_else(|_| {
        tracing::error!("staging a packet panicked; the packet is refused");
        Err(broken(Rule::Proposal, "the packet cannot be validated".into()))
    })
}

/// An answer that is known at once.
fn answer<T: 'static>(result: T) -> AtomicResponse<GroupActor, T> {
    AtomicResponse::new(Box::pin(fut::ready(result)))
}

impl Handler<UploadCommit> for GroupActor {
    type Result = AtomicResponse<Self, Result<AcceptedCommit, GroupError>>;

    fn handle(
        &mut self,
        UploadCommit { upload, source, permit }: UploadCommit,
        _: &mut Context<Self>,
    ) -> Self::Result {
        let now = self.core.clock.now();
        self.activity.touch(now);
        let judged = self.judged_commit(&upload, &source, now);
        AtomicResponse::new(Box::pin(judged.then(move |judged, actor, _| {
            let answered = actor.answer_commit(judged, upload, source);
            answered.map(move |answer, _, _| {
                drop(permit);
                answer
            })
        })))
    }
}

impl Handler<UploadProposal> for GroupActor {
    type Result = AtomicResponse<Self, Result<AcceptedProposal, GroupError>>;

    fn handle(
        &mut self,
        UploadProposal { packet, source, permit }: UploadProposal,
        _: &mut Context<Self>,
    ) -> Self::Result {
        self.activity.touch(self.core.clock.now());
        let waiting =
            self.state.as_ref().and_then(|state| state.pending_reference(&packet)).map(<[u8]>::to_vec);
        if let Some(reference) = waiting {
            let epoch = self.origin.row.epoch;
            return answer(Ok(AcceptedProposal { reference, epoch, outcome: Outcome::Repeated }));
        }
        let now = self.core.clock.now();
        let judged = self.judged_proposal(packet.clone(), &source, now);
        AtomicResponse::new(Box::pin(judged.then(move |judged, actor, _| {
            let answered = actor.answer_proposal(judged, &packet);
            answered.map(move |answer, _, _| {
                drop(permit);
                answer
            })
        })))
    }
}

impl GroupActor {
    /// Answers a proposal that waits already and came with other bytes: only its membership tag can differ, which is not
    /// part of its reference. The answer is kept for these bytes too, as far as [`OTHER_BYTES_MAX`] allows.
    fn accept_other_bytes(&self, reference: Vec<u8>, packet: &[u8]) -> Judged<AcceptedProposal> {
        let epoch = self.origin.row.epoch;
        let mut batch = Batch::new();
        writes::other_bytes(&mut batch, &self.origin, packet, &reference, OTHER_BYTES_MAX);
        let store = self.core.store.clone();
        let append = async move { store.append(batch).await };
        Box::pin(append.into_actor(self).map(move |result, actor, ctx| {
            actor.check_appended(result, "the proposal", ctx)?;
            Ok(AcceptedProposal { reference, epoch, outcome: Outcome::Repeated })
        }))
    }

    /// Records a commit that was judged to be good, and answers.
    fn answer_commit(
        &mut self,
        judged: Result<StagedCommitUpload, GroupError>,
        upload: Arc<CommitUpload>,
        source: Source,
    ) -> Judged<AcceptedCommit> {
        let ready = |answer| -> Judged<AcceptedCommit> { Box::pin(fut::ready(answer)) };
        let judged = match judged.and_then(|staged| self.check_packages(staged)) {
            Ok(judged) => judged,
            Err(GroupError::StaleEpoch { packet, current }) => {
                return ready(self.stale(&upload, packet, current));
            }
            Err(refused @ GroupError::ExpiredMembers { .. }) => {
                return Box::pin(self.propose_removals(&source).map(move |(), _, _| Err(refused)));
            }
            Err(refused) => return ready(Err(refused)),
        };
        let (staged, batch, used) = match self.write_commit(&upload, judged) {
            Ok(written) => written,
            Err(refused) => return ready(Err(refused)),
        };
        let store = self.core.store.clone();
        let append = async move { store.append(batch).await };
        Box::pin(append.into_actor(self).then(move |result, actor, ctx| {
            let accepted = actor.commit_appended(result, &upload, staged, used, ctx);
            let removals =
                if accepted.is_ok() { actor.propose_removals(&source) } else { Box::pin(fut::ready(())) };
            removals.map(move |(), _, _| accepted)
        }))
    }

    /// Records a proposal that was judged to be good, and answers.
    fn answer_proposal(
        &mut self,
        judged: Result<StagedProposalUpload, GroupError>,
        packet: &[u8],
    ) -> Judged<AcceptedProposal> {
        let ready = |answer| -> Judged<AcceptedProposal> { Box::pin(fut::ready(answer)) };
        let (staged, used_once) = match judged.and_then(|staged| self.check_package(staged)) {
            Ok(staged) => staged,
            Err(GroupError::StaleEpoch { packet: epoch, current }) => {
                let view = self.core.store.view();
                let before = accepted_before(&view, self.origin.app, &self.origin.group, epoch, packet);
                let stale = GroupError::StaleEpoch { packet: epoch, current };
                return ready(before.and_then(|accepted| accepted.ok_or(stale)));
            }
            Err(refused) => return ready(Err(refused)),
        };
        let pending = &staged.staged.pending;
        let known = self.state.as_ref().is_some_and(|state| state.has_pending(&pending.reference));
        if known {
            return self.accept_other_bytes(pending.reference.clone(), packet);
        }
        let mut batch = Batch::new();
        if let Err(error) =
            writes::proposal(&mut batch, &self.origin, self.progress.sequence, &staged, used_once.as_ref())
        {
            return ready(Err(unencodable(&error)));
        }
        let store = self.core.store.clone();
        let append = async move { store.append(batch).await };
        Box::pin(
            append
                .into_actor(self)
                .map(move |result, actor, ctx| actor.proposal_appended(result, staged, ctx)),
        )
    }

    /// Refuses an Add of a package that was used, and tells which package must still be unused when this is written.
    fn check_package(
        &self,
        staged: StagedProposalUpload,
    ) -> Result<(StagedProposalUpload, Option<snapshots::KeyPackageRef>), GroupError> {
        let Some((reference, last_resort)) = staged.staged.adds.clone() else {
            return Ok((staged, None));
        };
        if self.origin.is_replica {
            return Ok((staged, None));
        }
        let view = self.core.store.view();
        PackageUse::require_unused(&view, self.origin.app, std::iter::once(&reference))?;
        let once = PackageUse::is_once(&view, self.origin.app, &reference, last_resort)?;
        Ok((staged, once.then_some(reference)))
    }

    /// What is wrong with an entry before its packet is looked at.
    fn check_entry(&self, entry: &LogEntry, preceding: Option<Timestamp>) -> Result<(), GroupError> {
        if !self.origin.is_replica {
            return Err(GroupError::NotFromHub("this gateway orders the group itself".into()));
        }
        let stamp = self.state.as_ref().ok_or(StorageError::Unreadable)?.stamp();
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

    fn apply_proposal_entry(
        &mut self,
        packet: Vec<u8>,
        now: Timestamp,
        permit: OwnedSemaphorePermit,
    ) -> AtomicResponse<Self, Result<u64, GroupError>> {
        let judged = self.judged_proposal(packet, &Source::Hub, now);
        AtomicResponse::new(Box::pin(judged.then(move |judged, actor, _| {
            let taken = actor.take_proposal(judged);
            taken.map(move |next, _, _| {
                drop(permit);
                next
            })
        })))
    }

    fn take_proposal(&mut self, judged: Result<StagedProposalUpload, GroupError>) -> Judged<u64> {
        let ready = |answer| -> Judged<u64> { Box::pin(fut::ready(answer)) };
        let staged = match judged.and_then(|staged| self.check_package(staged)) {
            Ok((staged, _)) => staged,
            Err(refused) => return ready(Err(refused)),
        };
        let mut batch = Batch::new();
        if let Err(error) = writes::proposal(&mut batch, &self.origin, self.progress.sequence, &staged, None)
        {
            return ready(Err(unencodable(&error)));
        }
        let store = self.core.store.clone();
        let append = async move { store.append(batch).await };
        Box::pin(append.into_actor(self).map(move |result, actor, ctx| {
            actor.proposal_appended(result, staged, ctx)?;
            Ok(actor.next_entry())
        }))
    }

    fn apply_commit_entry(
        &mut self,
        upload: CommitUpload,
        now: Timestamp,
        permit: OwnedSemaphorePermit,
    ) -> AtomicResponse<Self, Result<u64, GroupError>> {
        let upload = Arc::new(upload);
        let judged = self.judged_commit(&upload, &Source::Hub, now);
        AtomicResponse::new(Box::pin(judged.then(move |judged, actor, _| {
            let taken = actor.take_commit(judged, upload);
            taken.map(move |next, _, _| {
                drop(permit);
                next
            })
        })))
    }

    fn take_commit(
        &mut self,
        judged: Result<StagedCommitUpload, GroupError>,
        upload: Arc<CommitUpload>,
    ) -> Judged<u64> {
        let judged = judged.and_then(|staged| self.check_packages(staged));
        let written = judged.and_then(|judged| self.write_commit(&upload, judged));
        let (staged, batch, used) = match written {
            Ok(written) => written,
            Err(refused) => return Box::pin(fut::ready(Err(refused))),
        };
        let store = self.core.store.clone();
        let append = async move { store.append(batch).await };
        Box::pin(append.into_actor(self).map(move |result, actor, ctx| {
            actor.commit_appended(result, &upload, staged, used, ctx)?;
            Ok(actor.next_entry())
        }))
    }

    fn next_entry(&self) -> u64 {
        self.progress.sequence.saturating_add(1)
    }
}

/// Says which Add carries a key package that was used, where a commit refers to one.
fn name_proposal(refused: GroupError, added: &[AddedMember]) -> GroupError {
    let GroupError::KeyPackageReused { reference, .. } = refused else { return refused };
    let carrying = added.iter().find(|added| added.reference == reference);
    GroupError::KeyPackageReused { proposal: carrying.and_then(|added| added.proposal.clone()), reference }
}

impl Handler<ApplyEntry> for GroupActor {
    type Result = AtomicResponse<Self, Result<u64, GroupError>>;

    fn handle(
        &mut self,
        ApplyEntry { entry, preceding, permit }: ApplyEntry,
        _: &mut Context<Self>,
    ) -> Self::Result {
        self.activity.touch(self.core.clock.now());
        // What is held already, and what is not next: the answer says where to go on.
        if entry.sequence != self.next_entry() {
            return answer(Ok(self.next_entry()));
        }
        if let Err(refused) = self.check_entry(&entry, preceding) {
            return answer(Err(refused));
        }
        match entry.content {
            EntryContent::Creation { .. } => {
                answer(Err(GroupError::NotFromHub("a creation is entry 0 and no other".into())))
            }
            EntryContent::Proposal { packet } => self.apply_proposal_entry(packet, entry.timestamp, permit),
            EntryContent::Commit { commit, group_info, welcome } => {
                let upload = CommitUpload { commit, group_info, welcome };
                self.apply_commit_entry(upload, entry.timestamp, permit)
            }
        }
    }
}

impl Restable for GroupState {
    fn to_snapshot(&self) -> Result<Vec<u8>, ValueError> {
        self.to_snapshot()
    }

    fn weight(&self) -> usize {
        self.weight()
    }
}

impl Resting for GroupActor {
    type State = GroupState;

    fn shared(&self) -> &Arc<Core> {
        &self.core
    }

    fn log(&self) -> LogId {
        self.origin.log()
    }

    fn activity(&self) -> &Activity {
        &self.activity
    }

    fn progress(&mut self) -> &mut Progress {
        &mut self.progress
    }

    fn state(&mut self) -> &mut Option<GroupState> {
        &mut self.state
    }

    fn step_down(&mut self, ctx: &mut Context<Self>) {
        self.state = None;
        self.core.forget_group(self.origin.app, &self.origin.group, &ctx.address());
        ctx.stop();
    }
}

impl Handler<Rest> for GroupActor {
    type Result = AtomicResponse<Self, Rested>;

    fn handle(&mut self, rest: Rest, _: &mut Context<Self>) -> Self::Result {
        self.rest(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_in_validation_refuses_the_packet_by_its_kind() {
        let panic = |broken| guarded(broken, || -> Result<(), _> { panic!("a fault in the validation") });
        let (rule, detail) = (Rule::Proposal, "the packet cannot be validated".to_owned());
        let proposal = GroupError::InvalidProposal { rule, detail: detail.clone() };
        assert_eq!(panic(broken_proposal as Broken), Err(proposal));
        assert_eq!(panic(broken_commit), Err(GroupError::InvalidCommit { rule, detail, proposal: None }));
    }
}
