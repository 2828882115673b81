//! A group's state and its rules: pure, synchronous, without clock, disk or actor. The state is a function of a
//! snapshot and the records after it (*Group State*, *Group Evolution*).

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

use snapshots::{DomainName, Epoch, GroupId, KeyPackageRef, Timestamp};

use super::{
    EntryContent, EpochEntry, GroupError, GroupTransfer, LogEntry, NewGroup,
    error::{refused_commit, refused_proposal},
    log::within,
    stored::{GroupRecord, Kept, StateSnapshot, kept, kept_snapshot},
    stored_entry::{StoredContent, StoredEntry, is_entry},
    view::{GroupView, MemberView, WaitingProposal, members_of},
};
use crate::{
    application::Source,
    codec::CodecError,
    durable::{DurableState, Encoding},
    error::StorageError,
    external_sender::ExternalSenderKey,
    limits::Limits,
    mls::{
        AddedMember, CommitBundle, EpochRecord, FrozenGroup, Member, PROTOCOL_VERSION, RatchetTree, Rule,
        StagedEpoch, StagedProposal, TrackedGroup, ValidationContext, group_info_signer,
    },
};

/// Bytes of memory that a group takes in addition to its members.
const WEIGHT_OF_GROUP: usize = 8 << 10;

/// Bytes of messages that are validated on the same thread: about 50 proposals by value, or a handful of certificate chains.
const LONG_BYTES: usize = 16 << 10;

/// Waiting proposals with which messages are validated on the same thread: a commit may refer to all of them.
const MANY_PROPOSALS: usize = 32;

/// A group (*Group State*).
#[derive(Debug)]
pub(crate) struct GroupState {
    pub(super) tracked: TrackedGroup,
    /// The newest entry's stamp; the next one is not older.
    stamp: Timestamp,
    group_info: Option<Arc<[u8]>>,
    hub: Option<DomainName>,
    /// A proposal that waits at the hub in this epoch was left out of the group that was handed over.
    lacks_proposals: bool,
    /// The trees of epochs since the last snapshot whose commits had a welcome: they are stored with the next one, for the welcomes
    /// that still wait. They share their nodes with the present tree.
    welcome_trees: Arc<BTreeMap<Epoch, RatchetTree>>,
}

/// An entry that passed every check and may be appended to the log.
#[derive(Debug)]
pub(crate) struct StagedEntry {
    pub(crate) entry: LogEntry,
    pub(crate) change: StagedChange,
}

impl StagedEntry {
    /// The clients that a commit adds; none for a proposal.
    pub(crate) fn added(&self) -> Option<&[AddedMember]> {
        match &self.change {
            StagedChange::Commit(epoch) => Some(&epoch.added),
            StagedChange::Proposal(_) => None,
        }
    }
}

/// The changes of an entry.
#[derive(Debug)]
pub(crate) enum StagedChange {
    Proposal(StagedProposal),
    Commit(Box<StagedEpoch>),
}

impl GroupState {
    /// Validates a new group (*Group Creation*) and returns its state, which has no owner yet.
    ///
    /// # Errors
    /// [`GroupError::MalformedMessage`], [`GroupError::InvalidGroupInfo`] or [`GroupError::TooLarge`].
    pub(crate) fn create(
        context: ValidationContext<'_>,
        new: &NewGroup,
        now: Timestamp,
    ) -> Result<Self, GroupError> {
        new.check_sizes(context.limits)?;
        let tree = new.ratchet_tree.as_deref();
        let tracked = TrackedGroup::create(context, &new.group_info, tree, now).map_err(refused_commit)?;
        // The gateway of the domain of its first member orders the group.
        let hub = tracked.tree().leaves().next().and_then(|(_, creator)| creator.member.domain.clone());
        Ok(Self {
            tracked,
            stamp: now,
            group_info: Some(new.group_info.as_slice().into()),
            hub,
            lacks_proposals: false,
            welcome_trees: Arc::default(),
        })
    }

