//! The stream of all events of an application.

use std::{collections::VecDeque, sync::Arc};

use snapshots::{AppId, Store};
use tokio::sync::watch;
use uuid::Uuid;

use super::{
    EventHub, PAGE, ResetReason, SharedEvent, StreamContent, StreamItem,
    hub::Channel,
    id::{EventId, StreamPlace, StreamTag},
};
use crate::error::StorageError;

/// The rows by which a stream that has caught up may fall behind again. A reader that is slower is disconnected, and resumes.
const LAG_MAX: u64 = 4096;

/// A stream of the events of an application.
pub struct ApplicationStream {
    store: Store,
    channel: Arc<Channel>,
    app: AppId,
    tag: StreamTag,
    head: watch::Receiver<u64>,
    closing: watch::Receiver<bool>,
    place: StreamPlace,
    next: VecDeque<(StreamPlace, Arc<SharedEvent>)>,
    /// The reason of a reset that the reader has not seen.
    reset: Option<ResetReason>,
    has_caught_up: bool,
}

impl ApplicationStream {
    /// The stream after an event, or from now on. `None` if there is no such application.
    pub(crate) fn open(
        hub: &EventHub,
        store: &Store,
        (store_id, app): (Uuid, AppId),
        after: Option<EventId>,
    ) -> Option<Self> {
        let channel = Arc::clone(hub.channel(app)?);
        let mut head = channel.enter();
        let newest = StreamPlace::after(*head.borrow_and_update());
        let tag = StreamTag::of_application(store_id, app);
        let known = after.filter(|id| id.stream == tag && id.place <= newest).map(|id| id.place);
        Some(Self {
            store: store.clone(),
            channel,
            app,
            tag,
            head,
            closing: hub.closing(),
            place: known.unwrap_or(newest),
            next: VecDeque::new(),
            reset: (after.is_some() && known.is_none()).then_some(ResetReason::Unknown),
            has_caught_up: false,
        })
    }

    /// Goes back by a number of rows, as far as they are kept.
    ///
    /// # Errors
    /// That the store cannot be read.
    pub(crate) fn go_back(mut self, rows: u64) -> Result<Self, StorageError> {
        let before_all = self.store.view().first_event(self.app)?.map(|first| first.saturating_sub(1));
        if let Some(before_all) = before_all {
            let position = self.place.position.saturating_sub(rows).max(before_all);
            self.place = self.place.min(StreamPlace::after(position));
        }
        Ok(self)
    }

    /// The id after which the next item comes.
    pub fn id(&self) -> EventId {
        EventId { stream: self.tag, place: self.place }
    }

    /// The next item, once there is one; `None` at the end, when the gateway stops or the reader has fallen behind.
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
            let head = *self.head.borrow_and_update();
            if self.place >= StreamPlace::after(head) {
                self.has_caught_up = true;
                tokio::select! {
                    // What was told before the end comes first.
                    biased;
                    changed = self.head.changed() => if changed.is_err() { return Ok(None) },
                    _ = self.closing.wait_for(|closing| *closing) => return Ok(None),
                }
                continue;
            }
            if self.has_caught_up && head.saturating_sub(self.place.position) > LAG_MAX {
                return Ok(None);
            }
            self.next = self.channel.recent_after(self.place).into();
            if self.next.is_empty() {
                // What is in memory is still told when the gateway stops.
                if *self.closing.borrow() {
                    return Ok(None);
                }
                self.read_stored(head)?;
            }
        }
    }

    /// Reads the next events from the store, up to the newest that was passed on.
    fn read_stored(&mut self, head: u64) -> Result<(), StorageError> {
        let (next, skipped) = self.place.next();
        let found = self.store.view().events(self.app, next.saturating_sub(1), head, PAGE)?;
        if found.is_cut {
            self.reset = Some(ResetReason::NotKept);
            self.place = StreamPlace::after(head);
            return Ok(());
        }
        for (position, row) in found.rows {
            if self.next.len() >= PAGE {
                // The rest is read when this has been.
                break;
            }
            let events = row.events.len();
            let skipped = if position == next { skipped } else { 0 };
            for (index, event) in row.events.into_iter().enumerate().skip(skipped) {
                self.next
                    .push_back((StreamPlace::after_event(position, index, events), SharedEvent::new(event)));
            }
            if self.next.is_empty() {
                // All of its events were read before.
                self.place = StreamPlace::after(position);
            }
        }
        Ok(())
    }
}

impl Drop for ApplicationStream {
    fn drop(&mut self) {
        self.channel.leave();
    }
}
