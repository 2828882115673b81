//! Admission of the leaves that a commit brings in: each is valid by itself, is signed, is a client that may come in, and fits the
//! members of the epoch that the commit creates (RFC 9420 §7.3, §12.4.2; *Identity Providers*).

use std::collections::{BTreeMap, BTreeSet, HashMap};

use snapshots::Timestamp;

use super::{
    AddedMember, CipherSuite, Refusal, Rule, TrackedGroup, UnknownKind, ValidationContext,
    epoch::{Derived, Listed, NameMembers, PathInTree},
    extensions::ContextExtensions,
    external_senders::check_external_senders,
    group::{Member, identify},
    handshake::{Proposal, is_default_proposal},
    leaf::{KeyPackage, LeafChecks, LeafNode, LeafSource, check_package_signatures},
    member_index::{IndexChange, SharedValue},
    proposal::unsupported_proposal,
    ratchet_tree::ParentNode,
    syntax::is_known_extension,
    wire::SenderKind,
};

/// The leaves of one commit, as they are checked one after the other.
pub(super) struct Admission<'a> {
    group: &'a TrackedGroup,
    context: ValidationContext<'a>,
    sender: SenderKind,
    now: Timestamp,
    /// The GroupContext extensions of the epoch that the commit creates.
    extensions: ContextExtensions,
    leaf_checks: Option<LeafChecks>,
    /// The reference of the proposal that brought in a leaf.
    references: BTreeMap<u32, Vec<u8>>,
    pub(super) added: Vec<AddedMember>,
}

impl<'a> Admission<'a> {
    pub(super) fn new(
        group: &'a TrackedGroup,
        context: ValidationContext<'a>,
        sender: SenderKind,
        now: Timestamp,
    ) -> Self {
        Self {
            group,
            context,
            sender,
            now,
            extensions: group.context.extensions.clone(),
            leaf_checks: context.leaf_checks(group.context.suite),
            references: BTreeMap::new(),
            added: Vec::new(),
        }
    }

    fn suite(&self) -> CipherSuite {
        self.group.context.suite
    }

    fn identify(&self, leaf: &LeafNode<'_>) -> Result<Member, Refusal> {
        let context = self.context.identity_context(self.now);
        identify(self.context.provider(), leaf.identity(), self.extensions.for_provider(), context)
            .map_err(Refusal::of_identity)
    }

    fn check_leaf(&self, leaf: &LeafNode<'_>) -> Result<(), Refusal> {
        Ok(self.leaf_checks.map_or(Ok(()), |checks| checks.check_leaf(leaf))?)
    }

    fn check_signature(&self, index: u32, leaf: &LeafNode<'_>) -> Result<(), Refusal> {
        let group_id = self.group.context.group_id.as_bytes();
        if leaf.has_valid_signature(self.suite(), group_id, index) {
            Ok(())
        } else {
            Err(Refusal::broken(Rule::LeafNode, "the signature of the leaf is not its own"))
        }
    }

    /// Checks that no value is shared by two members or nodes of the new epoch (RFC 9420 §7.3, §12.4.2).
    pub(super) fn check_distinct(&self, derived: &Derived, change: &IndexChange) -> Result<(), Refusal> {
        let replaced = &derived.replaced;
        self.check_path_is_new(derived)?;
        self.check_beside_committer(derived)?;
        let Some((shared, leaf)) = self.group.index.shared_after(change, replaced) else { return Ok(()) };
        let refusal = match shared {
            SharedValue::EncryptionKey => {
                Refusal::broken(Rule::DistinctKeys, "an encryption key would belong to two nodes of the tree")
            }
            SharedValue::SignatureKey => {
                Refusal::broken(Rule::DistinctKeys, "a signature key would belong to two members")
            }
            SharedValue::Client => {
                let member = replaced.leaves_in.iter().find(|(index, _)| Some(*index) == leaf);
                let handle = member.map(|(_, leaf)| &leaf.member.handle);
                let detail = match handle {
                    Some(handle) => format!("the client {handle:?} would be in the group twice"),
                    None => "a client would be in the group twice".into(),
                };
                Refusal::broken(Rule::DistinctClients, detail)
            }
        };
        Err(self.because_of(leaf, refusal))
    }

