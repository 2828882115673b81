//! The hub of events: the newest events of each application in memory, and everybody who waits for new ones.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use snapshots::{AppId, ClientHandle, Event, EventRow, GroupId, ToldBefore, View};
use tokio::sync::watch;

use super::{PAGE, SharedEvent, group_of, id::StreamPlace, sequence_of};

/// The rows of an application that are kept in memory while somebody reads its stream.
const ROWS_KEPT: usize = 1024;
/// The bytes of these rows.
const BYTES_KEPT: usize = 4 << 20;
/// The events of a group that are kept in memory while somebody reads its stream.
const GROUP_EVENTS_KEPT: usize = 64;
/// The newest events of a stream whose texts are kept.
const TEXTS_KEPT: usize = 8;

/// The hub.
pub(crate) struct EventHub {
    channels: HashMap<AppId, Arc<Channel>>,
    is_closing: watch::Sender<bool>,
}

/// What one application has in memory.
pub(super) struct Channel {
    state: Mutex<State>,
    head: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    /// Streams of the whole application.
    readers: usize,
    recent: VecDeque<RecentRow>,
    recent_bytes: usize,
    groups: HashMap<GroupId, GroupTopic>,
    handles: HashMap<ClientHandle, HandleTopic>,
}

#[derive(Clone)]
struct RecentRow {
    position: u64,
    bytes: usize,
    events: Arc<[Arc<SharedEvent>]>,
}

struct GroupTopic {
    readers: usize,
    recent: RecentOfGroup,
    /// All events after this place are in `recent`; `None` until a reader has found where the group stands.
    recent_from: Option<StreamPlace>,
    state: watch::Sender<GroupHead>,
}

/// Events of a group in memory, each with the place after it, in order.
pub(super) type RecentOfGroup = VecDeque<(StreamPlace, Arc<SharedEvent>)>;

/// The newest event of a group that was passed on here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct GroupHead {
    /// Its number in the group's log; 0 before the first.
    pub(super) sequence: u64,
    /// How often the group's state was replaced.
    pub(super) replaced: u64,
    /// The place of the newest event that is no entry of the log.
    pub(super) reported: Option<ToldBefore>,
    /// Whether the group was deleted.
    pub(super) is_deleted: bool,
}

struct HandleTopic {
    readers: usize,
    welcomes: watch::Sender<u64>,
}

/// Events in memory after a place, each with the place after it.
pub(super) type Recent = Vec<(StreamPlace, Arc<SharedEvent>)>;

impl EventHub {
    /// A hub for these applications.
    pub(crate) fn new(apps: impl Iterator<Item = AppId>) -> Self {
        let channel = |app| (app, Arc::new(Channel { state: Mutex::default(), head: watch::Sender::new(0) }));
        Self { channels: apps.map(channel).collect(), is_closing: watch::Sender::new(false) }
    }

    /// Learns the newest events that are in the store. What is written later is passed on already.
    pub(crate) fn look(&self, view: &View) {
        for (app, channel) in &self.channels {
            match view.event_head(*app) {
                Ok(stored) => channel.head.send_modify(|head| *head = stored.max(*head)),
                Err(error) => tracing::error!(%error, "the position of the newest event cannot be read"),
            }
        }
    }

    /// Passes a row of events on to those who wait.
    pub(crate) fn pass_on(&self, app: AppId, position: u64, row: &[u8]) {
        if let Some(channel) = self.channels.get(&app) {
            channel.pass_on(position, row);
        }
    }

    /// Ends every stream and every wait.
    pub(crate) fn close(&self) {
        self.is_closing.send_replace(true);
    }

    /// Whether the hub is closing.
    pub(crate) fn is_closing(&self) -> bool {
        *self.is_closing.borrow()
    }

    /// Waits until the hub closes.
    pub(crate) async fn closed(&self) {
        // The sender is in `self`, so this ends only with the hub.
        let _ = self.is_closing.subscribe().wait_for(|closing| *closing).await;
    }

    /// Whether the hub is closing, as it changes.
    pub(super) fn closing(&self) -> watch::Receiver<bool> {
        self.is_closing.subscribe()
    }

