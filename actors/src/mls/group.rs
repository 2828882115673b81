//! One tracked group: opened from a GroupInfo and its tree, advanced by staged epochs.

use std::collections::BTreeMap;

use openmls::{
    group::{GroupId as MlsGroupId, ProposalStore, PublicGroup, QueuedProposal, StagedCommit},
    prelude::{
        GroupContext, LeafNode, LeafNodeIndex, MlsMessageBodyIn, MlsMessageIn, RatchetTreeIn,
        tls_codec::{DeserializeBytes as _, Serialize as _},
    },
};
use serde::{Deserialize, Serialize};
use snapshots::{ClientHandle, DomainName, Epoch, GroupId, Timestamp};

use super::{
    Refusal, RequestMember, StagedEpoch, ValidationContext, WIRE_FORMAT,
    commit::EpochChange,
    external_senders::check_external_senders,
    openmls_storage::{GroupValues, Values},
    proposal::PendingProposal,
    shape::TreeShape,
    suite_number,
    syntax::is_known_credential,
    tree::SerialisedTree,
    wire::{self, GroupInfoOutline, WireFormat},
    work::{check_tree_size, nodes_max},
};
use crate::{
    codec::{CodecError, decode, encode},
    identity::{ApplicationContext, IdentifiedClient, Identity, IdentityProvider},
};

/// One member: who it is, by the application's identity provider.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Member {
    pub(crate) handle: ClientHandle,
    pub(crate) domain: Option<DomainName>,
    /// The last moment at which its credential is valid; `None` if that does not end.
    #[serde(default)]
    pub(crate) valid_until: Option<Timestamp>,
}

impl Member {
    /// Whether its credential is out of date at a moment.
    pub(crate) fn is_expired(&self, at: Timestamp) -> bool {
        self.valid_until.is_some_and(|until| until < at)
    }
}

/// The public state of one group in its current epoch (*Group State*).
#[derive(Debug)]
pub(crate) struct TrackedGroup {
    pub(super) public: PublicGroup,
    pub(super) id: GroupId,
    pub(super) tree: SerialisedTree,
    pub(super) shape: TreeShape,
    /// By leaf index.
    pub(super) members: BTreeMap<u32, Member>,
    /// The leaf of each member.
    pub(super) leaves: BTreeMap<(Option<DomainName>, ClientHandle), u32>,
    pub(super) pending: Vec<PendingProposal>,
    /// A ReInit was committed: nothing follows (RFC 9420 §11.2).
    pub(super) reinitialised: bool,
    interim_transcript_hash: Vec<u8>,
}

/// A tracked group at rest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GroupSnapshot {
    values: GroupValues,
    members: BTreeMap<u32, Member>,
    pending: Vec<PendingProposal>,
    reinitialised: bool,
}

