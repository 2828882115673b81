//! Events for those who listen to an application: one row for each batch that has any, in the order of writing.
//!
//! | table | key | value |
//! |---|---|---|
//! | `events` | application, feed, position | when it was written, and its events |
//! | `event_heads` | application, feed | the position of the newest row |
//!
//! Positions of one feed have no gap. A store that one process owns has one feed; several processes would write one each.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{history::EpochCommitter, reports::ToldBefore, table};
use crate::{
    engine::{Announcement, Batch, Key, KeyRange, KeyReader, Overlay, Rows, View, rows},
    errors::ReadError,
    ids::{AppId, ClientHandle, ClientId, DeliveryId, DomainName, Epoch, GroupId, KeyQueueId, Timestamp},
    store::Store,
};

/// The feed of a store that one process owns.
const OWN_FEED: u64 = 0;

/// Something that happened in an application.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// A group was created, or its replica came here.
    GroupCreated {
        /// The group.
        group: GroupId,
    },
    /// A replica was replaced by the state of the group at its hub, without the entries before it.
    GroupReplaced {
        /// The group.
        group: GroupId,
        /// The last entry that the new state includes.
        sequence: u64,
    },
    /// A group was deleted.
    GroupDeleted {
        /// The group.
        group: GroupId,
    },
    /// Enough members have reported that they cannot open an epoch.
    EpochReported {
        /// The group.
        group: GroupId,
        /// The epoch.
        epoch: Epoch,
        /// The number of distinct members who have.
        reporters: u64,
        /// The member that committed it, if that is known.
        committer: Option<EpochCommitter>,
        /// Its place in the group's stream.
        before: ToldBefore,
    },
    /// A proposal was accepted.
    Proposal {
        /// The group.
        group: GroupId,
        /// Its number in the group's log.
        sequence: u64,
        /// The epoch that it is for.
        epoch: Epoch,
        /// Its ProposalRef (RFC 9420 §5.2).
        reference: Bytes,
    },
    /// A commit was accepted.
    Epoch {
        /// The group.
        group: GroupId,
        /// The commit's number in the group's log.
        sequence: u64,
        /// The epoch that it creates.
        epoch: Epoch,
        /// When it was accepted.
        timestamp: Timestamp,
    },
    /// A welcome waits for a client.
    Welcome {
        /// The client's handle.
        handle: ClientHandle,
        /// Its domain, where the application uses domains.
        domain: Option<DomainName>,
        /// The group.
        group: GroupId,
        /// The epoch to join.
        epoch: Epoch,
        /// The id of its join info.
        id: DeliveryId,
    },
    /// The key packages of a queue run out.
    KeyPackages {
        /// The client.
        client: ClientId,
        /// Its handle.
        handle: ClientHandle,
        /// The queue.
        queue: KeyQueueId,
        /// The number of key packages that are not assigned.
        available: u64,
        /// What happened.
        change: KeyPackagesChange,
    },
}

/// What happened to the key packages of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyPackagesChange {
    /// Few are left.
    Low,
    /// None was left, so the final key was given out.
    FinalKeyUsed,
    /// Some have expired.
    Expired,
}

/// The events of one batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventRow {
    /// When they were written.
    pub timestamp: Timestamp,
    /// The events, in order.
    pub events: Vec<Event>,
}

/// Rows of events after a position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventRows {
    /// The rows with their positions, without a gap.
    pub rows: Vec<(u64, EventRow)>,
    /// Whether a row right after the position is no longer kept.
    pub is_cut: bool,
}

#[derive(Serialize, Deserialize)]
struct StoredRow {
    timestamp: Timestamp,
    /// Each event in the form of a row.
    events: Vec<Bytes>,
}

fn events_of(app: AppId) -> Key {
    Key::of_app(app).u64(OWN_FEED)
}

fn event_key(app: AppId, position: u64) -> Key {
    events_of(app).u64(position)
}

fn read_key(key: &[u8]) -> Result<(AppId, u64), ReadError> {
    let mut reader = KeyReader::new(key, "events");
    let app = reader.app()?;
    let _feed = reader.u64()?;
    let position = reader.u64()?;
    reader.end()?;
    Ok((app, position))
}

/// Adds an event to those that the running batch announces.
pub(super) fn note(overlay: &mut Overlay<'_>, event: &Event) -> Result<(), ReadError> {
    let bytes = rows::encode(event).map_err(|error| ReadError::damaged(error.to_string()))?;
    overlay.note_event(bytes);
    Ok(())
}

