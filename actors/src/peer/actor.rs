//! The actor of one peer: it sends the peer what the logs of our groups have for it. Where the peer is in each log is all
//! that it keeps; what waits is in the store, by marks.

use std::{
    collections::{HashMap, HashSet},
    hash::BuildHasher as _,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use actix::{
    Actor, ActorContext as _, ActorFutureExt as _, AsyncContext as _, Context, Handler, Message,
    ResponseActFuture, WrapFuture as _,
};
use snapshots::{AppId, Batch, DomainName, GroupId, LogId, View};

use super::{
    Delivery, DeliveryContent, DeliveryError, GroupTransfer, Held, LogEntry, Transport, entry_from_bytes,
    schedule::{Ending, Place, Schedule},
};
use crate::{
    core::Core,
    gateway::shown_view,
    router::{Rest, Rested},
    storage::StorageError,
};

/// Deliveries to one peer that are under way at once, each of another group.
const UNDER_WAY_MAX: usize = 64;
/// Groups that wait in memory for their turn; the others wait by their marks.
const WAITING_MAX: usize = 1024;
/// Marks read at once.
const MARKS_AT_ONCE: usize = 256;
/// Entries in one delivery.
const ENTRIES_MAX: usize = 64;
/// Bytes of entries in one delivery, when it has more than one.
const ENTRIES_BYTES_MAX: usize = 1 << 20;
/// How often it is written where the peer is.
const WRITE_PERIOD: Duration = Duration::from_millis(100);
/// How often what the peer refused is tried again, and the marks are looked at in any case.
const TRY_AGAIN_PERIOD: Duration = Duration::from_secs(30);
/// The pause after a first failure; it doubles with each further one.
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Groups whose marks are compared with the peer's positions at once, at the start.
const COMPARED_AT_ONCE: usize = 512;

/// A group's log has something for the peer. May be lost: the mark is in the store.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Wake {
    pub(crate) app: AppId,
    pub(crate) group: GroupId,
}

/// How it goes with a peer, for whoever operates the gateway.
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
    /// Groups that the peer needs as a whole.
    transfers: HashSet<Place>,
    is_writing: bool,
    /// Failures since the last success.
    failures: u32,
    is_paused: bool,
}