impl TrackedGroup {
    /// Opens a group from a GroupInfo message and its tree, which may be in the GroupInfo instead
    /// (RFC 9420 §12.4.3). Any epoch will do; [`TrackedGroup::create`] opens a new group.
    pub(crate) fn open(
        context: ValidationContext<'_>,
        group_info: &[u8],
        ratchet_tree: Option<&[u8]>,
        now: Timestamp,
    ) -> Result<Self, Refusal> {
        let outline = read_group_info(group_info)?;
        let id = GroupId::new(outline.group_id)
            .map_err(|error| Refusal::OpenedWith(format!("group_id: {error}")))?;
        let tree_bytes = match (ratchet_tree, outline.ratchet_tree) {
            (Some(given), Some(carried)) if given != carried => {
                return Err(Refusal::OpenedWith("ratchetTree differs from the tree in groupInfo".into()));
            }
            (Some(tree), _) | (None, Some(tree)) => tree,
            (None, None) => {
                return Err(Refusal::OpenedWith(
                    "the request has neither ratchetTree nor a ratchet_tree extension in groupInfo".into(),
                ));
            }
        };
        // A tree that the group info carries is read with it, so that its offsets are those of the group info.
        let unreadable = || match ratchet_tree {
            Some(tree) => Refusal::unreadable_tree(tree),
            None => Refusal::unreadable(RequestMember::GroupInfo, group_info),
        };
        let nodes_max = nodes_max(context.limits.group_members_max);
        let size =
            wire::ratchet_tree_size(tree_bytes, nodes_max).map_err(|_| unreadable())?.ok_or_else(|| {
                Refusal::OpenedWith(format!("the ratchet tree has more than {nodes_max} nodes"))
            })?;
        check_tree_size(size, context.limits.group_members_max)?;
        let (tree, shape) = SerialisedTree::parse(tree_bytes).ok_or_else(unreadable)?;
        let tree_in = RatchetTreeIn::tls_deserialize_exact_bytes(tree_bytes).map_err(|_| unreadable())?;
        let verifiable =
            match MlsMessageIn::tls_deserialize_exact_bytes(group_info).map(MlsMessageIn::extract) {
                Ok(MlsMessageBodyIn::GroupInfo(info)) => info,
                Ok(_) | Err(_) => return Err(Refusal::unreadable(RequestMember::GroupInfo, group_info)),
            };
        let values = Values::default();
        let (public, _) =
            PublicGroup::from_external(&context.crypto.0, &values, tree_in, verifiable, ProposalStore::new())
                .map_err(|error| Refusal::of_opening(&error))?;
        let is_past = public.group_context().epoch().as_u64() > 0;
        check_external_senders(context.provider(), public.group_context().extensions(), now, is_past)
            .map_err(Refusal::OpenedWith)?;
        let leaf_checks = context.leaf_checks(suite_number(public.ciphersuite()));
        let mut members = BTreeMap::new();
        for member in public.members() {
            if let (Some(checks), Some(leaf)) = (leaf_checks, public.leaf(member.index)) {
                checks.check_verified_leaf(leaf).map_err(|unfit| Refusal::OpenedWith(unfit.detail))?;
            }
            let identity = Identity { signature_key: &member.signature_key, credential: &member.credential };
            let extensions = public.group_context().extensions();
            // A group that has a history may have members whose credentials have expired since they came in.
            let at = match context.provider().valid_until(identity) {
                Ok(Some(until)) if is_past => now.min(until),
                Ok(_) | Err(_) => now,
            };
            let who = identify(context.provider(), identity, extensions, at)
                .map_err(|reason| Refusal::OpenedWith(reason.to_string()))?;
            context.check_own_domain(&who).map_err(Refusal::OpenedWith)?;
            members.insert(member.index.u32(), who);
        }
        let group = Self {
            leaves: leaves_of(&members),
            public,
            id,
            tree,
            shape,
            members,
            pending: Vec::new(),
            reinitialised: false,
            interim_transcript_hash: values.into_interim_transcript_hash(),
        };
        if group.leaves.len() != group.members.len() {
            return Err(Refusal::OpenedWith("one client is in the tree twice".into()));
        }
        Ok(group)
    }

    pub(crate) fn id(&self) -> &GroupId {
        &self.id
    }

    pub(crate) fn epoch(&self) -> Epoch {
        Epoch(self.public.group_context().epoch().as_u64())
    }

    pub(crate) fn cipher_suite(&self) -> u16 {
        suite_number(self.public.ciphersuite())
    }

    pub(crate) fn members(&self) -> &BTreeMap<u32, Member> {
        &self.members
    }

    pub(crate) fn pending(&self) -> &[PendingProposal] {
        &self.pending
    }

    /// How many bytes the proposals that wait have together.
    pub(crate) fn pending_bytes(&self) -> usize {
        self.pending.iter().map(|pending| pending.packet.len()).sum()
    }

    /// The current tree; see [`SerialisedTree::to_bytes`] for its form.
    pub(crate) fn tree(&self) -> &SerialisedTree {
        &self.tree
    }

