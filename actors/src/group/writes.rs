//! The batches of a group: everything that one accepted request changes, written together.

use std::{collections::BTreeSet, ops::RangeInclusive, sync::Arc};

use openmls::prelude::Extensions;
use sha2::{Digest as _, Sha256};
use snapshots::{
    AppId, Batch, Bytes, ClientHandle, DomainName, Epoch, EpochRow, GroupId, GroupRow, Invitation,
    InvitedClient, KeyPackageRef, KeyQueueId, LogId, MissedEntries, Timestamp, UsedRow, View, WelcomeRow,
};

use super::{
    GroupError, GroupState, GroupView, MemberView, NewGroup,
    missed::{Filled, FilledEpoch},
    state::{StagedCommitUpload, StagedProposalUpload},
};
use crate::{
    application::Application,
    identity::{ApplicationContext, Identity},
    mls::{
        AddedMember, Crypto, UnseenKeyPackage, ValueError, cipher_suite, key_package_reference,
        welcome_references,
    },
    peer::{EntryContent, LogEntry, entry_to_bytes},
    storage::StorageError,
};

/// The key queues to wake when a commit's batch is durable.
pub(crate) type UsedPackages = Vec<(KeyQueueId, KeyPackageRef)>;

/// A group's identity, its row as last written, and the gateways that receive its entries.
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

/// Begins what stands for the digest of a creation where the creation was never here; [`CREATOR_UNNAMED`],
/// [`CREATOR_IS_HUBS`] or the digest of a client that may still show the creation follows.
const NO_CREATION: [u8; 16] = [0; 16];
/// Nobody noted who was at leaf 0: the row is of a version that did not.
const CREATOR_UNNAMED: [u8; 16] = [0; 16];
/// Nobody else can show the creation: the hub speaks for the client at leaf 0, or nobody was there.
const CREATOR_IS_HUBS: [u8; 16] = [0xff; 16];

/// A client's handle and domain.
pub(crate) type Named<'a> = (&'a ClientHandle, Option<&'a DomainName>);

fn creator_digest((handle, domain): Named<'_>) -> [u8; 16] {
    let domain = domain.map_or("", DomainName::as_str);
    // No domain contains a zero byte.
    let digest: [u8; 32] = Sha256::new()
        .chain_update(domain)
        .chain_update([0])
        .chain_update(handle.as_bytes())
        .finalize()
        .into();
    let mut begin = CREATOR_UNNAMED;
    begin.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
    begin
}

/// What stands for the creation of a group that was handed over; `None` if its creation was here.
fn handed_over_by(row: &GroupRow) -> Option<[u8; 16]> {
    let (begin, creator) = row.creation_digest.split_first_chunk::<16>()?;
    (*begin == NO_CREATION).then(|| <[u8; 16]>::try_from(creator).ok()).flatten()
}

/// Whether a group was handed over by the gateway that the row names, which never showed its creation: that gateway says
/// that it is the hub, and nothing here proves it.
pub(crate) fn is_handed_over(row: &GroupRow) -> bool {
    handed_over_by(row).is_some()
}

/// Whether a creation by a client is the one of a group that was handed over. Whoever is at leaf 0 when the group is
/// handed over may have made it; whoever takes that leaf later has not. `first` is at leaf 0 now, for a row that does not
/// say who was.
pub(crate) fn shows_creation(row: &GroupRow, creator: Named<'_>, first: Option<Named<'_>>) -> bool {
    match handed_over_by(row) {
        None => false,
        Some(CREATOR_UNNAMED) => first == Some(creator),
        Some(noted) => noted == creator_digest(creator),
    }
}

/// The row of a group that was handed over and whose creation was never here. `creator` is the client at leaf 0, unless
/// the hub speaks for it.
pub(crate) fn handed_over_row(
    epoch: Epoch,
    accepted: Timestamp,
    hub: DomainName,
    creator: Option<Named<'_>>,
) -> GroupRow {
    let creator = creator.map_or(CREATOR_IS_HUBS, creator_digest);
    let mut creation_digest = [0; 32];
    let bytes = NO_CREATION.into_iter().chain(creator);
    creation_digest.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
    GroupRow { epoch, created_at: accepted, creation_digest, hub: Some(hub) }
}

/// Creates the group's log, its first snapshot, its row and its creator's membership; refused if the log exists.
pub(crate) fn creation(
    origin: &GroupOrigin,
    state: &GroupState,
    new: &NewGroup,
) -> Result<Batch, GroupError> {
    let mut batch = Batch::new();
    batch.create_log(&origin.log());
    put_creation(&mut batch, origin, state, new)?;
    Ok(batch)
}

/// As [`creation`], in the place of a replica that another gateway handed over without the creation. `history` are the
/// epochs that the replica has rows of.
pub(crate) fn creation_instead(
    origin: &GroupOrigin,
    state: &GroupState,
    new: &NewGroup,
    (before, missed, history): (&GroupView, Option<&MissedEntries>, RangeInclusive<u64>),
) -> Result<Batch, GroupError> {
    let mut batch = Batch::new();
    batch.start_log_at(&origin.log(), Some(before.sequence), 0);
    batch.replace_missed_entries(origin.app, &origin.group, missed, None);
    for epoch in history {
        batch.delete_epoch(origin.app, &origin.group, Epoch(epoch));
    }
    for member in before.members.iter() {
        batch.delete_membership(origin.app, &member.handle, member.domain.as_ref(), &origin.group);
    }
    put_creation(&mut batch, origin, state, new)?;
    Ok(batch)
}