    /// Validates a group that its hub hands over as a whole, and returns its state.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn from_transfer(
        context: ValidationContext<'_>,
        transfer: &GroupTransfer,
        hub: DomainName,
    ) -> Result<Self, GroupError> {
        let tree_max = context.limits.ratchet_tree_bytes_max;
        let info_max = context.limits.packet_bytes_max.saturating_add(tree_max);
        within("groupInfo", transfer.group_info.len(), info_max)?;
        within("ratchetTree", transfer.ratchet_tree.len(), tree_max)?;
        let now = transfer.timestamp;
        let tree = Some(transfer.ratchet_tree.as_slice());
        let mut tracked =
            TrackedGroup::open(context, &transfer.group_info, tree, now).map_err(refused_commit)?;
        let max = context.limits.group_members_max;
        let members = tracked.members_count();
        if members > max {
            let detail = format!("the group has {members} members; at most {max}");
            return Err(GroupError::InvalidGroupInfo(detail));
        }
        if transfer.reinitialised {
            tracked.mark_reinitialised();
        }
        let mut state = Self {
            tracked,
            stamp: now,
            group_info: Some(transfer.group_info.as_slice().into()),
            hub: Some(hub),
            lacks_proposals: false,
            welcome_trees: Arc::default(),
        };
        for packet in &transfer.proposals {
            within("packet", packet.len(), context.limits.packet_bytes_max)?;
            state.take_earlier_proposal(context, packet, now)?;
        }
        Ok(state)
    }

    /// Takes a proposal that the hub accepted in the current epoch before it handed the group over.
    fn take_earlier_proposal(
        &mut self,
        context: ValidationContext<'_>,
        packet: &[u8],
        now: Timestamp,
    ) -> Result<(), GroupError> {
        self.tracked.expect_proposal(packet).map_err(refused_proposal)?;
        if !self.has_room_for(context, packet.len(), now, &|_| false) {
            return Err(GroupError::TooManyProposals { max: context.limits.proposals_per_epoch_max });
        }
        match self.tracked.stage_earlier_proposal(context, packet, now).map_err(refused_proposal) {
            Ok(staged) => self.tracked.apply_proposal(staged.pending),
            // What this gateway trusts is its own. Should the hub accept a commit that references the proposal, the replica
            // needs the group as a whole again.
            Err(GroupError::InvalidProposal { rule: Rule::Identity, detail, .. }) => {
                tracing::info!(detail, "a proposal that was handed over is not acceptable here");
                self.lacks_proposals = true;
            }
            Err(refused) => return Err(refused),
        }
        Ok(())
    }

    pub(crate) fn id(&self) -> &GroupId {
        self.tracked.id()
    }

    /// The domain whose gateway orders the group; none in an application without domains.
    pub(crate) fn hub(&self) -> Option<&DomainName> {
        self.hub.as_ref()
    }

    pub(crate) fn cipher_suite(&self) -> u16 {
        self.tracked.cipher_suite()
    }

    /// The current tree, as [`GroupView::ratchet_tree`].
    pub(crate) fn ratchet_tree(&self) -> Arc<[u8]> {
        self.tracked.tree().to_bytes().into()
    }

    /// The signer of the current group info.
    pub(crate) fn group_info_signer(&self) -> Option<&Member> {
        let leaf = group_info_signer(self.group_info.as_deref()?)?;
        self.tracked.member(leaf)
    }

    /// The confirmed transcript hash of the current epoch (RFC 9420 §8.2).
    pub(crate) fn confirmed_transcript_hash(&self) -> &[u8] {
        self.tracked.confirmed_transcript_hash()
    }

    /// The newest entry's stamp.
    pub(crate) fn stamp(&self) -> Timestamp {
        self.stamp
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.tracked.epoch()
    }

    /// The members, by ascending leaf index.
    pub(crate) fn members(&self) -> impl Iterator<Item = MemberView<'_>> {
        members_of(self.tracked.tree())
    }

    /// Whether validating `bytes` bytes of messages may hold the thread longer than other requests should wait.
    pub(crate) fn takes_long(&self, bytes: usize) -> bool {
        bytes > LONG_BYTES || self.tracked.pending().len() > MANY_PROPOSALS
    }

    /// The accepted proposal with this packet, if it waits in this epoch.
    pub(crate) fn pending_reference(&self, packet: &[u8]) -> Option<&[u8]> {
        self.tracked
            .pending()
            .iter()
            .find(|pending| *pending.packet == *packet)
            .map(|pending| &*pending.reference)
    }

    /// Whether a proposal of this reference waits in this epoch.
    pub(crate) fn has_pending(&self, reference: &[u8]) -> bool {
        self.tracked.pending().iter().any(|pending| pending.reference == reference)
    }

    /// Validates the next entry of the log. Nothing changes. Whether a key package was used is asked when the epoch has about
    /// as many proposals as it may.
    ///
    /// # Errors
    /// Why it is refused.
    pub(crate) fn stage(
        &self,
        context: ValidationContext<'_>,
        entry: LogEntry,
        is_used: &dyn Fn(&KeyPackageRef) -> bool,
    ) -> Result<StagedEntry, GroupError> {
        match &entry.content {
            EntryContent::Creation(_) => {
                Err(GroupError::NotFromHub("a creation is entry 0 and no other".into()))
            }
            EntryContent::Proposal { packet } => {
                let mut staged = self.stage_proposal(context, packet, entry.timestamp, is_used)?;
                staged.pending.entry = Some(entry.sequence);
                Ok(StagedEntry { change: StagedChange::Proposal(staged), entry })
            }
            EntryContent::Commit(bundle) => {
                let staged = self.stage_commit(context, bundle, entry.timestamp)?;
                Ok(StagedEntry { change: StagedChange::Commit(Box::new(staged)), entry })
            }
        }
    }

    /// Validates a proposal (*Proposals*).
    fn stage_proposal(
        &self,
        context: ValidationContext<'_>,
        packet: &[u8],
        stamp: Timestamp,
        is_used: &dyn Fn(&KeyPackageRef) -> bool,
    ) -> Result<StagedProposal, GroupError> {
        self.tracked.expect_proposal(packet).map_err(refused_proposal)?;
        if !self.has_room_for(context, packet.len(), stamp, is_used) {
            return Err(GroupError::TooManyProposals { max: context.limits.proposals_per_epoch_max });
        }
        self.tracked.stage_proposal(context, packet, stamp).map_err(refused_proposal)
    }

    /// Validates a commit with its group info and welcome (*Commits*).
    fn stage_commit(
        &self,
        context: ValidationContext<'_>,
        bundle: &CommitBundle,
        stamp: Timestamp,
    ) -> Result<StagedEpoch, GroupError> {
        let staged = self.tracked.stage_commit(context, bundle, stamp).map_err(refused_commit)?;
        if *context.source != Source::Hub {
            // A group with a larger tree could not be handed over. One that does not grow may go on: the limit may be new.
            let max = context.limits.ratchet_tree_bytes_max.max(self.tracked.tree().length());
            within("the ratchet tree after the commit", staged.tree.length(), max)?;
        }
        if !staged.expired.is_empty() && staged.room_for_removals > 0 {
            return Err(GroupError::ExpiredMembers { leaves: staged.expired });
        }
        Ok(staged)
    }

    /// How many members have a credential that has ended.
    pub(crate) fn ended_members(&self, now: Timestamp) -> usize {
        self.tracked.ended(now.max(self.stamp)).len()
    }

    /// Proposals, signed with one of the keys, to remove the members whose credentials have ended; see
    /// [`TrackedGroup::removals`].
    pub(crate) fn removals(
        &self,
        keys: &[ExternalSenderKey],
        limits: &Limits,
        now: Timestamp,
    ) -> Vec<Vec<u8>> {
        self.tracked.removals(keys, limits, now.max(self.stamp))
    }

    /// Applies an entry that was staged on this state and is in the log now.
    pub(crate) fn apply(&mut self, staged: StagedEntry) {
        let StagedEntry { entry, change, .. } = staged;
        self.stamp = entry.timestamp;
        match change {
            StagedChange::Proposal(proposal) => self.tracked.apply_proposal(proposal.pending),
            StagedChange::Commit(epoch) => {
                self.tracked.apply_epoch(*epoch);
                self.lacks_proposals = false;
                self.group_info = None;
                if let EntryContent::Commit(bundle) = &entry.content {
                    self.group_info = bundle.group_info.as_deref().map(Arc::from);
                    if bundle.welcome.is_some() {
                        self.keep_welcome_tree();
                    }
                }
            }
        }
    }

    /// Applies an entry that is read back.
    fn replay(
        &mut self,
        number: u64,
        StoredEntry { timestamp, content }: StoredEntry<'_>,
    ) -> Result<(), CodecError> {
        match content {
            StoredContent::Creation(_) => Err(CodecError::damaged("log")),
            StoredContent::Proposal { packet, needs } => {
                self.stamp = timestamp;
                self.tracked.replay_proposal(packet.into(), needs, number)
            }
            StoredContent::Commit { commit, group_info, has_welcome, change, .. } => {
                let change = change.ok_or_else(|| CodecError::damaged("log"))?;
                self.replay_epoch(commit, change, (timestamp, group_info.map(Arc::from), has_welcome))
            }
        }
    }

    /// Applies a record of the version before.
    fn replay_earlier(&mut self, record: GroupRecord) -> Result<(), CodecError> {
        match record {
            GroupRecord::Proposal { pending, stamp } => {
                self.stamp = stamp;
                self.tracked.apply_proposal(pending);
                Ok(())
            }
            GroupRecord::Epoch { commit, change, stamp, group_info, has_welcome } => {
                self.replay_epoch(&commit, change, (stamp, group_info.map(Arc::from), has_welcome))
            }
        }
    }

    fn replay_epoch(
        &mut self,
        commit: &[u8],
        change: EpochRecord,
        (stamp, group_info, has_welcome): (Timestamp, Option<Arc<[u8]>>, bool),
    ) -> Result<(), CodecError> {
        (self.stamp, self.group_info) = (stamp, group_info);
        self.lacks_proposals = false;
        self.tracked.replay_epoch(commit, change)?;
        if has_welcome {
            self.keep_welcome_tree();
        }
        Ok(())
    }

    /// The trees of epochs since the last snapshot whose commits had a welcome.
    pub(super) fn welcome_trees(&self) -> impl Iterator<Item = (Epoch, &RatchetTree)> {
        self.welcome_trees.iter().map(|(epoch, tree)| (*epoch, tree))
    }

    /// Keeps the tree of the present epoch for those whom its commit welcomed.
    fn keep_welcome_tree(&mut self) {
        let (epoch, tree) = (self.tracked.epoch(), self.tracked.tree().clone());
        Arc::make_mut(&mut self.welcome_trees).insert(epoch, tree);
    }

    /// What readers may see after the entry of this number.
    pub(crate) fn view(&self, sequence: u64, recent: Arc<[Arc<EpochEntry>]>) -> GroupView {
        GroupView {
            group: self.tracked.id().clone(),
            epoch: self.tracked.epoch(),
            hub: self.hub.clone(),
            protocol_version: PROTOCOL_VERSION,
            cipher_suite: self.tracked.cipher_suite(),
            proposals: self
                .tracked
                .pending()
                .iter()
                .map(|pending| WaitingProposal {
                    packet: Arc::clone(&pending.packet),
                    needs: pending.needs.clone(),
                })
                .collect(),
            group_info: self.group_info.clone(),
            sequence,
            stamp: self.stamp,
            recent,
            lacks_proposals: self.lacks_proposals,
            is_reinitialised: self.tracked.is_reinitialised(),
            interim_transcript_hash: self.tracked.interim_transcript_hash().into(),
            tree: self.tracked.tree().clone(),
            tree_bytes: OnceLock::new(),
            welcome_trees: Arc::clone(&self.welcome_trees),
        }
    }

    fn freeze(&self) -> StateSnapshot<FrozenGroup> {
        StateSnapshot {
            group: self.tracked.freeze(),
            stamp: self.stamp,
            group_info: self.group_info.as_deref().map(<[u8]>::to_vec),
            hub: self.hub.clone(),
            lacks_proposals: self.lacks_proposals,
        }
    }
}

