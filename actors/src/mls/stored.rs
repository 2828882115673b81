//! Stored forms of a tracked group: the whole, and what a commit needs to be applied again without being validated.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{
    Digest, Refusal, RequestMember, StagedEpoch, TrackedGroup,
    commit::ANY_NUMBER,
    epoch::{Listed, NameMembers, PathInTree},
    extensions::ContextExtensions,
    group::Member,
    group_context::GroupContext,
    handshake::Handshake,
    leaf::{KeyPackage, LeafNode},
    member_index::IndexChange,
    proposal::{PendingProposal, ProposalNeeds},
    ratchet_tree::{FlatTree, Leaf, RatchetTree},
    rule::Rule,
    wire::ContentKind,
};
use crate::codec::CodecError;

/// A tracked group at rest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GroupSnapshot {
    /// The serialised GroupContext (RFC 9420 §8.1).
    #[serde(with = "serde_bytes")]
    context: Vec<u8>,
    interim_transcript_hash: Digest,
    /// The vector `optional<Node> ratchet_tree<V>` (RFC 9420 §12.4.3.3).
    #[serde(with = "serde_bytes")]
    tree: Vec<u8>,
    /// By leaf index.
    members: BTreeMap<u32, Member>,
    pending: Vec<PendingProposal>,
    reinitialised: bool,
}

/// What an accepted commit changes that its packet and the group's state do not tell: applying it validates nothing and reads
/// no clock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EpochRecord {
    /// Who came in, by leaf: identity providers are not asked again.
    joined: BTreeMap<u32, Member>,
    /// The tree hash of the epoch, by which damage is noticed.
    tree_hash: Digest,
    /// The content of the list of GroupContext extensions, if the commit has AppDataUpdates: the application made it.
    #[serde(default, with = "serde_bytes", skip_serializing_if = "Option::is_none")]
    extensions: Option<Vec<u8>>,
}

impl EpochRecord {
    pub(crate) fn of(epoch: &StagedEpoch) -> Self {
        let StagedEpoch { joined, context, has_app_data_update, .. } = epoch;
        Self {
            joined: joined.clone(),
            tree_hash: context.tree_hash,
            extensions: has_app_data_update.then(|| context.extensions.bytes().to_vec()),
        }
    }
}

/// A group at one moment, which does not change with it.
#[derive(Debug)]
pub(crate) struct FrozenGroup {
    context: Vec<u8>,
    interim_transcript_hash: Digest,
    tree: RatchetTree,
    pending: Vec<PendingProposal>,
    reinitialised: bool,
}

impl FrozenGroup {
    /// The group at rest.
    pub(crate) fn snapshot(self) -> GroupSnapshot {
        let Self { context, interim_transcript_hash, tree, pending, reinitialised } = self;
        let members = tree.leaves().map(|(index, leaf)| (index, leaf.member.clone())).collect();
        GroupSnapshot {
            context,
            interim_transcript_hash,
            tree: tree.to_bytes(),
            members,
            pending,
            reinitialised,
        }
    }
}

impl TrackedGroup {
    /// The group as it is now. It costs what waits, whatever the size of the group.
    pub(crate) fn freeze(&self) -> FrozenGroup {
        FrozenGroup {
            context: self.context_bytes.clone(),
            interim_transcript_hash: self.interim_transcript_hash,
            tree: self.tree.clone(),
            pending: self.pending.clone(),
            reinitialised: self.reinitialised,
        }
    }

    /// The group at rest.
    pub(crate) fn snapshot(&self) -> GroupSnapshot {
        self.freeze().snapshot()
    }

    /// Activates a group from rest. Validates nothing again.
    ///
    /// # Errors
    /// The snapshot is damaged.
    pub(crate) fn restore(snapshot: GroupSnapshot) -> Result<Self, CodecError> {
        let GroupSnapshot { context, interim_transcript_hash, tree, members, pending, reinitialised } =
            snapshot;
        let context = GroupContext::read(&context)
            .map_err(|_| CodecError::damaged("group context"))?
            .map_err(CodecError::new)?;
        let mut group = Self::of_stored(context, &tree, members, interim_transcript_hash)?;
        group.pending = pending;
        group.reinitialised = reinitialised;
        Ok(group)
    }

