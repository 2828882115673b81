//! The batches that make a group's changes durable: everything one accepted request changes, in one piece.

use sha2::{Digest as _, Sha256};
use snapshots::{
    AppId, Batch, Bytes, ClientHandle, DomainName, EpochRow, GroupId, GroupRow, KeyPackageRef, KeyQueueId,
    LogId, Timestamp, UsedRow, View, WelcomeRow,
};

use super::{
    GroupError, GroupState,
    state::{StagedCommitUpload, StagedProposalUpload},
};
use crate::{mls::AddedMember, storage::StorageError};

/// The key queues to wake when a commit's batch is durable.
pub(crate) type UsedPackages = Vec<(KeyQueueId, KeyPackageRef)>;

/// What stays the same in a group's row.
#[derive(Clone, Debug)]
pub(crate) struct GroupOrigin {
    pub(crate) app: AppId,
    pub(crate) group: GroupId,
    pub(crate) row: GroupRow,
}

impl GroupOrigin {
    pub(crate) fn log(&self) -> LogId {
        LogId::Group(self.app, self.group.clone())
    }
}

/// Creates the group's log, its first snapshot, its row and its creator's membership; refused if the log exists.
pub(crate) fn creation(origin: &GroupOrigin, state: &GroupState) -> Result<Batch, GroupError> {
    let log = origin.log();
    let mut batch = Batch::new();
    batch.create_log(&log);
    batch.put_snapshot(&log, 0, state.to_snapshot().map_err(|_| StorageError::Unreadable)?);
    batch.put_group(origin.app, &origin.group, &origin.row);
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
) {
    let pending = &staged.staged.pending;
    let digest = Sha256::digest(&pending.packet).into();
    batch.append_record(&origin.log(), after, &staged.record);
    batch.put_accepted_proposal(origin.app, &origin.group, origin.row.epoch, &digest, &pending.reference);
    if let Some(package) = used_once {
        batch.require_unused(origin.app, package);
    }
}

/// Records an accepted commit: the record, the epoch for history, the index of memberships, one join info per added
/// member of a domain that this gateway hosts, and one used row per package that is used once.
pub(crate) fn commit(
    origin: &GroupOrigin,
    after: u64,
    upload: &super::CommitUpload,
    staged: &StagedCommitUpload,
    packages: &[PackageUse],
    hosts: impl Fn(Option<&DomainName>) -> bool,
) -> (Batch, UsedPackages) {
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
        let hosted = staged.staged.added.iter().filter(|added| hosts(added.member.domain.as_ref()));
        let handles: Vec<ClientHandle> = hosted.map(|added| added.member.handle.clone()).collect();
        let row = WelcomeRow {
            welcome: Bytes::copy_from_slice(welcome),
            ratchet_tree: staged.staged.tree.to_bytes().into(),
            timestamp: staged.stamp,
        };
        batch.put_welcome(*app, group, epoch, &row, &handles);
    }
    let mut used = UsedPackages::new();
    for package in packages.iter().filter(|package| package.once) {
        let row = UsedRow { group: group.clone(), epoch, not_after: package.not_after };
        batch.use_key_package(*app, &package.reference, &row);
        for queue in &package.queues {
            batch.delete_key_package(*app, *queue, &package.reference);
            used.push((*queue, package.reference.clone()));
        }
    }
    (batch, used)
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
    /// Looks a package up: one that a queue here holds is final if the queue holds it as its final key; any other is
    /// final if it carries the last-resort extension.
    ///
    /// # Errors
    /// [`GroupError::KeyPackageReused`] if it was used before.
    pub(crate) fn look_up(
        view: &View,
        app: AppId,
        reference: &KeyPackageRef,
        last_resort: bool,
        not_after: Timestamp,
    ) -> Result<Self, GroupError> {
        if view.used(app, reference).map_err(StorageError::from)?.is_some() {
            return Err(GroupError::KeyPackageReused { reference: reference.clone() });
        }
        let holders = view.queues_holding(app, reference).map_err(StorageError::from)?;
        let once =
            if holders.is_empty() { !last_resort } else { holders.iter().any(|(_, _, row)| !row.is_final) };
        Ok(Self {
            reference: reference.clone(),
            not_after,
            once,
            queues: holders.into_iter().map(|(queue, _, _)| queue).collect(),
        })
    }

    /// Looks up every package that a commit adds.
    pub(crate) fn look_up_all(
        view: &View,
        app: AppId,
        added: &[AddedMember],
    ) -> Result<Vec<Self>, GroupError> {
        added
            .iter()
            .map(|added| Self::look_up(view, app, &added.reference, added.last_resort, added.not_after))
            .collect()
    }
}
