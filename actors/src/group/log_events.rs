//! Entries of a group's log as events, for streams that continue at an older place, and the messages that events tell of.

use std::sync::Arc;

use snapshots::{AppId, Bytes, Event, GroupId, View};

use super::{
    EntryContent, EpochEntry, GroupError, LogEntry, LoggedEntry, control_messages, history::entries_after,
};
use crate::{
    codec::CodecError,
    error::StorageError,
    mls::{CipherSuite, RequestMember, UnseenProposal, packet_head},
};

/// The bytes of entries that are read at once.
const READ_BYTES: usize = 1 << 20;

/// Events after a place in a group's log.
pub(crate) enum LoggedEvents {
    /// The events with their numbers, without a gap.
    Kept(Vec<(u64, Event)>),
    /// The entry after the place is no longer kept.
    NotKept,
}

/// Up to `limit` events of a group's log after number `after`, up to `last`.
pub(crate) fn logged_events(
    view: &View,
    (app, group, suite): (AppId, &GroupId, CipherSuite),
    (after, last): (u64, u64),
    limit: usize,
) -> Result<LoggedEvents, StorageError> {
    let found = match entries_after(view, app, group, after, limit, READ_BYTES) {
        Ok(found) => found,
        Err(GroupError::Storage(error)) => return Err(error),
        // The group is gone.
        Err(_) => return Ok(LoggedEvents::NotKept),
    };
    let Some(entries) = found.entries.filter(|entries| !entries.is_empty()) else {
        return Ok(LoggedEvents::NotKept);
    };
    let kept = entries.into_iter().map(|logged| logged.entry).take_while(|entry| entry.sequence <= last);
    let events = kept.map(|entry| Ok((entry.sequence, event(group, suite, entry)?)));
    events.collect::<Result<_, _>>().map(LoggedEvents::Kept).map_err(|error: CodecError| {
        tracing::error!(?group, %error, "an entry of the group's log cannot be read");
        StorageError::Unreadable
    })
}

/// The event of an entry.
fn event(group: &GroupId, suite: CipherSuite, entry: LogEntry) -> Result<Event, CodecError> {
    let LogEntry { sequence, timestamp, content } = entry;
    let damaged = |_| CodecError::damaged("entry of a log");
    Ok(match content {
        EntryContent::Creation(_) => Event::GroupCreated { group: group.clone() },
        EntryContent::Proposal { packet } => {
            let proposal = UnseenProposal::read(group, &packet).map_err(damaged)?;
            let (epoch, reference) = (proposal.epoch, Bytes::from(proposal.reference(suite)));
            Event::Proposal { group: group.clone(), sequence, epoch, reference }
        }
        EntryContent::Commit(bundle) => {
            let before = packet_head(RequestMember::CommitPacket, &bundle.commit)
                .map_err(|_| CodecError::damaged("entry of a log"))?
                .epoch;
            let epoch = before.next().ok_or_else(|| CodecError::damaged("epoch of a commit"))?;
            Event::Epoch { group: group.clone(), sequence, epoch, timestamp }
        }
    })
}

/// The messages that an event tells of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventPackets {
    /// The proposal.
    Proposal(Vec<u8>),
    /// The commit and the proposals that it includes by reference.
    Epoch(Arc<EpochEntry>),
}

/// The messages that an event tells of; `None` if it tells of none, or they are no longer kept.
pub(crate) fn event_packets(
    view: &View,
    app: AppId,
    event: &Event,
) -> Result<Option<EventPackets>, StorageError> {
    match event {
        Event::Proposal { group, sequence, .. } => {
            let Some(bytes) = view.log_entry(app, group, *sequence)? else { return Ok(None) };
            let entry = LoggedEntry::read(*sequence, &bytes).map_err(|error| {
                tracing::error!(?group, %error, "an entry of the group's log cannot be read");
                StorageError::Unreadable
            })?;
            Ok(match entry.entry.content {
                EntryContent::Proposal { packet } => Some(EventPackets::Proposal(packet.to_vec())),
                EntryContent::Creation(_) | EntryContent::Commit(_) => None,
            })
        }
        Event::Epoch { group, epoch, .. } => {
            match control_messages(view, app, group, (*epoch, Some(*epoch)), 1, usize::MAX) {
                Ok(found) => Ok(found.epochs.into_iter().next().map(EventPackets::Epoch)),
                Err(GroupError::Storage(error)) => Err(error),
                Err(_) => Ok(None),
            }
        }
        Event::GroupCreated { .. }
        | Event::GroupReplaced { .. }
        | Event::GroupDeleted { .. }
        | Event::EpochReported { .. }
        | Event::Welcome { .. }
        | Event::KeyPackages { .. } => Ok(None),
    }
}
