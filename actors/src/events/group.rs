//! The stream of the events of one group.

use std::sync::Arc;

use snapshots::{AppId, Event, GroupId, Store, ToldBefore};
use tokio::sync::watch;
use uuid::Uuid;

use super::{
    EventHub, PAGE, ResetReason, SharedEvent, StreamContent, StreamItem,
    hub::{Channel, GroupHead, RecentOfGroup},
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
    next: RecentOfGroup,
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
        wait.channel.group_stands_at(&wait.group, now);
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
            next: RecentOfGroup::new(),
            reset: (after.is_some() && known.is_none()).then_some(ResetReason::Unknown),
            has_caught_up: false,
            is_ended: false,
        }
    }

    /// The id after which the next item comes.
    pub fn id(&self) -> EventId {
        EventId { stream: self.tag, place: self.place }
    }

    /// The next item, once there is one; `None` at the end: the gateway stops, the group is deleted, or the reader has fallen behind.
    /// A reset follows when the group's state was replaced.
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
                self.next = self.recent();
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
            self.next = self.recent();
            if self.next.is_empty() {
                // What is in memory is still told when the gateway stops.
                if *self.closing.borrow() {
                    return Ok(None);
                }
                self.read_stored(newest, end)?;
            }
        }
    }

    /// The next events in memory; none if others may come before them.
    fn recent(&self) -> RecentOfGroup {
        self.wait.channel.group_recent_after(&self.wait.group, self.place)
    }

    /// Reads the next events from the store, up to the newest that readers see.
    fn read_stored(&mut self, newest: u64, end: StreamPlace) -> Result<(), StorageError> {
        let view = self.store.view();
        let (next, skipped) = self.place.next();
        let skipped = u16::try_from(skipped).unwrap_or(u16::MAX);
        let reports =
            view.told_reports(self.app, &self.wait.group, ToldBefore { entry: next, index: skipped }, PAGE)?;
        // What follows the last report of a full page comes after those of the next page.
        let last_report = reports
            .last()
            .filter(|_| reports.len() == PAGE)
            .map(|(told, _)| StreamPlace::before_entry(*told));
        let mut events: Vec<_> = reports
            .into_iter()
            .map(|(told, event)| (StreamPlace::before_entry(told), SharedEvent::new(event)))
            .collect();
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
        let last = last_report.map_or(end, |last_report| last_report.min(end));
        events.retain(|(place, _)| *place <= last);
        events.sort_by_key(|(place, _)| *place);
        if events.is_empty() {
            // What was reported is no longer kept.
            self.place = end;
        }
        self.next = events.into();
        Ok(())
    }
}

/// The place after the newest event. A report behind an entry that readers do not see yet comes after that entry.
fn newest_place(sequence: u64, reported: Option<ToldBefore>) -> StreamPlace {
    let of_log = StreamPlace::after(sequence);
    let reported = reported.filter(|told| told.entry <= sequence.saturating_add(1));
    reported.map_or(of_log, |told| StreamPlace::before_entry(told).max(of_log))
}

#[cfg(test)]
mod tests {
    use snapshots::{Batch, ClientHandle, Epoch, LogId, MemberReport, StoreOptions, Timestamp};

    use super::*;

    const APP: AppId = AppId::new(Uuid::from_u128(0x4000_8000_0000_0000_0001));

    /// A store without the entries of a group, and what its batches announce.
    struct World {
        store: Store,
        hub: Arc<EventHub>,
        group: GroupId,
    }

    impl World {
        fn new() -> Self {
            let store = Store::open(&StoreOptions::default()).unwrap();
            let hub = Arc::new(EventHub::new([APP].into_iter()));
            let receiver = Arc::clone(&hub);
            store.on_events(move |app, position, row| receiver.pass_on(app, position, row));
            Self { store, hub, group: GroupId::new([1; 4]).unwrap() }
        }

        fn stream(&self, sequence: u64, after: Option<EventId>) -> GroupStream {
            let streamed = StreamedGroup {
                store_id: Uuid::nil(),
                app: APP,
                suite: CipherSuite::X25519Aes128Sha256Ed25519,
                creation: [0; 32],
                sequence,
            };
            let wait = GroupWait::new(&self.hub, APP, &self.group).unwrap();
            GroupStream::new(&self.hub, &self.store, wait, &streamed, after)
        }

        fn tell(&self, event: &Event) {
            let mut batch = Batch::new();
            batch.add_event(event).announce(APP, Timestamp(0));
            self.store.append_blocking(batch).unwrap();
        }

