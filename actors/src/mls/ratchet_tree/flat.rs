//! Validation of a whole ratchet tree (RFC 9420 §12.4.3.1, §7.9.2), before its members are known.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    CipherSuite, Content, Digest, Leaf, ParentFields, ParentNode, RatchetTree, Subtree,
    hash::{
        KeptHash, NODE_LEAF, NODE_PARENT, hash_of_blank_leaf, hash_of_leaf, hash_of_node, hash_of_parent,
    },
};
use crate::{
    mls::leaf::{LeafNode, LeafSource},
    presentation::{Read, Reader, WireError},
};

/// Why a tree is not valid; the text continues "the ratchet tree".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TreeFault {
    #[error("is empty or ends with a blank node")]
    Trailing,
    #[error("has a {found} at node {node}, where there is none")]
    Misplaced { node: usize, found: &'static str },
    #[error("lists leaf {leaf} as unmerged at node {node}, which is not above it, or it is blank")]
    UnmergedLeaf { node: usize, leaf: u32 },
    #[error("lists leaf {leaf} as unmerged at node {node}, but not at every node between them")]
    UnmergedBetween { node: usize, leaf: u32 },
    #[error("has no valid parent hash for node {node}")]
    ParentHash { node: usize },
    #[error("has one encryption key at two nodes")]
    SharedKey,
    #[error("has one signature key at two leaves")]
    SharedSignatureKey,
}

/// A node. Blank ones take one byte on the wire, and so should take little here.
enum FlatNode<'a> {
    Blank,
    Leaf(Box<LeafNode<'a>>),
    /// Its serialised form.
    Parent(&'a [u8]),
}

/// A tree in array representation (RFC 9420 Appendix C).
pub(crate) struct FlatTree<'a> {
    suite: CipherSuite,
    /// Up to the last that is not blank.
    nodes: Vec<FlatNode<'a>>,
    height: u32,
    /// The hash and the size of the resolution of each node of the full tree.
    summaries: Vec<(KeptHash, u32)>,
}

/// A subtree by its height and its first leaf.
#[derive(Clone, Copy)]
struct Place {
    height: u32,
    first: u32,
}

impl Place {
    fn node(self) -> usize {
        2 * self.first as usize + (1_usize << self.height) - 1
    }

    fn halves(self) -> Option<(Self, Self)> {
        let height = self.height.checked_sub(1)?;
        let right = self.first + (1 << height);
        Some((Self { height, first: self.first }, Self { height, first: right }))
    }

    fn end(self) -> u32 {
        self.first + (1 << self.height)
    }

    /// Those of some ascending leaves that are in the subtree.
    fn among(self, leaves: &[[u8; 4]]) -> &[[u8; 4]] {
        let from = leaves.partition_point(|leaf| u32::from_be_bytes(*leaf) < self.first);
        let to = leaves.partition_point(|leaf| u32::from_be_bytes(*leaf) < self.end());
        leaves.get(from..to).unwrap_or_default()
    }
}

impl<'a> FlatTree<'a> {
    /// Reads a vector `optional<Node> ratchet_tree<V>` (RFC 9420 §12.4.3.3) and hashes it.
    ///
    /// # Errors
    /// Bytes that are not such a vector; inside, that the nodes do not make a tree.
    pub(crate) fn read(suite: CipherSuite, tree: &'a [u8]) -> Read<Result<Self, TreeFault>> {
        let nodes = read_nodes(tree)?;
        let Some(last) = nodes.last() else { return Ok(Err(TreeFault::Trailing)) };
        if matches!(last, FlatNode::Blank) {
            return Ok(Err(TreeFault::Trailing));
        }
        for (index, node) in nodes.iter().enumerate() {
            let found = match (node, index % 2) {
                (FlatNode::Leaf(_), 1) => "leaf",
                (FlatNode::Parent(_), 0) => "parent node",
                _ => continue,
            };
            return Ok(Err(TreeFault::Misplaced { node: index, found }));
        }
        // The last node may be a parent: there is a blank leaf on its right.
        let leaves = (nodes.len() / 2 + 1).next_power_of_two();
        let height = leaves.trailing_zeros();
        let summaries = vec![(KeptHash::default(), 0); 2 * leaves - 1];
        let mut flat = Self { suite, nodes, height, summaries };
        let root = flat.root();
        flat.summarise(root, &mut Vec::new());
        Ok(Ok(flat))
    }

    fn root(&self) -> Place {
        Place { height: self.height, first: 0 }
    }