fn put_creation(
    batch: &mut Batch,
    origin: &GroupOrigin,
    state: &GroupState,
    new: &NewGroup,
) -> Result<(), GroupError> {
    let log = origin.log();
    batch.put_snapshot(&log, 0, state.to_snapshot().map_err(|_| StorageError::Unreadable)?);
    batch.put_group(origin.app, &origin.group, &origin.row);
    for member in state.roster() {
        batch.put_membership(origin.app, &member.handle, member.domain.as_ref(), &origin.group);
    }
    let content = || EntryContent::Creation {
        group_info: new.group_info.clone(),
        ratchet_tree: new.ratchet_tree.clone(),
    };
    origin.put_entry(batch, 0, state.stamp(), content).map_err(|_| StorageError::Unreadable)?;
    Ok(())
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

/// Keeps what a replica was shown of its history after the group had been handed over: the epochs, the answers to
/// their proposals, the welcomes for clients here, and which key packages were used.
pub(crate) fn filled(
    origin: &GroupOrigin,
    (application, crypto, suite): (&Application, &Crypto, u16),
    view: &View,
    (before, filled): (&MissedEntries, &Filled),
) -> Result<(Batch, UsedPackages), StorageError> {
    let (app, group) = (origin.app, &origin.group);
    let (mut batch, mut used) = (Batch::new(), UsedPackages::new());
    let after = Some(&filled.missed).filter(|missed| missed.is_open() || missed.floor > Epoch(0));
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
        let clients = note_added(&mut batch, &mut used, origin, (application, crypto, suite), view, filled)?;
        if let Some(welcome) = &filled.welcome {
            let row = WelcomeRow {
                welcome: Bytes::copy_from_slice(welcome),
                ratchet_tree: filled.ratchet_tree.clone().unwrap_or_default().into(),
                timestamp: filled.row.timestamp,
            };
            batch.put_welcome(app, group, filled.epoch, &row, &clients, Invitation::AcceptedElsewhere);
        }
    }
    Ok((batch, used))
}

/// Notes that the key packages which a commit added were used; answers which clients here the welcome is for.
fn note_added(
    batch: &mut Batch,
    used: &mut UsedPackages,
    origin: &GroupOrigin,
    (application, crypto, suite): (&Application, &Crypto, u16),
    view: &View,
    filled: &FilledEpoch,
) -> Result<Vec<InvitedClient>, StorageError> {
    let welcomed: BTreeSet<KeyPackageRef> =
        filled.welcome.as_deref().map(welcome_references).unwrap_or_default().into_iter().collect();
    let Ok(suite) = cipher_suite(suite) else { return Ok(Vec::new()) };
    let mut clients = Vec::new();
    for bytes in &filled.added {
        let read = UnseenKeyPackage::read(bytes)
            .and_then(|package| Ok((key_package_reference(crypto, suite, bytes)?, package)));
        let Ok((reference, package)) = read else { continue };
        let (once, queues) = used_once(view, origin.app, &reference, package.last_resort)?;
        if once {
            let row =
                UsedRow { group: origin.group.clone(), epoch: filled.epoch, not_after: package.not_after };
            batch.note_key_package_used(origin.app, &reference, &row);
            for queue in queues {
                batch.delete_key_package(origin.app, queue, &reference);
                used.push((queue, reference.clone()));
            }
        }
        if !welcomed.contains(&reference) {
            continue;
        }
        let identity = Identity { signature_key: package.signature_key, credential: &package.credential };
        let context = ApplicationContext { msg_timestamp: filled.row.timestamp };
        let identified = application.identity.identify(identity, &Extensions::empty(), context);
        match identified {
            Ok(client) if origin.hosts(client.domain.as_ref()) => {
                clients.push(InvitedClient { handle: client.handle, domain: client.domain });
            }
            Ok(_) | Err(_) => {}
        }
    }
    Ok(clients)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_client_that_was_at_the_first_leaf_shows_the_creation_later() {
        let handle = |name: &str| ClientHandle::new(name).unwrap();
        let domain = |name: &str| DomainName::new(name).unwrap();
        let (alice, bob) = (handle("alice"), handle("bob"));
        let (a, b) = (domain("a.example"), domain("b.example"));
        let (of_a, of_b): (Named<'_>, Named<'_>) = ((&alice, Some(&a)), (&bob, Some(&b)));
        let row = |creator| handed_over_row(Epoch(3), Timestamp(1), domain("c.example"), creator);
        assert!(is_handed_over(&row(None)) && is_handed_over(&row(Some(of_a))));
        for (row, creator, first, expected) in [
            (row(Some(of_a)), of_a, Some(of_a), true),
            (row(Some(of_a)), of_a, Some(of_b), true),
            (row(Some(of_a)), of_b, Some(of_b), false),
            (row(Some(of_a)), (&alice, Some(&b)), None, false),
            (row(Some(of_a)), (&alice, None), None, false),
            (row(None), of_a, Some(of_a), false),
            // A row of the version before.
            (GroupRow { creation_digest: [0; 32], ..row(None) }, of_b, Some(of_b), true),
            (GroupRow { creation_digest: [0; 32], ..row(None) }, of_a, Some(of_b), false),
            (GroupRow { creation_digest: [7; 32], ..row(None) }, of_a, Some(of_a), false),
        ] {
            assert_eq!(shows_creation(&row, creator, first), expected, "{row:?} {creator:?} {first:?}");
        }
    }
}
