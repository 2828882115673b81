//! Ratchet tree of a group, as every client sees it (RFC 9420 §4.1, §7).
//!
//! The tree is persistent: a clone shares all nodes, and a change copies only the nodes from the root to the changed leaf. So
//! a commit is computed on a clone while readers keep the tree from before, and its cost depends on the nodes that it touches.
//! Each subtree keeps its hash, the number of its members and the size of its resolution.

mod encoding;
mod flat;
mod hash;
mod parent;
mod subtree;

use std::sync::Arc;

use self::{
    hash::{blank_right_half, hash_of_parent, rehash, rehash_beside},
    parent::ParentFields,
    subtree::{Content, Subtree, Visited, is_right, visit},
};
use super::{CipherSuite, Digest, group::Member, leaf::LeafNode};

pub(super) use self::{
    flat::{FlatTree, TreeFault},
    parent::ParentNode,
};

/// A leaf, and the member who has it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Leaf {
    /// The serialised LeafNode.
    bytes: Box<[u8]>,
    pub(crate) member: Member,
}

impl Leaf {
    pub(super) fn new(node: &LeafNode<'_>, member: Member) -> Self {
        Self { bytes: node.bytes.into(), member }
    }

    /// Its LeafNode; there is always one, since a leaf is made of one.
    pub(super) fn node(&self) -> Option<LeafNode<'_>> {
        LeafNode::of_bytes(&self.bytes).ok()
    }
}

/// Nodes that a change took out of the tree and put into it, for the index of keys.
#[derive(Clone, Debug, Default)]
pub(super) struct Replaced {
    pub(super) leaves_out: Vec<(u32, Arc<Leaf>)>,
    pub(super) leaves_in: Vec<(u32, Arc<Leaf>)>,
    pub(super) parents_out: Vec<ParentNode>,
    pub(super) parents_in: Vec<ParentNode>,
}

/// One step from the root towards a leaf: the node, and its child that is not on the way.
#[derive(Clone, Copy, Debug)]
pub(super) struct DirectPathStep {
    /// The height of the node.
    height: u32,
    /// The hash of the other child.
    copath_hash: Digest,
    /// The size of the other child's resolution.
    pub(super) copath_resolution: u32,
    /// The first leaf below the other child.
    pub(super) copath_first: u32,
}

impl DirectPathStep {
    /// Whether a leaf is below the other child.
    pub(super) fn is_beside(&self, leaf: u32) -> bool {
        leaf.checked_sub(self.copath_first).is_some_and(|offset| offset >> (self.height - 1) == 0)
    }

    /// Whether the node is on the filtered direct path (RFC 9420 §7.1).
    pub(super) fn is_filtered_in(&self) -> bool {
        self.copath_resolution > 0
    }
}

/// The largest height: leaf indices have 32 bits.
const HEIGHT_MAX: u32 = 31;

/// A ratchet tree.
#[derive(Clone, Debug)]
pub(crate) struct RatchetTree {
    suite: CipherSuite,
    root: Arc<Subtree>,
    /// It has `1 << height` leaves.
    height: u32,
}

impl RatchetTree {
    /// How many members the tree has.
    pub(crate) fn members_count(&self) -> usize {
        usize::try_from(self.root.counts.members).unwrap_or(usize::MAX)
    }

    /// The leaf at an index; `None` if it is blank or beyond the tree.
    pub(crate) fn leaf(&self, index: u32) -> Option<&Arc<Leaf>> {
        if index.checked_shr(self.height).is_some_and(|beyond| beyond > 0) {
            return None;
        }
        let (mut subtree, mut height) = (&self.root, self.height);
        loop {
            match &subtree.content {
                Content::Leaf(leaf) => return leaf.as_ref(),
                Content::Parent { left, right, .. } => {
                    height = height.checked_sub(1)?;
                    subtree = if is_right(index, height) { right } else { left };
                }
            }
        }
    }

