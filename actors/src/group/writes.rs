//! The batches that make a group's changes durable: everything one accepted request changes, in one piece.

use std::{collections::BTreeSet, sync::Arc};

use sha2::{Digest as _, Sha256};
use snapshots::{
    AppId, Batch, Bytes, DomainName, EpochRow, GroupId, GroupRow, Invitation, InvitedClient, KeyPackageRef,
    KeyQueueId, LogId, Timestamp, UsedRow, View, WelcomeRow,
};

use super::{
    GroupError, GroupState, MemberView, NewGroup,
    state::{StagedCommitUpload, StagedProposalUpload},
};
use crate::{
    application::Application,
    mls::{AddedMember, ValueError},
    peer::{EntryContent, LogEntry, entry_to_bytes},
    storage::StorageError,
};

/// The key queues to wake when a commit's batch is durable.
pub(crate) type UsedPackages = Vec<(KeyQueueId, KeyPackageRef)>;

/// What stays the same in a group's row.
#[derive(Clone, Debug)]
pub(crate) struct GroupOrigin {
    pub(crate) app: AppId,
    pub(crate) group: GroupId,
    pub(crate) row: GroupRow,
    /// Whether another gateway orders the group.
    pub(crate) is_replica: bool,
    /// The gateways that are sent every entry; none when this is a replica.
    pub(crate) peers: Arc<BTreeSet<DomainName>>,
    /// The domains assigned to this gateway.
    domains: BTreeSet<DomainName>,
}

impl GroupOrigin {
    pub(crate) fn new(application: &Application, group: GroupId, row: GroupRow) -> Self {
        let is_replica = !application.is_hub(row.hub.as_ref());
        let peers = if is_replica { Arc::default() } else { Arc::clone(&application.federates_with) };
        Self { app: application.id, group, row, is_replica, peers, domains: application.domains.clone() }
    }

    /// Whether what waits for a client of this domain is to be kept here, and not at another gateway.
    fn hosts(&self, domain: Option<&DomainName>) -> bool {
        domain.is_none_or(|domain| self.domains.contains(domain))
    }

    /// Keeps an entry for the peers and marks it as theirs to have.
    fn put_entry(
        &self,
        batch: &mut Batch,
        sequence: u64,
        timestamp: Timestamp,
        content: impl FnOnce() -> EntryContent,
    ) -> Result<(), ValueError> {
        if self.peers.is_empty() {
            return Ok(());
        }
        let entry = LogEntry { sequence, timestamp, content: content() };
        batch.put_log_entry(self.app, &self.group, sequence, entry_to_bytes(&entry)?);
        for peer in self.peers.iter() {
            batch.mark_outbox(peer, self.app, &self.group);
        }
        Ok(())
    }

    pub(crate) fn log(&self) -> LogId {
        LogId::Group(self.app, self.group.clone())
    }
}

/// Creates the group's log, its first snapshot, its row and its creator's membership; refused if the log exists.
pub(crate) fn creation(
    origin: &GroupOrigin,
    state: &GroupState,
    new: &NewGroup,
) -> Result<Batch, GroupError> {
    let log = origin.log();
    let mut batch = Batch::new();
    batch.create_log(&log);
    batch.put_snapshot(&log, 0, state.to_snapshot().map_err(|_| StorageError::Unreadable)?);
    batch.put_group(origin.app, &origin.group, &origin.row);
    for member in state.roster() {
        batch.put_membership(origin.app, &member.handle, member.domain.as_ref(), &origin.group);
    }
    let content = || EntryContent::Creation {
        group_info: new.group_info.clone(),
        ratchet_tree: new.ratchet_tree.clone(),
    };
    origin.put_entry(&mut batch, 0, state.stamp(), content).map_err(|_| StorageError::Unreadable)?;
    Ok(batch)
}

