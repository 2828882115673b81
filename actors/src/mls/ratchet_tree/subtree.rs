//! Subtrees of a ratchet tree: their nodes, with what is known of them, and changes on the way to a leaf.

use std::sync::Arc;

use super::{Digest, Leaf, ParentNode};

/// A subtree with all that is known of it.
#[derive(Clone, Debug)]
pub(super) struct Subtree {
    pub(super) content: Content,
    pub(super) counts: SubtreeCounts,
    /// `None` after a change, until it is computed again.
    pub(super) hash: Option<Digest>,
}

#[derive(Clone, Debug)]
pub(super) enum Content {
    /// A blank leaf. A larger subtree that is blank keeps its nodes, whose hashes are known.
    Blank,
    Leaf(Arc<Leaf>),
    Parent {
        node: Option<Arc<ParentNode>>,
        left: Arc<Subtree>,
        right: Arc<Subtree>,
    },
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SubtreeCounts {
    pub(super) members: u32,
    /// Nodes that are not blank.
    pub(super) nodes: u32,
    /// Nodes of the resolution (RFC 9420 §4.1.1).
    pub(super) resolution: u32,
    /// The bytes of the nodes that are not blank, with their types.
    pub(super) bytes: usize,
}

impl Subtree {
    pub(super) fn blank() -> Self {
        Self { content: Content::Blank, counts: SubtreeCounts::default(), hash: None }
    }

    /// Counts again after a change below or at its top.
    pub(super) fn recount(&mut self) {
        self.hash = None;
        self.counts = match &self.content {
            Content::Blank => SubtreeCounts::default(),
            Content::Leaf(leaf) => {
                SubtreeCounts { members: 1, nodes: 1, resolution: 1, bytes: 1 + leaf.bytes.len() }
            }
            Content::Parent { node, left, right } => {
                let (left, right) = (left.counts, right.counts);
                let (own, resolution, bytes) = match node {
                    None => (0, left.resolution + right.resolution, 0),
                    Some(node) => {
                        let unmerged = u32::try_from(node.unmerged_leaves.len()).unwrap_or(u32::MAX - 1);
                        (1, 1 + unmerged, 1 + node.length())
                    }
                };
                SubtreeCounts {
                    members: left.members + right.members,
                    nodes: own + left.nodes + right.nodes,
                    resolution,
                    bytes: bytes + left.bytes + right.bytes,
                }
            }
        };
    }

    /// Whether every node is blank.
    pub(super) fn is_blank(&self) -> bool {
        self.counts.nodes == 0
    }

    /// The node at the top and the two halves, for a change below.
    fn halves(&mut self) -> Option<Halves<'_>> {
        match &mut self.content {
            Content::Parent { node, left, right } => Some((node, left, right)),
            Content::Blank | Content::Leaf(_) => None,
        }
    }
}

/// The top node of a subtree, its left half and its right half.
type Halves<'a> = (&'a mut Option<Arc<ParentNode>>, &'a mut Arc<Subtree>, &'a mut Arc<Subtree>);

/// A node on the way to a leaf.
pub(super) enum Visited<'a> {
    Parent(&'a mut Option<Arc<ParentNode>>),
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
    if height == 0 {
        let mut at = match std::mem::replace(&mut subtree.content, Content::Blank) {
            Content::Leaf(leaf) => Some(leaf),
            Content::Blank | Content::Parent { .. } => None,
        };
        change(Visited::Leaf(&mut at));
        subtree.content = at.map_or(Content::Blank, Content::Leaf);
    } else if let Some((node, left, right)) = subtree.halves() {
        change(Visited::Parent(node));
        let below = height - 1;
        let half = if is_right(leaf, below) { right } else { left };
        visit(half, below, leaf, change);
    }
    subtree.recount();
}

/// Whether a leaf is in the right half of a subtree whose halves have this height.
pub(super) fn is_right(leaf: u32, half_height: u32) -> bool {
    (leaf >> half_height) & 1 == 1
}
