//! One tracked group: opened from a GroupInfo and its tree, advanced by staged epochs.

#[cfg(test)]
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use snapshots::{ClientHandle, DomainName, Epoch, GroupId, Timestamp};

use super::{
    Digest, Refusal, RequestMember, StagedEpoch, UnknownKind, ValidationContext, WIRE_FORMAT,
    expiry::RevokedMembers,
    external_senders::check_external_senders,
    group_context::{GroupContext, interim_hash},
    leaf::{LeafNode, LeafSource, Unfit},
    member_index::{IndexChange, MemberIndex},
    proposal::PendingProposal,
    ratchet_tree::{FlatTree, Leaf, RatchetTree, TreeFault},
    syntax::is_known_credential,
    wire::{self, GroupInfoOutline, WireFormat},
    work::{check_tree_size, nodes_max},
};
use crate::{
    application::Source,
    identity::{ApplicationContext, GroupContextExtensions, IdentifiedClient, Identity, IdentityProvider},
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
    pub(super) context: GroupContext,
    /// The serialised context, which members sign.
    pub(super) context_bytes: Vec<u8>,
    pub(super) tree: RatchetTree,
    pub(super) index: MemberIndex,
    pub(super) pending: Vec<PendingProposal>,
    /// A ReInit was committed: nothing follows (RFC 9420 §11.2).
    pub(super) reinitialised: bool,
    pub(super) interim_transcript_hash: Digest,
    pub(super) revoked: RevokedMembers,
}

impl TrackedGroup {
    /// Opens a group from a GroupInfo message and its tree, which may be in the GroupInfo instead
    /// (RFC 9420 §12.4.3). Any epoch will do; [`TrackedGroup::create`] opens a new group.
    ///
    /// Members of a group that has a history may have come in at any time before `now`: their lifetimes are not looked at
    /// any more, and credentials that have ended are validated by their last moments.
    pub(crate) fn open(
        context: ValidationContext<'_>,
        group_info: &[u8],
        ratchet_tree: Option<&[u8]>,
        now: Timestamp,
    ) -> Result<Self, Refusal> {
        let outline = read_group_info(group_info)?;
        let unreadable_info = |_| Refusal::unreadable(RequestMember::GroupInfo, group_info);
        let group_context = GroupContext::read(outline.group_context)
            .map_err(unreadable_info)?
            .map_err(Refusal::OpenedWith)?;
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
        let refused = |fault: TreeFault| Refusal::OpenedWith(format!("the ratchet tree {fault}"));
        let flat =
            FlatTree::read(group_context.suite, tree_bytes).map_err(|_| unreadable())?.map_err(refused)?;
        if flat.hash() != group_context.tree_hash {
            let detail = "the tree_hash of groupInfo is not that of the ratchet tree";
            return Err(Refusal::OpenedWith(detail.into()));
        }
        flat.validate().map_err(refused)?;
        check_group_info_signature(&group_context, &flat, &outline)?;
        let is_past = group_context.epoch.0 > 0;
        check_external_senders(context, &group_context.extensions, now, is_past)
            .map_err(Refusal::OpenedWith)?;
        let opening = Opening { context, group_context: &group_context, now, is_past };
        let tree = flat
            .with_members(|index, leaf| opening.member(index, leaf).map(|member| Leaf::new(leaf, member)))?;
        let interim_transcript_hash = interim_hash(
            group_context.suite,
            group_context.confirmed_transcript_hash.as_ref(),
            outline.confirmation_tag,
        );
        let group = Self::of_parts(group_context, tree, interim_transcript_hash);
        if group.index.clients_count() != group.tree.members_count() {
            return Err(Refusal::OpenedWith("one client is in the tree twice".into()));
        }
        if *context.source != Source::Hub {
            group.check_credential_types()?;
        }
        Ok(group)
    }

    /// Checks that all members support the types of each other's credentials (RFC 9420 §7.3).
    fn check_credential_types(&self) -> Result<(), Refusal> {
        let members = self.members_count();
        let supporting = |kind: &u16| self.index.supporting(UnknownKind::Credential, *kind);
        match self.index.credential_types().into_iter().find(|kind| supporting(kind) != members) {
            None => Ok(()),
            Some(kind) => {
                let detail = format!("not every member supports the credential type {kind:#06x} of another");
                Err(Refusal::OpenedWith(detail))
            }
        }
    }

    /// A group with these parts, no proposals, and everything else as it follows from them.
    pub(super) fn of_parts(
        context: GroupContext,
        tree: RatchetTree,
        interim_transcript_hash: Digest,
    ) -> Self {
        let present = tree.all_nodes();
        let mut index = MemberIndex::default();
        index.apply(IndexChange::of(&present), &present);
        Self {
            context_bytes: context.to_bytes(),
            context,
            tree,
            index,
            pending: Vec::new(),
            reinitialised: false,
            interim_transcript_hash,
            revoked: RevokedMembers::default(),
        }
    }

    pub(crate) fn id(&self) -> &GroupId {
        &self.context.group_id
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.context.epoch
    }

    pub(crate) fn cipher_suite(&self) -> u16 {
        self.context.suite.number()
    }

    /// The members, by ascending leaf index.
    #[cfg(test)]
    pub(crate) fn members(&self) -> BTreeMap<u32, Member> {
        self.tree.leaves().map(|(index, leaf)| (index, leaf.member.clone())).collect()
    }

    /// The member at a leaf.
    pub(crate) fn member(&self, leaf: u32) -> Option<&Member> {
        self.tree.leaf(leaf).map(|leaf| &leaf.member)
    }

    pub(crate) fn members_count(&self) -> usize {
        self.tree.members_count()
    }

    pub(crate) fn pending(&self) -> &[PendingProposal] {
        &self.pending
    }

