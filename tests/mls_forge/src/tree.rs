//! The ratchet tree as an array (RFC 9420 §7, Appendix C), with each hash computed from its definition.

use std::{collections::BTreeSet, sync::Arc};

use crate::{
    Credential, LeafNode, Suite,
    tls::{Malformed, Reader, Tls, structures},
};

/// Indexes of nodes: leaf `i` is the node `2 * i` (RFC 9420 Appendix C).
pub mod math {
    /// How far a node is above the leaves.
    pub fn level(node: usize) -> u32 {
        node.trailing_ones()
    }

    /// The left child of a parent.
    pub fn left(node: usize) -> usize {
        node ^ (1 << (level(node) - 1))
    }

    /// The right child of a parent.
    pub fn right(node: usize) -> usize {
        node ^ (3 << (level(node) - 1))
    }

    /// The parent of a node, in a tree that is large enough.
    pub fn parent(node: usize) -> usize {
        let level = level(node);
        (node | (1 << level)) & !(1 << (level + 1))
    }

    /// The other child of a node's parent.
    pub fn sibling(node: usize) -> usize {
        let parent = parent(node);
        if node < parent { right(parent) } else { left(parent) }
    }

    /// The first and the last leaf below a node, by leaf index.
    pub fn leaves(node: usize) -> std::ops::RangeInclusive<u32> {
        let half = (1 << level(node)) - 1;
        (node - half) as u32 / 2..=(node + half) as u32 / 2
    }
}

use math::{leaves, left, level, parent, right, sibling};

structures! {
    /// RFC 9420 §7.1.
    pub struct ParentNode {
        /// The public key of HPKE.
        pub encryption_key: Vec<u8>,
        /// The hash of the next populated parent above it; empty where there is none.
        pub parent_hash: Vec<u8>,
        /// The leaves below it that do not know its secret, in ascending order.
        pub unmerged_leaves: Vec<u32>,
    }
}

/// A node that is not blank (RFC 9420 §12.4.3.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// A leaf.
    Leaf(LeafNode),
    /// A parent.
    Parent(ParentNode),
}

impl Tls for Node {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Leaf(leaf) => {
                out.push(1);
                leaf.write(out);
            }
            Self::Parent(parent) => {
                out.push(2);
                parent.write(out);
            }
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        match u8::read(from)? {
            1 => LeafNode::read(from).map(Self::Leaf),
            2 => ParentNode::read(from).map(Self::Parent),
            _ => Err(Malformed),
        }
    }
}

/// A ratchet tree. Its nodes are those of a whole binary tree, blank ones included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    /// One less than twice a power of two.
    nodes: Vec<Option<Arc<Node>>>,
}

impl Tls for Tree {
    fn write(&self, out: &mut Vec<u8>) {
        let end = self.nodes.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
        let mut content = Vec::new();
        for node in &self.nodes[..end] {
            content.push(u8::from(node.is_some()));
            if let Some(node) = node {
                node.write(&mut content);
            }
        }
        content.write(out);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let nodes = Vec::<Option<Node>>::read(from)?;
        let in_place = |(place, node): (usize, &Option<Node>)| match node {
            Some(Node::Leaf(_)) => place % 2 == 0,
            Some(Node::Parent(_)) => place % 2 == 1,
            None => true,
        };
        if !matches!(nodes.last(), Some(Some(_))) || !nodes.iter().enumerate().all(in_place) {
            return Err(Malformed);
        }
        let mut nodes: Vec<_> = nodes.into_iter().map(|node| node.map(Arc::new)).collect();
        nodes.resize(nodes.len().div_ceil(2).next_power_of_two() * 2 - 1, None);
        Ok(Self { nodes })
    }
}

impl Tree {
    /// A tree of one leaf.
    pub fn of(leaf: LeafNode) -> Self {
        Self { nodes: vec![Some(Arc::new(Node::Leaf(leaf)))] }
    }

    /// A tree of these leaves from the left, with blank parents.
    pub fn of_leaves(leaves: Vec<LeafNode>) -> Self {
        let mut nodes = vec![None; leaves.len().next_power_of_two() * 2 - 1];
        for (leaf, place) in leaves.into_iter().zip((0..).step_by(2)) {
            nodes[place] = Some(Arc::new(Node::Leaf(leaf)));
        }
        Self { nodes }
    }

    /// How many leaves there is room for: a power of two.
    pub fn width(&self) -> usize {
        self.nodes.len().div_ceil(2)
    }

    /// The index of the root.
    pub fn root(&self) -> usize {
        self.nodes.len() / 2
    }

