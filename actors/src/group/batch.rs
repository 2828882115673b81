//! Batches that make a group's changes durable: everything that one accepted request changes, written as a whole or not at
//! all.

use std::{collections::BTreeSet, ops::RangeInclusive, sync::Arc};

use sha2::{Digest as _, Sha256};
use snapshots::{
    Batch, Bytes, CommittedProposal, Epoch, EpochCommitter, EpochRow, Event, GroupRow, Invitation,
    InvitedClient, KeyPackageRef, MissedEntries, Timestamp, UsedRow, View, WelcomeRow,
};

use super::{
    EntryContent, GroupError, GroupMeta, GroupState, GroupView, LogEntry, NewGroup,
    log::commit_digest,
    missed::{Filled, FilledEpoch},
    state::StagedEntry,
    stored_entry::{creation_row, entry_row},
};
use crate::{
    application::Application,
    codec::CodecError,
    durable::{DurableState, LateBatch},
    error::StorageError,
    identity::{ApplicationContext, GroupContextExtensions, Identity},
    mls::{
        AddedMember, CommitBundle, RatchetTree, Referenced, StagedEpoch, StagedProposal, UnseenKeyPackage,
        cipher_suite, key_package_reference, welcome_references,
    },
};

/// Creates the group's log, its first snapshot, its row and its creator's membership; refused if the log exists.
pub(crate) fn creation(
    meta: &GroupMeta,
    state: &GroupState,
    new: &Arc<NewGroup>,
) -> Result<Batch, GroupError> {
    let mut batch = Batch::new();
    batch.require_not_deleted(meta.app, &meta.group);
    batch.create_log(&meta.log());
    put_creation(&mut batch, meta, state, new)?;
    Ok(batch)
}

/// Deletes the group, tells its peers and announces it. `unchanged_at` is the last entry that its log may have; `None` for any.
pub(crate) fn deletion(meta: &GroupMeta, unchanged_at: Option<u64>, at: Timestamp) -> Batch {
    let mut batch = Batch::new();
    if let Some(head) = unchanged_at {
        batch.require_log_at(&meta.log(), head);
    }
    batch.delete_group(meta.app, &meta.group, &meta.row, at);
    meta.mark_for_peers(&mut batch);
    batch.add_event(&Event::GroupDeleted { group: meta.group.clone() });
    batch.announce(meta.app, at);
    batch
}

/// As [`creation`], in the place of a replica that another gateway handed over without the creation. `history` are the
/// epochs that the replica has rows of.
pub(crate) fn creation_instead(
    meta: &GroupMeta,
    state: &GroupState,
    new: &Arc<NewGroup>,
    (before, missed, history): (&GroupView, Option<&MissedEntries>, RangeInclusive<u64>),
) -> Result<Batch, GroupError> {
    let mut batch = Batch::new();
    batch.start_log_at(&meta.log(), Some(before.sequence), 0);
    batch.add_event(&Event::GroupReplaced { group: meta.group.clone(), sequence: 0 });
    batch.replace_missed_entries(meta.app, &meta.group, missed, None);
    for epoch in history {
        batch.delete_epoch(meta.app, &meta.group, Epoch(epoch));
    }
    for member in before.members() {
        batch.delete_membership(meta.app, member.handle, member.domain, &meta.group);
    }
    put_creation(&mut batch, meta, state, new)?;
    Ok(batch)
}

fn put_creation(
    batch: &mut Batch,
    meta: &GroupMeta,
    state: &GroupState,
    new: &Arc<NewGroup>,
) -> Result<(), GroupError> {
    let log = meta.log();
    batch.add_event(&Event::GroupCreated { group: meta.group.clone() });
    batch.put_snapshot(&log, 0, state.to_snapshot().map_err(|_| StorageError::Unreadable)?);
    batch.put_group(meta.app, &meta.group, &meta.row);
    for member in state.members() {
        batch.put_membership(meta.app, member.handle, member.domain, (&meta.group, Epoch(0)));
    }
    // The snapshot has all of it but its messages, which only peers are sent.
    if !meta.peers.is_empty() {
        let row = creation_row(state.stamp(), new).map_err(|_| StorageError::Unreadable)?;
        batch.put_log_entry(meta.app, &meta.group, 0, row);
        meta.mark_for_peers(batch);
    }
    Ok(())
}

/// Replaces the existing replica, if there is one, with the whole group that its hub handed over.
pub(crate) fn transfer(
    meta: &GroupMeta,
    state: &GroupState,
    sequence: u64,
    before: Option<&GroupView>,
) -> Result<Batch, GroupError> {
    let log = meta.log();
    let mut batch = Batch::new();
    batch.require_not_deleted(meta.app, &meta.group);
    batch.start_log_at(&log, before.map(|before| before.sequence), sequence);
    let group = meta.group.clone();
    batch.add_event(&match before {
        Some(_) => Event::GroupReplaced { group, sequence },
        None => Event::GroupCreated { group },
    });
    batch.put_snapshot(&log, sequence, state.to_snapshot().map_err(|_| StorageError::Unreadable)?);
    batch.put_group(meta.app, &meta.group, &meta.row);
    for member in before.into_iter().flat_map(GroupView::members) {
        batch.delete_membership(meta.app, member.handle, member.domain, &meta.group);
    }
    for member in state.members() {
        batch.put_membership(meta.app, member.handle, member.domain, (&meta.group, meta.row.epoch));
    }
    Ok(batch)
}