    /// How many bytes the proposals that wait have together.
    pub(crate) fn pending_bytes(&self) -> usize {
        self.pending.iter().map(|pending| pending.packet.len()).sum()
    }

    pub(crate) fn tree(&self) -> &RatchetTree {
        &self.tree
    }

    /// The confirmed transcript hash of the current epoch (RFC 9420 §8.2).
    pub(crate) fn confirmed_transcript_hash(&self) -> &[u8] {
        self.context.confirmed_transcript_hash.as_ref()
    }

    /// The interim transcript hash of the current epoch (RFC 9420 §8.2).
    pub(crate) fn interim_transcript_hash(&self) -> &[u8] {
        self.interim_transcript_hash.as_ref()
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
    pub(crate) fn context_bytes(&self) -> Vec<u8> {
        self.context_bytes.clone()
    }

    /// The leaf node at an index.
    pub(super) fn leaf(&self, leaf: u32) -> Option<LeafNode<'_>> {
        self.tree.leaf(leaf)?.node()
    }

    /// Accepts a staged proposal into the epoch.
    pub(crate) fn apply_proposal(&mut self, proposal: PendingProposal) {
        self.pending.push(proposal);
    }

    /// Whether a staged epoch is this group's next: it was staged after the same history.
    pub(crate) fn is_followed_by(&self, epoch: &StagedEpoch) -> bool {
        epoch.context.group_id == self.context.group_id
            && Some(epoch.epoch) == self.context.epoch.next()
            && epoch.interim_hash_before == self.interim_transcript_hash
    }

    /// Moves the group into a staged epoch.
    pub(crate) fn apply_epoch(&mut self, epoch: StagedEpoch) {
        self.revoked.apply(&epoch.replaced);
        self.index.apply(epoch.index_change, &epoch.replaced);
        self.context_bytes = epoch.context_bytes;
        self.context = epoch.context;
        self.tree = epoch.tree;
        self.interim_transcript_hash = epoch.interim_transcript_hash;
        self.reinitialised |= epoch.reinitialised;
        self.pending.clear();
    }

    /// The approximate memory that it takes, in bytes.
    pub(crate) fn weight(&self) -> usize {
        const WEIGHT_OF_INDEX_ENTRY: usize = 48;
        self.tree
            .weight()
            .saturating_add(self.index.len().saturating_mul(WEIGHT_OF_INDEX_ENTRY))
            .saturating_add(self.pending_bytes())
            .saturating_add(self.context_bytes.len().saturating_mul(3))
    }
}

/// What the members of a group that is opened are checked by.
struct Opening<'a> {
    context: ValidationContext<'a>,
    group_context: &'a GroupContext,
    now: Timestamp,
    is_past: bool,
}

impl Opening<'_> {
    fn member(&self, index: u32, leaf: &LeafNode<'_>) -> Result<Member, Refusal> {
        let GroupContext { suite, group_id, extensions, .. } = self.group_context;
        let refuse = |detail: String| Refusal::OpenedWith(format!("leaf {index}: {detail}"));
        if !leaf.has_valid_signature(*suite, group_id.as_bytes(), index) {
            return Err(refuse("its signature is not its own".into()));
        }
        if let Some(checks) = self.context.leaf_checks(*suite) {
            checks.check_leaf(leaf).map_err(|unfit| Refusal::OpenedWith(unfit.detail))?;
            if let Some(lack) = extensions.needs().lack_of(leaf) {
                return Err(refuse(lack.to_string()));
            }
        }
        if let (LeafSource::KeyPackage(lifetime), false) = (leaf.source, self.is_past) {
            self.context
                .check_lifetime(lifetime, self.now)
                .map_err(|Unfit { rule, detail }| Refusal::OpenedOutsideLifetime { rule, detail })?;
        }
        let provider = self.context.provider();
        // A group that has a history may have members whose credentials have expired since they came in.
        let at = match provider.valid_until(leaf.identity()) {
            Ok(Some(until)) if self.is_past => self.now.min(until),
            Ok(_) | Err(_) => self.now,
        };
        let who =
            identify(provider, leaf.identity(), extensions.for_provider(), self.context.identity_context(at))
                .map_err(|reason| Refusal::OpenedWith(reason.to_string()))?;
        self.context.check_own_domain(&who).map_err(Refusal::OpenedWith)?;
        Ok(who)
    }
}

/// Checks that a member of the tree signed the group info (RFC 9420 §12.4.3).
fn check_group_info_signature(
    context: &GroupContext,
    tree: &FlatTree<'_>,
    outline: &GroupInfoOutline<'_>,
) -> Result<(), Refusal> {
    let signer = tree.leaves().find(|(index, _)| *index == outline.signer);
    let Some((_, signer)) = signer else {
        return Err(Refusal::OpenedWith("the signer of groupInfo is not a member".into()));
    };
    if outline.is_signed_by(context.suite, signer.signature_key) {
        Ok(())
    } else {
        Err(Refusal::OpenedWith("the signature of groupInfo is not its signer's".into()))
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
    extensions: GroupContextExtensions<'_>,
    context: ApplicationContext,
) -> Result<Member, Unidentified> {
    let kind = identity.credential.credential_type;
    if !is_known_credential(kind.0) {
        return Err(Unidentified::UnknownType(kind.0));
    }
    if !provider.supported_credentials().contains(&kind) {
        let detail = "the credential's type is not one that this application accepts";
        return Err(Unidentified::Refused(detail.into()));
    }
    provider
        .identify(identity, extensions, context)
        .map(|IdentifiedClient { handle, domain, valid_until }| Member { handle, domain, valid_until })
        .map_err(|error| Unidentified::Refused(error.to_string()))
}