    /// The confirmed transcript hash of the current epoch (RFC 9420 §8.2).
    pub(crate) fn confirmed_transcript_hash(&self) -> &[u8] {
        self.public.group_context().confirmed_transcript_hash()
    }

    /// The interim transcript hash of the current epoch (RFC 9420 §8.2).
    pub(crate) fn interim_transcript_hash(&self) -> &[u8] {
        &self.interim_transcript_hash
    }

    /// Takes in that the group was re-initialised, which its GroupInfo does not say (RFC 9420 §11.2).
    pub(crate) fn mark_reinitialised(&mut self) {
        self.reinitialised = true;
    }

    /// Whether the group was re-initialised.
    pub(crate) fn is_reinitialised(&self) -> bool {
        self.reinitialised
    }

    /// The serialised GroupContext (RFC 9420 §8.1).
    #[cfg(test)]
    pub(crate) fn context_bytes(&self) -> Vec<u8> {
        self.public.group_context().tls_serialize_detached().unwrap()
    }

    pub(super) fn leaf(&self, leaf: u32) -> Option<&LeafNode> {
        self.public.leaf(LeafNodeIndex::new(leaf))
    }

    /// Accepts a staged proposal into the epoch.
    ///
    /// # Errors
    /// Only for a proposal that was read back from damaged bytes.
    pub(crate) fn apply_proposal(&mut self, proposal: PendingProposal) -> Result<(), CodecError> {
        let queued: QueuedProposal = decode(&proposal.queued)?;
        self.public.add_proposal(&Values::default(), queued)?;
        self.pending.push(proposal);
        Ok(())
    }

    /// Moves the group into a staged epoch.
    ///
    /// # Errors
    /// None that a staged epoch of this very group can cause; the group is to be dropped if there is one.
    pub(crate) fn apply_epoch(&mut self, epoch: StagedEpoch) -> Result<(), CodecError> {
        self.merge(*epoch.staged, epoch.change)?;
        self.tree = epoch.tree;
        self.shape = epoch.shape;
        Ok(())
    }

    /// Moves the group into an epoch that was recorded. [`Self::refresh_tree`] must follow the last one.
    ///
    /// # Errors
    /// The record is damaged, or not this group's next; the group is to be dropped.
    pub(crate) fn replay_epoch(&mut self, change: EpochChange) -> Result<(), CodecError> {
        let staged: StagedCommit = decode(&change.staged)?;
        self.merge(staged, change)
    }

    /// Brings the serialised tree up to the tree itself.
    pub(crate) fn refresh_tree(&mut self) -> Result<(), CodecError> {
        (self.tree, self.shape) = exported(&self.public)?;
        Ok(())
    }

    fn merge(&mut self, staged: StagedCommit, change: EpochChange) -> Result<(), CodecError> {
        let values = Values::default();
        self.public.merge_commit(&values, staged).map_err(|error| CodecError::from(&error))?;
        self.interim_transcript_hash = values.into_interim_transcript_hash();
        // A leaf that changes hands in one commit is left and joined at once.
        for leaf in change.left.iter().chain(change.joined.keys()) {
            if let Some(member) = self.members.remove(leaf) {
                self.leaves.remove(&(member.domain, member.handle));
            }
        }
        for (leaf, member) in change.joined {
            self.leaves.insert((member.domain.clone(), member.handle.clone()), leaf);
            self.members.insert(leaf, member);
        }
        self.pending.clear();
        self.reinitialised |= change.reinitialised;
        Ok(())
    }

    /// The group at rest.
    pub(crate) fn snapshot(&self) -> Result<GroupSnapshot, CodecError> {
        Ok(GroupSnapshot {
            values: GroupValues {
                tree: encode(self.public.treesync())?,
                context: encode(self.public.group_context())?,
                interim_transcript_hash: self.interim_transcript_hash.clone(),
                confirmation_tag: encode(self.public.confirmation_tag())?,
            },
            members: self.members.clone(),
            pending: self.pending.clone(),
            reinitialised: self.reinitialised,
        })
    }

