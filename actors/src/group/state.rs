//! A group's state and its rules: pure, synchronous, without clock, disk or actor. The state is a function of a
//! snapshot and the records after it (*Group State*, *Group Evolution*).

use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sha2::{Digest as _, Sha256};
use snapshots::{DomainName, Epoch, GroupId, Timestamp};

use super::{
    EpochEntry, GroupError, NewGroup,
    view::{GroupView, MemberView, WaitingProposal},
};
use crate::{
    application::{ExpiredMembers, Source},
    external_sender::ExternalSenderKey,
    limits::Limits,
    mls::{
        CommitInput, EpochChange, GroupSnapshot, Member, PROTOCOL_VERSION, PendingProposal, Refusal, Rule,
        Rules, StagedEpoch, StagedProposal, TrackedGroup, ValueError, group_info_signer,
    },
    peer::GroupTransfer,
    storage::StorageError,
};

/// A commit with its companions, as uploaded: MLSMessages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitUpload {
    /// The commit, a PublicMessage.
    pub commit: Vec<u8>,
    /// The GroupInfo of the epoch that the commit creates.
    pub group_info: Option<Vec<u8>>,
    /// The Welcome for the clients that the commit adds.
    pub welcome: Option<Vec<u8>>,
}

impl CommitUpload {
    /// Bytes by which it is decided where the upload is judged. Of a group info, which may carry a whole tree, little is
    /// more than compared.
    pub(crate) fn judged_bytes(&self) -> usize {
        let of = |message: &Option<Vec<u8>>| message.as_ref().map_or(0, Vec::len);
        self.commit.len() + of(&self.welcome) + of(&self.group_info) / 8
    }

    /// Tells this upload from every other, so that a retry of an epoch's winner is recognised.
    pub(crate) fn digest(&self) -> [u8; 32] {
        digest(&[Some(&self.commit), self.group_info.as_deref(), self.welcome.as_deref()])
    }
}

impl NewGroup {
    /// Tells this creation from every other, so that a retry is recognised.
    pub(crate) fn digest(&self) -> [u8; 32] {
        digest(&[Some(&self.group_info), self.ratchet_tree.as_deref()])
    }
}

fn digest(parts: &[Option<&[u8]>]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        match part {
            Some(bytes) => {
                hash.update([1]);
                hash.update(u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_be_bytes());
                hash.update(bytes);
            }
            None => hash.update([0]),
        }
    }
    hash.finalize().into()
}

/// One accepted change of a group, as it is kept on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum GroupRecord {
    Proposal {
        pending: PendingProposal,
        stamp: Timestamp,
    },
    Epoch {
        change: EpochChange,
        stamp: Timestamp,
        #[serde(with = "serde_bytes")]
        group_info: Option<Vec<u8>>,
    },
}

/// A [`GroupRecord::Epoch`] that is about to be kept, in the same form: what it holds need not be copied for that.
#[derive(Serialize)]
enum NewRecord<'a> {
    Epoch {
        change: &'a EpochChange,
        stamp: Timestamp,
        #[serde(with = "serde_bytes")]
        group_info: Option<&'a [u8]>,
    },
}

/// Room for a record beside its staged commit and group info: members that came or were replaced.
const RECORD_BYTES: usize = 512;

/// Bytes of memory that a group takes beside its members.
const WEIGHT_OF_GROUP: usize = 8 << 10;

/// Bytes of memory that a member takes beside its leaf.
const WEIGHT_OF_MEMBER: usize = 6 << 10;

/// How often the tree and the pending proposals are in memory: as they came, as the MLS library has them, and as readers
/// get them.
const COPIES: usize = 3;

/// Bytes of messages that are judged at once: about 50 proposals by value, or a handful of certificate chains.
const LONG_BYTES: usize = 16 << 10;

/// Members of a group whose messages are judged at once: the MLS library hashes the whole tree.
const MANY_MEMBERS: usize = 256;

/// Waiting proposals with which messages are judged at once: a commit may refer to all of them.
const MANY_PROPOSALS: usize = 32;

/// The format of records and snapshots of groups; it stands before each.
const FORMAT: u8 = 1;

