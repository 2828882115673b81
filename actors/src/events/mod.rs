//! Event streams: what happens in an application or in a group, for readers that wait for it.
//!
//! Events are rows of the store, written with what they tell of. A reader is at a position in the order of these rows, or of a
//! group's log, and pulls: an event that is still in memory comes from there, an older one from the store. So a reader costs
//! the same memory however slow it is, and continues after a restart where it was.
//!
//! | file | |
//! |---|---|
//! | `id.rs` | ids of events |
//! | `hub.rs` | recent events in memory, and those who wait for new ones |
//! | `application.rs`, `group.rs` | the streams |

mod application;
mod group;
mod hub;
mod id;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use snapshots::{Bytes, Event, GroupId};

pub use self::{application::ApplicationStream, group::GroupStream, id::EventId};
pub(crate) use self::{
    group::{GroupWait, StreamedGroup},
    hub::EventHub,
};

/// The events that a stream reads at once.
const PAGE: usize = 64;

/// One item of a stream.
#[derive(Clone, Debug)]
pub struct StreamItem {
    /// The id after which the stream continues.
    pub id: EventId,
    /// The content.
    pub content: StreamContent,
}

/// The content of an item.
#[derive(Clone, Debug)]
pub enum StreamContent {
    /// An event.
    Event(Arc<SharedEvent>),
    /// Events are missing before this place: the reader reads the state anew.
    Reset(ResetReason),
}

/// The reason why events are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetReason {
    /// The id was not given for this stream here.
    Unknown,
    /// The events after the id are no longer kept.
    NotKept,
    /// The replica of a group was replaced by the group's present state.
    Replaced,
}

/// An event that several readers share, with its texts as they were first written.
#[derive(Debug)]
pub struct SharedEvent {
    /// The event.
    pub event: Event,
    texts: Mutex<Texts>,
}

#[derive(Debug, Default)]
struct Texts {
    /// Without and with packets.
    kept: [Option<Bytes>; 2],
    /// Whether the event is too old for its texts to be kept.
    is_old: bool,
}

/// The longest text that is kept, in bytes.
const TEXT_BYTES_MAX: usize = 1 << 20;

impl SharedEvent {
    fn new(event: Event) -> Arc<Self> {
        Arc::new(Self { event, texts: Mutex::default() })
    }

    /// The text of the event with or without its packets, which `write` writes unless another reader has.
    ///
    /// # Errors
    /// The error of `write`; nothing is kept then.
    pub fn text<E>(&self, has_packets: bool, write: impl FnOnce() -> Result<Vec<u8>, E>) -> Result<Bytes, E> {
        let place = usize::from(has_packets);
        if let Some(Some(text)) = self.texts().kept.get(place) {
            return Ok(text.clone());
        }
        // Not under the lock: it may read from disk.
        let text = Bytes::from(write()?);
        let mut texts = self.texts();
        let is_kept = !texts.is_old && text.len() <= TEXT_BYTES_MAX;
        match texts.kept.get_mut(place) {
            Some(kept) if is_kept => Ok(kept.get_or_insert(text).clone()),
            Some(_) | None => Ok(text),
        }
    }

    /// Frees the texts, and keeps none from now on.
    fn forget_texts(&self) {
        *self.texts() = Texts { kept: [None, None], is_old: true };
    }

    fn texts(&self) -> MutexGuard<'_, Texts> {
        self.texts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The group that an event is about, if it is about one.
fn group_of(event: &Event) -> Option<&GroupId> {
    match event {
        Event::GroupCreated { group }
        | Event::GroupReplaced { group, .. }
        | Event::GroupDeleted { group }
        | Event::EpochReported { group, .. }
        | Event::Proposal { group, .. }
        | Event::Epoch { group, .. } => Some(group),
        Event::Welcome { .. } | Event::KeyPackages { .. } => None,
    }
}

/// The number in a group's log of what an event tells.
fn sequence_of(event: &Event) -> Option<u64> {
    match event {
        Event::Proposal { sequence, .. } | Event::Epoch { sequence, .. } => Some(*sequence),
        Event::GroupCreated { .. }
        | Event::GroupReplaced { .. }
        | Event::GroupDeleted { .. }
        | Event::EpochReported { .. }
        | Event::Welcome { .. }
        | Event::KeyPackages { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_kept_once_it_is_written_and_while_the_event_is_new() {
        let event = SharedEvent::new(Event::GroupCreated { group: GroupId::new([1; 4]).unwrap() });
        assert_eq!(event.text(true, || Err::<Vec<u8>, _>("unreadable")), Err("unreadable"));
        let write = |text: &'static str| move || Ok::<_, ()>(text.as_bytes().to_vec());
        assert_eq!(event.text(true, write("first")).unwrap(), "first");
        assert_eq!(event.text(true, write("second")).unwrap(), "first");
        assert_eq!(event.text(false, write("short")).unwrap(), "short");
        event.forget_texts();
        assert_eq!(event.text(true, write("third")).unwrap(), "third");
        assert_eq!(event.text(true, write("fourth")).unwrap(), "fourth");
    }
}
