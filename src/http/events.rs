//! *Event streams*: server-sent events (WHATWG HTML), written as the reader reads them.

use std::{rc::Rc, sync::Arc, time::Duration};

use actix_web::web::Bytes;
use actors::{
    AppId, Event, EventPackets, Gateway, GroupId, StorageError,
    events::{ApplicationStream, EventId, GroupStream, ResetReason, SharedEvent, StreamContent, StreamItem},
};
use tokio::time::timeout;

use super::{
    callers::ComputeTurn,
    event_body::{Block, EventBody, WriteBlocks},
    problem::Problem,
    route::{Answer, Call, Handle},
    unread::PIECE_BYTES,
};
use crate::{
    api::{
        events::{
            EpochEvent, EpochReportedEvent, EventData, GroupChange, GroupEvent, KeyPackagesEvent,
            ProposalEvent, ResetEvent, StreamApplicationEvents, StreamGroupEvents, WelcomeEvent,
        },
        joining::JoinInfoId,
        problem::ProblemKind,
        text::{Base64, EventIdText, GroupIdText, HandleText},
    },
    shares::{Full, HeldShare},
};

/// The longest silence of a stream. The contract promises a line every 15 s.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(12);

impl Handle for StreamApplicationEvents {
    async fn handle(call: Call<Self>) -> Result<Answer<EventData>, Problem> {
        let share = call.turn.stream().map_err(too_many)?;
        let after = after(&call)?;
        let stream = Stream::Application(call.edge.gateway.application_events(call.path.app, after)?);
        let app = call.path.app;
        Ok(answer(call, app, stream, after, share))
    }
}

impl Handle for StreamGroupEvents {
    async fn handle(call: Call<Self>) -> Result<Answer<EventData>, Problem> {
        let share = call.turn.stream().map_err(too_many)?;
        let after = after(&call)?;
        let (app, group) = (call.path.app, &call.path.group);
        let stream = Stream::Group(call.edge.gateway.group_events(app, group, after).await?);
        Ok(answer(call, app, stream, after, share))
    }
}

/// The id after which the stream is to continue: that of the header, or that of the query.
fn after<E>(call: &Call<E>) -> Result<Option<EventId>, Problem>
where
    E: Handle<Query = crate::api::events::EventQuery>,
{
    match call.fields.last_event_id.as_deref() {
        None | Some("") => Ok(call.query.after.map(|EventIdText(id)| id)),
        Some(text) => {
            let id = text.parse().map_err(|error| Problem::malformed(format!("`Last-Event-ID`: {error}")))?;
            let EventIdText(id) = id;
            Ok(Some(id))
        }
    }
}

pub(super) fn too_many(full: Full) -> Problem {
    let detail = match full {
        Full::Share { max } => {
            format!("the token has {max} event streams open, the limit for one token; close some")
        }
        Full::Pool { .. } => "the gateway has reached its limit of event streams; try again later".to_owned(),
    };
    Problem::new(ProblemKind::TooManyStreams, detail).retry_later()
}

fn answer<E>(
    call: Call<E>,
    app: AppId,
    stream: Stream,
    after: Option<EventId>,
    share: HeldShare,
) -> Answer<EventData>
where
    E: Handle<Query = crate::api::events::EventQuery>,
{
    let is_head = call.fields.is_head;
    let writer = EventWriter {
        app,
        gateway: call.edge.gateway.clone(),
        stream,
        has_packets: call.query.packets,
        is_opening: after.is_none(),
        turn: call.turn,
        held: None,
    };
    Answer::Events(EventBody::new(writer, is_head), share)
}

/// A stream of either kind.
enum Stream {
    Application(ApplicationStream),
    Group(GroupStream),
}

impl Stream {
    fn id(&self) -> EventId {
        match self {
            Self::Application(stream) => stream.id(),
            Self::Group(stream) => stream.id(),
        }
    }

    async fn next(&mut self) -> Result<Option<StreamItem>, StorageError> {
        match self {
            Self::Application(stream) => stream.next().await,
            Self::Group(stream) => stream.next().await,
        }
    }
}

/// Writes the events of a stream as text.
struct EventWriter {
    gateway: Gateway,
    app: AppId,
    stream: Stream,
    has_packets: bool,
    /// Whether the block with nothing but an id is still to be written.
    is_opening: bool,
    turn: Rc<ComputeTurn>,
    /// The room of a long block, until the next one.
    held: Option<HeldShare>,
}

impl WriteBlocks for EventWriter {
    /// The next block, or a comment after a silence; `None` at the end.
    async fn next(&mut self) -> Option<Block> {
        if std::mem::take(&mut self.is_opening) {
            let id = format!("id: {}\n\n", EventIdText(self.stream.id()));
            return Some(Block::from([id.into()]));
        }
        let next = timeout(SILENCE_MAX, self.stream.next()).await;
        if self.turn.is_revoked() {
            return None;
        }
        match next {
            Err(_) => Some(Block::from([Bytes::from_static(b":\n\n")])),
            Ok(Ok(Some(item))) => self.block(&item),
            Ok(Ok(None)) => None,
            Ok(Err(error)) => {
                ended(&error);
                None
            }
        }
    }
}

