//! The stream of the events of one group.

use std::{collections::VecDeque, sync::Arc};

use snapshots::{AppId, Event, GroupId, Store, ToldBefore};
use tokio::sync::watch;
use uuid::Uuid;

use super::{
    EventHub, PAGE, ResetReason, SharedEvent, StreamContent, StreamItem,
    hub::{Channel, GroupHead},
    id::{EventId, StreamPlace, StreamTag},
};
use crate::{
    error::StorageError,
    group::{LoggedEvents, logged_events},
    mls::CipherSuite,
};

/// The entries of the log by which a stream that has caught up may fall behind again. A reader that is slower is
/// disconnected, and resumes.
const LAG_MAX: u64 = 1024;

/// A place among those who wait for the events of a group. It is taken before the group's state is read, so that no event
/// between the two is missed.
pub(crate) struct GroupWait {
    channel: Arc<Channel>,
    group: GroupId,
    head: watch::Receiver<GroupHead>,
}

/// The group of a stream, as its log stands when the stream begins.
pub(crate) struct StreamedGroup {
    pub(crate) store_id: Uuid,
    pub(crate) app: AppId,
    pub(crate) suite: CipherSuite,
    /// The digest of the group's creation.
    pub(crate) creation: [u8; 32],
    /// The number of the newest entry that readers see.
    pub(crate) sequence: u64,
}

/// A stream of the events of a group.
pub struct GroupStream {
    store: Store,
    wait: GroupWait,
    app: AppId,
    suite: CipherSuite,
    tag: StreamTag,
    closing: watch::Receiver<bool>,
    /// The newest entry when the stream began.
    begun_at: u64,
    /// The newest event that is no entry of the log, when the stream began.
    reported: Option<ToldBefore>,
    replaced: u64,
    /// The place after the newest event that was read. An event that is no entry of the log has its place before the next entry.
    place: StreamPlace,
    next: VecDeque<(StreamPlace, Arc<SharedEvent>)>,
    /// The reason of a reset that the reader has not seen.
    reset: Option<ResetReason>,
    has_caught_up: bool,
    /// Whether the reader was told that the group is deleted.
    is_ended: bool,
}

impl GroupWait {
    /// A place among those who wait. `None` if there is no such application.
    pub(crate) fn new(hub: &EventHub, app: AppId, group: &GroupId) -> Option<Self> {
        let channel = Arc::clone(hub.channel(app)?);
        let head = channel.enter_group(group);
        Some(Self { channel, group: group.clone(), head })
    }
}

impl Drop for GroupWait {
    fn drop(&mut self) {
        self.channel.leave_group(&self.group);
    }
}

impl GroupStream {
    /// The stream after an event, or from now on.
    pub(crate) fn new(
        hub: &EventHub,
        store: &Store,
        mut wait: GroupWait,
        streamed: &StreamedGroup,
        after: Option<EventId>,
    ) -> Self {
        let StreamedGroup { store_id, app, suite, creation, sequence } = *streamed;
        let head = *wait.head.borrow_and_update();
        let newest = sequence.max(head.sequence);
        let tag = StreamTag::of_group(store_id, app, &wait.group, &creation);
        let reported = store.view().newest_told_report(app, &wait.group).ok().flatten().max(head.reported);
        let now = newest_place(newest, reported);
        let known = after.filter(|id| id.stream == tag && id.place <= now);
        Self {
            store: store.clone(),
            wait,
            app,
            suite,
            tag,
            closing: hub.closing(),
            begun_at: newest,
            reported,
            replaced: head.replaced,
            place: known.map_or(now, |id| id.place),
            next: VecDeque::new(),
            reset: (after.is_some() && known.is_none()).then_some(ResetReason::Unknown),
            has_caught_up: false,
            is_ended: false,
        }
    }

    /// The id after which the next item comes.
    pub fn id(&self) -> EventId {
        EventId { stream: self.tag, place: self.place }
    }

