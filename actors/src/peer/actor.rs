//! The actor of one peer: it delivers the entries of this gateway's groups. It keeps only the peer's position in each
//! log; pending work is in the store, as outbox marks.

use std::{
    collections::{HashMap, HashSet},
    hash::BuildHasher as _,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use actix::{
    Actor, ActorContext as _, ActorFutureExt as _, AsyncContext as _, Context, Handler, Message,
    ResponseActFuture, WrapFuture as _,
};
use snapshots::{AppId, Batch, DomainName, GroupId, LogId, Timestamp, View};

use super::{
    Delivery, DeliveryContent, DeliveryError, Held, LogEntry, Transport,
    compare::{Trust, compare_all},
    outgoing::{read_entries, transfer},
    pace::Pace,
    schedule::{Ending, Place, Schedule},
};
use crate::{
    core::Core,
    router::{Rest, Rested},
    storage::StorageError,
};

/// Deliveries to one peer that are under way at once, each of another group.
const UNDER_WAY_MAX: usize = 32;
/// Groups that wait in memory for their turn; the others wait by their marks.
const WAITING_MAX: usize = 1024;
/// Marks read at once.
const MARKS_AT_ONCE: usize = 256;
/// Entries in one delivery.
const ENTRIES_MAX: usize = 64;
/// The largest number of entries missed by a peer that a transfer covers.
const MISSED_MAX: usize = 256;
/// The pause before a delivery that failed is tried again.
const FAILED_PAUSE: Duration = Duration::from_secs(1);
/// The shortest pause after which a delivery is tried again that came too early for the peer's clock.
const RETRY_PAUSE_MIN: Duration = Duration::from_secs(1);
/// The pause after a peer's store was another one than before, until it may change again; it doubles with each change.
const STORE_PAUSE_MIN: Duration = Duration::from_secs(5);
/// The longest such pause.
const STORE_PAUSE_MAX: Duration = Duration::from_secs(600);
/// After so long with one store, the pauses begin anew.
const STORE_QUIET: Duration = Duration::from_secs(3600);
/// Refusals of a peer that are logged in one [`TRY_AGAIN_PERIOD`]; the others are counted.
const REFUSALS_LOGGED_MAX: u32 = 20;
/// Bytes of what a peer says that are logged.
const LOGGED_BYTES_MAX: usize = 500;
/// How often it is written where the peer is.
const WRITE_PERIOD: Duration = Duration::from_millis(100);
/// How often what the peer refused is tried again, and the marks are looked at in any case.
const TRY_AGAIN_PERIOD: Duration = Duration::from_secs(30);
/// The pause after a first failure; it doubles with each further one.
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// A group's log has something for the peer. May be lost: the mark is in the store.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Wake {
    pub(crate) app: AppId,
    pub(crate) group: GroupId,
}

/// The health of a peer, for operators.
#[derive(Debug)]
pub(crate) struct PeerHealth {
    pub(crate) is_reachable: AtomicBool,
    pub(crate) refused_groups: AtomicUsize,
}

impl Default for PeerHealth {
    fn default() -> Self {
        Self { is_reachable: AtomicBool::new(true), refused_groups: AtomicUsize::new(0) }
    }
}

/// Delivers to one peer.
pub(crate) struct PeerActor {
    core: Arc<Core>,
    peer: DomainName,
    transport: Arc<dyn Transport>,
    health: Arc<PeerHealth>,
    schedule: Schedule,
    /// Behind which mark to look for more.
    marks_after: Option<Place>,
    /// Where the peer is, as far as it is not written yet.
    positions: HashMap<Place, u64>,
    /// Groups that the peer is sent as a whole with its next delivery.
    transfers: HashSet<Place>,
    /// Groups that the peer was sent as a whole in this [`TRY_AGAIN_PERIOD`], and answered for: at most once each.
    transferred: HashSet<Place>,
    /// Groups whose entries the peer refused.
    refused: HashMap<Place, RefusedEntries>,
    /// What the peer understands beyond the first version of the protocol, once it has said so.
    revision: Option<u32>,
    /// Groups whose outbox marks to delete: the peer is not entitled to them.
    forgotten: Vec<Place>,
    /// Which store the peer keeps its replicas in, once it has said so.
    store: Option<uuid::Uuid>,
    /// When that may change again.
    store_changes: Pace,
    /// Nothing is delivered: what the peer lost with its store is being found out, or it changed too soon again.
    is_store_unsettled: bool,
    /// How often the peer has refused something in this [`TRY_AGAIN_PERIOD`].
    refusals: u32,
    is_writing: bool,
    /// Failures since the last success.
    failures: u32,
    is_paused: bool,
}