impl EventWriter {
    fn block(&mut self, item: &StreamItem) -> Option<Block> {
        let (kind, data) = match &item.content {
            StreamContent::Event(event) => (kind(&event.event), self.text(event)?),
            StreamContent::Reset(reason) => ("reset", json(&reset(*reason)).ok()?.into()),
        };
        // A long text counts among the answers that are not read; only the newest are shared between readers.
        self.held = None;
        if data.len() > PIECE_BYTES {
            self.held = Some(self.turn.unread(data.len()).ok()?);
        }
        let head = format!("id: {}\nevent: {kind}\ndata: ", EventIdText(item.id));
        Some(Block::from([head.into(), data, Bytes::from_static(b"\n\n")]))
    }

    /// The data of an event. `None` if the store cannot be read; the reader will ask again.
    fn text(&self, event: &SharedEvent) -> Option<Bytes> {
        let write = || {
            let packets =
                if self.has_packets { self.gateway.event_packets(self.app, &event.event)? } else { None };
            json(&data(&event.event, packets))
        };
        event.text(self.has_packets, write).inspect_err(ended).ok()
    }
}

fn ended(error: &StorageError) {
    tracing::error!(%error, "an event stream ends, because an event cannot be read");
}

fn json(data: &EventData) -> Result<Vec<u8>, StorageError> {
    serde_json::to_vec(data).map_err(|error| {
        tracing::error!(%error, "an event cannot be encoded");
        StorageError::Unreadable
    })
}

/// The kind of an event in its stream.
fn kind(event: &Event) -> &'static str {
    match event {
        Event::GroupCreated { .. } | Event::GroupDeleted { .. } => "group",
        Event::GroupReplaced { .. } => "reset",
        Event::EpochReported { .. } => "epoch-reported",
        Event::Proposal { .. } => "proposal",
        Event::Epoch { .. } => "epoch",
        Event::Welcome { .. } => "welcome",
        Event::KeyPackages { .. } => "key-packages",
    }
}

fn data(event: &Event, packets: Option<EventPackets>) -> EventData {
    let base64 = |bytes: Vec<u8>| Base64(bytes);
    match event {
        Event::GroupCreated { group } => changed(group, GroupChange::Created),
        Event::GroupDeleted { group } => changed(group, GroupChange::Deleted),
        Event::EpochReported { group, epoch, reporters, committer, .. } => {
            EventData::EpochReported(EpochReportedEvent {
                group_id: GroupIdText(group.clone()),
                epoch_id: *epoch,
                reporters: *reporters,
                committer: committer.clone().map(Into::into),
            })
        }
        Event::GroupReplaced { .. } => reset(ResetReason::Replaced),
        Event::Proposal { group, epoch, reference, .. } => EventData::Proposal(ProposalEvent {
            group_id: GroupIdText(group.clone()),
            epoch_id: *epoch,
            proposal_ref: Base64(reference.to_vec()),
            packet: match packets {
                Some(EventPackets::Proposal(packet)) => Some(Base64(packet)),
                Some(EventPackets::Epoch(_)) | None => None,
            },
        }),
        Event::Epoch { group, epoch, timestamp, .. } => {
            let (commit, proposals) = match packets {
                Some(EventPackets::Epoch(entry)) => {
                    let entry = Arc::unwrap_or_clone(entry);
                    let proposals = entry.proposals.into_iter().map(base64).collect();
                    (Some(Base64(entry.commit)), Some(proposals))
                }
                Some(EventPackets::Proposal(_)) | None => (None, None),
            };
            let (epoch_id, timestamp) = (*epoch, *timestamp);
            let group_id = GroupIdText(group.clone());
            EventData::Epoch(EpochEvent { group_id, epoch_id, timestamp, commit, proposals })
        }
        Event::Welcome { handle, domain, group, epoch, id } => EventData::Welcome(WelcomeEvent {
            client_handle: HandleText(handle.clone()),
            domain: domain.clone(),
            group_id: GroupIdText(group.clone()),
            epoch_id: *epoch,
            id: JoinInfoId(*id),
        }),
        Event::KeyPackages { client, handle, queue, available, change } => {
            EventData::KeyPackages(KeyPackagesEvent {
                client_id: *client,
                client_handle: HandleText(handle.clone()),
                key_queue_id: *queue,
                key_packages_available: *available,
                change: (*change).into(),
            })
        }
    }
}

fn changed(group: &GroupId, change: GroupChange) -> EventData {
    EventData::Group(GroupEvent { group_id: GroupIdText(group.clone()), change })
}

fn reset(reason: ResetReason) -> EventData {
    let reason = match reason {
        ResetReason::Unknown => "this stream never gave the event id; read the state anew",
        ResetReason::NotKept => "the events after the event id are no longer kept; read the state anew",
        ResetReason::Replaced => {
            "the replica of a group was replaced by the group's present state at its hub; read the state anew"
        }
    };
    EventData::Reset(ResetEvent { reason: reason.to_owned() })
}
