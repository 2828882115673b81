//! Derivation of the epoch that a commit creates (RFC 9420 §12.4.2): the tree, the context and the transcript. It is the same
//! for a commit that is validated and for one that is read back from a log.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    Digest, Refusal, Rule, TrackedGroup,
    app_data::{AppDataUpdates, check_dictionary_kept},
    extensions::ContextExtensions,
    group::Member,
    group_context::{GroupContext, transcript_after},
    handshake::{Handshake, Proposal, UpdatePath},
    leaf::{KeyPackage, LeafNode},
    proposal::PendingProposal,
    ratchet_tree::{DirectPathStep, Leaf, RatchetTree, Replaced},
    wire::SenderKind,
};

/// A proposal of a commit, with the sender of the proposal.
#[derive(Clone, Copy, Debug)]
pub(super) struct Listed<'a> {
    pub(super) proposal: Proposal<'a>,
    pub(super) sender: SenderKind,
    /// Its ProposalRef, if the commit takes it by reference.
    pub(super) reference: Option<&'a [u8]>,
    /// The proposal as it waits, if the commit takes it by reference.
    pub(super) waiting: Option<&'a PendingProposal>,
}

/// An update path with what the tree says of it.
pub(super) struct PathInTree<'a> {
    pub(super) path: &'a UpdatePath<'a>,
    /// From the root down to the committer's leaf.
    pub(super) steps: &'a [DirectPathStep],
    /// The parent hash that the path's leaf must carry.
    pub(super) parent_hash: Digest,
    /// The leaves that the commit adds, to which the path is not encrypted.
    pub(super) added: &'a [u32],
}

/// The epoch that a commit creates.
#[derive(Debug)]
pub(super) struct Derived {
    pub(super) tree: RatchetTree,
    pub(super) context: GroupContext,
    /// The serialised context.
    pub(super) context_bytes: Vec<u8>,
    pub(super) interim_transcript_hash: Digest,
    pub(super) replaced: Replaced,
    /// How many of the parents that went out the proposals blanked; the path replaced the others.
    pub(super) parents_blanked: usize,
    /// The committer's leaf.
    pub(super) committer: u32,
    /// The leaves of clients that the commit adds, and that of one who joins by it.
    pub(super) newcomers: BTreeSet<u32>,
}