    /// The next item, once there is one; `None` at the end, when the gateway stops the group is deleted, or the reader has fallen behind. A reset follows
    /// when the group's state was replaced.
    ///
    /// # Errors
    /// That the store cannot be read.
    pub async fn next(&mut self) -> Result<Option<StreamItem>, StorageError> {
        loop {
            if let Some(reason) = self.reset.take() {
                return Ok(Some(StreamItem { id: self.id(), content: StreamContent::Reset(reason) }));
            }
            if let Some((place, event)) = self.next.pop_front() {
                self.place = place;
                return Ok(Some(StreamItem { id: self.id(), content: StreamContent::Event(event) }));
            }
            let head = *self.wait.head.borrow_and_update();
            if head.replaced != self.replaced {
                self.replaced = head.replaced;
                self.begun_at = head.sequence;
                self.place = StreamPlace::after(head.sequence);
                self.reset = Some(ResetReason::Replaced);
                continue;
            }
            let newest = self.begun_at.max(head.sequence);
            if self.is_ended {
                return Ok(None);
            }
            let end = newest_place(newest, head.reported.max(self.reported));
            if head.is_deleted {
                self.next = self.recent(head);
                if !self.next.is_empty() {
                    continue;
                }
                if self.place < end {
                    // Its log is erased.
                    self.reset = Some(ResetReason::NotKept);
                    self.place = end;
                    continue;
                }
                self.is_ended = true;
                let event = SharedEvent::new(Event::GroupDeleted { group: self.wait.group.clone() });
                self.next.push_back((StreamPlace::after(newest.saturating_add(1)), event));
                continue;
            }
            if self.place >= end {
                self.has_caught_up = true;
                tokio::select! {
                    // What was told before the end comes first.
                    biased;
                    changed = self.wait.head.changed() => if changed.is_err() { return Ok(None) },
                    _ = self.closing.wait_for(|closing| *closing) => return Ok(None),
                }
                continue;
            }
            if self.has_caught_up && newest.saturating_sub(self.place.position) > LAG_MAX {
                return Ok(None);
            }
            self.next = self.recent(head);
            if self.next.is_empty() {
                // What is in memory is still told when the gateway stops.
                if *self.closing.borrow() {
                    return Ok(None);
                }
                self.read_stored(newest, end)?;
            }
        }
    }

    /// The next events in memory, where only entries of the log are; none if others may come before them.
    fn recent(&self, head: GroupHead) -> VecDeque<(StreamPlace, Arc<SharedEvent>)> {
        let is_past = head.reported.max(self.reported).is_none_or(|told| self.place >= place_of(told));
        if !is_past {
            return VecDeque::new();
        }
        let (next, _) = self.place.next();
        let recent = self.wait.channel.group_recent_after(&self.wait.group, next.saturating_sub(1));
        recent.into_iter().map(|(sequence, event)| (StreamPlace::after(sequence), event)).collect()
    }

    /// Reads the next events from the store, up to the newest that readers see.
    fn read_stored(&mut self, newest: u64, end: StreamPlace) -> Result<(), StorageError> {
        let view = self.store.view();
        let (next, skipped) = self.place.next();
        let skipped = u16::try_from(skipped).unwrap_or(u16::MAX);
        let reports =
            view.told_reports(self.app, &self.wait.group, ToldBefore { entry: next, index: skipped }, PAGE)?;
        let mut events: Vec<_> =
            reports.into_iter().map(|(told, event)| (place_of(told), SharedEvent::new(event))).collect();
        if next <= newest {
            let log = (self.app, &self.wait.group, self.suite);
            match logged_events(&view, log, (next.saturating_sub(1), newest), PAGE)? {
                LoggedEvents::Kept(entries) => {
                    // A report after the last entry of the page waits for the next page.
                    let last = entries.last().map_or(next, |(sequence, _)| *sequence);
                    events.retain(|(place, _)| place.position <= last.saturating_add(1));
                    events.extend(
                        entries
                            .into_iter()
                            .map(|(sequence, event)| (StreamPlace::after(sequence), SharedEvent::new(event))),
                    );
                }
                LoggedEvents::NotKept => {
                    self.reset = Some(ResetReason::NotKept);
                    self.place = end;
                    return Ok(());
                }
            }
        }
        events.retain(|(place, _)| *place <= end);
        events.sort_by_key(|(place, _)| *place);
        if events.is_empty() {
            // What was reported is no longer kept.
            self.place = end;
        }
        self.next = events.into();
        Ok(())
    }
}

/// The place after an event that is no entry of the log.
fn place_of(ToldBefore { entry, index }: ToldBefore) -> StreamPlace {
    StreamPlace { position: entry, index }
}

/// The place after the newest event.
fn newest_place(sequence: u64, reported: Option<ToldBefore>) -> StreamPlace {
    let of_log = StreamPlace::after(sequence);
    reported.map_or(of_log, |told| place_of(told).max(of_log))
}