/// What there is to send.
enum Prepared {
    Nothing,
    /// The application is gone, does not federate with the peer any more, or does not order the group here.
    NotForPeer,
    Entries {
        hub: DomainName,
        preceding: Option<Timestamp>,
        entries: Vec<LogEntry>,
    },
    /// The entries that the peer needs are not kept any more, or are of no use to it.
    Transfer {
        hub: DomainName,
        /// Entries that the peer has not seen, as far as they are kept.
        missed: Vec<LogEntry>,
    },
}

/// What is known of entries that a peer refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RefusedEntries {
    /// They began with this one. The newest entry is sent to learn what the peer needs next.
    From(u64),
    /// They were of a past that the peer was never shown, and the peer does without it.
    OfThePast,
}

/// What a delivery held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sent {
    Nothing,
    Entries,
    Transfer,
}

impl Prepared {
    fn kind(&self) -> Sent {
        match self {
            Self::Nothing | Self::NotForPeer => Sent::Nothing,
            Self::Entries { .. } => Sent::Entries,
            Self::Transfer { .. } => Sent::Transfer,
        }
    }
}

impl PeerActor {
    pub(crate) fn new(
        core: Arc<Core>,
        peer: DomainName,
        transport: Arc<dyn Transport>,
        health: Arc<PeerHealth>,
    ) -> Self {
        Self {
            core,
            peer,
            transport,
            health,
            schedule: Schedule::new(WAITING_MAX),
            marks_after: None,
            positions: HashMap::new(),
            transfers: HashSet::new(),
            transferred: HashSet::new(),
            refused: HashMap::new(),
            revision: None,
            forgotten: Vec::new(),
            store: None,
            store_changes: Pace::new(STORE_PAUSE_MIN, STORE_PAUSE_MAX, STORE_QUIET),
            is_store_unsettled: false,
            refusals: 0,
            is_writing: false,
            failures: 0,
            is_paused: false,
        }
    }

