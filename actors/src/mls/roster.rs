//! The roster that a commit leads to: every identity that enters the group or is replaced is checked, and no client and no
//! signature key is in the group twice.

use std::collections::{BTreeMap, BTreeSet};

use openmls::{
    group::{QueuedProposal, StagedCommit},
    prelude::{Extensions, GroupContext, LeafNode, Proposal, Sender},
};
use snapshots::{ClientHandle, DomainName, Timestamp};

use super::{
    Refusal, Rule, TrackedGroup, ValidationContext,
    external_senders::check_external_senders,
    group::{Member, identify, identity_of},
    leaf::LeafChecks,
    proposal::check_extensions_supported,
    proposal_list::{reference_of, removed_leaf},
    wire::SenderKind,
};

/// The members of the epoch that a commit creates.
pub(super) struct Roster {
    pub(super) left: Vec<u32>,
    pub(super) joined: BTreeMap<u32, Member>,
    pub(super) departed: Vec<Member>,
    pub(super) arrived: Vec<Member>,
    pub(super) count: usize,
}

/// The leaves that a commit brings in, as they are checked one after the other.
struct Entering<'a> {
    group: &'a TrackedGroup,
    context: ValidationContext<'a>,
    now: Timestamp,
    /// The GroupContext extensions of the epoch that the commit creates.
    extensions: &'a Extensions<GroupContext>,
    leaf_checks: Option<LeafChecks>,
    joined: BTreeMap<u32, Member>,
    leaves: Vec<(u32, &'a LeafNode)>,
}

impl<'a> Entering<'a> {
    fn identify(&self, leaf: &LeafNode) -> Result<Member, Refusal> {
        identify(self.context.provider(), identity_of(leaf), self.extensions, self.now)
            .map_err(Refusal::of_identity)
    }

    fn check_leaf(&self, leaf: &LeafNode) -> Result<(), Refusal> {
        Ok(self.leaf_checks.map_or(Ok(()), |checks| checks.check_verified_leaf(leaf))?)
    }

    /// Checks that a leaf may replace the one at an index (RFC 9420 §5.3.1).
    fn check_successor(&self, index: u32, after: &LeafNode) -> Result<(), Refusal> {
        let before = self
            .group
            .leaf(index)
            .ok_or_else(|| Refusal::broken(Rule::Sender, "the leaf to replace is blank"))?;
        if self.context.provider().valid_successor(identity_of(before), identity_of(after)) {
            Ok(())
        } else {
            Err(Refusal::broken(Rule::Successor, "a leaf may only be replaced by one of the same client"))
        }
    }

    fn enter(&mut self, index: u32, leaf: &'a LeafNode, member: Member) {
        self.joined.insert(index, member);
        self.leaves.push((index, leaf));
    }

    /// The leaf of an Add, at the next free index.
    fn add(&mut self, queued: &'a QueuedProposal, index: Option<u32>) -> Result<(), Refusal> {
        let Proposal::Add(add) = queued.proposal() else { return Ok(()) };
        self.leaf_checks.map_or(Ok(()), |checks| checks.check_verified_package(add.key_package()))?;
        let Some(index) = index else { return Ok(()) };
        let leaf = add.key_package().leaf_node();
        let member = self.identify(leaf)?;
        self.context.check_added_domain(&member).map_err(|detail| Refusal::broken(Rule::Domain, detail))?;
        self.enter(index, leaf, member);
        Ok(())
    }

    /// The leaf of an Update, at its sender's index.
    fn update(&mut self, index: u32, leaf: &'a LeafNode) -> Result<(), Refusal> {
        self.check_leaf(leaf)?;
        self.check_successor(index, leaf)?;
        let member = self.identify(leaf)?;
        self.enter(index, leaf, member);
        Ok(())
    }

    /// The leaf of the update path.
    fn update_path(&mut self, sender: SenderKind, committer: u32, leaf: &'a LeafNode) -> Result<(), Refusal> {
        self.check_leaf(leaf)?;
        if matches!(sender, SenderKind::Member(_)) {
            self.check_successor(committer, leaf)?;
        }
        let member = self.identify(leaf)?;
        if sender == SenderKind::NewMemberCommit {
            self.context.check_own_domain(&member).map_err(|detail| Refusal::broken(Rule::Domain, detail))?;
        }
        self.enter(committer, leaf, member);
        Ok(())
    }

    /// Checks the members who stay, and the leaves that enter, against new GroupContext extensions.
    fn check_extensions(&self, left: &[u32]) -> Result<(), Refusal> {
        let gone: BTreeSet<u32> = left.iter().copied().collect();
        let stays = |leaf: &u32| !gone.contains(leaf) && !self.joined.contains_key(leaf);
        let staying: Vec<(&Member, &LeafNode)> = self
            .group
            .members
            .iter()
            .filter(|(leaf, _)| stays(leaf))
            .filter_map(|(leaf, member)| Some((member, self.group.leaf(*leaf)?)))
            .collect();
        // Members whose credentials have expired are subject to the application's policy, whatever the extensions are.
        for (_, leaf) in staying.iter().filter(|(member, _)| !member.is_expired(self.now)) {
            self.identify(leaf)?;
        }
        check_external_senders(self.context.provider(), self.extensions, self.now, false)
            .map_err(|detail| Refusal::broken(Rule::Identity, detail))?;
        let leaves = staying.iter().map(|(_, leaf)| *leaf).chain(self.leaves.iter().map(|(_, leaf)| *leaf));
        check_extensions_supported(self.extensions, leaves)
    }
}