/// Puts a group that its hub handed over as a whole in the place of the replica that is there, if one is.
pub(crate) fn transfer(
    origin: &GroupOrigin,
    state: &GroupState,
    sequence: u64,
    before: Option<(u64, &[MemberView])>,
) -> Result<Batch, GroupError> {
    let log = origin.log();
    let mut batch = Batch::new();
    batch.start_log_at(&log, before.map(|(head, _)| head), sequence);
    batch.put_snapshot(&log, sequence, state.to_snapshot().map_err(|_| StorageError::Unreadable)?);
    batch.put_group(origin.app, &origin.group, &origin.row);
    for member in before.map_or([].as_slice(), |(_, roster)| roster) {
        batch.delete_membership(origin.app, &member.handle, member.domain.as_ref(), &origin.group);
    }
    for member in state.roster() {
        batch.put_membership(origin.app, &member.handle, member.domain.as_ref(), &origin.group);
    }
    Ok(batch)
}

/// Records an accepted proposal, and that its bytes were accepted, for a later retry.
pub(crate) fn proposal(
    batch: &mut Batch,
    origin: &GroupOrigin,
    after: u64,
    staged: &StagedProposalUpload,
    used_once: Option<&KeyPackageRef>,
) -> Result<(), ValueError> {
    let pending = &staged.staged.pending;
    let digest = Sha256::digest(&pending.packet).into();
    batch.append_record(&origin.log(), after, &staged.record);
    batch.put_accepted_proposal(origin.app, &origin.group, origin.row.epoch, &digest, &pending.reference);
    if let Some(package) = used_once {
        batch.require_unused(origin.app, package);
    }
    let content = || EntryContent::Proposal { packet: pending.packet.clone() };
    origin.put_entry(batch, after.saturating_add(1), staged.stamp, content)
}

/// Remembers the answer to a proposal that waits for another form of it, unless it is remembered for `others_max` already.
pub(crate) fn other_bytes(
    batch: &mut Batch,
    origin: &GroupOrigin,
    packet: &[u8],
    reference: &[u8],
    others_max: usize,
) {
    let digest = Sha256::digest(packet).into();
    // The form that was accepted first counts as well.
    let forms_max = others_max.saturating_add(1);
    let GroupOrigin { app, group, row, .. } = origin;
    batch.put_other_accepted_proposal(*app, group, row.epoch, &digest, reference, forms_max);
}

/// Records an accepted commit: the record, the epoch for history, the index of memberships, one join info per added
/// member of a domain that this gateway hosts, and one used row per package that is used once. Join infos are held to
/// the limits of the invitation.
pub(crate) fn commit(
    origin: &GroupOrigin,
    after: u64,
    upload: &super::CommitUpload,
    staged: &StagedCommitUpload,
    packages: &[PackageUse],
    invitation: Invitation,
) -> Result<(Batch, UsedPackages), ValueError> {
    let GroupOrigin { app, group, .. } = origin;
    let epoch = staged.staged.epoch;
    let mut batch = Batch::new();
    batch.append_record(&origin.log(), after, &staged.record);
    batch.put_group(*app, group, &GroupRow { epoch, ..origin.row.clone() });
    batch.put_epoch(
        *app,
        group,
        epoch,
        &EpochRow {
            timestamp: staged.stamp,
            commit: Bytes::copy_from_slice(&upload.commit),
            proposals: staged.staged.referenced.iter().map(|packet| Bytes::copy_from_slice(packet)).collect(),
            digest: upload.digest(),
            sequence: after.saturating_add(1),
        },
    );
    for member in &staged.staged.departed {
        batch.delete_membership(*app, &member.handle, member.domain.as_ref(), group);
    }
    for member in &staged.staged.arrived {
        batch.put_membership(*app, &member.handle, member.domain.as_ref(), group);
    }
    if let Some(welcome) = &upload.welcome {
        // A client of another domain asks its own gateway.
        let (here, elsewhere): (Vec<_>, Vec<_>) = invited_clients(&staged.staged.added)
            .into_iter()
            .partition(|client| origin.hosts(client.domain.as_ref()));
        if let Invitation::Accepted { by, limits } = invitation {
            batch.count_invitations_elsewhere(*app, &elsewhere, by, limits, staged.stamp);
        }
        let row = WelcomeRow {
            welcome: Bytes::copy_from_slice(welcome),
            ratchet_tree: staged.staged.tree.to_bytes().into(),
            timestamp: staged.stamp,
        };
        batch.put_welcome(*app, group, epoch, &row, &here, invitation);
    }
    let mut used = UsedPackages::new();
    for package in packages.iter().filter(|package| package.once) {
        let row = UsedRow { group: group.clone(), epoch, not_after: package.not_after };
        if origin.is_replica {
            batch.note_key_package_used(*app, &package.reference, &row);
        } else {
            batch.use_key_package(*app, &package.reference, &row);
        }
        for queue in &package.queues {
            batch.delete_key_package(*app, *queue, &package.reference);
            used.push((*queue, package.reference.clone()));
        }
    }
    let content = || EntryContent::Commit {
        commit: upload.commit.clone(),
        group_info: upload.group_info.clone(),
        welcome: upload.welcome.clone(),
    };
    origin.put_entry(&mut batch, after.saturating_add(1), staged.stamp, content)?;
    Ok((batch, used))
}