    /// A group of stored parts, without proposals.
    pub(super) fn of_stored(
        context: GroupContext,
        tree: &[u8],
        mut members: BTreeMap<u32, Member>,
        interim_transcript_hash: Digest,
    ) -> Result<Self, CodecError> {
        let damaged = || CodecError::damaged("tree");
        let flat = FlatTree::read(context.suite, tree).map_err(|_| damaged())?.map_err(|_| damaged())?;
        if flat.hash() != context.tree_hash {
            return Err(damaged());
        }
        let tree = flat.with_members(|index, leaf| match members.remove(&index) {
            Some(member) => Ok(Leaf::new(leaf, member)),
            None => Err(CodecError::damaged("list of members")),
        })?;
        Ok(Self::of_parts(context, tree, interim_transcript_hash))
    }

    /// Takes a proposal that was accepted in the present epoch before, as the entry of this number.
    ///
    /// # Errors
    /// The packet is damaged; the group is to be dropped.
    pub(crate) fn replay_proposal(
        &mut self,
        packet: Arc<[u8]>,
        needs: ProposalNeeds,
        entry: u64,
    ) -> Result<(), CodecError> {
        let message = Handshake::read(RequestMember::Packet, &packet, ContentKind::Proposal, 0);
        let message = message.ok().flatten().ok_or_else(|| CodecError::damaged("record of a proposal"))?;
        let reference = message.proposal_reference(self.context.suite).as_ref().to_vec();
        self.apply_proposal(PendingProposal { packet, reference, needs, entry: Some(entry) });
        Ok(())
    }

    /// Moves the group into an epoch that was accepted before.
    ///
    /// # Errors
    /// The record is damaged, or not this group's next; the group is to be dropped.
    pub(crate) fn replay_epoch(&mut self, commit: &[u8], record: EpochRecord) -> Result<(), CodecError> {
        let EpochRecord { joined, tree_hash, extensions } = record;
        let told = extensions.map(|list| ContextExtensions::read(&list)).transpose();
        let told = told.map_err(|_| CodecError::damaged("record of a commit"))?;
        let of_refusal = |refusal: Refusal| CodecError::new(format!("a commit: {refusal}"));
        let (derived, reinitialised) = {
            let message = self.read_commit(commit, ANY_NUMBER).map_err(of_refusal)?;
            let listed = self.resolve(&message).map_err(of_refusal)?;
            let derived =
                self.derive(&message, &listed, told.as_ref(), &mut Recorded(joined)).map_err(of_refusal)?;
            let is_reinit =
                |listed: &Listed<'_>| matches!(listed.proposal, super::handshake::Proposal::ReInit(_));
            (derived, listed.iter().any(is_reinit))
        };
        if derived.context.tree_hash != tree_hash {
            return Err(CodecError::damaged("record of a commit"));
        }
        self.move_to(derived, reinitialised);
        Ok(())
    }

    fn move_to(&mut self, derived: super::epoch::Derived, reinitialised: bool) {
        let change = IndexChange::of(&derived.replaced);
        self.revoked.apply(&derived.replaced);
        self.index.apply(change, &derived.replaced);
        self.context_bytes = derived.context_bytes;
        self.context = derived.context;
        self.tree = derived.tree;
        self.interim_transcript_hash = derived.interim_transcript_hash;
        self.reinitialised |= reinitialised;
        self.pending.clear();
    }
}

/// The members that came in with a commit, as they were recorded.
struct Recorded(BTreeMap<u32, Member>);

impl Recorded {
    fn at(&mut self, index: u32) -> Result<Member, Refusal> {
        let detail = "the record of the commit does not name the member of a leaf";
        self.0.remove(&index).ok_or_else(|| Refusal::broken(Rule::Identity, detail))
    }
}

impl NameMembers for Recorded {
    fn extensions(&mut self, _: &ContextExtensions) {}

    fn update(&mut self, index: u32, _: &LeafNode<'_>, _: &Listed<'_>) -> Result<Member, Refusal> {
        self.at(index)
    }

    fn add(&mut self, index: u32, _: &KeyPackage<'_>, _: &Listed<'_>) -> Result<Member, Refusal> {
        self.at(index)
    }

    fn path(&mut self, index: u32, _: &PathInTree<'_>) -> Result<Member, Refusal> {
        self.at(index)
    }
}
