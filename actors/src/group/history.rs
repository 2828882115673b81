//! A group's history, read from disk without its actor: control messages, and the answers to repeated uploads.

use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use snapshots::{AppId, CommittedProposal, Epoch, EpochRow, GroupId, LogId, Timestamp, View};

use super::{
    Accepted, AcceptedCommit, AcceptedProposal, EntryContent, GroupError, LogEntry, Outcome,
    log::commit_digest,
    stored_entry::{LoggedEntry, StoredEntry},
};
use crate::{error::StorageError, mls::StagedEpoch};

/// One entry of the draft's `epochs`: the commit that created `epoch`, with its proposals.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EpochEntry {
    /// The epoch that the commit created.
    pub epoch: Epoch,
    /// The time at which the hub accepted it.
    pub timestamp: Timestamp,
    /// Packets of the proposals committed by reference, in the commit's order.
    pub proposals: Vec<Vec<u8>>,
    /// The commit packet.
    pub commit: Vec<u8>,
}

impl EpochEntry {
    /// The entry of the epoch that a commit creates.
    pub(super) fn of(commit: &LogEntry, staged: &StagedEpoch) -> Self {
        let packet = match &commit.content {
            EntryContent::Commit(bundle) => bundle.commit.clone(),
            EntryContent::Creation(_) | EntryContent::Proposal { .. } => Vec::new(),
        };
        Self {
            epoch: staged.epoch,
            timestamp: commit.timestamp,
            proposals: staged.referenced.iter().map(|proposal| proposal.packet.to_vec()).collect(),
            commit: packet,
        }
    }
}

/// The messages that a member needs to catch up (*Commits*, `control-msgs`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlMessages {
    /// Consecutive entries.
    pub epochs: Vec<Arc<EpochEntry>>,
    /// The group's current epoch.
    pub current: Epoch,
    /// The epoch to continue with; `None` when the answer is complete.
    pub next: Option<Epoch>,
}

/// What follows an entry in a group's log, as it was at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntriesAfter {
    /// Tells this log from another one of the same group: a replica's log is replaced when its hub turns out not to be the group's.
    /// Numbers of another log mean nothing in this one.
    pub log: [u8; 32],
    /// The number of the newest entry; 0 if there is none but the creation.
    pub newest: u64,
    /// The entries that follow, without a gap; empty when there are none. `None` when the next one is no longer kept, or was never
    /// here, or when the number is higher than `newest`.
    pub entries: Option<Vec<LoggedEntry>>,
}

/// Reads what follows entry `after`: at most `limit` entries, and at most `bytes_max` bytes of them, but at least one.
pub(crate) fn entries_after(
    view: &View,
    app: AppId,
    group: &GroupId,
    after: u64,
    limit: usize,
    bytes_max: usize,
) -> Result<EntriesAfter, GroupError> {
    let row = view.group(app, group).map_err(StorageError::from)?.ok_or(GroupError::UnknownGroup)?;
    let log = LogId::Group(app, group.clone());
    let newest = view.log_head(&log).map_err(StorageError::from)?.ok_or(GroupError::UnknownGroup)?;
    let mut answer = EntriesAfter { log: row.creation_digest, newest, entries: None };
    if after == newest {
        answer.entries = Some(Vec::new());
    }
    let Some(first) = after.checked_add(1).filter(|first| *first <= newest) else { return Ok(answer) };
    let stored = view.log_entries(app, group, first, limit.max(1), bytes_max).map_err(StorageError::from)?;
    let entries = stored
        .iter()
        .take_while(|(sequence, _)| *sequence <= newest)
        .map(|(sequence, bytes)| LoggedEntry::read(*sequence, bytes))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| {
            tracing::error!(?group, %error, "an entry of the group's log cannot be read");
            StorageError::Unreadable
        })?;
    answer.entries = Some(entries).filter(|entries| !entries.is_empty());
    Ok(answer)
}

/// The number of epochs read from disk at a time.
const PAGE: usize = 16;