#[derive(Serialize, Deserialize)]
struct Kept<T> {
    format: u8,
    value: T,
}

fn keep(value: &impl Serialize) -> Result<Vec<u8>, ValueError> {
    crate::mls::encode(&Kept { format: FORMAT, value })
}

/// As [`keep`], of a value of about so many bytes.
fn keep_long(value: &impl Serialize, bytes: usize) -> Result<Vec<u8>, ValueError> {
    crate::mls::encode_long(&Kept { format: FORMAT, value }, bytes)
}

fn kept<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ValueError> {
    let kept: Kept<T> = crate::mls::decode(bytes)?;
    if kept.format == FORMAT { Ok(kept.value) } else { Err(ValueError::damaged("format")) }
}

#[derive(Serialize, Deserialize)]
struct StateSnapshot {
    group: GroupSnapshot,
    stamp: Timestamp,
    #[serde(with = "serde_bytes")]
    group_info: Option<Vec<u8>>,
    hub: Option<DomainName>,
    #[serde(default)]
    lacks_proposals: bool,
}

/// A group (*Group State*).
#[derive(Debug)]
pub(crate) struct GroupState {
    tracked: TrackedGroup,
    /// The newest entry's stamp; the next one is not older.
    stamp: Timestamp,
    group_info: Option<Arc<[u8]>>,
    hub: Option<DomainName>,
    /// A proposal that waits at the hub in this epoch was left out of the group that was handed over.
    lacks_proposals: bool,
    roster: Arc<[MemberView]>,
}

/// A proposal that may be recorded.
#[derive(Debug)]
pub(crate) struct StagedProposalUpload {
    pub(crate) record: Vec<u8>,
    pub(crate) staged: StagedProposal,
    pub(crate) stamp: Timestamp,
}

/// A commit that may be recorded.
#[derive(Debug)]
pub(crate) struct StagedCommitUpload {
    pub(crate) record: Vec<u8>,
    pub(crate) staged: StagedEpoch,
    pub(crate) stamp: Timestamp,
    group_info: Option<Arc<[u8]>>,
}

impl GroupState {
    /// Judges a new group (*Group Creation*) and answers its state, which is not yet anybody's.
    ///
    /// # Errors
    /// [`GroupError::MalformedMessage`], [`GroupError::InvalidGroupInfo`] or [`GroupError::TooLarge`].
    pub(crate) fn create(rules: Rules<'_>, new: &NewGroup, now: Timestamp) -> Result<Self, GroupError> {
        let tree = new.ratchet_tree.as_deref();
        let info_max = rules.limits.packet_bytes_max.saturating_add(rules.limits.ratchet_tree_bytes_max);
        within("groupInfo", new.group_info.len(), info_max)?;
        within("ratchetTree", tree.map_or(0, <[u8]>::len), rules.limits.ratchet_tree_bytes_max)?;
        let tracked = TrackedGroup::create(rules, &new.group_info, tree, now).map_err(refused_commit)?;
        // The gateway of the domain of its first member orders the group.
        let hub = tracked.members().values().next().and_then(|creator| creator.domain.clone());
        Ok(Self {
            roster: roster(&tracked),
            tracked,
            stamp: now,
            group_info: Some(new.group_info.as_slice().into()),
            hub,
            lacks_proposals: false,
        })
    }