    /// How many nodes there are, blank ones included.
    pub fn node_count(&self) -> usize {
        self.nodes.len()
    }

    /// A node that is not blank.
    pub fn node(&self, node: usize) -> Option<&Node> {
        self.nodes.get(node)?.as_deref()
    }

    /// Puts any node in any place; the tree grows if it is too narrow.
    pub fn set_node(&mut self, node: usize, content: Option<Node>) {
        while node >= self.nodes.len() {
            let width = self.width();
            self.nodes.resize(4 * width - 1, None);
        }
        self.nodes[node] = content.map(Arc::new);
    }

    /// A member's leaf.
    pub fn leaf(&self, leaf_index: u32) -> Option<&LeafNode> {
        match self.node(2 * leaf_index as usize)? {
            Node::Leaf(leaf) => Some(leaf),
            Node::Parent(_) => None,
        }
    }

    /// A member's leaf, to be changed.
    pub fn leaf_mut(&mut self, leaf_index: u32) -> Option<&mut LeafNode> {
        match Arc::make_mut(self.nodes.get_mut(2 * leaf_index as usize)?.as_mut()?) {
            Node::Leaf(leaf) => Some(leaf),
            Node::Parent(_) => None,
        }
    }

    /// A parent that is not blank.
    pub fn parent(&self, node: usize) -> Option<&ParentNode> {
        match self.node(node)? {
            Node::Parent(parent) => Some(parent),
            Node::Leaf(_) => None,
        }
    }

    /// A parent that is not blank, to be changed.
    pub fn parent_mut(&mut self, node: usize) -> Option<&mut ParentNode> {
        match Arc::make_mut(self.nodes.get_mut(node)?.as_mut()?) {
            Node::Parent(parent) => Some(parent),
            Node::Leaf(_) => None,
        }
    }

    /// The members' leaves, with their indexes.
    pub fn leaves(&self) -> impl Iterator<Item = (u32, &LeafNode)> {
        (0..self.width() as u32).filter_map(|index| Some((index, self.leaf(index)?)))
    }

    /// The index of the leaf of a client with a basic credential.
    pub fn leaf_of(&self, name: &str) -> Option<u32> {
        let credential = Credential::Basic(name.as_bytes().to_vec());
        self.leaves().find(|(_, leaf)| leaf.credential == credential).map(|(index, _)| index)
    }

    /// The nodes above a leaf, the lowest first; none if the tree is too narrow for the leaf.
    pub fn direct_path(&self, leaf_index: u32) -> Vec<usize> {
        let mut path = Vec::new();
        let mut node = 2 * leaf_index as usize;
        while node != self.root() && node < self.nodes.len() {
            node = parent(node);
            path.push(node);
        }
        path
    }

    /// RFC 9420 §4.1.1.
    pub fn resolution(&self, node: usize) -> Vec<usize> {
        match self.node(node) {
            Some(Node::Leaf(_)) => vec![node],
            Some(Node::Parent(parent)) => {
                let unmerged = parent.unmerged_leaves.iter().map(|leaf| 2 * *leaf as usize);
                std::iter::once(node).chain(unmerged).collect()
            }
            None if level(node) == 0 => Vec::new(),
            None => [self.resolution(left(node)), self.resolution(right(node))].concat(),
        }
    }

    /// The filtered direct path of a leaf (RFC 9420 §4.1.2): each parent with its child that is on the leaf's copath; empty if
    /// the tree is too narrow for the leaf.
    pub fn filtered_direct_path(&self, leaf_index: u32) -> Vec<(usize, usize)> {
        let mut path = Vec::new();
        let mut node = 2 * leaf_index as usize;
        while node != self.root() && node < self.nodes.len() {
            let copath = sibling(node);
            node = parent(node);
            if !self.resolution(copath).is_empty() {
                path.push((node, copath));
            }
        }
        path
    }

    /// Adds a leaf at the leftmost free place, and notes it as unmerged in the parents above (RFC 9420 §7.7, §12.1.1).
    pub fn add(&mut self, leaf: LeafNode) -> u32 {
        let index = self.place(leaf);
        for node in self.direct_path(index) {
            if let Some(parent) = self.parent_mut(node) {
                parent.unmerged_leaves.push(index);
                parent.unmerged_leaves.sort_unstable();
            }
        }
        index
    }

    /// Adds a leaf at the leftmost free place, and nothing else.
    pub fn place(&mut self, leaf: LeafNode) -> u32 {
        let free = (0..self.width()).find(|index| self.nodes[2 * index].is_none());
        let index = free.unwrap_or_else(|| {
            let width = self.width();
            self.nodes.resize(4 * width - 1, None);
            width
        });
        self.set_node(2 * index, Some(Node::Leaf(leaf)));
        index as u32
    }