    /// Checks that no key of the path is one of a node that the path replaces: the keys are compared with the tree before the
    /// path is merged into it (RFC 9420 §12.4.2).
    fn check_path_is_new(&self, derived: &Derived) -> Result<(), Refusal> {
        let Derived { replaced, parents_blanked, committer, .. } = derived;
        let of_committer = replaced.leaves_in.iter().find(|(leaf, _)| leaf == committer);
        let leaf = of_committer.and_then(|(_, leaf)| leaf.node());
        let before = match self.sender {
            SenderKind::Member(leaf) => self.group.leaf(leaf),
            SenderKind::NewMemberCommit | SenderKind::External(_) | SenderKind::NewMemberProposal => None,
        };
        let of_parents = replaced.parents_out.iter().skip(*parents_blanked).map(ParentNode::encryption_key);
        let mut gone: Vec<&[u8]> = of_parents.chain(before.map(|leaf| leaf.encryption_key)).collect();
        gone.sort_unstable();
        let of_parents = replaced.parents_in.iter().map(ParentNode::encryption_key);
        let mut keys = of_parents.chain(leaf.map(|leaf| leaf.encryption_key));
        if keys.any(|key| gone.binary_search(&key).is_ok()) {
            let detail = "a public key of the update path is that of a node that the path replaces";
            return Err(Refusal::broken(Rule::DistinctKeys, detail));
        }
        Ok(())
    }

    /// Checks that no leaf of a proposal has a key of the committer's present leaf: proposals are judged before the path replaces it
    /// (RFC 9420 §7.3, §12.2).
    fn check_beside_committer(&self, derived: &Derived) -> Result<(), Refusal> {
        let SenderKind::Member(committer) = self.sender else { return Ok(()) };
        let Some(before) = self.group.leaf(committer) else { return Ok(()) };
        let others = derived.replaced.leaves_in.iter().filter(|(leaf, _)| *leaf != committer);
        for (leaf, entered) in others {
            let is_shared = entered.node().is_some_and(|node| {
                node.encryption_key == before.encryption_key || node.signature_key == before.signature_key
            });
            if is_shared {
                let detail = "a leaf that comes in has a key of the committer's present leaf";
                return Err(self.because_of(Some(*leaf), Refusal::broken(Rule::DistinctKeys, detail)));
            }
        }
        Ok(())
    }

    /// Names the proposal that brought in a leaf, if it was taken by reference.
    fn because_of(&self, leaf: Option<u32>, refusal: Refusal) -> Refusal {
        refusal.caused_by(leaf.and_then(|leaf| self.references.get(&leaf)).map(Vec::as_slice))
    }