    /// Wakes a group from rest. Validates nothing again.
    pub(crate) fn restore(snapshot: GroupSnapshot) -> Result<Self, CodecError> {
        let context: GroupContext = decode(&snapshot.values.context)?;
        let mls_id: &MlsGroupId = context.group_id();
        let id = GroupId::new(mls_id.as_slice()).map_err(|_| CodecError::damaged("group id"))?;
        let public = PublicGroup::load(&Values::answering(&snapshot.values), mls_id)?
            .ok_or_else(|| CodecError::damaged("group"))?;
        let (tree, shape) = exported(&public)?;
        let mut group = Self {
            leaves: leaves_of(&snapshot.members),
            public,
            id,
            tree,
            shape,
            members: snapshot.members,
            pending: Vec::new(),
            reinitialised: snapshot.reinitialised,
            interim_transcript_hash: snapshot.values.interim_transcript_hash,
        };
        for proposal in snapshot.pending {
            group.apply_proposal(proposal)?;
        }
        Ok(group)
    }
}

/// The parts of what must be a GroupInfo message.
pub(super) fn read_group_info(message: &[u8]) -> Result<GroupInfoOutline<'_>, Refusal> {
    let member = RequestMember::GroupInfo;
    let unreadable = |_| Refusal::unreadable(member, message);
    let (format, body) = wire::message_body(message).map_err(unreadable)?;
    if format != WireFormat::GroupInfo {
        return Err(Refusal::unexpected(member, WIRE_FORMAT, format.name(), WireFormat::GroupInfo.name()));
    }
    wire::group_info_outline(body).map_err(unreadable)
}

fn exported(public: &PublicGroup) -> Result<(SerialisedTree, TreeShape), CodecError> {
    let bytes =
        public.export_ratchet_tree().tls_serialize_detached().map_err(|_| CodecError::damaged("tree"))?;
    SerialisedTree::parse(&bytes).ok_or_else(|| CodecError::damaged("tree"))
}

pub(super) fn leaves_of(
    members: &BTreeMap<u32, Member>,
) -> BTreeMap<(Option<DomainName>, ClientHandle), u32> {
    members.iter().map(|(leaf, member)| ((member.domain.clone(), member.handle.clone()), *leaf)).collect()
}

/// Why an identity may not enter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unidentified {
    /// Its credential is of a type that the gateway does not know (RFC 9420 §17.5).
    #[error("the credential is of type {0:#06x}, which this gateway does not know")]
    UnknownType(u16),
    /// The identity provider does not accept it.
    #[error("{0}")]
    Refused(String),
}

/// Asks the identity provider whether an identity may enter, and who it is.
pub(super) fn identify(
    provider: &dyn IdentityProvider,
    identity: Identity<'_>,
    extensions: &openmls::prelude::Extensions<GroupContext>,
    now: Timestamp,
) -> Result<Member, Unidentified> {
    let kind = identity.credential.credential_type();
    if !is_known_credential(kind.into()) {
        return Err(Unidentified::UnknownType(kind.into()));
    }
    if !provider.supported_credentials().contains(&kind) {
        let detail = "the credential's type is not one that this application accepts";
        return Err(Unidentified::Refused(detail.into()));
    }
    provider
        .identify(identity, extensions, ApplicationContext { msg_timestamp: now })
        .map(|IdentifiedClient { handle, domain, valid_until }| Member { handle, domain, valid_until })
        .map_err(|error| Unidentified::Refused(error.to_string()))
}

/// The identity in a leaf node.
pub(super) fn identity_of(leaf: &LeafNode) -> Identity<'_> {
    Identity { signature_key: leaf.signature_key().as_slice(), credential: leaf.credential() }
}
