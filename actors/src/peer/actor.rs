//! The actor of one peer: it sends the peer new entries of the logs of groups that this gateway orders. It keeps the peer's
//! position in each log but no queue: marks in the store name the logs with new entries.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use actix::{
    Actor, ActorContext as _, ActorFutureExt as _, AsyncContext as _, Context, Handler, Message,
    ResponseActFuture, WrapFuture as _,
};
use snapshots::{AppId, Batch, DomainName, GroupId, View};

use super::{
    Delivery, DeliveryContent, DeliveryError, GroupViews, ReplicationAck, Transport,
    compare::{Trust, compare_all},
    outgoing::{NextDelivery, Sent, prepare, transfer},
    pace::{Jitter, Pace},
    progress::RefusedEntries,
    schedule::{DeliverySchedule, Ending, GroupKey},
    store_changes::store_changes,
};
use crate::{
    activity::{ActorState, Upkeep},
    error::StorageError,
    services::Services,
};

/// The number of concurrent deliveries to one peer, each for another group.
const UNDER_WAY_MAX: usize = 32;
/// The number of groups queued in memory; the others are found by their marks.
pub(super) const WAITING_MAX: usize = 1024;
/// The number of marks read at a time.
const MARKS_AT_ONCE: usize = 256;
/// The shortest pause before the retry of a delivery that came too early for the peer's clock.
const RETRY_PAUSE_MIN: Duration = Duration::from_secs(1);
/// Refusals of a peer that are logged in one [`TRY_AGAIN_PERIOD`]; the others are counted.
const REFUSALS_LOGGED_MAX: u32 = 20;
/// The slug with which a peer of an earlier version refuses a delivery that has a member that it does not know.
const UNKNOWN_MEMBER: &str = "malformed-request";
/// The number of bytes of a peer's text that are logged.
const LOGGED_BYTES_MAX: usize = 500;
/// The period in which the peer's positions are written.
const WRITE_PERIOD: Duration = Duration::from_millis(100);
/// The period after which refused groups are retried and the marks are read in any case.
const TRY_AGAIN_PERIOD: Duration = Duration::from_secs(30);

/// A group's log has new entries for the peer. The notice may be lost: the mark is in the store.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct LogGrew {
    pub(crate) app: AppId,
    pub(crate) group: GroupId,
}

/// Delivers to one peer.
pub(crate) struct PeerActor {
    pub(super) services: Arc<Services>,
    views: Arc<dyn GroupViews>,
    pub(super) peer: DomainName,
    transport: Arc<dyn Transport>,
    pub(super) schedule: DeliverySchedule,
    /// The mark after which to read further marks.
    marks_after: Option<GroupKey>,
    /// The peer's positions that are not written yet.
    pub(super) positions: HashMap<GroupKey, u64>,
    /// Groups whose next delivery is a transfer of the whole group.
    pub(super) transfers: HashSet<GroupKey>,
    /// Groups that were transferred as a whole, and answered, in this [`TRY_AGAIN_PERIOD`]: at most once each.
    pub(super) transferred: HashSet<GroupKey>,
    /// Groups whose entries the peer refused.
    pub(super) refused: HashMap<GroupKey, RefusedEntries>,
    /// The revision of the protocol that the peer understands, once it has said so.
    revision: Option<u32>,
    /// Groups whose marks to delete: the peer is no longer entitled to them.
    forgotten: Vec<GroupKey>,
    /// Deleted groups of which the peer was told.
    told: Vec<GroupKey>,
    /// Whether the peer has refused a deletion in this [`TRY_AGAIN_PERIOD`] because its version does not know them.
    pub(super) knows_no_deletions: bool,
    /// The store that holds the peer's replicas, once the peer has named it.
    pub(super) store: Option<uuid::Uuid>,
    /// The pace at which that store may change.
    pub(super) store_changes: Pace,
    /// Deliveries are suspended: the marks of the groups that the peer lost are being restored, or its store changed
    /// again too soon.
    pub(super) is_store_unsettled: bool,
    /// The number of refusals in this [`TRY_AGAIN_PERIOD`].
    refusals: u32,
    is_writing: bool,
    /// Deliveries since the last answer that the transport found unreachable; they set the pace of the next ones. The
    /// transport alone decides, and reports it to the operator.
    pub(super) failures: u32,
    pub(super) is_paused: bool,
    pub(super) hasher: Jitter,
}