/// What there is to send.
enum Prepared {
    Nothing,
    Entries(Vec<LogEntry>),
    /// The entries that the peer needs are not kept any more, or are of no use to it.
    Transfer,
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
            is_writing: false,
            failures: 0,
            is_paused: false,
        }
    }

    /// Starts as many deliveries as may be under way; after a failure one at a time, until one succeeds.
    fn deliver(&mut self, ctx: &mut Context<Self>) {
        let at_once = if self.failures > 0 { 1 } else { UNDER_WAY_MAX };
        while !self.is_paused && !self.core.is_stopping() {
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
        let marks = self.core.store.view().outbox(&self.peer, self.marks_after.as_ref(), MARKS_AT_ONCE)?;
        let is_end = marks.len() < MARKS_AT_ONCE;
        self.marks_after = if is_end { None } else { marks.last().cloned() };
        self.schedule.marks(marks, is_end);
        Ok(())
    }

    fn begin(&mut self, place: Place, ctx: &mut Context<Self>) {
        let view = self.core.store.view();
        let prepared = self.next(&view, &place).and_then(|next| {
            let row = view.group(place.0, &place.1)?;
            Ok((next, row.and_then(|row| row.hub), self.prepare(&view, &place, next)?))
        });
        let (next, hub, prepared) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => return self.unreadable(place, &error),
        };
        let (core, transport, peer) =
            (Arc::clone(&self.core), Arc::clone(&self.transport), self.peer.clone());
        let (app, group) = place.clone();
        let content = async move {
            match prepared {
                Prepared::Nothing => Ok(None),
                Prepared::Entries(entries) => Ok(Some(DeliveryContent::Entries(entries))),
                Prepared::Transfer => {
                    let transfer = transfer(&core, app, &group).await?;
                    Ok(Some(DeliveryContent::Transfer(Box::new(transfer))))
                }
            }
        };
        let (app, group) = place.clone();
        let sending = async move {
            let (Some(content), Some(hub)) = (content.await?, hub) else { return Ok(None) };
            let delivery = Delivery { app, group, hub, content };
            transport.deliver(&peer, delivery).await.map(Some)
        };
        ctx.spawn(sending.into_actor(self).map(move |result, actor, ctx| {
            actor.delivered(place, next, result, ctx);
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

    fn prepare(&self, view: &View, place: &Place, next: u64) -> Result<Prepared, StorageError> {
        let (app, group) = place;
        let Some(head) = view.log_head(&LogId::Group(*app, group.clone()))? else {
            return Ok(Prepared::Nothing);
        };
        if next > head {
            return Ok(Prepared::Nothing);
        }
        if self.transfers.contains(place) {
            return Ok(Prepared::Transfer);
        }
        let kept = view.log_entries(*app, group, next, ENTRIES_MAX, ENTRIES_BYTES_MAX)?;
        let entries: Vec<LogEntry> =
            kept.iter().map(|(_, bytes)| entry_from_bytes(bytes)).collect::<Result<_, _>>().map_err(
                |error| {
                    tracing::error!(%error, "a log entry cannot be read");
                    StorageError::Unreadable
                },
            )?;
        Ok(if entries.is_empty() { Prepared::Transfer } else { Prepared::Entries(entries) })
    }

    fn unreadable(&mut self, place: Place, error: &StorageError) {
        tracing::error!(peer = %self.peer, %error, "what a peer needs could not be read");
        self.schedule.end(place, Ending::Refused);
    }

    fn delivered(
        &mut self,
        place: Place,
        from: u64,
        result: Result<Option<Held>, DeliveryError>,
        ctx: &mut Context<Self>,
    ) {
        match result {
            Ok(None) => {
                // The mark is of something that the peer has: writing where it is takes the mark away.
                self.positions.entry(place.clone()).or_insert(from);
                self.schedule.end(place, Ending::Done);
            }
            Ok(Some(held)) => {
                self.reached();
                let ending = self.progress(&place, from, held);
                self.schedule.end(place, ending);
            }
            Err(DeliveryError::Refused { slug, detail }) => {
                self.reached();
                tracing::warn!(peer = %self.peer, group = ?place.1, from, slug, detail, "a peer refused a delivery");
                self.schedule.end(place, Ending::Refused);
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

    /// What the peer's answer means for what to send next.
    fn progress(&mut self, place: &Place, from: u64, held: Held) -> Ending {
        let (app, group) = place;
        let head = self.core.store.view().log_head(&LogId::Group(*app, group.clone()));
        let Ok(Some(head)) = head else { return Ending::Refused };
        if held.next > head.saturating_add(1) {
            tracing::error!(
                peer = %self.peer, ?group, held = held.next, head,
                "a peer holds entries that this hub does not have"
            );
            return Ending::Refused;
        }
        self.positions.insert(place.clone(), held.next);
        if held.needs_transfer {
            // Once it was sent as a whole, it is not needed as a whole again until the peer says so.
            return if self.transfers.insert(place.clone()) { Ending::More } else { Ending::Refused };
        }
        self.transfers.remove(place);
        if held.next <= from {
            tracing::warn!(
                peer = %self.peer, ?group, from, next = held.next,
                "a peer went back in a log, or did not go on"
            );
            return Ending::Refused;
        }
        if held.next > head { Ending::Done } else { Ending::More }
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
        if self.failures == 0 {
            // Whoever carries the deliveries tells the operator.
            tracing::debug!(peer = %self.peer, reason, "a peer cannot be reached; what it misses is kept");
            self.health.is_reachable.store(false, Ordering::Relaxed);
        }
        self.failures = self.failures.saturating_add(1);
        if self.is_paused {
            return;
        }
        self.is_paused = true;
        let longest = PAUSE_MIN.saturating_mul(1 << self.failures.min(10)).min(PAUSE_MAX);
        let jitter = self.core.hasher.hash_one((&self.peer, self.core.clock.now(), self.failures)) % 512;
        let pause = longest / 2 + longest.mul_f64(f64::from(u16::try_from(jitter).unwrap_or(0)) / 1024.0);
        ctx.run_later(pause, |actor, ctx| {
            actor.is_paused = false;
            actor.deliver(ctx);
        });
    }

    /// The batch that writes where the peer is, and what is in it.
    fn positions_batch(&self) -> Option<(Batch, Vec<(Place, u64)>)> {
        if self.positions.is_empty() {
            return None;
        }
        let written: Vec<(Place, u64)> =
            self.positions.iter().take(WAITING_MAX).map(|(place, next)| (place.clone(), *next)).collect();
        let mut batch = Batch::new();
        for ((app, group), next) in &written {
            batch.put_peer_position(&self.peer, *app, group, *next);
        }
        Some((batch, written))
    }

    fn write_positions(&mut self, ctx: &mut Context<Self>) {
        if self.is_writing {
            return;
        }
        let Some((batch, written)) = self.positions_batch() else { return };
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

/// A group as it stands, with the group info of its epoch.
async fn transfer(core: &Arc<Core>, app: AppId, group: &GroupId) -> Result<GroupTransfer, DeliveryError> {
    let refused = |detail: String| DeliveryError::Refused { slug: "no-transfer".to_owned(), detail };
    let application =
        core.applications.get(&app).ok_or_else(|| refused("there is no such application".to_owned()))?;
    let view = shown_view(core, application, group).await.map_err(|error| refused(error.to_string()))?;
    let Some(group_info) = &view.group_info else {
        return Err(refused(
            "the entries that the peer needs are no longer kept, and the last committer gave no group info"
                .into(),
        ));
    };
    Ok(GroupTransfer {
        sequence: view.sequence,
        timestamp: view.stamp,
        group_info: group_info.to_vec(),
        ratchet_tree: view.ratchet_tree().to_vec(),
        proposals: view.proposals.iter().map(|packet| packet.to_vec()).collect(),
    })
}

/// Marks every group of ours of which the peer misses something: the peer may be new, or have been left out for a time.
fn compare(
    core: &Core,
    peer: &DomainName,
    app: AppId,
    after: Option<&GroupId>,
) -> Result<Compared, StorageError> {
    let Some(application) = core.applications.get(&app) else { return Ok(Compared::default()) };
    let view = core.store.view();
    let groups = view.groups(app, after.cloned(), COMPARED_AT_ONCE)?;
    let mut compared = Compared { batch: Batch::new(), last: None };
    if groups.len() == COMPARED_AT_ONCE {
        compared.last = groups.last().map(|(group, _)| group.clone());
    }
    for (group, row) in groups {
        if !application.is_hub(row.hub.as_ref()) {
            continue;
        }
        let head = view.log_head(&LogId::Group(app, group.clone()))?;
        let next = view.peer_position(peer, app, &group)?.unwrap_or(0);
        if head.is_some_and(|head| next <= head) {
            compared.batch.mark_outbox(peer, app, &group);
        }
    }
    Ok(compared)
}

#[derive(Default)]
struct Compared {
    batch: Batch,
    /// Where to go on, if there is more.
    last: Option<GroupId>,
}

async fn compare_all(core: Arc<Core>, peer: DomainName) -> Result<(), StorageError> {
    let federating: Vec<AppId> = core
        .applications
        .values()
        .filter(|application| application.federates_with.contains(&peer))
        .map(|application| application.id)
        .collect();
    for app in federating {
        let mut after = None;
        loop {
            let (core_there, peer_there) = (Arc::clone(&core), peer.clone());
            let comparing = move || compare(&core_there, &peer_there, app, after.as_ref());
            let compared =
                tokio::task::spawn_blocking(comparing).await.map_err(|_| StorageError::Unreadable)??;
            if !compared.batch.is_empty() {
                core.store.append(compared.batch).await.map_err(|error| StorageError::from_append(&error))?;
            }
            match compared.last {
                Some(last) => after = Some(last),
                None => break,
            }
        }
    }
    Ok(())
}

impl Actor for PeerActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(WRITE_PERIOD, Self::write_positions);
        ctx.run_interval(TRY_AGAIN_PERIOD, |actor, ctx| {
            actor.schedule.try_again();
            actor.deliver(ctx);
        });
        let comparing = compare_all(Arc::clone(&self.core), self.peer.clone());
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