    fn node(&self, place: Place) -> &FlatNode<'a> {
        self.nodes.get(place.node()).unwrap_or(&FlatNode::Blank)
    }

    fn parent(&self, place: Place) -> Option<ParentFields<'a>> {
        match self.node(place) {
            FlatNode::Parent(parent) => Some(ParentFields::of_bytes(parent)),
            FlatNode::Blank | FlatNode::Leaf(_) => None,
        }
    }

    fn resolution(&self, place: Place) -> usize {
        self.summaries.get(place.node()).map_or(0, |(_, count)| *count as usize)
    }

    fn hash_at(&self, place: Place) -> Digest {
        self.summaries.get(place.node()).and_then(|(hash, _)| hash.get()).unwrap_or_default()
    }

    fn summarise(&mut self, place: Place, buffer: &mut Vec<u8>) -> (Digest, u32) {
        let below = place.halves().map(|(left, right)| {
            let (left, right) = (self.summarise(left, buffer), self.summarise(right, buffer));
            ((left.0, right.0), left.1 + right.1)
        });
        let summary = match (self.node(place), below) {
            (FlatNode::Leaf(leaf), _) => (hash_of_leaf(self.suite, place.first, leaf.bytes), 1),
            (FlatNode::Parent(parent), Some((halves, _))) => (
                hash_of_node(self.suite, Some(parent), halves, buffer),
                1 + ParentFields::of_bytes(parent).unmerged_count(),
            ),
            (_, Some((halves, resolution))) => (hash_of_node(self.suite, None, halves, buffer), resolution),
            (_, None) => (hash_of_blank_leaf(self.suite, place.first), 0),
        };
        if let Some(kept) = self.summaries.get_mut(place.node()) {
            *kept = (KeptHash::of(summary.0), summary.1);
        }
        summary
    }

    /// The tree hash (RFC 9420 §7.8).
    pub(crate) fn hash(&self) -> Digest {
        self.hash_at(self.root())
    }

    /// The hash of each node, and how many nodes its resolution has.
    #[cfg(test)]
    pub(crate) fn nodes(&self) -> impl Iterator<Item = (Digest, u32)> {
        self.summaries.iter().filter_map(|(hash, count)| Some((hash.get()?, *count)))
    }

    /// The leaves that are not blank, by ascending index.
    pub(crate) fn leaves(&self) -> impl Iterator<Item = (u32, &LeafNode<'a>)> {
        self.nodes.iter().step_by(2).zip(0..).filter_map(|(node, index)| match node {
            FlatNode::Leaf(leaf) => Some((index, &**leaf)),
            FlatNode::Blank | FlatNode::Parent(_) => None,
        })
    }

    /// The public keys of the parent nodes.
    pub(crate) fn parent_keys(&self) -> impl Iterator<Item = &'a [u8]> {
        self.nodes.iter().filter_map(|node| match node {
            FlatNode::Parent(parent) => Some(ParentFields::of_bytes(parent).encryption_key),
            FlatNode::Blank | FlatNode::Leaf(_) => None,
        })
    }

    /// Checks what concerns no leaf alone: unmerged leaves, parent hashes and that keys are distinct.
    ///
    /// # Errors
    /// The first fault.
    pub(crate) fn validate(&self) -> Result<(), TreeFault> {
        let (mut keys, mut signature_keys) = (BTreeSet::new(), BTreeSet::new());
        for (_, leaf) in self.leaves() {
            if !keys.insert(leaf.encryption_key) {
                return Err(TreeFault::SharedKey);
            }
            if !signature_keys.insert(leaf.signature_key) {
                return Err(TreeFault::SharedSignatureKey);
            }
        }
        if !self.parent_keys().all(|key| keys.insert(key)) {
            return Err(TreeFault::SharedKey);
        }
        self.check_unmerged(self.root())?;
        self.check_parent_hashes(self.root())
    }

    /// Each unmerged leaf is a member below the node that lists it, and every node between them that is not blank lists it, too.
    fn check_unmerged(&self, place: Place) -> Result<(), TreeFault> {
        let Some((left, right)) = place.halves() else { return Ok(()) };
        if let Some(parent) = self.parent(place) {
            for leaf in parent.unmerged_leaves() {
                self.check_unmerged_leaf(place, leaf)?;
            }
        }
        self.check_unmerged(left)?;
        self.check_unmerged(right)
    }

    fn check_unmerged_leaf(&self, place: Place, leaf: u32) -> Result<(), TreeFault> {
        let node = place.node();
        if !(place.first..place.end()).contains(&leaf) {
            return Err(TreeFault::UnmergedLeaf { node, leaf });
        }
        let mut at = place;
        while let Some((left, right)) = at.halves() {
            at = if leaf < right.first { left } else { right };
            if self.parent(at).is_some_and(|between| !between.lists(leaf)) {
                return Err(TreeFault::UnmergedBetween { node, leaf });
            }
        }
        match self.node(at) {
            FlatNode::Leaf(_) => Ok(()),
            FlatNode::Blank | FlatNode::Parent(_) => Err(TreeFault::UnmergedLeaf { node, leaf }),
        }
    }

    fn check_parent_hashes(&self, place: Place) -> Result<(), TreeFault> {
        let Some((left, right)) = place.halves() else { return Ok(()) };
        if let Some(parent) = self.parent(place) {
            let mut buffer = Vec::new();
            let is_valid = [(left, right), (right, left)].into_iter().any(|(child, sibling)| {
                self.hashed_below(child, parent.unmerged_leaves).is_some_and(|carried| {
                    let original = self.original_hash(sibling, sibling.among(parent.unmerged_leaves));
                    carried == hash_of_parent(self.suite, parent, original, &mut buffer).as_ref()
                })
            });
            if !is_valid {
                return Err(TreeFault::ParentHash { node: place.node() });
            }
        }
        self.check_parent_hashes(left)?;
        self.check_parent_hashes(right)
    }

    /// The parent hash that the one node of a resolution carries which is not an unmerged leaf of the node above (RFC 9420 §7.9.2).
    /// Every unmerged leaf below is in the resolution, as [`Self::check_unmerged`] has checked, so that counting will do.
    fn hashed_below(&self, place: Place, unmerged: &[[u8; 4]]) -> Option<&'a [u8]> {
        let unmerged = place.among(unmerged);
        if self.resolution(place) != unmerged.len() + 1 {
            return None;
        }
        match self.node(place) {
            FlatNode::Leaf(leaf) => match leaf.source {
                LeafSource::Commit { parent_hash } => Some(parent_hash),
                LeafSource::KeyPackage(_) | LeafSource::Update => None,
            },
            FlatNode::Parent(parent) => Some(ParentFields::of_bytes(parent).parent_hash),
            FlatNode::Blank => {
                let (left, right) = place.halves()?;
                self.hashed_below(left, unmerged).or_else(|| self.hashed_below(right, unmerged))
            }
        }
    }

    /// The tree hash of a subtree without some of its leaves (RFC 9420 §7.9: `original_sibling_tree_hash`).
    fn original_hash(&self, place: Place, without: &[[u8; 4]]) -> Digest {
        if without.is_empty() {
            return self.hash_at(place);
        }
        let Some((left, right)) = place.halves() else {
            return hash_of_blank_leaf(self.suite, place.first);
        };
        let halves =
            (self.original_hash(left, left.among(without)), self.original_hash(right, right.among(without)));
        let parent = self.parent(place).map(|parent| {
            let unmerged = parent.unmerged_leaves.iter().copied();
            let kept: Vec<[u8; 4]> = unmerged.filter(|leaf| without.binary_search(leaf).is_err()).collect();
            let mut bytes = Vec::new();
            parent.write_with(&kept, &mut bytes);
            bytes
        });
        hash_of_node(self.suite, parent.as_deref(), halves, &mut Vec::new())
    }

    /// The tree with its members.
    ///
    /// # Errors
    /// What naming a member answers.
    pub(crate) fn with_members<E>(
        mut self,
        mut name: impl FnMut(u32, &LeafNode<'a>) -> Result<Leaf, E>,
    ) -> Result<RatchetTree, E> {
        let root = self.root();
        let subtree = self.build(root, &mut name)?;
        Ok(RatchetTree { suite: self.suite, root: Arc::new(subtree), height: self.height })
    }

    fn build<E>(
        &mut self,
        place: Place,
        name: &mut impl FnMut(u32, &LeafNode<'a>) -> Result<Leaf, E>,
    ) -> Result<Subtree, E> {
        let halves = match place.halves() {
            None => None,
            Some((left, right)) => {
                Some((Arc::new(self.build(left, name)?), Arc::new(self.build(right, name)?)))
            }
        };
        let node = self.nodes.get_mut(place.node());
        let node = node.map_or(FlatNode::Blank, |node| std::mem::replace(node, FlatNode::Blank));
        let content = match (node, halves) {
            (FlatNode::Leaf(leaf), None) => Content::Leaf(Some(Arc::new(name(place.first, &leaf)?))),
            (FlatNode::Parent(parent), Some((left, right))) => {
                Content::Parent { node: Some(ParentNode::of_bytes(parent)), left, right }
            }
            (_, Some((left, right))) => Content::Parent { node: None, left, right },
            (_, None) => Content::Leaf(None),
        };
        let mut subtree = Subtree::new(content);
        subtree.set_hash(self.hash_at(place));
        Ok(subtree)
    }
}

fn read_nodes(tree: &[u8]) -> Read<Vec<FlatNode<'_>>> {
    const PART: &str = "ratchet tree";
    let mut outer = Reader::new(tree);
    let mut reader = Reader::new(outer.vector(PART)?);
    if !outer.is_empty() {
        return Err(WireError::in_part("ratchet tree: bytes follow it"));
    }
    let mut nodes = Vec::new();
    while !reader.is_empty() {
        nodes.push(match reader.u8(PART)? {
            0 => FlatNode::Blank,
            1 => match reader.u8(PART)? {
                NODE_LEAF => FlatNode::Leaf(Box::new(LeafNode::read(&mut reader)?)),
                NODE_PARENT => {
                    let start = reader;
                    ParentFields::read(&mut reader)?;
                    FlatNode::Parent(reader.since(start))
                }
                _ => return Err(WireError::in_part(PART)),
            },
            _ => return Err(WireError::in_part(PART)),
        });
    }
    Ok(nodes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blank_node_of_a_tree_that_is_opened_takes_little_memory() {
        // The members of 1 << 15 leaves may be few, and the tree that is read is then 64 KiB of zeros.
        let bytes = size_of::<FlatNode<'_>>() + size_of::<(KeptHash, u32)>();
        assert!(bytes <= 80, "{bytes} bytes");
    }
}
