//! Outgoing deliveries: stored entries, or the transfer of a whole group.

use snapshots::{AppId, DomainName, Epoch, GroupId, LogId, Timestamp, View};

use super::{DeliveryError, GroupViews, USED_KEY_PACKAGES_MAX, schedule::GroupKey};
use crate::{
    error::StorageError,
    group::{EntryContent, GroupTransfer, LogEntry, LoggedEntry},
    mls::welcome_references,
    services::Services,
};

/// Bytes of entries in one delivery, when it has more than one.
const ENTRIES_BYTES_MAX: usize = 1 << 20;

/// Entries in one delivery.
const ENTRIES_MAX: usize = 64;
/// The number of entries that a peer never saw and that a transfer mentions.
const MISSED_MAX: usize = 256;

/// The next delivery to a peer.
pub(super) enum NextDelivery {
    Nothing,
    /// The application is gone, does not federate with the peer any more, or does not order the group here.
    NotForPeer,
    Entries {
        hub: DomainName,
        preceding: Option<Timestamp>,
        entries: Vec<LogEntry>,
    },
    /// The entries that the peer needs are no longer kept, or the peer cannot append them.
    Transfer {
        hub: DomainName,
        /// Entries that the peer has not seen, as far as they are kept.
        missed: Vec<LogEntry>,
    },
    /// The group was deleted.
    Deletion {
        hub: DomainName,
        timestamp: Timestamp,
    },
}

/// The content of a delivery that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    Nothing,
    Entries,
    Transfer,
    Deletion,
}

impl NextDelivery {
    pub(super) fn kind(&self) -> Sent {
        match self {
            Self::Nothing | Self::NotForPeer => Sent::Nothing,
            Self::Entries { .. } => Sent::Entries,
            Self::Transfer { .. } => Sent::Transfer,
            Self::Deletion { .. } => Sent::Deletion,
        }
    }
}

/// The next delivery of a group to a peer, from an entry on, or of the whole group if requested.
pub(super) fn prepare(
    services: &Services,
    peer: &DomainName,
    place: &GroupKey,
    next: u64,
    is_whole: bool,
) -> Result<NextDelivery, StorageError> {
    let (app, group) = place;
    let view = services.store.view();
    let application = services.applications.get(app);
    let federating = application.filter(|application| application.federates_with.contains(peer));
    let Some(application) = federating else { return Ok(NextDelivery::NotForPeer) };
    let Some(row) = view.group(*app, group)? else {
        let deleted = view.deleted_group(*app, group)?;
        let told = deleted.and_then(|row| Some((row.hub?, row.deleted_at)));
        return Ok(match told.filter(|(hub, _)| application.is_hub(Some(hub))) {
            Some((hub, timestamp)) => NextDelivery::Deletion { hub, timestamp },
            None => NextDelivery::NotForPeer,
        });
    };
    let Some(hub) = row.hub.filter(|hub| application.is_hub(Some(hub))) else {
        return Ok(NextDelivery::NotForPeer);
    };
    let head = view.log_head(&LogId::Group(*app, group.clone()))?;
    if head.is_none_or(|head| next > head) {
        return Ok(NextDelivery::Nothing);
    }
    if is_whole {
        return Ok(NextDelivery::Transfer { hub, missed: read_entries(&view, place, next, MISSED_MAX)? });
    }
    let entries = read_entries(&view, place, next, ENTRIES_MAX)?;
    if entries.is_empty() {
        return Ok(NextDelivery::Transfer { hub, missed: Vec::new() });
    }
    let preceding = match next.checked_sub(1) {
        Some(before) => read_entries(&view, place, before, 1)?.first().map(|entry| entry.timestamp),
        None => None,
    };
    Ok(NextDelivery::Entries { hub, preceding, entries })
}

/// Entries of a group's log from a number on, as far as they are kept whole; few enough for one delivery.
fn read_entries(
    view: &View,
    (app, group): &GroupKey,
    from: u64,
    limit: usize,
) -> Result<Vec<LogEntry>, StorageError> {
    if from < view.whole_entries_from(*app, group)? {
        return Ok(Vec::new());
    }
    let kept = view.log_entries(*app, group, from, limit, ENTRIES_BYTES_MAX)?;
    let whole = kept.iter().map_while(|(sequence, bytes)| {
        LoggedEntry::read(*sequence, bytes).map(LoggedEntry::whole).transpose()
    });
    whole.collect::<Result<_, _>>().map_err(|error| {
        tracing::error!(%error, "a log entry cannot be read");
        StorageError::Unreadable
    })
}

/// The transfer of a group: its current state with its group info, and the known facts about entries that the peer
/// never saw.
pub(super) async fn transfer(
    services: &Services,
    views: &dyn GroupViews,
    (app, group): (AppId, &GroupId),
    missed: &[LogEntry],
    knows_reinitialised: bool,
) -> Result<GroupTransfer, DeliveryError> {
    let view = views.group_view(app, group).await.map_err(|error| nothing_to_send(&error.to_string()))?;
    let Some(group_info) = &view.group_info else {
        return Err(nothing_to_send(
            "the entries that the peer needs are no longer kept, and the last committer gave no group info",
        ));
    };
    Ok(GroupTransfer {
        sequence: view.sequence,
        timestamp: view.stamp,
        group_info: group_info.to_vec(),
        ratchet_tree: view.ratchet_tree().to_vec(),
        proposals: view.proposals.iter().map(|waiting| waiting.packet.to_vec()).collect(),
        welcome: welcome_of_epoch(services, app, group, view.epoch),
        used: missed
            .iter()
            .filter_map(welcome_of)
            .flat_map(welcome_references)
            .take(USED_KEY_PACKAGES_MAX)
            .collect(),
        reinitialised: view.is_reinitialised && knows_reinitialised,
    })
}

fn nothing_to_send(reason: &str) -> DeliveryError {
    DeliveryError::NothingToSend(reason.to_owned())
}

/// The welcome of the commit that created an epoch, if it is kept and had one.
fn welcome_of_epoch(services: &Services, app: AppId, group: &GroupId, epoch: Epoch) -> Option<Vec<u8>> {
    let view = services.store.view();
    let created = view.epoch(app, group, epoch).ok()??;
    let entry = read_entries(&view, &(app, group.clone()), created.sequence, 1).ok()?.into_iter().next()?;
    welcome_of(&entry).filter(|_| entry.sequence == created.sequence).map(<[u8]>::to_vec)
}

fn welcome_of(entry: &LogEntry) -> Option<&[u8]> {
    match &entry.content {
        EntryContent::Commit(bundle) => bundle.welcome.as_deref(),
        EntryContent::Creation(_) | EntryContent::Proposal { .. } => None,
    }
}