    pub(super) fn channel(&self, app: AppId) -> Option<&Arc<Channel>> {
        self.channels.get(&app)
    }

    /// Waits for a welcome of a handle, or until the hub closes; answers whether one came. The wait begins with the call, not with the first poll.
    pub(crate) fn welcome_of(&self, app: AppId, handle: &ClientHandle) -> impl Future<Output = bool> + use<> {
        let waiting = self.channels.get(&app).map(|channel| WelcomeWait::new(channel, handle));
        let mut closing = self.is_closing.subscribe();
        async move {
            let Some(mut waiting) = waiting else { return false };
            tokio::select! {
                changed = waiting.welcomes.changed() => changed.is_ok(),
                _ = closing.wait_for(|closing| *closing) => false,
            }
        }
    }
}

/// A wait for the welcomes of one handle.
struct WelcomeWait {
    channel: Arc<Channel>,
    handle: ClientHandle,
    welcomes: watch::Receiver<u64>,
}

impl WelcomeWait {
    fn new(channel: &Arc<Channel>, handle: &ClientHandle) -> Self {
        let mut state = channel.lock();
        let topic = state
            .handles
            .entry(handle.clone())
            .or_insert_with(|| HandleTopic { readers: 0, welcomes: watch::Sender::new(0) });
        topic.readers += 1;
        let welcomes = topic.welcomes.subscribe();
        drop(state);
        Self { channel: Arc::clone(channel), handle: handle.clone(), welcomes }
    }
}

impl Drop for WelcomeWait {
    fn drop(&mut self) {
        leave(&mut self.channel.lock().handles, &self.handle, |topic| &mut topic.readers);
    }
}

/// Takes a reader away from a topic, and the topic with the last one.
fn leave<K: Eq + Hash, T>(topics: &mut HashMap<K, T>, key: &K, readers: impl Fn(&mut T) -> &mut usize) {
    if let Some(topic) = topics.get_mut(key) {
        let readers = readers(topic);
        *readers = readers.saturating_sub(1);
        if *readers == 0 {
            topics.remove(key);
        }
    }
}

impl Channel {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pass_on(&self, position: u64, row: &[u8]) {
        let mut state = self.lock();
        if state.readers > 0 || !state.groups.is_empty() || !state.handles.is_empty() {
            match EventRow::decode(row) {
                Ok(EventRow { events, .. }) => state.pass_on(position, row.len(), events),
                // Its readers find the damaged row in the store.
                Err(error) => tracing::error!(%error, "an event cannot be read"),
            }
        }
        self.head.send_replace(position);
    }

    /// Adds a stream of the whole application; answers the position of the newest row, as it changes.
    pub(super) fn enter(&self) -> watch::Receiver<u64> {
        let mut state = self.lock();
        state.readers += 1;
        self.head.subscribe()
    }

    /// Takes a stream of the whole application away.
    pub(super) fn leave(&self) {
        let mut state = self.lock();
        state.readers = state.readers.saturating_sub(1);
        if state.readers == 0 {
            state.recent.clear();
            state.recent_bytes = 0;
        }
    }

    /// The events in memory after a place; empty if the next one is not in memory.
    pub(super) fn recent_after(&self, place: StreamPlace) -> Recent {
        let (next, skipped) = place.next();
        let state = self.lock();
        let rows = state.recent.partition_point(|row| row.position < next);
        let mut found = Recent::new();
        for (expected, row) in (next..).zip(state.recent.iter().skip(rows)) {
            if row.position != expected || found.len() >= PAGE {
                break;
            }
            let skipped = if row.position == next { skipped } else { 0 };
            for (index, event) in row.events.iter().enumerate().skip(skipped) {
                let place = StreamPlace::after_event(row.position, index, row.events.len());
                found.push((place, Arc::clone(event)));
            }
        }
        found
    }

    /// Adds a stream of a group; answers its newest event, as it changes.
    pub(super) fn enter_group(&self, group: &GroupId) -> watch::Receiver<GroupHead> {
        let mut state = self.lock();
        let topic = state.groups.entry(group.clone()).or_insert_with(|| GroupTopic {
            readers: 0,
            recent: RecentOfGroup::new(),
            recent_from: None,
            state: watch::Sender::default(),
        });
        topic.readers += 1;
        topic.state.subscribe()
    }