/// Keeps what a replica was shown of its history after the group had been handed over: the epochs, the answers to
/// their proposals, the welcomes for clients here, and which key packages were used.
pub(crate) fn filled(
    meta: &GroupMeta,
    (application, suite): (&Application, u16),
    view: &View,
    (before, filled): (&MissedEntries, &Filled),
) -> Result<Batch, StorageError> {
    let (app, group) = (meta.app, &meta.group);
    let mut batch = Batch::new();
    let after = Some(&filled.missed).filter(|missed| missed.is_open() || missed.floor > Epoch(0));
    batch.require_group(app, group, &meta.row);
    batch.replace_missed_entries(app, group, Some(before), after);
    for (epoch, digest, reference) in &filled.proposals {
        batch.put_accepted_proposal(app, group, *epoch, digest, reference);
    }
    for filled in &filled.epochs {
        // An epoch that the replica went through itself, between two groups that it was handed.
        let is_known = view
            .epoch(app, group, filled.epoch)?
            .is_some_and(|row| (row.sequence, row.digest) == (filled.row.sequence, filled.row.digest));
        if is_known {
            continue;
        }
        batch.put_epoch(app, group, filled.epoch, &filled.row);
        let clients = note_added(&mut batch, meta, (application, suite), filled);
        if let Some(welcome) = &filled.welcome {
            let row = WelcomeRow {
                welcome: Bytes::copy_from_slice(welcome),
                ratchet_tree: filled.ratchet_tree.clone().unwrap_or_default().into(),
                timestamp: filled.row.timestamp,
                tree_bytes_to_store: 0,
            };
            batch.put_welcome(app, group, filled.epoch, &row, &clients, Invitation::AcceptedElsewhere);
        }
    }
    Ok(batch)
}

/// Notes that the key packages which a commit added were used; answers which clients here the welcome is for.
fn note_added(
    batch: &mut Batch,
    meta: &GroupMeta,
    (application, suite): (&Application, u16),
    filled: &FilledEpoch,
) -> Vec<InvitedClient> {
    let welcomed: BTreeSet<KeyPackageRef> =
        filled.welcome.as_deref().map(welcome_references).unwrap_or_default().into_iter().collect();
    let Ok(suite) = cipher_suite(suite) else { return Vec::new() };
    let mut clients = Vec::new();
    for bytes in &filled.added {
        let read = UnseenKeyPackage::read(bytes)
            .and_then(|package| Ok((key_package_reference(suite, bytes)?, package)));
        let Ok((reference, package)) = read else { continue };
        let row = UsedRow { group: meta.group.clone(), epoch: filled.epoch, not_after: package.not_after };
        batch.note_key_package_used(meta.app, &reference, package.last_resort, &row);
        if !welcomed.contains(&reference) {
            continue;
        }
        let identity = Identity { signature_key: package.signature_key, credential: package.credential };
        let context = ApplicationContext { msg_timestamp: filled.row.timestamp, is_accepted: true };
        let identified = application.identity.identify(identity, GroupContextExtensions::empty(), context);
        match identified {
            Ok(client) if meta.hosts(client.domain.as_ref()) => {
                clients.push(InvitedClient { handle: client.handle, domain: client.domain });
            }
            Ok(_) | Err(_) => {}
        }
    }
    clients
}

/// Appends a proposal to the log, and remembers its answer for these bytes. `used_once` is the key package that must still
/// be unused.
pub(super) fn proposal(
    batch: &mut Batch,
    meta: &GroupMeta,
    staged: &StagedEntry,
    (proposal, packet): (&StagedProposal, &[u8]),
    used_once: Option<&KeyPackageRef>,
) -> Result<(), CodecError> {
    let digest = Sha256::digest(packet).into();
    append(batch, meta, staged)?;
    let reference = &proposal.pending.reference;
    batch.add_event(&Event::Proposal {
        group: meta.group.clone(),
        sequence: staged.entry.sequence,
        epoch: meta.row.epoch,
        reference: Bytes::copy_from_slice(reference),
    });
    batch.put_accepted_proposal(meta.app, &meta.group, meta.row.epoch, &digest, reference);
    if let Some(package) = used_once {
        batch.require_unused(meta.app, package);
    }
    Ok(())
}

/// Appends an entry to the log. Its welcome is kept there for peers alone: they may need it when those whom it is for have it.
fn append(batch: &mut Batch, meta: &GroupMeta, staged: &StagedEntry) -> Result<(), CodecError> {
    let StagedEntry { entry, .. } = staged;
    let keeps_welcome = !meta.peers.is_empty();
    batch.require_group(meta.app, &meta.group, &meta.row);
    if !meta.is_replica {
        batch.require_quotas(meta.app, meta.quotas);
    }
    batch.append_record(&meta.log(), entry.sequence.saturating_sub(1), entry_row(staged, keeps_welcome)?);
    if !keeps_welcome && matches!(&entry.content, EntryContent::Commit(bundle) if bundle.welcome.is_some()) {
        batch.note_partial_entry(meta.app, &meta.group);
    }
    meta.mark_for_peers(batch);
    Ok(())
}