    /// A tree whose members are one and the same client, and its hash; `None` if it cannot be read or is not valid. For fuzzing.
    #[cfg(feature = "bench")]
    pub(crate) fn read_anonymous(suite: CipherSuite, bytes: &[u8]) -> Option<(Self, Digest)> {
        let handle = snapshots::ClientHandle::new("anybody").ok()?;
        let flat = FlatTree::read(suite, bytes).ok()?.ok()?;
        flat.validate().ok()?;
        let hash = flat.hash();
        let anybody = |_, leaf: &LeafNode<'_>| {
            Some(Leaf::new(leaf, Member { handle: handle.clone(), domain: None, valid_until: None }))
                .ok_or(())
        };
        Some((flat.with_members(anybody).ok()?, hash))
    }

    /// The leaves that are not blank, by ascending index.
    pub(crate) fn leaves(&self) -> Leaves<'_> {
        Leaves { below: vec![(&self.root, self.height, 0)] }
    }

    /// All nodes that are not blank, as if they had just come in.
    pub(super) fn all_nodes(&self) -> Replaced {
        let mut all = Replaced::default();
        let mut below = vec![(&self.root, self.height, 0_u32)];
        while let Some((subtree, height, first)) = below.pop() {
            match &subtree.content {
                _ if subtree.is_blank() => {}
                Content::Leaf(leaf) => all.leaves_in.extend(leaf.clone().map(|leaf| (first, leaf))),
                Content::Parent { node, left, right } => {
                    all.parents_in.extend(node.clone());
                    let half = height.saturating_sub(1);
                    below.push((right, half, first + (1 << half)));
                    below.push((left, half, first));
                }
            }
        }
        all
    }

    /// Puts a new node at a leaf and blanks its direct path (RFC 9420 §12.1.2), or blanks both (§12.1.3).
    pub(super) fn replace(&mut self, index: u32, leaf: Option<Arc<Leaf>>, replaced: &mut Replaced) {
        if let Some(leaf) = &leaf {
            replaced.leaves_in.push((index, Arc::clone(leaf)));
        }
        let mut leaf = leaf;
        visit(&mut self.root, self.height, index, &mut |node| match node {
            Visited::Parent(node) => replaced.parents_out.extend(node.take()),
            Visited::Leaf(at) => {
                replaced.leaves_out.extend(std::mem::replace(at, leaf.take()).map(|old| (index, old)));
            }
        });
    }

    /// Drops the right half as long as it is blank (RFC 9420 §7.7).
    pub(super) fn truncate(&mut self, replaced: &mut Replaced) {
        while let Content::Parent { node, left, right } = &self.root.content
            && right.is_blank()
        {
            replaced.parents_out.extend(node.clone());
            self.root = Arc::clone(left);
            self.height -= 1;
        }
    }

    /// The leftmost blank leaf, or the first one of a tree twice as wide (RFC 9420 §7.7).
    pub(super) fn free_leaf(&self) -> Option<u32> {
        let (mut subtree, mut height, mut first) = (&self.root, self.height, 0_u32);
        if subtree.counts.members >= 1_u32.checked_shl(height)? {
            return (height < HEIGHT_MAX).then_some(1 << height);
        }
        while let Content::Parent { left, right, .. } = &subtree.content {
            height = height.checked_sub(1)?;
            if left.counts.members < 1 << height {
                subtree = left;
            } else {
                subtree = right;
                first += 1 << height;
            }
        }
        Some(first)
    }

    /// Doubles the width until there is a leaf of this index (RFC 9420 §7.7).
    pub(super) fn grow_to(&mut self, index: u32) {
        while index.checked_shr(self.height).is_some_and(|beyond| beyond > 0) {
            let left = Arc::clone(&self.root);
            let right = blank_right_half(self.suite, self.height);
            self.root = Arc::new(Subtree::new(Content::Parent { node: None, left, right }));
            self.height += 1;
        }
    }

    /// Puts a leaf at a free index; every parent above it lists the leaf as unmerged (RFC 9420 §12.1.1).
    pub(super) fn add(&mut self, index: u32, leaf: Arc<Leaf>, replaced: &mut Replaced) {
        self.grow_to(index);
        replaced.leaves_in.push((index, Arc::clone(&leaf)));
        let mut leaf = Some(leaf);
        visit(&mut self.root, self.height, index, &mut |node| match node {
            Visited::Parent(Some(node)) => {
                *node = node.with_unmerged(index);
            }
            Visited::Parent(None) => {}
            Visited::Leaf(at) => *at = leaf.take(),
        });
    }

    /// The steps from the root down to a leaf.
    pub(super) fn path(&mut self, index: u32) -> Vec<DirectPathStep> {
        rehash_beside(&mut self.root, self.suite, (self.height, 0), index, &mut Vec::new());
        let (mut subtree, mut height, mut first) = (&self.root, self.height, 0_u32);
        let mut steps = Vec::with_capacity(height as usize);
        while height > 0 {
            let half_height = height - 1;
            let goes_right = is_right(index, half_height);
            let (next, beside) = match &subtree.content {
                Content::Parent { left, right, .. } if goes_right => (right, left),
                Content::Parent { left, right, .. } => (left, right),
                // There is nothing on the way to a leaf that is about to be occupied.
                Content::Leaf(_) => break,
            };
            let right_first = first + (1 << half_height);
            steps.push(DirectPathStep {
                height,
                copath_hash: beside.hash().unwrap_or_default(),
                copath_resolution: beside.counts.resolution,
                copath_first: if goes_right { first } else { right_first },
            });
            first = if goes_right { right_first } else { first };
            (subtree, height) = (next, half_height);
        }
        steps
    }

    /// The parent nodes of an update path, from the root down, with their parent hashes, and the parent hash of the leaf
    /// (RFC 9420 §7.9). `keys` are those of the filtered direct path, from the leaf up.
    pub(super) fn path_nodes(&self, steps: &[DirectPathStep], keys: &[&[u8]]) -> (Vec<ParentNode>, Digest) {
        let mut parent_hash = Digest::default();
        let mut nodes = Vec::with_capacity(keys.len());
        let mut buffer = Vec::with_capacity(256);
        let filtered = steps.iter().filter(|step| step.is_filtered_in());
        for (step, key) in filtered.zip(keys.iter().rev()) {
            let node = ParentNode::of_path(key, parent_hash.as_ref(), &mut buffer);
            parent_hash = hash_of_parent(self.suite, node.fields(), step.copath_hash, &mut buffer);
            nodes.push(node);
        }
        (nodes, parent_hash)
    }

    /// Puts an update path into the tree: its leaf, and its nodes from the root down; the other nodes of the direct path become
    /// blank (RFC 9420 §7.5).
    pub(super) fn set_path(
        &mut self,
        index: u32,
        leaf: Arc<Leaf>,
        (steps, nodes): (&[DirectPathStep], &[ParentNode]),
        replaced: &mut Replaced,
    ) {
        replaced.leaves_in.push((index, Arc::clone(&leaf)));
        replaced.parents_in.extend(nodes.iter().cloned());
        let mut leaf = Some(leaf);
        let mut steps = steps.iter();
        let mut nodes = nodes.iter();
        visit(&mut self.root, self.height, index, &mut |node| match node {
            Visited::Parent(node) => {
                replaced.parents_out.extend(node.take());
                if steps.next().is_some_and(DirectPathStep::is_filtered_in) {
                    *node = nodes.next().cloned();
                }
            }
            Visited::Leaf(at) => {
                replaced.leaves_out.extend(std::mem::replace(at, leaf.take()).map(|old| (index, old)));
            }
        });
    }

    /// The tree hash (RFC 9420 §7.8), for which only what was changed is hashed.
    pub(super) fn hash(&mut self) -> Digest {
        rehash(&mut self.root, self.suite, (self.height, 0), &mut Vec::with_capacity(256))
    }

    /// The tree hash as it was last computed.
    #[cfg(test)]
    pub(super) fn known_hash(&self) -> Option<Digest> {
        self.root.hash()
    }

    /// The approximate memory that it takes, in bytes.
    pub(crate) fn weight(&self) -> usize {
        const WEIGHT_OF_NODE: usize = size_of::<Subtree>() + 2 * size_of::<usize>();
        let nodes = 2_usize << self.height;
        nodes.saturating_mul(WEIGHT_OF_NODE).saturating_add(self.root.counts.bytes as usize)
    }
}

/// The leaves of a tree that are not blank.
#[derive(Debug)]
pub(crate) struct Leaves<'a> {
    /// Subtrees that remain, the next one last, with their heights and first leaves.
    below: Vec<(&'a Arc<Subtree>, u32, u32)>,
}

impl<'a> Iterator for Leaves<'a> {
    type Item = (u32, &'a Arc<Leaf>);

    fn next(&mut self) -> Option<Self::Item> {
        while let Some((subtree, height, first)) = self.below.pop() {
            match &subtree.content {
                _ if subtree.is_blank() => {}
                Content::Leaf(Some(leaf)) => return Some((first, leaf)),
                Content::Leaf(None) => {}
                Content::Parent { left, right, .. } => {
                    let below = height.saturating_sub(1);
                    self.below.push((right, below, first + (1 << below)));
                    self.below.push((left, below, first));
                }
            }
        }
        None
    }
}