impl PeerActor {
    pub(crate) fn new(
        services: Arc<Services>,
        views: Arc<dyn GroupViews>,
        peer: DomainName,
        transport: Arc<dyn Transport>,
    ) -> Self {
        Self {
            services,
            views,
            peer,
            transport,
            schedule: DeliverySchedule::new(WAITING_MAX),
            marks_after: None,
            positions: HashMap::new(),
            transfers: HashSet::new(),
            transferred: HashSet::new(),
            refused: HashMap::new(),
            revision: None,
            forgotten: Vec::new(),
            told: Vec::new(),
            knows_no_deletions: false,
            store: None,
            store_changes: store_changes(),
            is_store_unsettled: false,
            refusals: 0,
            is_writing: false,
            failures: 0,
            is_paused: false,
            hasher: Jitter::default(),
        }
    }

    /// Starts deliveries up to the limit; after a failure, one at a time until one succeeds.
    pub(super) fn deliver(&mut self, ctx: &mut Context<Self>) {
        let at_once = if self.failures > 0 { 1 } else { UNDER_WAY_MAX };
        while !self.is_paused && !self.is_store_unsettled && !self.services.is_stopping() {
            if self.schedule.needs_marks()
                && let Err(error) = self.look_for_marks()
            {
                tracing::error!(peer = %self.peer, %error, "the entries for a peer could not be read");
                return;
            }
            match self.schedule.next(at_once) {
                Some(place) => self.begin(place, ctx),
                None if self.schedule.needs_marks() => {}
                None => return,
            }
        }
    }

    fn look_for_marks(&mut self) -> Result<(), StorageError> {
        if self.schedule.needs_all_marks() {
            self.marks_after = None;
        }
        let marks =
            self.services.store.view().outbox(&self.peer, self.marks_after.as_ref(), MARKS_AT_ONCE)?;
        let is_end = marks.len() < MARKS_AT_ONCE;
        self.marks_after = if is_end { None } else { marks.last().cloned() };
        self.schedule.add_marks(marks, is_end);
        Ok(())
    }

    /// Reads the next delivery, on a thread other than those of the actors, and sends it.
    fn begin(&mut self, place: GroupKey, ctx: &mut Context<Self>) {
        let next = match self.next(&self.services.store.view(), &place) {
            Ok(next) => next,
            Err(error) => return self.unreadable(place, &error),
        };
        let is_whole = self.transfers.contains(&place);
        let (services, peer, of) = (Arc::clone(&self.services), self.peer.clone(), place.clone());
        let preparing = async move {
            let prepared = snapshots::away(move || prepare(&services, &peer, &of, next, is_whole));
            prepared.await.unwrap_or(Err(StorageError::Unreadable))
        };
        ctx.spawn(preparing.into_actor(self).map(move |prepared, actor, ctx| {
            match prepared {
                Ok(prepared) => actor.send(place, next, prepared, ctx),
                Err(error) => actor.unreadable(place, &error),
            }
            actor.deliver(ctx);
        }));
    }

    fn send(&mut self, place: GroupKey, next: u64, prepared: NextDelivery, ctx: &mut Context<Self>) {
        if matches!(prepared, NextDelivery::NotForPeer) {
            self.forgotten.push(place.clone());
        }
        let sent = prepared.kind();
        if sent == Sent::Transfer {
            // Whatever the result, the next delivery is from the log: it may suffice by then.
            self.transfers.remove(&place);
            self.refused.remove(&place);
            if self.transferred.contains(&place) {
                self.schedule.complete(place, Ending::SetAside);
                return;
            }
        }
        if sent == Sent::Deletion && self.knows_no_deletions {
            self.schedule.complete(place, Ending::SetAside);
            return;
        }
        let (services, views, transport, peer) = (
            Arc::clone(&self.services),
            Arc::clone(&self.views),
            Arc::clone(&self.transport),
            self.peer.clone(),
        );
        let knows_reinitialised = self.revision.is_none_or(|revision| revision >= 1);
        let (app, group) = place.clone();
        let content = async move {
            match prepared {
                NextDelivery::Nothing | NextDelivery::NotForPeer => Ok(None),
                NextDelivery::Entries { hub, preceding, entries } => {
                    Ok(Some((hub, preceding, DeliveryContent::Entries(entries))))
                }
                NextDelivery::Deletion { hub, timestamp } => {
                    Ok(Some((hub, None, DeliveryContent::Deletion { timestamp })))
                }
                NextDelivery::Transfer { hub, missed } => {
                    let transfer =
                        transfer(&services, &*views, (app, &group), &missed, knows_reinitialised).await?;
                    Ok(Some((hub, None, DeliveryContent::Transfer(Box::new(transfer)))))
                }
            }
        };
        let (app, group) = place.clone();
        let sending = async move {
            let Some((hub, preceding, content)) = content.await? else { return Ok(None) };
            let delivery = Delivery { app, group, hub, preceding, content };
            transport.deliver(&peer, delivery).await.map(Some)
        };
        ctx.spawn(sending.into_actor(self).map(move |result, actor, ctx| {
            actor.delivered(place, (next, sent), result, ctx);
            actor.deliver(ctx);
        }));
    }