    /// Takes a stream of a group away.
    pub(super) fn leave_group(&self, group: &GroupId) {
        leave(&mut self.lock().groups, group, |topic| &mut topic.readers);
    }

    /// Notes where a group stood after a reader had entered: what comes later is passed on here.
    pub(super) fn group_stands_at(&self, group: &GroupId, place: StreamPlace) {
        if let Some(topic) = self.lock().groups.get_mut(group) {
            topic.recent_from.get_or_insert(place);
        }
    }

    /// The events of a group in memory after a place; none if others may come before them.
    pub(super) fn group_recent_after(&self, group: &GroupId, place: StreamPlace) -> RecentOfGroup {
        let state = self.lock();
        let topic = state.groups.get(group);
        let Some(topic) = topic.filter(|topic| topic.recent_from.is_some_and(|from| from <= place)) else {
            return RecentOfGroup::new();
        };
        let known = topic.recent.partition_point(|(found, _)| *found <= place);
        topic.recent.iter().skip(known).take(PAGE).cloned().collect()
    }
}

impl State {
    fn pass_on(&mut self, position: u64, bytes: usize, events: Vec<Event>) {
        let events: Arc<[Arc<SharedEvent>]> = events.into_iter().map(SharedEvent::new).collect();
        for event in events.iter() {
            if let Some(topic) = group_of(&event.event).and_then(|group| self.groups.get_mut(group)) {
                topic.pass_on(event);
            }
            if let Event::Welcome { handle, .. } = &event.event
                && let Some(topic) = self.handles.get(handle)
            {
                topic.welcomes.send_modify(|count| *count = count.wrapping_add(1));
            }
        }
        if self.readers == 0 {
            return;
        }
        self.recent.push_back(RecentRow { position, bytes, events });
        self.recent_bytes = self.recent_bytes.saturating_add(bytes);
        if let Some(row) = self.recent.iter().rev().nth(TEXTS_KEPT) {
            row.events.iter().for_each(|event| event.forget_texts());
        }
        while self.recent.len() > ROWS_KEPT || self.recent_bytes > BYTES_KEPT {
            let Some(oldest) = self.recent.pop_front() else { break };
            self.recent_bytes = self.recent_bytes.saturating_sub(oldest.bytes);
        }
    }
}

impl GroupTopic {
    fn pass_on(&mut self, event: &Arc<SharedEvent>) {
        match (&event.event, sequence_of(&event.event)) {
            (Event::GroupReplaced { sequence, .. }, _) => self.begin_anew(*sequence),
            (Event::EpochReported { before, .. }, _) => {
                self.keep(StreamPlace::before_entry(*before), event);
                self.state.send_modify(|head| head.reported = head.reported.max(Some(*before)));
            }
            (Event::GroupDeleted { .. }, _) => self.state.send_modify(|head| head.is_deleted = true),
            // Of another group with the id of one that was deleted, which somebody still reads.
            (Event::GroupCreated { .. }, _) => {
                if self.state.borrow().is_deleted {
                    self.begin_anew(0);
                }
            }
            (_, Some(sequence)) => {
                self.keep(StreamPlace::after(sequence), event);
                self.state.send_modify(|head| head.sequence = sequence);
            }
            (_, None) => {}
        }
    }

    fn keep(&mut self, place: StreamPlace, event: &Arc<SharedEvent>) {
        self.recent.push_back((place, Arc::clone(event)));
        if let Some((_, event)) = self.recent.iter().rev().nth(TEXTS_KEPT) {
            event.forget_texts();
        }
        if self.recent.len() > GROUP_EVENTS_KEPT
            && let Some((place, _)) = self.recent.pop_front()
        {
            self.recent_from = self.recent_from.max(Some(place));
        }
    }

    /// Begins with another state of the group: what comes after this number of its log is passed on here.
    fn begin_anew(&mut self, sequence: u64) {
        self.recent.clear();
        self.recent_from = Some(StreamPlace::after(sequence));
        self.state.send_modify(|head| {
            let replaced = head.replaced.wrapping_add(1);
            *head = GroupHead { sequence, replaced, ..GroupHead::default() };
        });
    }
}