    /// Checks that the leaves that came in, the members and the extensions of the new epoch suit each other (RFC 9420 §7.2,
    /// §7.3, §11.1, §12.2).
    pub(super) fn check_support(
        &self,
        derived: &Derived,
        change: &IndexChange,
        listed: &[Listed<'_>],
    ) -> Result<(), Refusal> {
        let index = &self.group.index;
        let members = derived.tree.members_count();
        let is_supported = |kind, number| index.supporting_after(change, kind, number) == members;
        let needs = self.extensions.needs();
        let in_use = index.credential_types_after(change);
        for (leaf, entered) in &derived.replaced.leaves_in {
            let Some(node) = entered.node() else { continue };
            let refuse = |detail: String| {
                Err(self.because_of(Some(*leaf), Refusal::broken(Rule::Capabilities, detail)))
            };
            if let Some(lack) = needs.lack_of(&node) {
                return refuse(lack.to_string());
            }
            let own = node.credential.credential_type.0;
            if node.supported_credentials.missing(&in_use).is_some()
                || !is_supported(UnknownKind::Credential, own)
            {
                let detail = "the leaf and the members do not support each other's credential types";
                return refuse(detail.into());
            }
        }
        self.check_proposal_types(derived, change, listed)?;
        let extending = listed.iter().find(|listed| {
            matches!(listed.proposal, Proposal::GroupContextExtensions(_) | Proposal::AppDataUpdate { .. })
        });
        match extending {
            None => Ok(()),
            Some(extending) => self
                .check_extensions(derived, listed, is_supported)
                .map_err(|refusal| refusal.caused_by(extending.reference)),
        }
    }

    /// Checks that all members who process the commit support the types of its proposals: clients that it adds, or that join
    /// by it, need not (RFC 9420 §12.2).
    fn check_proposal_types(
        &self,
        derived: &Derived,
        change: &IndexChange,
        listed: &[Listed<'_>],
    ) -> Result<(), Refusal> {
        let kinds = listed.iter().map(|listed| (listed.proposal.kind(), listed.reference));
        let kinds: Vec<_> = kinds.filter(|(kind, _)| !is_default_proposal(*kind)).collect();
        if kinds.is_empty() {
            return Ok(());
        }
        let mut of_newcomers: HashMap<u16, usize> = HashMap::new();
        let came_in = derived.replaced.leaves_in.iter();
        for (_, leaf) in came_in.filter(|(leaf, _)| derived.newcomers.contains(leaf)) {
            let supported = leaf.node().map(|node| node.supported_proposals.distinct()).unwrap_or_default();
            supported.into_iter().for_each(|kind| *of_newcomers.entry(kind).or_default() += 1);
        }
        let members = derived.tree.members_count();
        for (kind, reference) in kinds {
            let supporting = self.group.index.supporting_after(change, UnknownKind::Proposal, kind);
            let newcomers = of_newcomers.get(&kind).copied().unwrap_or_default();
            if supporting.saturating_sub(newcomers) + derived.newcomers.len() != members {
                return Err(unsupported_proposal(kind).caused_by(reference));
            }
        }
        Ok(())
    }

    /// Checks new GroupContext extensions against the members of the new epoch (RFC 9420 §12.1.7).
    fn check_extensions(
        &self,
        derived: &Derived,
        listed: &[Listed<'_>],
        is_supported: impl Fn(UnknownKind, u16) -> bool,
    ) -> Result<(), Refusal> {
        let provider = self.context.provider();
        if provider.reads_extensions() {
            let entered: BTreeSet<u32> = derived.replaced.leaves_in.iter().map(|(index, _)| *index).collect();
            let stays = derived.tree.leaves().filter(|(index, _)| !entered.contains(index));
            // Members whose credentials have ended are subject to the application's policy, whatever the extensions are.
            for (_, leaf) in stays.filter(|(index, _)| !self.group.has_ended(*index, self.now)) {
                if let Some(node) = leaf.node() {
                    self.identify(&node)?;
                }
            }
        }
        // An AppDataUpdate leaves the external senders as they are: they were validated when they were set.
        if listed.iter().any(|one| matches!(one.proposal, Proposal::GroupContextExtensions(_))) {
            check_external_senders(self.context, &self.extensions, self.now, false)
                .map_err(|detail| Refusal::broken(Rule::Identity, detail))?;
        }
        check_supported(&self.extensions, is_supported)
    }
}

/// Checks that all members support GroupContext extensions and what these require (RFC 9420 §12.1.7).
pub(super) fn check_supported(
    extensions: &ContextExtensions,
    is_supported: impl Fn(UnknownKind, u16) -> bool,
) -> Result<(), Refusal> {
    let Some((of, number, lack)) =
        extensions.needs().each().find(|(of, number, _)| !is_supported(*of, *number))
    else {
        return Ok(());
    };
    let is_set = extensions.needs().extensions.contains(&number);
    if of == UnknownKind::Extension && is_set && !is_known_extension(number) {
        let reason = "neither this gateway nor every member knows it";
        return Err(Refusal::unknown(UnknownKind::Extension, number, reason));
    }
    Err(Refusal::broken(Rule::GroupContextExtensions, lack.to_string()))
}

impl NameMembers for Admission<'_> {
    fn extensions(&mut self, extensions: &ContextExtensions) {
        self.extensions = extensions.clone();
    }

    fn update(&mut self, index: u32, leaf: &LeafNode<'_>, listed: &Listed<'_>) -> Result<Member, Refusal> {
        let member = self
            .check_leaf(leaf)
            .and_then(|()| check_successor(self.group, self.context, index, leaf))
            .and_then(|()| self.identify(leaf))
            .map_err(|refusal| refusal.caused_by(listed.reference))?;
        self.references.extend(listed.reference.map(|reference| (index, reference.to_vec())));
        Ok(member)
    }

    fn add(&mut self, index: u32, package: &KeyPackage<'_>, listed: &Listed<'_>) -> Result<Member, Refusal> {
        let member =
            self.check_package(package, listed).map_err(|refusal| refusal.caused_by(listed.reference))?;
        self.references.extend(listed.reference.map(|reference| (index, reference.to_vec())));
        let reference = package
            .reference(self.suite())
            .ok_or_else(|| Refusal::broken(Rule::Proposal, "a key package has no reference"))?;
        let lifetime = package.leaf.lifetime();
        self.added.push(AddedMember {
            member: member.clone(),
            reference,
            last_resort: package.is_last_resort(),
            not_after: Timestamp(lifetime.map_or(0, |lifetime| lifetime.not_after_s.saturating_mul(1000))),
            proposal: listed.reference.map(<[u8]>::to_vec),
        });
        Ok(member)
    }

    fn path(&mut self, index: u32, in_tree: &PathInTree<'_>) -> Result<Member, Refusal> {
        let leaf = &in_tree.path.leaf;
        check_path(in_tree)?;
        if let Some(checks) = self.leaf_checks {
            let keys: Vec<&[u8]> = in_tree.path.nodes.iter().map(|node| node.encryption_key).collect();
            checks.check_path_keys(&keys)?;
        }
        self.check_leaf(leaf)?;
        match self.sender {
            SenderKind::Member(_) => check_successor(self.group, self.context, index, leaf)?,
            SenderKind::NewMemberCommit | SenderKind::External(_) | SenderKind::NewMemberProposal => {}
        }
        self.check_signature(index, leaf)?;
        let member = self.identify(leaf)?;
        if self.sender == SenderKind::NewMemberCommit {
            self.context.check_own_domain(&member).map_err(|detail| Refusal::broken(Rule::Domain, detail))?;
        }
        Ok(member)
    }
}

impl Admission<'_> {
    /// Checks the key package of an Add, and who it is of. One that waited was verified when it was accepted.
    fn check_package(&self, package: &KeyPackage<'_>, listed: &Listed<'_>) -> Result<Member, Refusal> {
        match self.leaf_checks {
            Some(checks) => checks.check_key_package(package)?,
            None => check_suite(package, self.suite())?,
        }
        if listed.reference.is_none() {
            if let Some(lifetime) = package.leaf.lifetime() {
                self.context.check_lifetime(lifetime, self.now)?;
            }
            check_package_signatures(package, self.suite())?;
        }
        let member = self.identify(&package.leaf)?;
        self.context.check_added_domain(&member).map_err(|detail| Refusal::broken(Rule::Domain, detail))?;
        Ok(member)
    }

    /// Checks that the leaf of a resync takes the place of the client's earlier leaf (RFC 9420 §12.2).
    pub(super) fn check_resync(&self, listed: &[Listed<'_>], leaf: &LeafNode<'_>) -> Result<(), Refusal> {
        let removed = listed.iter().find_map(|listed| {
            if let Proposal::Remove(removed) = listed.proposal { Some(removed) } else { None }
        });
        removed.map_or(Ok(()), |removed| check_successor(self.group, self.context, removed, leaf))
    }
}

pub(super) fn check_suite(package: &KeyPackage<'_>, suite: CipherSuite) -> Result<(), Refusal> {
    if package.cipher_suite == suite.number() && package.leaf.lifetime().is_some() {
        return Ok(());
    }
    Err(Refusal::broken(Rule::Proposal, "the key package is not of the group's cipher suite"))
}

/// Checks that a leaf may take the place of the one at an index: it is of a valid successor and has a new encryption key
/// (RFC 9420 §5.3.1, §7.3).
pub(super) fn check_successor(
    group: &TrackedGroup,
    context: ValidationContext<'_>,
    index: u32,
    leaf: &LeafNode<'_>,
) -> Result<(), Refusal> {
    let before =
        group.leaf(index).ok_or_else(|| Refusal::broken(Rule::Sender, "the leaf to replace is blank"))?;
    if before.encryption_key == leaf.encryption_key {
        let detail = "a leaf that replaces another must have a new encryption key";
        return Err(Refusal::broken(Rule::DistinctKeys, detail));
    }
    if context.provider().valid_successor(before.identity(), leaf.identity()) {
        Ok(())
    } else {
        let detail = "a leaf may only be replaced by one of the same client";
        Err(Refusal::broken(Rule::Successor, detail))
    }
}

/// Checks the form of an update path: its nodes, its ciphertexts and the parent hash of its leaf (RFC 9420 §7.5, §7.6,
/// §7.9).
fn check_path(in_tree: &PathInTree<'_>) -> Result<(), Refusal> {
    let PathInTree { path, steps, parent_hash, added } = in_tree;
    let filtered = || steps.iter().rev().filter(|step| step.is_filtered_in());
    let expected = filtered().count();
    if path.nodes.len() != expected {
        let detail = format!(
            "the update path has {} nodes, the filtered direct path has {expected}",
            path.nodes.len()
        );
        return Err(Refusal::broken(Rule::Path, detail));
    }
    for (place, (step, node)) in filtered().zip(&path.nodes).enumerate() {
        let new = added.iter().filter(|leaf| step.is_beside(**leaf)).count();
        let expected = (step.copath_resolution as usize).saturating_sub(new);
        if node.ciphertexts != expected {
            let detail = format!(
                "node {place} of the update path carries {} ciphertexts, its resolution needs {expected}",
                node.ciphertexts
            );
            return Err(Refusal::broken(Rule::PathCiphertexts, detail));
        }
    }
    match path.leaf.source {
        LeafSource::Commit { parent_hash: carried } if carried == parent_hash.as_ref() => Ok(()),
        LeafSource::Commit { .. } => {
            Err(Refusal::broken(Rule::Path, "the parent hash of the path's leaf is not that of its path"))
        }
        LeafSource::KeyPackage(_) | LeafSource::Update => {
            Err(Refusal::broken(Rule::LeafNode, "the leaf node source of the path's leaf is not commit"))
        }
    }
}
