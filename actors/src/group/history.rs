//! A group's history, read from disk without its actor: control messages, and the answers to repeated uploads.

use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use snapshots::{AppId, Epoch, GroupId, Timestamp, View};

use super::{
    Accepted, AcceptedCommit, AcceptedProposal, EntryContent, GroupError, LogEntry, Outcome,
    log::commit_digest,
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
            proposals: staged.referenced.iter().map(|packet| packet.to_vec()).collect(),
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
            bytes += row.commit.len() + row.proposals.iter().map(|packet| packet.len()).sum::<usize>();
            if bytes > bytes_max && !answer.epochs.is_empty() {
                answer.next = Some(epoch);
                return Ok(answer);
            }
            answer.epochs.push(Arc::new(EpochEntry {
                epoch,
                timestamp: row.timestamp,
                proposals: row.proposals.into_iter().map(Vec::from).collect(),
                commit: row.commit.into(),
            }));
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