        fn epoch(&self, sequence: u64) -> Event {
            Event::Epoch {
                group: self.group.clone(),
                sequence,
                epoch: Epoch(sequence),
                timestamp: Timestamp(0),
            }
        }

        fn reported(&self, entry: u64, index: u16) -> Event {
            let before = ToldBefore { entry, index };
            let epoch = Epoch(1);
            Event::EpochReported { group: self.group.clone(), epoch, reporters: 1, committer: None, before }
        }

        fn deleted(&self) -> Event {
            Event::GroupDeleted { group: self.group.clone() }
        }
    }

    /// The next item: its event, or the reason of a reset.
    async fn next(stream: &mut GroupStream) -> Option<Result<Event, ResetReason>> {
        stream.next().await.unwrap().map(|item| match item.content {
            StreamContent::Event(event) => Ok(event.event.clone()),
            StreamContent::Reset(reason) => Err(reason),
        })
    }

    #[tokio::test]
    async fn a_reader_of_a_deleted_group_is_told_of_unread_reports_and_then_of_the_end() {
        let world = World::new();
        let mut stream = world.stream(5, None);
        let told = [world.reported(6, 0), world.reported(6, 1), world.epoch(6), world.reported(7, 0)];
        told.iter().for_each(|event| world.tell(event));
        world.tell(&world.deleted());
        for expected in told {
            assert_eq!(next(&mut stream).await, Some(Ok(expected)));
        }
        assert_eq!(next(&mut stream).await, Some(Ok(world.deleted())));
        assert_eq!(next(&mut stream).await, None);
    }

    /// One disk batch has an entry and a report behind it. The reader comes after the write, and before readers are told of it.
    #[tokio::test]
    async fn a_report_behind_an_entry_that_readers_do_not_see_yet_hides_neither() {
        let world = World::new();
        let log = LogId::Group(APP, world.group.clone());
        let report = MemberReport {
            epoch: Epoch(1),
            handle: ClientHandle::new("a").unwrap(),
            domain: None,
            kind: "other",
            committer: None,
            told_from: 1,
            at: Timestamp(0),
            audit_rows_max: 10,
        };
        let mut batch = Batch::new();
        batch.create_log(&log).append_record(&log, 0, [1]).report_epoch(APP, &world.group, &report);
        world.store.append_blocking(batch).unwrap();
        let mut stream = world.stream(0, None);
        let told = [world.epoch(1), world.reported(2, 0)];
        told.iter().for_each(|event| world.tell(event));
        for expected in told {
            assert_eq!(next(&mut stream).await, Some(Ok(expected)));
        }
    }

    /// The log of this group is not in the store, so a reader that looks there is told that it is not kept.
    #[tokio::test]
    async fn events_in_memory_come_in_order_until_one_is_missing_there() {
        let world = World::new();
        let mut stream = world.stream(5, None);
        let begun = stream.id();
        for sequence in 6..=68 {
            world.tell(&world.epoch(sequence));
        }
        world.tell(&world.reported(69, 0));
        for sequence in 6..=68 {
            assert_eq!(next(&mut stream).await, Some(Ok(world.epoch(sequence))));
        }
        assert_eq!(next(&mut stream).await, Some(Ok(world.reported(69, 0))));
        // Another reader begins at the same place. The first event after it is in memory, and then no longer.
        assert_eq!(next(&mut world.stream(68, Some(begun))).await, Some(Ok(world.epoch(6))));
        world.tell(&world.epoch(69));
        assert_eq!(next(&mut world.stream(69, Some(begun))).await, Some(Err(ResetReason::NotKept)));
        assert_eq!(next(&mut stream).await, Some(Ok(world.epoch(69))));
    }

    #[tokio::test]
    async fn a_group_that_is_created_where_one_was_deleted_begins_anew_for_readers_of_the_old_one() {
        let world = World::new();
        let mut old = world.stream(5, None);
        world.tell(&world.deleted());
        world.tell(&Event::GroupCreated { group: world.group.clone() });
        let mut new = world.stream(0, None);
        world.tell(&world.epoch(1));
        assert_eq!(next(&mut new).await, Some(Ok(world.epoch(1))));
        assert_eq!(next(&mut old).await, Some(Err(ResetReason::Replaced)));
        world.tell(&world.epoch(2));
        for stream in [&mut old, &mut new] {
            assert_eq!(next(stream).await, Some(Ok(world.epoch(2))));
        }
    }
}