/// Who comes in with the leaves of a commit.
pub(super) trait NameMembers {
    fn update(&mut self, index: u32, leaf: &LeafNode<'_>, listed: &Listed<'_>) -> Result<Member, Refusal>;
    fn add(&mut self, index: u32, package: &KeyPackage<'_>, listed: &Listed<'_>) -> Result<Member, Refusal>;
    fn path(&mut self, index: u32, path: &PathInTree<'_>) -> Result<Member, Refusal>;
    /// Learns of new GroupContext extensions, before any leaf.
    fn extensions(&mut self, extensions: &ContextExtensions);
}

impl TrackedGroup {
    /// Derives the epoch that a commit with these proposals creates. `told` are its GroupContext extensions as the committer
    /// tells them, or as they were recorded: only the application knows what AppDataUpdates make of its data.
    ///
    /// # Errors
    /// Those of `members`, and that the tree or the epochs are full.
    pub(super) fn derive(
        &self,
        commit: &Handshake<'_>,
        listed: &[Listed<'_>],
        told: Option<&ContextExtensions>,
        members: &mut impl NameMembers,
    ) -> Result<Derived, Refusal> {
        let extensions = AppDataUpdates::of(listed)?.apply(self.extensions_after(listed)?, told)?;
        members.extensions(&extensions);
        let (mut tree, mut replaced) = (self.tree.clone(), Replaced::default());
        let added = apply_proposals(&mut tree, listed, members, &mut replaced)?;
        let committer = match commit.sender {
            SenderKind::Member(leaf) => leaf,
            SenderKind::NewMemberCommit => {
                let leaf = tree.free_leaf().ok_or_else(full)?;
                tree.grow_to(leaf);
                leaf
            }
            SenderKind::External(_) | SenderKind::NewMemberProposal => {
                return Err(Refusal::broken(Rule::Sender, "this sender cannot commit"));
            }
        };
        let parents_blanked = replaced.parents_out.len();
        if let Some(path) = commit.commit().and_then(|commit| commit.path.as_ref()) {
            let steps = tree.path(committer);
            let keys: Vec<&[u8]> = path.nodes.iter().map(|node| node.encryption_key).collect();
            let (nodes, parent_hash) = tree.path_nodes(&steps, &keys);
            let in_tree = PathInTree { path, steps: &steps, parent_hash, added: &added };
            let member = members.path(committer, &in_tree)?;
            let leaf = Arc::new(Leaf::new(&path.leaf, member));
            tree.set_path(committer, leaf, (&steps, &nodes), &mut replaced);
        }
        let suite = self.context.suite;
        let interim = self.interim_transcript_hash.as_ref();
        let (confirmed_transcript_hash, interim_transcript_hash) = transcript_after(suite, interim, commit);
        let context = GroupContext {
            suite,
            group_id: self.context.group_id.clone(),
            epoch: self.context.epoch.next().ok_or_else(|| {
                Refusal::broken(Rule::Group, "the group is in the last epoch that there can be")
            })?,
            tree_hash: tree.hash(),
            confirmed_transcript_hash,
            extensions,
        };
        let mut newcomers = BTreeSet::from_iter(added);
        if commit.sender == SenderKind::NewMemberCommit {
            newcomers.insert(committer);
        }
        Ok(Derived {
            tree,
            context_bytes: context.to_bytes(),
            context,
            interim_transcript_hash,
            replaced,
            parents_blanked,
            committer,
            newcomers,
        })
    }

    /// The GroupContext extensions after the GroupContextExtensions of a commit.
    fn extensions_after(&self, listed: &[Listed<'_>]) -> Result<ContextExtensions, Refusal> {
        let change = listed.iter().find_map(|listed| {
            let Proposal::GroupContextExtensions(list) = listed.proposal else { return None };
            Some((list, listed.reference))
        });
        let Some((list, reference)) = change else { return Ok(self.context.extensions.clone()) };
        let extensions = ContextExtensions::read(list).map_err(|error| {
            Refusal::broken(Rule::GroupContextExtensions, error.to_string()).caused_by(reference)
        })?;
        check_dictionary_kept(&self.context.extensions, &extensions)
            .map_err(|refusal| refusal.caused_by(reference))?;
        Ok(extensions)
    }
}

/// Applies proposals to a tree in the order of RFC 9420 §12.3; answers the leaves that they add.
pub(super) fn apply_proposals(
    tree: &mut RatchetTree,
    listed: &[Listed<'_>],
    members: &mut impl NameMembers,
    replaced: &mut Replaced,
) -> Result<Vec<u32>, Refusal> {
    for one in listed {
        if let (Proposal::Update(leaf), SenderKind::Member(index)) = (&one.proposal, one.sender) {
            let member = members.update(index, leaf, one)?;
            tree.replace(index, Some(Arc::new(Leaf::new(leaf, member))), replaced);
        }
    }
    for one in listed {
        if matches!(one.proposal, Proposal::Remove(_) | Proposal::SelfRemove)
            && let Some(index) = one.proposal.replaced_leaf(one.sender)
        {
            tree.replace(index, None, replaced);
        }
    }
    tree.truncate(replaced);
    let mut added = Vec::new();
    for one in listed {
        if let Proposal::Add(package) = &one.proposal {
            let index = tree.free_leaf().ok_or_else(full)?;
            let member = members.add(index, package, one)?;
            tree.add(index, Arc::new(Leaf::new(&package.leaf, member)), replaced);
            added.push(index);
        }
    }
    Ok(added)
}

fn full() -> Refusal {
    Refusal::broken(Rule::MemberCount, "the tree has no room for another leaf")
}
