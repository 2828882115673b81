//! The stream of the events of one group.

use std::{collections::VecDeque, sync::Arc};

use snapshots::{AppId, Event, GroupId, Store};
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
    replaced: u64,
    /// The number in the log of the newest event that was read.
    sequence: u64,
    next: VecDeque<(u64, Arc<SharedEvent>)>,
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
        let known = after.filter(|id| id.stream == tag && id.place <= StreamPlace::after(newest));
        Self {
            store: store.clone(),
            wait,
            app,
            suite,
            tag,
            closing: hub.closing(),
            begun_at: newest,
            replaced: head.replaced,
            sequence: known.map_or(newest, |id| id.place.position),
            next: VecDeque::new(),
            reset: (after.is_some() && known.is_none()).then_some(ResetReason::Unknown),
            has_caught_up: false,
            is_ended: false,
        }
    }

    /// The id after which the next item comes.
    pub fn id(&self) -> EventId {
        EventId { stream: self.tag, place: StreamPlace::after(self.sequence) }
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
            if let Some((sequence, event)) = self.next.pop_front() {
                self.sequence = sequence;
                return Ok(Some(StreamItem { id: self.id(), content: StreamContent::Event(event) }));
            }
            let head = *self.wait.head.borrow_and_update();
            if head.replaced != self.replaced {
                self.replaced = head.replaced;
                self.begun_at = head.sequence;
                self.sequence = head.sequence;
                self.reset = Some(ResetReason::Replaced);
                continue;
            }
            let newest = self.begun_at.max(head.sequence);
            if self.is_ended {
                return Ok(None);
            }
            if head.is_deleted {
                self.next = self.wait.channel.group_recent_after(&self.wait.group, self.sequence).into();
                if !self.next.is_empty() {
                    continue;
                }
                if self.sequence < newest {
                    // Its log is erased.
                    self.reset = Some(ResetReason::NotKept);
                    self.sequence = newest;
                    continue;
                }
                self.is_ended = true;
                let end = newest.saturating_add(1);
                self.next.push_back((
                    end,
                    SharedEvent::new(Event::GroupDeleted { group: self.wait.group.clone() }),
                ));
                continue;
            }
            if self.sequence >= newest {
                self.has_caught_up = true;
                tokio::select! {
                    // What was told before the end comes first.
                    biased;
                    changed = self.wait.head.changed() => if changed.is_err() { return Ok(None) },
                    _ = self.closing.wait_for(|closing| *closing) => return Ok(None),
                }
                continue;
            }
            if self.has_caught_up && newest.saturating_sub(self.sequence) > LAG_MAX {
                return Ok(None);
            }
            self.next = self.wait.channel.group_recent_after(&self.wait.group, self.sequence).into();
            if self.next.is_empty() {
                // What is in memory is still told when the gateway stops.
                if *self.closing.borrow() {
                    return Ok(None);
                }
                self.read_stored(newest)?;
            }
        }
    }

    /// Reads the next events from the group's log, up to the newest that readers see.
    fn read_stored(&mut self, newest: u64) -> Result<(), StorageError> {
        let after = self.sequence;
        let log = (self.app, &self.wait.group, self.suite);
        match logged_events(&self.store.view(), log, (after, newest), PAGE)? {
            LoggedEvents::Kept(events) => {
                self.next =
                    events.into_iter().map(|(sequence, event)| (sequence, SharedEvent::new(event))).collect();
            }
            LoggedEvents::NotKept => {
                self.reset = Some(ResetReason::NotKept);
                self.sequence = newest;
            }
        }
        Ok(())
    }
}