/// The clients that a commit adds.
pub(crate) fn invited_clients(added: &[AddedMember]) -> Vec<InvitedClient> {
    let client = |AddedMember { member, .. }: &AddedMember| InvitedClient {
        handle: member.handle.clone(),
        domain: member.domain.clone(),
    };
    added.iter().map(client).collect()
}

/// How a key package may be used.
#[derive(Clone, Debug)]
pub(crate) struct PackageUse {
    pub(crate) reference: KeyPackageRef,
    pub(crate) not_after: Timestamp,
    /// It is not a final key: using it advances its queues and it is never used again.
    pub(crate) once: bool,
    pub(crate) queues: Vec<KeyQueueId>,
}

impl PackageUse {
    /// Looks up every package that a commit adds.
    ///
    /// # Errors
    /// That the store cannot be read.
    pub(crate) fn look_up_all(
        view: &View,
        app: AppId,
        added: &[AddedMember],
    ) -> Result<Vec<Self>, StorageError> {
        let look_up = |added: &AddedMember| {
            let (once, queues) = used_once(view, app, &added.reference, added.last_resort)?;
            Ok(Self { reference: added.reference.clone(), not_after: added.not_after, once, queues })
        };
        added.iter().map(look_up).collect()
    }

    /// Whether a package is used once only; see [`used_once`].
    ///
    /// # Errors
    /// That the store cannot be read.
    pub(crate) fn is_once(
        view: &View,
        app: AppId,
        reference: &KeyPackageRef,
        last_resort: bool,
    ) -> Result<bool, StorageError> {
        used_once(view, app, reference, last_resort).map(|(once, _)| once)
    }

    /// # Errors
    /// [`GroupError::KeyPackageReused`] if a package was used before, whatever it says of itself.
    pub(crate) fn require_unused<'a>(
        view: &View,
        app: AppId,
        mut references: impl Iterator<Item = &'a KeyPackageRef>,
    ) -> Result<(), GroupError> {
        references.try_for_each(|reference| match view.used(app, reference).map_err(StorageError::from)? {
            Some(_) => Err(GroupError::KeyPackageReused { reference: reference.clone(), proposal: None }),
            None => Ok(()),
        })
    }
}

/// Whether a package is used once only, and the queues here that hold it: one that they hold is final if it is their final
/// key; any other is final if it carries the last-resort extension.
fn used_once(
    view: &View,
    app: AppId,
    reference: &KeyPackageRef,
    last_resort: bool,
) -> Result<(bool, Vec<KeyQueueId>), StorageError> {
    let holders = view.queues_holding(app, reference)?;
    let once =
        if holders.is_empty() { !last_resort } else { holders.iter().any(|(_, _, row)| !row.is_final) };
    Ok((once, holders.into_iter().map(|(queue, _, _)| queue).collect()))
}