    /// Judges a group that its hub hands over as a whole, and answers its state.
    ///
    /// A proposal that waits and whose key package or certificate has expired since it was accepted is left out: it
    /// cannot be judged any more. Should the hub accept a commit that references it all the same, the replica needs the
    /// group as a whole again.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn from_transfer(
        rules: Rules<'_>,
        transfer: &GroupTransfer,
        hub: DomainName,
    ) -> Result<Self, GroupError> {
        let tree_max = rules.limits.ratchet_tree_bytes_max;
        let info_max = rules.limits.packet_bytes_max.saturating_add(tree_max);
        within("groupInfo", transfer.group_info.len(), info_max)?;
        within("ratchetTree", transfer.ratchet_tree.len(), tree_max)?;
        let now = transfer.timestamp;
        let tree = Some(transfer.ratchet_tree.as_slice());
        let mut tracked =
            TrackedGroup::open(rules, &transfer.group_info, tree, now).map_err(refused_commit)?;
        let max = rules.limits.group_members_max;
        if tracked.members().len() > max {
            return Err(GroupError::InvalidGroupInfo(format!(
                "the group has {} members; at most {max}",
                tracked.members().len()
            )));
        }
        if transfer.reinitialised {
            tracked.mark_reinitialised();
        }
        let mut state = Self {
            roster: roster(&tracked),
            tracked,
            stamp: now,
            group_info: Some(transfer.group_info.as_slice().into()),
            hub: Some(hub),
            lacks_proposals: false,
        };
        for packet in &transfer.proposals {
            match state.stage_proposal(rules, packet, now) {
                Ok(staged) => state.apply_proposal(staged).map_err(|error| unencodable(&error))?,
                Err(GroupError::InvalidProposal {
                    rule: Rule::Lifetime | Rule::Identity, detail, ..
                }) => {
                    tracing::info!(detail, "a proposal that was handed over cannot be judged any more");
                    state.lacks_proposals = true;
                }
                Err(refused) => return Err(refused),
            }
        }
        Ok(state)
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

    /// Who signed the current group info.
    pub(crate) fn group_info_signer(&self) -> Option<&Member> {
        let leaf = group_info_signer(self.group_info.as_deref()?)?;
        self.tracked.members().get(&leaf)
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

    /// The members' views, for the indexes of a new group.
    pub(crate) fn roster(&self) -> &[MemberView] {
        &self.roster
    }

    /// About how many bytes of memory the group takes while it is awake, without its recent epochs. The constants come from
    /// measurements of groups of 10 to 2000 members.
    pub(crate) fn weight(&self) -> usize {
        let (tracked, group_info) = (&self.tracked, self.group_info.as_ref().map_or(0, |info| info.len()));
        let kept = tracked.tree().weight().saturating_add(tracked.pending_bytes());
        WEIGHT_OF_GROUP
            .saturating_add(tracked.members().len().saturating_mul(WEIGHT_OF_MEMBER))
            .saturating_add(kept.saturating_mul(COPIES))
            .saturating_add(group_info)
    }

    /// Whether judging messages of so many bytes may take longer than a thread that others wait for should be held.
    pub(crate) fn takes_long(&self, bytes: usize) -> bool {
        bytes > LONG_BYTES
            || self.tracked.members().len() > MANY_MEMBERS
            || self.tracked.pending().len() > MANY_PROPOSALS
    }

    /// The accepted proposal with this packet, if it waits in this epoch.
    pub(crate) fn pending_reference(&self, packet: &[u8]) -> Option<&[u8]> {
        self.tracked
            .pending()
            .iter()
            .find(|pending| pending.packet == packet)
            .map(|pending| &*pending.reference)
    }

    /// Whether a proposal of this reference waits in this epoch.
    pub(crate) fn has_pending(&self, reference: &[u8]) -> bool {
        self.tracked.pending().iter().any(|pending| pending.reference == reference)
    }

    /// Judges a proposal (*Proposals*).
    ///
    /// # Errors
    /// Why it is refused; nothing has changed.
    pub(crate) fn stage_proposal(
        &self,
        rules: Rules<'_>,
        packet: &[u8],
        now: Timestamp,
    ) -> Result<StagedProposalUpload, GroupError> {
        within("packet", packet.len(), rules.limits.packet_bytes_max)?;
        let stamp = now.max(self.stamp);
        self.tracked.expect_proposal(packet).map_err(refused_proposal)?;
        let max = rules.limits.proposals_per_epoch_max;
        if self.tracked.pending().len() >= max
            || self.tracked.pending_bytes() + packet.len() > rules.limits.proposal_bytes_per_epoch_max
        {
            return Err(GroupError::TooManyProposals { max });
        }
        let staged = self.tracked.stage_proposal(rules, packet, stamp).map_err(refused_proposal)?;
        let record = keep(&GroupRecord::Proposal { pending: staged.pending.clone(), stamp })
            .map_err(|error| unencodable(&error))?;
        Ok(StagedProposalUpload { record, staged, stamp })
    }

    /// Judges a commit and its companions (*Commits*).
    ///
    /// # Errors
    /// Why it is refused; nothing has changed.
    pub(crate) fn stage_commit(
        &self,
        rules: Rules<'_>,
        upload: &CommitUpload,
        now: Timestamp,
    ) -> Result<StagedCommitUpload, GroupError> {
        let max = rules.limits.packet_bytes_max;
        within("commitPacket", upload.commit.len(), max)?;
        let info_max = max.saturating_add(rules.limits.ratchet_tree_bytes_max);
        within("groupInfo", upload.group_info.as_ref().map_or(0, Vec::len), info_max)?;
        within("welcomePacket", upload.welcome.as_ref().map_or(0, Vec::len), max)?;
        let stamp = now.max(self.stamp);
        let input = CommitInput {
            commit: &upload.commit,
            group_info: upload.group_info.as_deref(),
            welcome: upload.welcome.as_deref(),
        };
        let staged = self.tracked.stage_commit(rules, input, stamp).map_err(refused_commit)?;
        // The hub has applied the policy to what it accepted.
        let is_refused =
            rules.application.expired_members == ExpiredMembers::Refuse && *rules.source != Source::Hub;
        if is_refused && !staged.expired.is_empty() && staged.room_for_removals > 0 {
            return Err(GroupError::ExpiredMembers { leaves: staged.expired });
        }
        let group_info = upload.group_info.as_deref();
        let record = NewRecord::Epoch { change: &staged.change, stamp, group_info };
        let record_bytes = staged.change.staged.len() + group_info.map_or(0, <[u8]>::len) + RECORD_BYTES;
        Ok(StagedCommitUpload {
            record: keep_long(&record, record_bytes).map_err(|error| unencodable(&error))?,
            staged,
            stamp,
            group_info: upload.group_info.as_deref().map(Arc::from),
        })
    }

    /// How many members have a credential that has expired.
    pub(crate) fn expired_members(&self, now: Timestamp) -> usize {
        self.tracked.expired(now.max(self.stamp)).len()
    }

    /// Proposals, signed with one of the keys, to remove the members whose credentials have expired; see
    /// [`TrackedGroup::removals`].
    pub(crate) fn removals(
        &self,
        keys: &[ExternalSenderKey],
        limits: &Limits,
        now: Timestamp,
    ) -> Vec<Vec<u8>> {
        self.tracked.removals(keys, limits, now.max(self.stamp))
    }

    /// Takes a recorded proposal in.
    ///
    /// # Errors
    /// The state is then to be dropped and read again from disk.
    pub(crate) fn apply_proposal(&mut self, upload: StagedProposalUpload) -> Result<(), ValueError> {
        self.stamp = upload.stamp;
        self.tracked.apply_proposal(upload.staged.pending)
    }

    /// Moves into a recorded epoch.
    ///
    /// # Errors
    /// The state is then to be dropped and read again from disk.
    pub(crate) fn apply_commit(&mut self, upload: StagedCommitUpload) -> Result<(), ValueError> {
        let same_roster = upload.staged.change.left.is_empty()
            && upload
                .staged
                .change
                .joined
                .iter()
                .all(|(leaf, who)| self.tracked.members().get(leaf) == Some(who));
        self.tracked.apply_epoch(upload.staged)?;
        self.stamp = upload.stamp;
        self.lacks_proposals = false;
        self.group_info = upload.group_info;
        if !same_roster {
            self.roster = roster(&self.tracked);
        }
        Ok(())
    }

    /// The state at rest: MessagePack, a format version first.
    pub(crate) fn to_snapshot(&self) -> Result<Vec<u8>, ValueError> {
        keep(&StateSnapshot {
            group: self.tracked.snapshot()?,
            stamp: self.stamp,
            group_info: self.group_info.as_deref().map(<[u8]>::to_vec),
            hub: self.hub.clone(),
            lacks_proposals: self.lacks_proposals,
        })
    }

    /// Wakes from rest and repeats what was recorded since. Validates nothing and reads no clock.
    ///
    /// # Errors
    /// Bytes that were damaged, or that a newer version wrote.
    pub(crate) fn restore<'a>(
        snapshot: &[u8],
        records: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<Self, ValueError> {
        let StateSnapshot { group, stamp, group_info, hub, lacks_proposals } = kept(snapshot)?;
        let tracked = TrackedGroup::restore(group)?;
        let mut state = Self {
            roster: Arc::default(),
            tracked,
            stamp,
            group_info: group_info.map(Arc::from),
            hub,
            lacks_proposals,
        };
        for record in records {
            match kept(record)? {
                GroupRecord::Proposal { pending, stamp } => {
                    state.stamp = stamp;
                    state.tracked.apply_proposal(pending)?;
                }
                GroupRecord::Epoch { change, stamp, group_info } => {
                    state.stamp = stamp;
                    state.group_info = group_info.map(Arc::from);
                    state.lacks_proposals = false;
                    state.tracked.replay_epoch(change)?;
                }
            }
        }
        state.tracked.refresh_tree()?;
        state.roster = roster(&state.tracked);
        Ok(state)
    }

    /// What readers may see after the entry of this number.
    pub(crate) fn view(&self, sequence: u64, recent: Arc<[Arc<EpochEntry>]>) -> GroupView {
        GroupView {
            group: self.tracked.id().clone(),
            epoch: self.tracked.epoch(),
            hub: self.hub.clone(),
            protocol_version: PROTOCOL_VERSION,
            cipher_suite: self.tracked.cipher_suite(),
            members: Arc::clone(&self.roster),
            proposals: self
                .tracked
                .pending()
                .iter()
                .map(|pending| WaitingProposal {
                    packet: pending.packet.as_slice().into(),
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
        }
    }
}

fn roster(tracked: &TrackedGroup) -> Arc<[MemberView]> {
    let view = |(leaf, member): (&u32, &Member)| MemberView {
        leaf_index: *leaf,
        handle: member.handle.clone(),
        domain: member.domain.clone(),
    };
    tracked.members().iter().map(view).collect()
}

fn within(what: &'static str, length: usize, max: usize) -> Result<(), GroupError> {
    if length <= max { Ok(()) } else { Err(GroupError::TooLarge { what, max }) }
}

/// What was judged to be good cannot be written or read back: no fault of the request.
pub(super) fn unencodable(error: &ValueError) -> GroupError {
    tracing::error!(%error, "what was staged cannot be encoded");
    StorageError::Unreadable.into()
}

fn refused_proposal(refusal: Refusal) -> GroupError {
    refused(refusal, |rule, detail, _| GroupError::InvalidProposal { rule, detail })
}

fn refused_commit(refusal: Refusal) -> GroupError {
    refused(refusal, |rule, detail, proposal| GroupError::InvalidCommit { rule, detail, proposal })
}

pub(crate) fn refused(
    refusal: Refusal,
    broken: impl FnOnce(Rule, String, Option<Vec<u8>>) -> GroupError,
) -> GroupError {
    match refusal {
        Refusal::Malformed(malformed) => GroupError::MalformedMessage(malformed),
        Refusal::UnknownKind { kind, value, detail } => GroupError::UnknownKind { kind, value, detail },
        Refusal::Stale { packet, current } => GroupError::StaleEpoch { packet, current },
        Refusal::Future { packet, current } => GroupError::FutureEpoch { packet, current },
        Refusal::Broken { rule, detail, proposal } => broken(rule, detail, proposal),
        Refusal::OpenedWith(detail) => GroupError::InvalidGroupInfo(detail),
        Refusal::OpenedOutsideLifetime { rule, detail } => GroupError::GroupInfoLifetime { rule, detail },
        Refusal::GroupInfo(detail) => GroupError::GroupInfoMismatch(detail),
        Refusal::WelcomeMissing { added } => GroupError::WelcomeMissing { added },
        Refusal::Welcome(detail) => GroupError::WelcomeMismatch(detail),
    }
}