    /// Replaces a leaf and blanks the parents above (RFC 9420 §12.1.2).
    pub fn update(&mut self, leaf_index: u32, leaf: LeafNode) {
        self.set_node(2 * leaf_index as usize, Some(Node::Leaf(leaf)));
        self.blank_path(leaf_index);
    }

    /// Blanks a leaf and the parents above, and truncates the tree (RFC 9420 §12.1.3).
    pub fn remove(&mut self, leaf_index: u32) {
        self.set_node(2 * leaf_index as usize, None);
        self.blank_path(leaf_index);
        while self.width() > 1 && leaves(right(self.root())).all(|index| self.leaf(index).is_none()) {
            self.nodes.truncate(self.width() - 1);
        }
    }

    fn blank_path(&mut self, leaf_index: u32) {
        for node in self.direct_path(leaf_index) {
            self.set_node(node, None);
        }
    }

    /// Installs an update path (RFC 9420 §7.5): blanks the path and puts the keys into the parents that are given, the
    /// lowest first. Returns the parent hash of the leaf.
    pub fn install_path(
        &mut self,
        suite: Suite,
        leaf_index: u32,
        path: &[(usize, usize)],
        keys: &[Vec<u8>],
    ) -> Vec<u8> {
        let hashes = self.hashes(suite);
        self.blank_path(leaf_index);
        let mut parent_hash = Vec::new();
        for ((node, copath), key) in path.iter().zip(keys).rev() {
            let parent = ParentNode { encryption_key: key.clone(), parent_hash, unmerged_leaves: Vec::new() };
            parent_hash = hash_of_parent(suite, &parent, &hashes[*copath]);
            self.set_node(*node, Some(Node::Parent(parent)));
        }
        parent_hash
    }

    /// The tree hash of each node (RFC 9420 §7.8).
    pub fn hashes(&self, suite: Suite) -> Vec<Vec<u8>> {
        let mut hashes = vec![Vec::new(); self.nodes.len()];
        for at in 0..=level(self.root()) {
            for node in ((1 << at) - 1..self.nodes.len()).step_by(2 << at) {
                let children = (at > 0).then(|| (&hashes[left(node)][..], &hashes[right(node)][..]));
                hashes[node] = node_hash(suite, node, self.node(node), children);
            }
        }
        hashes
    }

    /// The tree hash of the root.
    pub fn hash(&self, suite: Suite) -> Vec<u8> {
        self.hashes(suite).swap_remove(self.root())
    }

    /// The tree hash of a node as it would be without some leaves (RFC 9420 §7.9, the original tree hash).
    pub fn original_hash(&self, suite: Suite, node: usize, without: &BTreeSet<u32>) -> Vec<u8> {
        let content = match self.node(node) {
            Some(Node::Leaf(_)) if without.contains(&(node as u32 / 2)) => None,
            Some(Node::Parent(parent)) => {
                let mut parent = parent.clone();
                parent.unmerged_leaves.retain(|leaf| !without.contains(leaf));
                Some(Node::Parent(parent))
            }
            content => content.cloned(),
        };
        let children = (level(node) > 0).then(|| {
            (self.original_hash(suite, left(node), without), self.original_hash(suite, right(node), without))
        });
        let children = children.as_ref().map(|(left, right)| (&left[..], &right[..]));
        node_hash(suite, node, content.as_ref(), children)
    }

    /// Whether each parent is at the end of one chain of parent hashes (RFC 9420 §7.9.2).
    ///
    /// # Errors
    /// Names the first parent that is not.
    pub fn check_parent_hashes(&self, suite: Suite) -> Result<(), String> {
        for node in (1..self.nodes.len()).step_by(2) {
            let Some(parent) = self.parent(node) else { continue };
            let without: BTreeSet<u32> = parent.unmerged_leaves.iter().copied().collect();
            let descendants =
                [(left(node), right(node)), (right(node), left(node))].map(|(child, copath)| {
                    let hash = hash_of_parent(suite, parent, &self.original_hash(suite, copath, &without));
                    let resolution = self.resolution(child);
                    let below = leaves(child);
                    let unmerged: BTreeSet<usize> = without
                        .iter()
                        .filter(|leaf| below.contains(leaf))
                        .map(|leaf| 2 * *leaf as usize)
                        .collect();
                    resolution
                        .iter()
                        .filter(|of| {
                            let others: BTreeSet<usize> =
                                resolution.iter().copied().filter(|one| one != *of).collect();
                            self.parent_hash_of(**of).is_some_and(|found| found == hash) && others == unmerged
                        })
                        .count()
                });
            if descendants[0] + descendants[1] != 1 {
                return Err(format!("the parent {node} has {descendants:?} descendants with its hash"));
            }
        }
        Ok(())
    }

