//! Subtrees of a ratchet tree: their nodes, with what is known of them, and changes on the way to a leaf.

use std::sync::Arc;

use super::{Digest, Leaf, ParentNode, hash::KeptHash};

/// A subtree with all that is known of it. A commit copies and reads two of them at each level of the tree, so they are small.
#[derive(Clone, Debug)]
pub(super) struct Subtree {
    pub(super) content: Content,
    pub(super) counts: SubtreeCounts,
    hash: KeptHash,
}

#[derive(Clone, Debug)]
pub(super) enum Content {
    /// A leaf; `None` if it is blank.
    Leaf(Option<Arc<Leaf>>),
    /// A larger subtree. One that is blank keeps its nodes, whose hashes are known.
    Parent { node: Option<ParentNode>, left: Arc<Subtree>, right: Arc<Subtree> },
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SubtreeCounts {
    pub(super) members: u32,
    /// Nodes that are not blank.
    pub(super) nodes: u32,
    /// Nodes of the resolution (RFC 9420 §4.1.1).
    pub(super) resolution: u32,
    /// The bytes of the nodes that are not blank, with their types. A tree is a vector, and shorter than `1 << 30` bytes.
    pub(super) bytes: u32,
}

fn bytes_of(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

impl Subtree {
    /// A subtree with its counts. Its hash is unknown.
    pub(super) fn new(content: Content) -> Self {
        let mut subtree = Self { content, counts: SubtreeCounts::default(), hash: KeptHash::Unknown };
        subtree.recount();
        subtree
    }

    /// The hash; `None` after a change, until it is computed again.
    pub(super) fn hash(&self) -> Option<Digest> {
        self.hash.get()
    }

    pub(super) fn set_hash(&mut self, hash: Digest) {
        self.hash = KeptHash::of(hash);
    }

    /// Counts again after a change below or at its top.
    pub(super) fn recount(&mut self) {
        self.hash = KeptHash::Unknown;
        self.counts = match &self.content {
            Content::Leaf(None) => SubtreeCounts::default(),
            Content::Leaf(Some(leaf)) => {
                SubtreeCounts { members: 1, nodes: 1, resolution: 1, bytes: bytes_of(1 + leaf.bytes.len()) }
            }
            Content::Parent { node, left, right } => {
                let (left, right) = (left.counts, right.counts);
                let (own, resolution, bytes) = match node {
                    None => (0, left.resolution + right.resolution, 0),
                    Some(node) => (1, 1 + node.fields().unmerged_count(), bytes_of(1 + node.bytes().len())),
                };
                SubtreeCounts {
                    members: left.members + right.members,
                    nodes: own + left.nodes + right.nodes,
                    resolution,
                    bytes: bytes.saturating_add(left.bytes).saturating_add(right.bytes),
                }
            }
        };
    }

    /// Whether every node is blank.
    pub(super) fn is_blank(&self) -> bool {
        self.counts.nodes == 0
    }
}

/// A node on the way to a leaf.
pub(super) enum Visited<'a> {
    Parent(&'a mut Option<ParentNode>),
    Leaf(&'a mut Option<Arc<Leaf>>),
}

/// Changes the nodes from the top of a subtree to a leaf.
pub(super) fn visit(
    subtree: &mut Arc<Subtree>,
    height: u32,
    leaf: u32,
    change: &mut impl FnMut(Visited<'_>),
) {
    let subtree = Arc::make_mut(subtree);
    match &mut subtree.content {
        Content::Leaf(leaf) => change(Visited::Leaf(leaf)),
        Content::Parent { node, left, right } => {
            change(Visited::Parent(node));
            let below = height.saturating_sub(1);
            let half = if is_right(leaf, below) { right } else { left };
            visit(half, below, leaf, change);
        }
    }
    subtree.recount();
}

/// Whether a leaf is in the right half of a subtree whose halves have this height.
pub(super) fn is_right(leaf: u32, half_height: u32) -> bool {
    (leaf >> half_height) & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subtree_keeps_the_hash_of_every_suite() {
        for length in [32, 48, 64] {
            let hash = Digest::try_from(&*vec![7; length]).unwrap();
            let mut subtree = Subtree::new(Content::Leaf(None));
            assert_eq!(subtree.hash(), None);
            subtree.set_hash(hash);
            assert_eq!(subtree.hash(), Some(hash));
            subtree.recount();
            assert_eq!(subtree.hash(), None);
        }
    }
}
