//! The view of a group for readers: an immutable picture of its current epoch, published once the epoch is on disk.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

use sha2::{Digest as _, Sha256};
use snapshots::{ClientHandle, DomainName, Epoch, GroupId, Timestamp, View};

use super::EpochEntry;
use crate::{
    application::Application,
    error::StorageError,
    mls::{Member, ProposalNeeds, RatchetTree},
};

/// One member of a group, for readers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemberView<'a> {
    /// The member's leaf index in the ratchet tree.
    pub leaf_index: u32,
    /// The member's client handle, by the application's identity provider.
    pub handle: &'a ClientHandle,
    /// Its domain, where the application uses domains.
    pub domain: Option<&'a DomainName>,
}

/// A proposal that was accepted in the current epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitingProposal {
    /// The proposal, a PublicMessage.
    pub packet: Arc<[u8]>,
    pub(crate) needs: ProposalNeeds,
}

/// A group in its current epoch (*Group State*).
#[derive(Debug)]
pub struct GroupView {
    /// MLS's `group_id`.
    pub group: GroupId,
    /// The current epoch.
    pub epoch: Epoch,
    /// The domain of the gateway that orders the group; `None` where the application does not use domains.
    pub hub: Option<DomainName>,
    /// MLS protocol version.
    pub protocol_version: u16,
    /// MLS cipher suite.
    pub cipher_suite: u16,
    /// The proposals accepted in this epoch, oldest first: the draft's `currentProposals`, and those that can no longer be
    /// committed.
    pub proposals: Vec<WaitingProposal>,
    /// The draft's `currentGroupInfo`, if the last committer gave one.
    pub group_info: Option<Arc<[u8]>>,
    /// The number of the newest entry in the group's log.
    pub(crate) sequence: u64,
    /// When that entry was accepted.
    pub(crate) stamp: Timestamp,
    /// The newest epochs, as far as they are kept in memory.
    pub(crate) recent: Arc<[Arc<EpochEntry>]>,
    /// Whether a proposal that waits at the hub is not among `proposals`: it could no longer be validated.
    pub(crate) lacks_proposals: bool,
    /// Whether the group was re-initialised.
    pub(crate) is_reinitialised: bool,
    /// The interim transcript hash of the epoch (RFC 9420 §8.2).
    pub(crate) interim_transcript_hash: Arc<[u8]>,
    /// Shares its nodes with the owner's tree, and with the trees of other epochs.
    pub(crate) tree: RatchetTree,
    pub(crate) tree_bytes: OnceLock<Arc<[u8]>>,
    /// Trees of earlier epochs that are not stored with their welcomes yet.
    pub(crate) welcome_trees: Arc<BTreeMap<Epoch, RatchetTree>>,
}

impl GroupView {
    /// The proposals that can still be committed, as far as that can be told without validating them anew: key packages
    /// and credentials are within their time, no other commit has used the package, and the application still knows
    /// the domain.
    ///
    /// # Errors
    /// That the store cannot be read.
    pub(crate) fn current_proposals(
        &self,
        application: &Application,
        store: &View,
        now: Timestamp,
    ) -> Result<Vec<Arc<[u8]>>, StorageError> {
        // Validation time does not go back, even if the clock does.
        let at = now.max(self.stamp);
        let mut current = Vec::with_capacity(self.proposals.len());
        for WaitingProposal { packet, needs } in &self.proposals {
            let is_used = match &needs.package {
                Some(package) => store.used(application.id, package)?.is_some(),
                None => false,
            };
            if !is_used && needs.expired(at).is_none() && application.knows(needs.domain.as_ref()) {
                current.push(Arc::clone(packet));
            }
        }
        Ok(current)
    }

    /// A digest that differs between epochs and between groups, and is the same on every gateway of a group.
    pub fn epoch_digest(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        digest.update(self.epoch.0.to_be_bytes());
        digest.update(&self.interim_transcript_hash);
        digest.update(self.group.as_bytes());
        digest.update(self.hub.as_ref().map_or("", |hub| hub.as_str()));
        digest.update(self.group_info.as_deref().unwrap_or_default());
        digest.finalize().into()
    }

    /// The members, by ascending leaf index.
    pub fn members(&self) -> impl Iterator<Item = MemberView<'_>> {
        members_of(&self.tree)
    }

    /// Whether a client is a member.
    pub(crate) fn has_member(&self, handle: &ClientHandle, domain: Option<&DomainName>) -> bool {
        self.members().any(|member| member.handle == handle && member.domain == domain)
    }

    /// How many members the group has.
    pub fn members_count(&self) -> usize {
        self.tree.members_count()
    }

    /// The draft's `currentTree`: the vector `optional<Node> ratchet_tree<V>` (RFC 9420 §12.4.3.3), with its length
    /// prefix. Serialised once, when it is first asked for.
    pub fn ratchet_tree(&self) -> Arc<[u8]> {
        Arc::clone(self.tree_bytes.get_or_init(|| self.tree.to_bytes().into()))
    }
}

/// The members in a tree, by ascending leaf index.
pub(super) fn members_of(tree: &RatchetTree) -> impl Iterator<Item = MemberView<'_>> {
    tree.leaves().map(|(leaf_index, leaf)| {
        let Member { handle, domain, .. } = &leaf.member;
        MemberView { leaf_index, handle, domain: domain.as_ref() }
    })
}
