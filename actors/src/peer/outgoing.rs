//! Outgoing deliveries: stored entries, or the current state of a group.

use std::sync::Arc;

use snapshots::{AppId, GroupId, View};

use super::{DeliveryError, EntryContent, GroupTransfer, LogEntry, entry_from_bytes, schedule::Place};
use crate::{core::Core, gateway::shown_view, mls::welcome_references, storage::StorageError};

/// Bytes of entries in one delivery, when it has more than one.
const ENTRIES_BYTES_MAX: usize = 1 << 20;
/// How many proposals may stand behind the newest commit for its welcome to be found.
const PROPOSALS_BEHIND_MAX: u64 = 256;

/// Entries of a group's log from a number on, as far as they are kept; few enough for one delivery.
pub(super) fn read_entries(
    view: &View,
    (app, group): &Place,
    from: u64,
    limit: usize,
) -> Result<Vec<LogEntry>, StorageError> {
    let kept = view.log_entries(*app, group, from, limit, ENTRIES_BYTES_MAX)?;
    kept.iter().map(|(_, bytes)| entry_from_bytes(bytes)).collect::<Result<_, _>>().map_err(|error| {
        tracing::error!(%error, "a log entry cannot be read");
        StorageError::Unreadable
    })
}

/// A group as it stands, with the group info of its epoch, and what can be told of the entries that the peer never saw.
pub(super) async fn transfer(
    core: &Arc<Core>,
    app: AppId,
    group: &GroupId,
    missed: &[LogEntry],
    knows_reinitialised: bool,
) -> Result<GroupTransfer, DeliveryError> {
    let application =
        core.applications.get(&app).ok_or_else(|| nothing_to_send("there is no such application"))?;
    let view =
        shown_view(core, application, group).await.map_err(|error| nothing_to_send(&error.to_string()))?;
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
        welcome: current_welcome(core, app, group, view.sequence),
        used: missed.iter().filter_map(welcome_of).flat_map(welcome_references).collect(),
        reinitialised: view.is_reinitialised && knows_reinitialised,
    })
}

fn nothing_to_send(reason: &str) -> DeliveryError {
    DeliveryError::NothingToSend(reason.to_owned())
}

/// The welcome of the newest commit, if it is kept and had one.
fn current_welcome(core: &Core, app: AppId, group: &GroupId, sequence: u64) -> Option<Vec<u8>> {
    let (place, view) = ((app, group.clone()), core.store.view());
    let oldest = sequence.saturating_sub(PROPOSALS_BEHIND_MAX);
    let newest = (oldest..=sequence).rev().find_map(|number| {
        let entry = read_entries(&view, &place, number, 1).ok()?.into_iter().next()?;
        matches!(entry.content, EntryContent::Commit { .. }).then_some(entry)
    })?;
    welcome_of(&newest).map(<[u8]>::to_vec)
}

fn welcome_of(entry: &LogEntry) -> Option<&[u8]> {
    match &entry.content {
        EntryContent::Commit { welcome, .. } => welcome.as_deref(),
        EntryContent::Creation { .. } | EntryContent::Proposal { .. } => None,
    }
}