impl EventRow {
    /// Decodes the row of an announcement.
    ///
    /// # Errors
    /// [`ReadError`] when the row is damaged.
    pub fn decode(bytes: &[u8]) -> Result<Self, ReadError> {
        let StoredRow { timestamp, events } = rows::decode(table::EVENTS, bytes)?;
        let events = events.iter().map(|event| rows::decode(table::EVENTS, event));
        Ok(Self { timestamp, events: events.collect::<Result<_, _>>()? })
    }
}

impl Batch {
    /// Adds an event to those that the batch announces.
    pub fn add_event(&mut self, event: &Event) -> &mut Self {
        let bytes = self.row(event);
        self.operation(move |overlay| {
            overlay.note_event(bytes);
            Ok(())
        })
    }

    /// Announces the events that the batch has so far, those of its welcomes included.
    pub fn announce(&mut self, app: AppId, timestamp: Timestamp) -> &mut Self {
        let of_app = self.key(events_of(app));
        self.operation(move |overlay| {
            let events = overlay.take_events().into_iter();
            let events: Vec<Bytes> = events.map(|event| Bytes::copy_from_slice(&event)).collect();
            if events.is_empty() {
                return Ok(());
            }
            let position = head(overlay, app)?.saturating_add(1);
            let row = rows::encode(&StoredRow { timestamp, events })
                .map_err(|error| ReadError::damaged(error.to_string()))?;
            overlay.put(table::EVENT_HEADS, &of_app, position.to_be_bytes().into());
            overlay.put(table::EVENTS, &of_app.u64(position), row.clone());
            overlay.announce(Announcement { app, position, row });
            Ok(())
        })
    }
}

fn head(rows: &impl Rows, app: AppId) -> Result<u64, ReadError> {
    let value = rows.value(table::EVENT_HEADS, &events_of(app))?;
    value.map_or(Ok(0), |value| rows::number(table::EVENT_HEADS, &value))
}

impl Store {
    /// Passes on what batches announce from now on: application, position, and the bytes for [`EventRow::decode`]. The events
    /// of an application come in their order, each once its writer has dropped [`Appended::announced`](crate::Appended).
    /// `receive` must be quick, and must not append.
    pub fn on_events(&self, receive: impl Fn(AppId, u64, &[u8]) + Send + Sync + 'static) {
        self.feed()
            .receive(Box::new(move |Announcement { app, position, row }| receive(app, position, &row)));
    }
}

impl View {
    /// The position of the newest row of events of an application; 0 if there is none.
    ///
    /// # Errors
    /// [`ReadError`] when the disk fails or the row is damaged.
    pub fn event_head(&self, app: AppId) -> Result<u64, ReadError> {
        head(self, app)
    }

    /// The position of the oldest row of events of an application that is kept.
    ///
    /// # Errors
    /// [`ReadError`] when the disk fails or the key is damaged.
    pub fn first_event(&self, app: AppId) -> Result<Option<u64>, ReadError> {
        let first = self.scan(table::EVENTS, events_of(app).prefix()).next().transpose()?;
        first.map(|(key, _)| Ok(read_key(&key)?.1)).transpose()
    }

    /// Rows of events of an application after a position, up to `last`: at most `limit` of them.
    ///
    /// # Errors
    /// [`ReadError`] when the disk fails or a row is damaged.
    pub fn events(&self, app: AppId, after: u64, last: u64, limit: usize) -> Result<EventRows, ReadError> {
        let mut found = EventRows { rows: Vec::new(), is_cut: false };
        let Some(first) = after.checked_add(1).filter(|first| *first <= last) else { return Ok(found) };
        let range = event_key(app, first).through(event_key(app, last));
        for (expected, row) in (first..).zip(self.scan(table::EVENTS, range).take(limit)) {
            let (key, value) = row?;
            if read_key(&key)?.1 != expected {
                found.is_cut = found.rows.is_empty();
                return Ok(found);
            }
            found.rows.push((expected, EventRow::decode(&value)?));
        }
        found.is_cut = found.rows.is_empty();
        Ok(found)
    }

    /// The rows of events of every application, in the order of their keys, after the one given.
    pub(super) fn events_after(
        &self,
        after: Option<(AppId, u64)>,
    ) -> impl Iterator<Item = Result<(AppId, u64, Timestamp), ReadError>> {
        let range = match after {
            Some((app, position)) => KeyRange::after(event_key(app, position).as_bytes()),
            None => KeyRange::all(),
        };
        self.scan(table::EVENTS, range).map(|row| {
            let (key, value) = row?;
            let (app, position) = read_key(&key)?;
            let StoredRow { timestamp, .. } = rows::decode(table::EVENTS, &value)?;
            Ok((app, position, timestamp))
        })
    }
}

/// Deletes a row of events.
pub(super) fn delete(overlay: &mut Overlay<'_>, app: AppId, position: u64) {
    overlay.delete(table::EVENTS, &event_key(app, position));
}