/// Remembers the answer to a proposal that waits for another form of it, unless it is remembered for `others_max` already.
pub(crate) fn other_bytes(
    batch: &mut Batch,
    meta: &GroupMeta,
    packet: &[u8],
    reference: &[u8],
    others_max: usize,
) {
    let digest = Sha256::digest(packet).into();
    // The form that was accepted first counts as well.
    let forms_max = others_max.saturating_add(1);
    let GroupMeta { app, group, row, .. } = meta;
    batch.require_group(*app, group, row);
    batch.put_other_accepted_proposal(*app, group, row.epoch, &digest, reference, forms_max);
}

/// Appends a commit to the log, with what follows from it: the epoch for the history, the index of memberships, one join
/// info for each added client of a domain that this gateway hosts, and the use of their key packages. Join infos are held
/// to the limits of the invitation.
pub(super) fn commit(
    batch: &mut Batch,
    meta: &GroupMeta,
    staged: &StagedEntry,
    (epoch, bundle): (&StagedEpoch, &CommitBundle),
    invitation: Invitation,
) -> Result<(), CodecError> {
    let (app, group) = (meta.app, &meta.group);
    let LogEntry { sequence, timestamp, .. } = staged.entry;
    append(batch, meta, staged)?;
    batch.add_event(&Event::Epoch { group: group.clone(), sequence, epoch: epoch.epoch, timestamp });
    batch.put_group(app, group, &GroupRow { epoch: epoch.epoch, ..meta.row.clone() });
    let row = EpochRow {
        timestamp,
        commit: None,
        proposals: epoch.referenced.iter().map(committed).collect(),
        digest: commit_digest(bundle),
        sequence,
        committer: epoch.tree.leaf(epoch.committer_leaf).map(|leaf| EpochCommitter {
            leaf_index: epoch.committer_leaf,
            handle: leaf.member.handle.clone(),
        }),
    };
    batch.put_epoch(app, group, epoch.epoch, &row);
    for member in &epoch.departed {
        batch.delete_membership(app, &member.handle, member.domain.as_ref(), group);
    }
    for member in &epoch.arrived {
        batch.put_membership(app, &member.handle, member.domain.as_ref(), (group, epoch.epoch));
    }
    if let Some(welcome) = &bundle.welcome {
        // A client of another domain asks its own gateway.
        let (here, elsewhere): (Vec<_>, Vec<_>) =
            invited_clients(&epoch.added).into_iter().partition(|client| meta.hosts(client.domain.as_ref()));
        if let Invitation::Accepted { by, limits } = invitation {
            batch.count_invitations_elsewhere(app, &elsewhere, by, limits, timestamp);
        }
        let row = WelcomeRow {
            welcome: Bytes::copy_from_slice(welcome),
            ratchet_tree: Bytes::new(),
            timestamp,
            tree_bytes_to_store: epoch.tree.length() as u64,
        };
        batch.put_welcome(app, group, epoch.epoch, &row, &here, invitation);
    }
    for AddedMember { reference, last_resort, not_after, .. } in &epoch.added {
        let row = UsedRow { group: group.clone(), epoch: epoch.epoch, not_after: *not_after };
        if meta.is_replica {
            batch.note_key_package_used(app, reference, *last_resort, &row);
        } else {
            batch.use_key_package(app, reference, *last_resort, &row);
        }
    }
    Ok(())
}

/// Where the history finds a proposal: in the log, unless the group was handed over with it.
fn committed(Referenced { packet, entry }: &Referenced) -> CommittedProposal {
    match entry {
        Some(number) => CommittedProposal::Entry(*number),
        None => CommittedProposal::Packet(Bytes::copy_from_slice(packet)),
    }
}

/// Stores the tree of the welcome of an epoch, if it still waits.
pub(super) fn welcome_tree(meta: &GroupMeta, epoch: Epoch, tree: &RatchetTree) -> LateBatch {
    let (app, group, row, tree) = (meta.app, meta.group.clone(), meta.row.clone(), tree.clone());
    Box::new(move |view| {
        let waiting = view.welcome(app, &group, epoch)?.filter(|row| row.tree_bytes_to_store > 0);
        Ok(waiting.map(|_| {
            let mut batch = Batch::new();
            batch.require_group(app, &group, &row);
            batch.store_welcome_tree(app, &group, epoch, tree.to_bytes().into());
            batch
        }))
    })
}

/// The clients that a commit adds.
pub(crate) fn invited_clients(added: &[AddedMember]) -> Vec<InvitedClient> {
    let client = |AddedMember { member, .. }: &AddedMember| InvitedClient {
        handle: member.handle.clone(),
        domain: member.domain.clone(),
    };
    added.iter().map(client).collect()
}