impl DurableState for GroupState {
    /// MessagePack, with the version of the format.
    fn to_snapshot(&self) -> Result<Vec<u8>, CodecError> {
        self.freeze().encode()
    }

    fn frozen(&self) -> Option<Encoding> {
        let frozen = self.freeze();
        Some(Box::new(|| frozen.encode()))
    }

    fn mark(&self) -> u64 {
        self.tracked.epoch().0
    }

    fn snapshot_written(&mut self, mark: u64) {
        if !self.welcome_trees.is_empty() {
            Arc::make_mut(&mut self.welcome_trees).retain(|epoch, _| epoch.0 > mark);
        }
    }

    /// Validates nothing and reads no clock.
    fn restore<'a>(
        snapshot: Option<&'a [u8]>,
        records: impl IntoIterator<Item = (u64, &'a [u8])>,
    ) -> Result<Self, CodecError> {
        let snapshot = snapshot.ok_or_else(|| CodecError::damaged("snapshot"))?;
        let mut records = records.into_iter().peekable();
        let StateSnapshot { group, stamp, group_info, hub, lacks_proposals } = match kept_snapshot(snapshot)?
        {
            Kept::Present(state) => state.restored()?,
            Kept::Legacy(state) => state.replayed(&mut records)?,
        };
        let mut state = Self {
            tracked: group,
            stamp,
            group_info: group_info.map(Arc::from),
            hub,
            lacks_proposals,
            welcome_trees: Arc::default(),
        };
        for (number, record) in records {
            if is_entry(record)? {
                state.replay(number, StoredEntry::read(record)?)?;
            } else {
                state.replay_earlier(kept(record)?)?;
            }
        }
        Ok(state)
    }

    /// Without the recent epochs.
    fn weight(&self) -> usize {
        let group_info = self.group_info.as_ref().map_or(0, |info| info.len());
        WEIGHT_OF_GROUP.saturating_add(self.tracked.weight()).saturating_add(group_info)
    }
}

/// The error of a valid entry that cannot be encoded: the request is not at fault.
pub(super) fn unencodable(error: &CodecError) -> GroupError {
    tracing::error!(%error, "what was staged cannot be encoded");
    StorageError::Unreadable.into()
}
