//! The shape of a ratchet tree: blank nodes and unmerged leaves. It determines how many ciphertexts each node of an
//! update path must carry (RFC 9420 §7.6), a number that an outsider can check.

use std::collections::BTreeSet;

use super::wire::NodeOutline;

/// One node, without its keys.
#[derive(Clone, Debug, PartialEq, Eq)]
enum NodeShape {
    Blank,
    Leaf,
    /// With its `unmerged_leaves`, ascending.
    Parent(Vec<u32>),
}

/// A ratchet tree without its keys, in the array representation of RFC 9420 Appendix C, always as wide as
/// a full tree: `2 * leaves - 1` nodes for a power of two of leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TreeShape {
    nodes: Vec<NodeShape>,
}

impl TreeShape {
    /// The shape of a serialised tree; `None` if a node stands where its kind cannot, or the tree is empty.
    pub(crate) fn from_nodes(nodes: &[NodeOutline<'_>]) -> Option<Self> {
        let mut shapes = Vec::with_capacity(nodes.len());
        for (index, node) in nodes.iter().enumerate() {
            shapes.push(match (node, index % 2) {
                (NodeOutline::Blank, _) => NodeShape::Blank,
                (NodeOutline::Leaf { .. }, 0) => NodeShape::Leaf,
                (NodeOutline::Parent { unmerged_leaves, .. }, 1) => {
                    let (leaves, rest) = unmerged_leaves.as_chunks::<4>();
                    if !rest.is_empty() {
                        return None;
                    }
                    NodeShape::Parent(leaves.iter().map(|leaf| u32::from_be_bytes(*leaf)).collect())
                }
                (NodeOutline::Leaf { .. } | NodeOutline::Parent { .. }, _) => return None,
            });
        }
        if shapes.is_empty() {
            return None;
        }
        let leaves = shapes.len().div_ceil(2).next_power_of_two();
        shapes.resize(2 * leaves - 1, NodeShape::Blank);
        Some(Self { nodes: shapes })
    }

    fn leaves(&self) -> usize {
        self.nodes.len().div_ceil(2)
    }

    fn node(&self, index: usize) -> &NodeShape {
        self.nodes.get(index).unwrap_or(&NodeShape::Blank)
    }

    fn set(&mut self, index: usize, shape: NodeShape) {
        if let Some(node) = self.nodes.get_mut(index) {
            *node = shape;
        }
    }

    /// The parents from just above `node` to the root, each with its child that is not on this path; none for
    /// a node outside the tree.
    fn direct_path(&self, node: usize) -> Vec<(usize, usize)> {
        let root = self.leaves() - 1;
        let mut path = Vec::new();
        let mut child = if node < self.nodes.len() { node } else { root };
        while child != root {
            let level = child.trailing_ones();
            let half = 1_usize << level;
            let is_right = (child >> (level + 1)) & 1 == 1;
            let (parent, sibling) =
                if is_right { (child - half, child - 2 * half) } else { (child + half, child + 2 * half) };
            path.push((parent, sibling));
            child = parent;
        }
        path
    }

    /// An Update replaces the leaf and blanks its direct path (RFC 9420 §12.1.2).
    pub(crate) fn update(&mut self, leaf: u32) {
        for (parent, _) in self.direct_path(leaf_node(leaf)) {
            self.set(parent, NodeShape::Blank);
        }
    }

    /// A Remove blanks the leaf and its direct path (RFC 9420 §12.1.3). Truncation is left to [`Self::trim`].
    pub(crate) fn remove(&mut self, leaf: u32) {
        self.update(leaf);
        self.set(leaf_node(leaf), NodeShape::Blank);
    }

    /// The leftmost blank leaf, or the first one of a tree twice as wide. None is blank before `from`.
    fn free_leaf(&self, from: u32) -> u32 {
        let start = usize::try_from(from).unwrap_or(usize::MAX);
        let leaves = self.nodes.iter().step_by(2).skip(start);
        let free = leaves.into_iter().position(|node| *node == NodeShape::Blank);
        let free = free.map_or(self.leaves(), |free| free.saturating_add(start));
        u32::try_from(free).unwrap_or(u32::MAX)
    }

    /// Puts a leaf into the leftmost free place, widening the tree if there is none; answers where.
    pub(crate) fn occupy(&mut self) -> u32 {
        self.occupy_from(0)
    }

    fn occupy_from(&mut self, from: u32) -> u32 {
        let leaf = self.free_leaf(from);
        if leaf_node(leaf) >= self.nodes.len() {
            let wider = 2 * self.nodes.len() + 1;
            self.nodes.resize(wider, NodeShape::Blank);
        }
        self.set(leaf_node(leaf), NodeShape::Leaf);
        leaf
    }

    /// Applies this number of Adds in turn; returns their leaves. Each starts its search for a free leaf where the one before
    /// found one.
    pub(crate) fn add_all(&mut self, count: usize) -> Vec<u32> {
        let mut from = 0;
        let mut added = Vec::new();
        for _ in 0..count {
            from = self.add_from(from);
            added.push(from);
        }
        added
    }

    #[cfg(test)]
    fn add(&mut self) -> u32 {
        self.add_from(0)
    }

    /// An Add occupies a leaf that every parent above it does not yet know (RFC 9420 §12.1.1).
    fn add_from(&mut self, from: u32) -> u32 {
        let leaf = self.occupy_from(from);
        for (parent, _) in self.direct_path(leaf_node(leaf)) {
            if let Some(NodeShape::Parent(unmerged)) = self.nodes.get_mut(parent)
                && let Err(place) = unmerged.binary_search(&leaf)
            {
                unmerged.insert(place, leaf);
            }
        }
        leaf
    }

    /// Halves the tree while its right half is blank (RFC 9420 §7.8).
    pub(crate) fn trim(&mut self) {
        while self.nodes.len() > 1 {
            let root = self.leaves() - 1;
            if self.nodes.iter().skip(root + 1).step_by(2).any(|node| *node == NodeShape::Leaf) {
                break;
            }
            self.nodes.truncate(root);
        }
    }

    /// Applies an update path from `committer`, whose leaf is in place, and answers how many ciphertexts each
    /// of its nodes must carry, from the leaf up: the filtered direct path of RFC 9420 §7.5, with the leaves
    /// that this commit adds left out of each resolution (§7.6).
    pub(crate) fn commit_path(&mut self, committer: u32, added: &[u32]) -> Vec<usize> {
        let added: BTreeSet<u32> = added.iter().copied().collect();
        let mut ciphertexts = Vec::new();
        for (parent, sibling) in self.direct_path(leaf_node(committer)) {
            if self.resolution(sibling, &BTreeSet::new()) == 0 {
                self.set(parent, NodeShape::Blank);
            } else {
                ciphertexts.push(self.resolution(sibling, &added));
                self.set(parent, NodeShape::Parent(Vec::new()));
            }
        }
        ciphertexts
    }

    /// How many nodes the resolution of `node` has (RFC 9420 §4.1.1), not counting leaves in `without`.
    fn resolution(&self, node: usize, without: &BTreeSet<u32>) -> usize {
        match self.node(node) {
            NodeShape::Leaf => {
                let leaf = u32::try_from(node / 2).unwrap_or(u32::MAX);
                usize::from(!without.contains(&leaf))
            }
            NodeShape::Parent(unmerged) => 1 + unmerged.iter().filter(|leaf| !without.contains(leaf)).count(),
            NodeShape::Blank => match children(node) {
                Some((left, right)) => self.resolution(left, without) + self.resolution(right, without),
                None => 0,
            },
        }
    }
}

fn leaf_node(leaf: u32) -> usize {
    usize::try_from(leaf).map_or(usize::MAX, |leaf| leaf.saturating_mul(2))
}

fn children(node: usize) -> Option<(usize, usize)> {
    match node.trailing_ones() {
        0 => None,
        level => {
            let quarter = 1_usize << (level - 1);
            Some((node - quarter, node + quarter))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full(leaves: u32) -> TreeShape {
        let mut shape = TreeShape { nodes: vec![NodeShape::Leaf] };
        for _ in 1..leaves {
            shape.add();
        }
        for leaf in 0..leaves {
            shape.commit_path(leaf, &[]);
        }
        shape
    }

    /// What each node of a path from `committer` carries after `change`.
    fn check(
        leaves: u32,
        change: impl FnOnce(&mut TreeShape) -> Vec<u32>,
        committer: u32,
        expected: &[usize],
    ) {
        let mut shape = full(leaves);
        let added = change(&mut shape);
        shape.trim();
        assert_eq!(shape.commit_path(committer, &added), expected);
    }

    #[test]
    fn ciphertexts_follow_the_resolution_of_the_copath() {
        check(2, |_| vec![], 0, &[1]);
        check(4, |_| vec![], 0, &[1, 1]);
        check(8, |_| vec![], 5, &[1, 1, 1]);
        // Blanking leaf 3's path leaves leaves 2 alone in the right half.
        check(
            4,
            |shape| {
                shape.remove(3);
                vec![]
            },
            0,
            &[1, 1],
        );
        check(
            4,
            |shape| {
                shape.update(3);
                vec![]
            },
            0,
            &[1, 2],
        );
        // Leaf 1 gone: the node above leaves 0 and 1 has no recipient, so the path skips it.
        check(
            4,
            |shape| {
                shape.remove(1);
                vec![]
            },
            0,
            &[1],
        );
        // Added leaves are told by the welcome, not by the path.
        check(3, |shape| vec![shape.add()], 0, &[1, 1]);
        check(4, |shape| vec![shape.add()], 0, &[1, 1, 0]);
        // An unmerged leaf of an earlier epoch is reported next to the node above it.
        check(
            4,
            |shape| {
                shape.remove(3);
                shape.commit_path(2, &[]);
                shape.add();
                vec![]
            },
            0,
            &[1, 2],
        );
    }

    #[test]
    fn a_tree_is_trimmed_to_its_members() {
        let mut shape = full(5);
        assert_eq!(shape.nodes.len(), 15);
        shape.remove(4);
        shape.trim();
        assert_eq!(shape.nodes.len(), 7);
        assert_eq!(shape.free_leaf(0), 4);
        assert_eq!(shape.add(), 4);
        assert_eq!(shape.nodes.len(), 15);
    }
}