    /// Starts as many deliveries as may be under way; after a failure one at a time, until one succeeds.
    fn deliver(&mut self, ctx: &mut Context<Self>) {
        let at_once = if self.failures > 0 { 1 } else { UNDER_WAY_MAX };
        while !self.is_paused && !self.is_store_unsettled && !self.core.is_stopping() {
            if self.schedule.needs_marks()
                && let Err(error) = self.look_for_marks()
            {
                tracing::error!(peer = %self.peer, %error, "what a peer needs could not be read");
                return;
            }
            match self.schedule.take(at_once) {
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
        let marks = self.core.store.view().outbox(&self.peer, self.marks_after.as_ref(), MARKS_AT_ONCE)?;
        let is_end = marks.len() < MARKS_AT_ONCE;
        self.marks_after = if is_end { None } else { marks.last().cloned() };
        self.schedule.take_marks(marks, is_end);
        Ok(())
    }

    /// Reads what there is to send, away from the threads of the actors, and sends it.
    fn begin(&mut self, place: Place, ctx: &mut Context<Self>) {
        let next = match self.next(&self.core.store.view(), &place) {
            Ok(next) => next,
            Err(error) => return self.unreadable(place, &error),
        };
        let is_whole = self.transfers.contains(&place);
        let (core, peer, of) = (Arc::clone(&self.core), self.peer.clone(), place.clone());
        let preparing = async move {
            let prepared = tokio::task::spawn_blocking(move || prepare(&core, &peer, &of, next, is_whole));
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

    fn send(&mut self, place: Place, next: u64, prepared: Prepared, ctx: &mut Context<Self>) {
        if matches!(prepared, Prepared::NotForPeer) {
            self.forgotten.push(place.clone());
        }
        let sent = prepared.kind();
        if sent == Sent::Transfer {
            // Whatever the outcome, the log is tried next: it may be enough by then.
            self.transfers.remove(&place);
            self.refused.remove(&place);
            if self.transferred.contains(&place) {
                self.schedule.end(place, Ending::SetAside);
                return;
            }
        }
        let (core, transport, peer) =
            (Arc::clone(&self.core), Arc::clone(&self.transport), self.peer.clone());
        let knows_reinitialised = self.revision.is_none_or(|revision| revision >= 1);
        let (app, group) = place.clone();
        let content = async move {
            match prepared {
                Prepared::Nothing | Prepared::NotForPeer => Ok(None),
                Prepared::Entries { hub, preceding, entries } => {
                    Ok(Some((hub, preceding, DeliveryContent::Entries(entries))))
                }
                Prepared::Transfer { hub, missed } => {
                    let transfer = transfer(&core, app, &group, &missed, knows_reinitialised).await?;
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

    /// The number of the entry that the peer needs next, as far as is known.
    fn next(&self, view: &View, place: &Place) -> Result<u64, StorageError> {
        if let Some(next) = self.positions.get(place) {
            return Ok(*next);
        }
        let (app, group) = place;
        Ok(view.peer_position(&self.peer, *app, group)?.unwrap_or(0))
    }

    fn unreadable(&mut self, place: Place, error: &StorageError) {
        tracing::error!(peer = %self.peer, %error, "what a peer needs could not be read");
        self.schedule.end(place, Ending::SetAside);
    }

    fn delivered(
        &mut self,
        place: Place,
        (from, sent): (u64, Sent),
        result: Result<Option<Held>, DeliveryError>,
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
                // The mark is of something that the peer has: writing where it is takes the mark away.
                if !self.forgotten.contains(&place) {
                    self.positions.entry(place.clone()).or_insert(from);
                }
                self.schedule.end(place, Ending::Done);
            }
            Ok(Some(held)) => {
                self.reached();
                self.revision = Some(held.revision);
                if self.is_other_store(held.store, ctx) {
                    self.schedule.end(place, Ending::More);
                } else if let Some(pause) = held.retry_after {
                    tracing::debug!(peer = %self.peer, group = ?place.1, ?pause, "a peer's clock is behind; it waits");
                    self.set_aside_for(place, pause.clamp(RETRY_PAUSE_MIN, TRY_AGAIN_PERIOD), ctx);
                } else {
                    let ending = self.progress(&place, (from, sent), &held);
                    self.schedule.end(place, ending);
                }
            }
            Err(DeliveryError::Failed(reason)) => {
                self.reached();
                tracing::debug!(peer = %self.peer, group = ?place.1, reason, "a delivery failed");
                self.set_aside_for(place, self.jittered(FAILED_PAUSE), ctx);
            }
            Err(DeliveryError::Incomplete(reason)) => {
                tracing::debug!(peer = %self.peer, group = ?place.1, reason, "a delivery did not end");
                self.set_aside_for(place, self.jittered(FAILED_PAUSE), ctx);
            }
            Err(DeliveryError::NothingToSend(reason)) => {
                tracing::warn!(peer = %self.peer, group = ?place.1, from, reason, "a peer cannot be brought up to date");
                self.schedule.end(place, Ending::SetAside);
            }
            Err(DeliveryError::Refused { slug, detail }) => {
                self.reached();
                self.refusals = self.refusals.saturating_add(1);
                if self.refusals <= REFUSALS_LOGGED_MAX {
                    let (slug, detail) = (shortened(&slug), shortened(&detail));
                    tracing::warn!(peer = %self.peer, group = ?place.1, from, slug, detail, "a peer refused a delivery");
                }
                let ending = self.after_refusal(&place, from, sent);
                self.schedule.end(place, ending);
            }
            Err(DeliveryError::Unreachable(reason)) => {
                self.schedule.end(place, Ending::More);
                self.pause(&reason, ctx);
            }
        }
        self.health.refused_groups.store(self.schedule.set_aside(), Ordering::Relaxed);
        if self.positions.len() >= WAITING_MAX {
            self.write_positions(ctx);
        }
    }

    /// The next delivery for a group after the peer refused one. History that the peer cannot take must not keep it from new
    /// entries, so the newest entry is sent: its answer tells what the peer needs.
    fn after_refusal(&mut self, place: &Place, from: u64, sent: Sent) -> Ending {
        if self.transfers.contains(place) {
            return Ending::More;
        }
        let (app, group) = place;
        let head = self.core.store.view().log_head(&LogId::Group(*app, group.clone()));
        let Ok(Some(head)) = head else { return Ending::SetAside };
        let may_ask = self.refused.len() < WAITING_MAX && !self.refused.contains_key(place);
        if sent != Sent::Entries || from >= head || !may_ask {
            if self.refused.get(place).is_some_and(|refused| *refused != RefusedEntries::OfThePast) {
                self.refused.remove(place);
            }
            return Ending::SetAside;
        }
        self.refused.insert(place.clone(), RefusedEntries::From(from));
        self.positions.insert(place.clone(), head);
        Ending::More
    }

    /// What the peer's answer means for what to send next.
    fn progress(&mut self, place: &Place, (from, sent): (u64, Sent), held: &Held) -> Ending {
        let (app, group) = place;
        let view = self.core.store.view();
        let head = view.log_head(&LogId::Group(*app, group.clone()));
        let Ok(Some(head)) = head else { return Ending::SetAside };
        if held.next > head.saturating_add(1) {
            tracing::error!(
                peer = %self.peer, ?group, held = held.next, head,
                "a peer holds entries that this hub does not have"
            );
            return Ending::SetAside;
        }
        if held.needs_transfer {
            self.positions.insert(place.clone(), held.next);
            if sent == Sent::Transfer || self.transferred.contains(place) {
                return Ending::SetAside;
            }
            self.transfers.insert(place.clone());
            return Ending::More;
        }
        let mut is_asked = false;
        if let Some(RefusedEntries::From(refused)) = self.refused.get(place).copied() {
            self.refused.remove(place);
            if held.next <= refused {
                self.positions.insert(place.clone(), held.next);
                return Ending::SetAside;
            }
            is_asked = true;
            // The newest entry may have ended the past as well: then nothing is missing any more.
            if held.missing.is_some() {
                self.refused.insert(place.clone(), RefusedEntries::OfThePast);
            }
        }
        let does_without = self.refused.contains_key(place);
        // What it was never shown and is still kept here comes first.
        let missing = held.missing.as_ref().filter(|missing| missing.end() < &held.next && !does_without);
        let first_missing =
            missing.map(|missing| view.first_log_entry(*app, group, *missing.start(), *missing.end()));
        let next = match first_missing {
            Some(Ok(Some(kept))) => kept,
            Some(Ok(None)) | None => held.next,
            Some(Err(error)) => {
                tracing::error!(peer = %self.peer, %error, "what a peer needs could not be read");
                return Ending::SetAside;
            }
        };
        self.positions.insert(place.clone(), next);
        if next <= from && !is_asked && !(sent == Sent::Transfer && held.next > from) {
            tracing::warn!(peer = %self.peer, ?group, from, next, "a peer went back in a log, or made no progress");
            return Ending::SetAside;
        }
        if next > head { Ending::Done } else { Ending::More }
    }

    /// Leaves a group alone for a time.
    fn set_aside_for(&mut self, place: Place, pause: Duration, ctx: &mut Context<Self>) {
        if !self.schedule.set_aside_for(place.clone()) {
            return;
        }
        ctx.run_later(pause, move |actor, ctx| {
            actor.schedule.release(place);
            actor.deliver(ctx);
        });
    }

    fn reached(&mut self) {
        if self.failures > 0 {
            tracing::debug!(peer = %self.peer, failures = self.failures, "a peer is reachable again");
            self.health.is_reachable.store(true, Ordering::Relaxed);
        }
        self.failures = 0;
    }

    /// Waits before the next try: twice as long after each failure, and never for the same time as others.
    fn pause(&mut self, reason: &str, ctx: &mut Context<Self>) {
        // Those that were under way together count once.
        if self.is_paused {
            return;
        }
        if self.failures == 0 {
            // The transport tells the operator.
            tracing::debug!(peer = %self.peer, reason, "a peer cannot be reached; the entries that it lacks are kept");
            self.health.is_reachable.store(false, Ordering::Relaxed);
        }
        self.failures = self.failures.saturating_add(1);
        self.is_paused = true;
        let longest = PAUSE_MIN.saturating_mul(1 << self.failures.min(10)).min(PAUSE_MAX);
        ctx.run_later(self.jittered(longest), |actor, ctx| {
            actor.is_paused = false;
            actor.deliver(ctx);
        });
    }

    /// Somewhere between half of a time and all of it.
    fn jittered(&self, longest: Duration) -> Duration {
        let jitter = self.core.hasher.hash_one((&self.peer, self.core.clock.now(), self.failures)) % 512;
        longest / 2 + longest.mul_f64(f64::from(u16::try_from(jitter).unwrap_or(0)) / 1024.0)
    }

    /// Notes which store the peer keeps its replicas in; answers whether what the peer said of it is to be left aside. In
    /// another store than before the peer has nothing of what it had: all positions begin anew. That costs a look at every
    /// group, so it is done once at a time and after a pause that grows, and nothing is delivered meanwhile.
    fn is_other_store(&mut self, store: uuid::Uuid, ctx: &mut Context<Self>) -> bool {
        if self.is_store_unsettled {
            return true;
        }
        if self.store == Some(store) {
            return false;
        }
        let setting = format!("peer_store:{}", self.peer);
        let before = self.core.store.view().setting(&setting);
        let is_other = matches!(&before, Ok(Some(before)) if before.as_ref() != store.as_bytes());
        if is_other {
            if let Err(pause) = self.store_changes.admit(Instant::now()) {
                self.unsettled_for(pause, ctx);
                return true;
            }
            tracing::warn!(peer = %self.peer, "a peer has another store than before; it is sent everything again");
            self.positions.clear();
            self.refused.clear();
            self.is_store_unsettled = true;
        } else {
            self.store = Some(store);
        }
        let mut batch = Batch::new();
        batch.put_setting(&setting, store.as_bytes());
        let (core, peer) = (Arc::clone(&self.core), self.peer.clone());
        let noting = async move {
            if is_other {
                compare_all(Arc::clone(&core), peer, Trust::Nothing).await?;
            }
            core.store.append(batch).await.map(drop).map_err(|error| StorageError::from_append(&error))
        };
        ctx.spawn(noting.into_actor(self).map(move |result, actor, ctx| {
            match result {
                Ok(()) => actor.store = Some(store),
                Err(error) => {
                    tracing::error!(peer = %actor.peer, %error, "the store of a peer could not be noted");
                    actor.store = None;
                }
            }
            if is_other {
                actor.is_store_unsettled = false;
                actor.schedule.try_again();
                actor.deliver(ctx);
            }
        }));
        is_other
    }

    /// Delivers nothing for a time, since the peer's store changes too often.
    fn unsettled_for(&mut self, pause: Duration, ctx: &mut Context<Self>) {
        tracing::warn!(peer = %self.peer, ?pause, "a peer's store changes too often; nothing is sent to it for a while");
        self.is_store_unsettled = true;
        ctx.run_later(pause, |actor, ctx| {
            actor.is_store_unsettled = false;
            actor.schedule.try_again();
            actor.deliver(ctx);
        });
    }

    /// The batch that writes where the peer is, and what is in it.
    fn positions_batch(&self) -> Option<(Batch, Vec<(Place, u64)>)> {
        if self.positions.is_empty() && self.forgotten.is_empty() {
            return None;
        }
        let written: Vec<(Place, u64)> =
            self.positions.iter().take(WAITING_MAX).map(|(place, next)| (place.clone(), *next)).collect();
        let mut batch = Batch::new();
        for ((app, group), next) in &written {
            batch.put_peer_position(&self.peer, *app, group, *next);
        }
        for (app, group) in &self.forgotten {
            batch.clear_outbox(&self.peer, *app, group);
        }
        Some((batch, written))
    }

    fn write_positions(&mut self, ctx: &mut Context<Self>) {
        if self.is_writing {
            return;
        }
        let Some((batch, written)) = self.positions_batch() else { return };
        self.forgotten.clear();
        self.is_writing = true;
        let store = self.core.store.clone();
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
                Err(error) => tracing::warn!(%error, "where a peer is was not written; it is asked again"),
            }
        }));
    }
}

/// What there is to send to a peer of a group from an entry on, the group as a whole if that is asked for.
fn prepare(
    core: &Core,
    peer: &DomainName,
    place: &Place,
    next: u64,
    is_whole: bool,
) -> Result<Prepared, StorageError> {
    let (app, group) = place;
    let view = core.store.view();
    let application = core.applications.get(app);
    let federating = application.filter(|application| application.federates_with.contains(peer));
    let (Some(application), Some(row)) = (federating, view.group(*app, group)?) else {
        return Ok(Prepared::NotForPeer);
    };
    let Some(hub) = row.hub.filter(|hub| application.is_hub(Some(hub))) else {
        return Ok(Prepared::NotForPeer);
    };
    let head = view.log_head(&LogId::Group(*app, group.clone()))?;
    if head.is_none_or(|head| next > head) {
        return Ok(Prepared::Nothing);
    }
    if is_whole {
        return Ok(Prepared::Transfer { hub, missed: read_entries(&view, place, next, MISSED_MAX)? });
    }
    let entries = read_entries(&view, place, next, ENTRIES_MAX)?;
    if entries.is_empty() {
        return Ok(Prepared::Transfer { hub, missed: Vec::new() });
    }
    let preceding = match next.checked_sub(1) {
        Some(before) => read_entries(&view, place, before, 1)?.first().map(|entry| entry.timestamp),
        None => None,
    };
    Ok(Prepared::Entries { hub, preceding, entries })
}

/// The beginning of a text of a peer, short enough for the log.
fn shortened(text: &str) -> &str {
    text.get(..text.floor_char_boundary(LOGGED_BYTES_MAX)).unwrap_or_default()
}

impl Actor for PeerActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(WRITE_PERIOD, Self::write_positions);
        ctx.run_interval(TRY_AGAIN_PERIOD, |actor, ctx| {
            actor.transferred.clear();
            let unlogged = std::mem::take(&mut actor.refusals).saturating_sub(REFUSALS_LOGGED_MAX);
            if unlogged > 0 {
                tracing::warn!(peer = %actor.peer, unlogged, "a peer refused more deliveries than are logged");
            }
            actor.schedule.try_again();
            actor.deliver(ctx);
        });
        let comparing = compare_all(Arc::clone(&self.core), self.peer.clone(), Trust::Positions);
        ctx.spawn(comparing.into_actor(self).map(|result, actor, ctx| {
            if let Err(error) = result {
                tracing::error!(peer = %actor.peer, %error, "what a peer misses could not be found out");
            }
            actor.schedule.try_again();
            actor.deliver(ctx);
        }));
        self.deliver(ctx);
    }
}

impl Handler<Wake> for PeerActor {
    type Result = ();

    fn handle(&mut self, Wake { app, group }: Wake, ctx: &mut Context<Self>) {
        self.schedule.hear((app, group));
        self.deliver(ctx);
    }
}

impl Handler<Rest> for PeerActor {
    type Result = ResponseActFuture<Self, Rested>;

    /// A peer's actor rests only when the gateway stops.
    fn handle(&mut self, _: Rest, _: &mut Context<Self>) -> Self::Result {
        self.is_paused = true;
        let batch = self.positions_batch().map(|(batch, _)| batch);
        let store = self.core.store.clone();
        let writing = async move {
            match batch {
                Some(batch) => store.append(batch).await.map(drop),
                None => Ok(()),
            }
        };
        Box::pin(writing.into_actor(self).map(|result, _, ctx| {
            if let Err(error) = result {
                tracing::warn!(%error, "where a peer is was not written; it is asked again");
            }
            ctx.stop();
            Rested::Asleep
        }))
    }
}