impl TrackedGroup {
    /// Checks every identity that enters or is replaced, and works out who is a member afterwards.
    pub(super) fn roster_after(
        &self,
        (context, now): (ValidationContext<'_>, Timestamp),
        staged: &StagedCommit,
        proposals: &[&QueuedProposal],
        (sender, committer): (SenderKind, u32),
        added_leaves: &[u32],
    ) -> Result<Roster, Refusal> {
        let path_leaf = staged.update_path_leaf_node();
        if matches!(sender, SenderKind::Member(_)) {
            self.check_in_date(context, committer, path_leaf.is_some(), now)?;
        }
        let mut entering = Entering {
            group: self,
            context,
            now,
            extensions: staged.group_context().extensions(),
            leaf_checks: context.leaf_checks(self.cipher_suite()),
            joined: BTreeMap::new(),
            leaves: Vec::new(),
        };
        let mut free = added_leaves.iter().copied();
        for queued in proposals {
            match (queued.proposal(), queued.sender()) {
                (Proposal::Add(_), _) => entering
                    .add(queued, free.next())
                    .map_err(|refusal| refusal.caused_by(reference_of(queued)))?,
                (Proposal::Update(update), Sender::Member(leaf)) => entering
                    .update(leaf.u32(), update.leaf_node())
                    .map_err(|refusal| refusal.caused_by(reference_of(queued)))?,
                (Proposal::Remove(remove), _) if sender == SenderKind::NewMemberCommit => {
                    if let Some(leaf) = path_leaf {
                        entering.check_successor(remove.removed().u32(), leaf)?;
                    }
                }
                (
                    Proposal::Update(_)
                    | Proposal::Remove(_)
                    | Proposal::GroupContextExtensions(_)
                    | Proposal::SelfRemove
                    | Proposal::PreSharedKey(_)
                    | Proposal::ReInit(_)
                    | Proposal::ExternalInit(_)
                    | Proposal::Custom(_),
                    _,
                ) => {}
            }
        }
        if let Some(leaf) = path_leaf {
            entering.update_path(sender, committer, leaf)?;
        }
        let mut left: Vec<u32> = proposals.iter().filter_map(|queued| removed_leaf(queued)).collect();
        let extending =
            proposals.iter().find(|queued| matches!(queued.proposal(), Proposal::GroupContextExtensions(_)));
        if let Some(extending) = extending {
            entering.check_extensions(&left).map_err(|refusal| refusal.caused_by(reference_of(extending)))?;
        }
        let Entering { joined, leaves, .. } = entering;
        let keys: Vec<(u32, &[u8])> =
            leaves.iter().map(|(index, leaf)| (*index, leaf.signature_key().as_slice())).collect();
        self.check_signature_keys(&left, &joined, &keys)?;
        self.settle_roster(&mut left, joined)
    }

    /// Signature keys are unique among the members of the new epoch (RFC 9420 §7.3); the library compares those of
    /// added members only.
    fn check_signature_keys(
        &self,
        left: &[u32],
        joined: &BTreeMap<u32, Member>,
        fresh: &[(u32, &[u8])],
    ) -> Result<(), Refusal> {
        let gone: BTreeSet<u32> = left.iter().copied().collect();
        let stays = |leaf: u32| !gone.contains(&leaf) && !joined.contains_key(&leaf);
        let distinct: BTreeSet<&[u8]> = fresh.iter().map(|(_, key)| *key).collect();
        let unchanged = |leaf: &u32, key: &[u8]| {
            self.leaf(*leaf).is_some_and(|node| node.signature_key().as_slice() == key)
        };
        let new_keys: BTreeSet<&[u8]> =
            fresh.iter().filter(|(leaf, key)| !unchanged(leaf, key)).map(|(_, key)| *key).collect();
        let taken = !new_keys.is_empty()
            && self.members.keys().filter(|leaf| stays(**leaf)).any(|leaf| {
                self.leaf(*leaf).is_some_and(|node| new_keys.contains(node.signature_key().as_slice()))
            });
        if taken || distinct.len() != fresh.len() {
            return Err(Refusal::broken(Rule::DistinctKeys, "a signature key would belong to two members"));
        }
        Ok(())
    }

    /// Checks that no client is in the new epoch twice and tells who came and who went.
    fn settle_roster(&self, left: &mut Vec<u32>, joined: BTreeMap<u32, Member>) -> Result<Roster, Refusal> {
        left.retain(|leaf| !joined.contains_key(leaf));
        let left_set: BTreeSet<u32> = left.iter().copied().collect();
        let mut clients: BTreeSet<(&Option<DomainName>, &ClientHandle)> = BTreeSet::new();
        for member in joined.values() {
            let elsewhere = self
                .leaves
                .get(&(member.domain.clone(), member.handle.clone()))
                .is_some_and(|leaf| !left_set.contains(leaf) && !joined.contains_key(leaf));
            if elsewhere || !clients.insert((&member.domain, &member.handle)) {
                return Err(Refusal::broken(
                    Rule::DistinctClients,
                    format!("the client {:?} would be in the group twice", member.handle),
                ));
            }
        }
        let gone =
            |leaf: &u32| self.members.get(leaf).filter(|old| !clients.contains(&(&old.domain, &old.handle)));
        let departed = left.iter().chain(joined.keys()).filter_map(gone).cloned().collect();
        let known =
            |member: &Member| self.leaves.contains_key(&(member.domain.clone(), member.handle.clone()));
        let arrived = joined.values().filter(|member| !known(member)).cloned().collect();
        let fresh = joined.keys().filter(|leaf| !self.members.contains_key(leaf)).count();
        let count = (self.members.len() + fresh).saturating_sub(left.len());
        Ok(Roster { left: std::mem::take(left), joined, departed, arrived, count })
    }
}