    /// The number of the entry that the peer needs next, as far as it is known.
    fn next(&self, view: &View, place: &GroupKey) -> Result<u64, StorageError> {
        if let Some(next) = self.positions.get(place) {
            return Ok(*next);
        }
        let (app, group) = place;
        Ok(view.peer_position(&self.peer, *app, group)?.unwrap_or(0))
    }

    fn unreadable(&mut self, place: GroupKey, error: &StorageError) {
        tracing::error!(peer = %self.peer, %error, "the entries for a peer could not be read");
        self.schedule.complete(place, Ending::SetAside);
    }

    fn delivered(
        &mut self,
        place: GroupKey,
        (from, sent): (u64, Sent),
        result: Result<Option<ReplicationAck>, DeliveryError>,
        ctx: &mut Context<Self>,
    ) {
        let is_answered = matches!(result, Ok(Some(_)) | Err(DeliveryError::Refused { .. }));
        let is_refused = matches!(result, Err(DeliveryError::Refused { .. }));
        if sent == Sent::Transfer && is_refused && self.revision.is_none() {
            // It may be of the first revision, which refuses a member that it does not know.
            self.revision = Some(0);
            self.transfers.insert(place.clone());
        } else if sent == Sent::Transfer && is_answered {
            self.transferred.insert(place.clone());
        }
        match result {
            Ok(None) => {
                // The peer has the marked entry already: writing its position deletes the mark.
                if !self.forgotten.contains(&place) {
                    self.positions.entry(place.clone()).or_insert(from);
                }
                self.schedule.complete(place, Ending::Done);
            }
            Ok(Some(held)) => {
                self.reached();
                self.revision = Some(held.revision);
                if self.is_other_store(held.store, ctx) {
                    self.schedule.complete(place, Ending::More);
                } else if sent == Sent::Deletion {
                    self.forget(&place);
                    self.told.push(place.clone());
                    self.schedule.complete(place, Ending::Done);
                } else if let Some(pause) = held.retry_after {
                    tracing::debug!(peer = %self.peer, group = ?place.1, ?pause, "a peer's clock is behind; it waits");
                    self.set_aside_for(place, pause.clamp(RETRY_PAUSE_MIN, TRY_AGAIN_PERIOD), ctx);
                } else {
                    let ending = self.progress(&place, (from, sent), &held);
                    self.schedule.complete(place, ending);
                }
            }
            Err(DeliveryError::Failed(reason)) => {
                self.reached();
                self.try_later(place, &reason, Duration::ZERO, ctx);
            }
            Err(DeliveryError::Later { reason, after }) => {
                self.reached();
                self.try_later(place, &reason, after, ctx);
            }
            Err(DeliveryError::Incomplete(reason)) => self.try_later(place, &reason, Duration::ZERO, ctx),
            Err(DeliveryError::NothingToSend(reason)) => {
                let ending = self.unless_deleted(&place, Ending::SetAside);
                if ending == Ending::SetAside {
                    tracing::warn!(peer = %self.peer, group = ?place.1, from, reason, "a peer cannot be brought up to date");
                }
                self.schedule.complete(place, ending);
            }
            Err(DeliveryError::Refused { slug, detail: _ })
                if sent == Sent::Deletion && slug == UNKNOWN_MEMBER =>
            {
                self.reached();
                self.lacks_deletions();
                self.schedule.complete(place, Ending::SetAside);
            }
            Err(DeliveryError::Refused { slug, detail }) => {
                self.reached();
                self.note_refusal((&place, from), &slug, &detail);
                let ending = self.after_refusal(&place, from, sent);
                self.schedule.complete(place, ending);
            }
            Err(DeliveryError::Unreachable(reason)) => {
                self.schedule.complete(place, Ending::More);
                self.pause(&reason, ctx);
            }
        }
        if self.positions.len().max(self.told.len()) >= WAITING_MAX {
            self.write_positions(ctx);
        }
    }