    /// The parent hash that a child of a parent node carries, given the other child (RFC 9420 §7.9).
    ///
    /// # Panics
    /// The parent is blank.
    pub fn parent_hash(&self, suite: Suite, parent: usize, sibling: usize) -> Vec<u8> {
        let node = self.parent(parent).expect("the parent is blank");
        let without = node.unmerged_leaves.iter().copied().collect();
        hash_of_parent(suite, node, &self.original_hash(suite, sibling, &without))
    }

    /// The parent hash that a node carries.
    fn parent_hash_of(&self, node: usize) -> Option<&[u8]> {
        match self.node(node)? {
            Node::Leaf(LeafNode { source: crate::LeafNodeSource::Commit(hash), .. }) => Some(hash),
            Node::Leaf(_) => None,
            Node::Parent(parent) => Some(&parent.parent_hash),
        }
    }

    /// Populates all parents as when each leaf from the left commits in turn, and rewrites the leaves to fit: `key` makes
    /// the keys of parents, and `sign` signs a leaf in its place.
    pub fn populate(
        &mut self,
        suite: Suite,
        key: &mut dyn FnMut() -> Vec<u8>,
        sign: &mut dyn FnMut(u32, &mut LeafNode),
    ) {
        self.populate_below(suite, self.root(), Vec::new(), key, sign);
    }

    /// Returns the tree hash of the node; it, or what is populated below it, carries the parent hash.
    fn populate_below(
        &mut self,
        suite: Suite,
        node: usize,
        parent_hash: Vec<u8>,
        key: &mut dyn FnMut() -> Vec<u8>,
        sign: &mut dyn FnMut(u32, &mut LeafNode),
    ) -> Vec<u8> {
        if level(node) == 0 {
            let index = node as u32 / 2;
            if let Some(leaf) = self.leaf_mut(index) {
                leaf.source = crate::LeafNodeSource::Commit(parent_hash);
                sign(index, leaf);
            }
            return node_hash(suite, node, self.node(node), None);
        }
        let (left, right) = (left(node), right(node));
        let is_empty = |child: usize| leaves(child).all(|leaf| self.leaf(leaf).is_none());
        let (left_hash, right_hash) = if is_empty(right) {
            (
                self.populate_below(suite, left, parent_hash, key, sign),
                self.populate_below(suite, right, Vec::new(), key, sign),
            )
        } else {
            // The left child is older than this parent: its hash is that of a parent that is no more.
            let former = suite.hash(&key());
            let left_hash = self.populate_below(suite, left, former, key, sign);
            let parent = ParentNode { encryption_key: key(), parent_hash, unmerged_leaves: Vec::new() };
            let hash = hash_of_parent(suite, &parent, &left_hash);
            self.set_node(node, Some(Node::Parent(parent)));
            (left_hash, self.populate_below(suite, right, hash, key, sign))
        };
        node_hash(suite, node, self.node(node), Some((&left_hash, &right_hash)))
    }
}

/// `TreeHashInput` (RFC 9420 §7.8).
fn node_hash(suite: Suite, node: usize, content: Option<&Node>, children: Option<(&[u8], &[u8])>) -> Vec<u8> {
    let mut input = Vec::new();
    let write_content = |input: &mut Vec<u8>| {
        input.push(u8::from(content.is_some()));
        match content {
            Some(Node::Leaf(leaf)) => leaf.write(input),
            Some(Node::Parent(parent)) => parent.write(input),
            None => {}
        }
    };
    if let Some((left, right)) = children {
        input.push(2);
        write_content(&mut input);
        left.to_vec().write(&mut input);
        right.to_vec().write(&mut input);
    } else {
        input.push(1);
        (node as u32 / 2).write(&mut input);
        write_content(&mut input);
    }
    suite.hash(&input)
}

/// `ParentHashInput` (RFC 9420 §7.9).
fn hash_of_parent(suite: Suite, parent: &ParentNode, original_sibling_tree_hash: &[u8]) -> Vec<u8> {
    let mut input = Vec::new();
    parent.encryption_key.write(&mut input);
    parent.parent_hash.write(&mut input);
    original_sibling_tree_hash.to_vec().write(&mut input);
    suite.hash(&input)
}