/// Reads the entries from `from` to `to`, or to the current epoch: at most `limit`, and at most `bytes_max` bytes of them.
pub(crate) fn control_messages(
    view: &View,
    app: AppId,
    group: &GroupId,
    (from, to): (Epoch, Option<Epoch>),
    limit: usize,
    bytes_max: usize,
) -> Result<ControlMessages, GroupError> {
    let row = view.group(app, group).map_err(StorageError::from)?.ok_or(GroupError::UnknownGroup)?;
    let current = row.epoch;
    let first = from.max(Epoch(1));
    let last = to.map_or(current, |to| to.min(current));
    // On a replica that received the whole group, earlier history is shown once it is complete.
    let missed = view.missed_entries(app, group).map_err(StorageError::from)?;
    let hidden_before = missed.map_or(Epoch(0), |missed| missed.shown_from());
    let mut answer = ControlMessages { epochs: Vec::new(), current, next: None };
    if first > last {
        return Ok(answer);
    }
    if first < hidden_before {
        return Err(GroupError::EpochsPruned { floor: hidden_before });
    }
    let mut bytes = 0;
    let mut next = first;
    loop {
        let wanted = PAGE.min(limit.saturating_sub(answer.epochs.len()));
        let page = view.epochs(app, group, next, last, wanted).map_err(StorageError::from)?;
        // Only a history whose first epoch is missing can have been pruned there.
        if next == first && page.first().is_none_or(|(epoch, _)| *epoch != first) {
            // A replica that received the whole group does not know the history before.
            let none_kept = current.next().unwrap_or(current);
            let floor = view.first_epoch(app, group).map_err(StorageError::from)?.unwrap_or(none_kept);
            if first < floor {
                return Err(GroupError::EpochsPruned { floor });
            }
        }
        if page.is_empty() {
            break;
        }
        for (epoch, row) in page {
            let entry = read_epoch(view, app, group, (epoch, row))?;
            bytes += entry.commit.len() + entry.proposals.iter().map(Vec::len).sum::<usize>();
            if bytes > bytes_max && !answer.epochs.is_empty() {
                answer.next = Some(epoch);
                return Ok(answer);
            }
            answer.epochs.push(Arc::new(entry));
            match epoch.next() {
                Some(following) if epoch < last => next = following,
                Some(_) | None => return Ok(answer),
            }
        }
        if answer.epochs.len() >= limit {
            answer.next = Some(next);
            break;
        }
    }
    Ok(answer)
}

/// Reads the messages of an epoch where they are.
fn read_epoch(
    view: &View,
    app: AppId,
    group: &GroupId,
    (epoch, row): (Epoch, EpochRow),
) -> Result<EpochEntry, StorageError> {
    let of_entry = |sequence: u64| {
        let bytes = view.log_entry(app, group, sequence)?;
        let packet = bytes
            .as_deref()
            .map(|bytes| StoredEntry::read(bytes).map(|entry| entry.packet().map(<[u8]>::to_vec)));
        match packet {
            Some(Ok(Some(packet))) => Ok(packet),
            Some(Ok(None)) | None => {
                tracing::error!(?group, sequence, "an entry of the group's history is not there");
                Err(StorageError::Unreadable)
            }
            Some(Err(error)) => {
                tracing::error!(?group, sequence, %error, "an entry of the group's history cannot be read");
                Err(StorageError::Unreadable)
            }
        }
    };
    let proposal = |proposal| match proposal {
        CommittedProposal::Entry(sequence) => of_entry(sequence),
        CommittedProposal::Packet(packet) => Ok(packet.into()),
    };
    Ok(EpochEntry {
        epoch,
        timestamp: row.timestamp,
        proposals: row.proposals.into_iter().map(proposal).collect::<Result<_, _>>()?,
        commit: row.commit.map_or_else(|| of_entry(row.sequence), |commit| Ok(commit.into()))?,
    })
}

/// The first answer to an upload for an earlier epoch, if the same bytes were accepted then, as a proposal of that epoch or as
/// the commit that won it.
pub(crate) fn accepted_before(
    view: &View,
    app: AppId,
    group: &GroupId,
    epoch: Epoch,
    content: &EntryContent,
) -> Result<Option<Accepted>, GroupError> {
    match content {
        EntryContent::Proposal { packet } => {
            let digest = Sha256::digest(packet).into();
            let reference = view.accepted_proposal(app, group, epoch, &digest).map_err(StorageError::from)?;
            Ok(reference.map(|reference| {
                let reference = reference.to_vec();
                Accepted::Proposal(AcceptedProposal { reference, epoch, outcome: Outcome::Repeated })
            }))
        }
        EntryContent::Commit(bundle) => {
            let Some(created) = epoch.next() else { return Ok(None) };
            let row = view.epoch(app, group, created).map_err(StorageError::from)?;
            Ok(row.filter(|row| row.digest == commit_digest(bundle)).map(|row| {
                let (epoch, timestamp) = (created, row.timestamp);
                Accepted::Commit(AcceptedCommit { epoch, timestamp, outcome: Outcome::Repeated })
            }))
        }
        EntryContent::Creation(_) => Ok(None),
    }
}