    /// Counts a refusal, and logs it unless there are many.
    fn note_refusal(&mut self, (place, from): (&GroupKey, u64), slug: &str, detail: &str) {
        self.refusals = self.refusals.saturating_add(1);
        if self.refusals <= REFUSALS_LOGGED_MAX {
            let (slug, detail) = (shortened(slug), shortened(detail));
            tracing::warn!(peer = %self.peer, group = ?place.1, from, slug, detail, "a peer refused a delivery");
        }
    }

    fn reached(&mut self) {
        self.failures = 0;
    }

    /// The batch that writes the peer's positions, and the positions in it.
    fn positions_batch(&self) -> Option<(Batch, Vec<(GroupKey, u64)>)> {
        if self.positions.is_empty() && self.forgotten.is_empty() && self.told.is_empty() {
            return None;
        }
        let written: Vec<(GroupKey, u64)> =
            self.positions.iter().take(WAITING_MAX).map(|(place, next)| (place.clone(), *next)).collect();
        let mut batch = Batch::new();
        for ((app, group), next) in &written {
            batch.put_peer_position(&self.peer, *app, group, *next);
        }
        for (app, group) in &self.forgotten {
            batch.clear_outbox(&self.peer, *app, group);
        }
        for (app, group) in &self.told {
            batch.forget_peer_of(&self.peer, *app, group);
        }
        Some((batch, written))
    }

    fn write_positions(&mut self, ctx: &mut Context<Self>) {
        if self.is_writing {
            return;
        }
        let Some((batch, written)) = self.positions_batch() else { return };
        self.forgotten.clear();
        let told = std::mem::take(&mut self.told);
        self.is_writing = true;
        let store = self.services.store.clone();
        ctx.spawn(async move { store.append(batch).await }.into_actor(self).map(move |result, actor, _| {
            actor.is_writing = false;
            match result {
                Ok(_) => {
                    for (place, next) in written {
                        if actor.positions.get(&place) == Some(&next) {
                            actor.positions.remove(&place);
                        }
                    }
                }
                Err(error) => {
                    actor.told.extend(told);
                    tracing::warn!(%error, "the position of a peer was not written; the peer will be asked again");
                }
            }
        }));
    }
}

/// The beginning of a peer's text, short enough for the log.
fn shortened(text: &str) -> &str {
    text.get(..text.floor_char_boundary(LOGGED_BYTES_MAX)).unwrap_or_default()
}

impl Actor for PeerActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(WRITE_PERIOD, Self::write_positions);
        ctx.run_interval(TRY_AGAIN_PERIOD, |actor, ctx| {
            actor.transferred.clear();
            actor.knows_no_deletions = false;
            let unlogged = std::mem::take(&mut actor.refusals).saturating_sub(REFUSALS_LOGGED_MAX);
            if unlogged > 0 {
                tracing::warn!(peer = %actor.peer, unlogged, "a peer refused more deliveries than are logged");
            }
            actor.schedule.retry_all();
            actor.deliver(ctx);
        });
        let comparing = compare_all(Arc::clone(&self.services), self.peer.clone(), Trust::Positions);
        ctx.spawn(comparing.into_actor(self).map(|result, actor, ctx| {
            if let Err(error) = result {
                tracing::error!(peer = %actor.peer, %error, "the entries that a peer lacks could not be determined");
            }
            actor.schedule.retry_all();
            actor.deliver(ctx);
        }));
        self.deliver(ctx);
    }
}

impl Handler<LogGrew> for PeerActor {
    type Result = ();

    fn handle(&mut self, LogGrew { app, group }: LogGrew, ctx: &mut Context<Self>) {
        self.schedule.enqueue((app, group));
        self.deliver(ctx);
    }
}

impl Handler<Upkeep> for PeerActor {
    type Result = ResponseActFuture<Self, ActorState>;

    /// A peer's actor is passivated only when the gateway stops.
    fn handle(&mut self, _: Upkeep, _: &mut Context<Self>) -> Self::Result {
        self.is_paused = true;
        let batch = self.positions_batch().map(|(batch, _)| batch);
        let store = self.services.store.clone();
        let writing = async move {
            match batch {
                Some(batch) => store.append(batch).await.map(drop),
                None => Ok(()),
            }
        };
        Box::pin(writing.into_actor(self).map(|result, _, ctx| {
            if let Err(error) = result {
                tracing::warn!(%error, "the position of a peer was not written; the peer will be asked again");
            }
            ctx.stop();
            ActorState::Stopped
        }))
    }
}
