//! Tree hashes and parent hashes (RFC 9420 §7.8, §7.9).

use std::sync::{Arc, OnceLock};

use super::{CipherSuite, Content, Digest, HEIGHT_MAX, ParentFields, ParentNode, Subtree, is_right};
use crate::presentation::write_vector;

/// Types of nodes (RFC 9420 §7.8).
pub(super) const NODE_LEAF: u8 = 1;
pub(super) const NODE_PARENT: u8 = 2;

/// A hash as a tree keeps it: those of most suites are short, and take no more room than they need.
#[derive(Clone, Debug, Default)]
pub(super) enum KeptHash {
    /// It was not computed since the last change.
    #[default]
    Unknown,
    Short([u8; 32]),
    Long(Arc<Digest>),
}

impl KeptHash {
    pub(super) fn of(hash: Digest) -> Self {
        match hash.as_ref().try_into() {
            Ok(short) => Self::Short(short),
            Err(_) => Self::Long(Arc::new(hash)),
        }
    }

    pub(super) fn get(&self) -> Option<Digest> {
        match self {
            Self::Unknown => None,
            Self::Short(hash) => Some(Digest::from(*hash)),
            Self::Long(hash) => Some(**hash),
        }
    }
}

/// The hash of a subtree, for which only what was changed is hashed.
pub(super) fn rehash(
    subtree: &mut Arc<Subtree>,
    suite: CipherSuite,
    (height, first): (u32, u32),
    buffer: &mut Vec<u8>,
) -> Digest {
    if let Some(hash) = subtree.hash() {
        return hash;
    }
    let subtree = Arc::make_mut(subtree);
    let hash = match &mut subtree.content {
        Content::Leaf(None) => hash_of_blank_leaf(suite, first),
        Content::Leaf(Some(leaf)) => hash_of_leaf(suite, first, &leaf.bytes),
        Content::Parent { node, left, right } => {
            let below = height.saturating_sub(1);
            let left = rehash(left, suite, (below, first), buffer);
            let right = rehash(right, suite, (below, first + (1 << below)), buffer);
            hash_of_node(suite, node.as_ref().map(ParentNode::bytes), (left, right), buffer)
        }
    };
    subtree.set_hash(hash);
    hash
}

/// Computes the hashes of the subtrees beside the way to a leaf, and none on it: an update path replaces the nodes there.
pub(super) fn rehash_beside(
    subtree: &mut Arc<Subtree>,
    suite: CipherSuite,
    (height, first): (u32, u32),
    leaf: u32,
    buffer: &mut Vec<u8>,
) {
    if subtree.hash().is_some() {
        return;
    }
    if let Content::Parent { left, right, .. } = &mut Arc::make_mut(subtree).content {
        let below = height.saturating_sub(1);
        let (left, right) = ((left, first), (right, first + (1 << below)));
        let (on, beside) = if is_right(leaf, below) { (right, left) } else { (left, right) };
        rehash(beside.0, suite, (below, beside.1), buffer);
        rehash_beside(on.0, suite, (below, on.1), leaf, buffer);
    }
}

/// The tree hash of a leaf that is not blank (RFC 9420 §7.8).
pub(super) fn hash_of_leaf(suite: CipherSuite, index: u32, leaf: &[u8]) -> Digest {
    let [a, b, c, d] = index.to_be_bytes();
    suite.hash(&[&[NODE_LEAF, a, b, c, d, 1], leaf])
}

/// The tree hash of a blank leaf (RFC 9420 §7.8).
pub(super) fn hash_of_blank_leaf(suite: CipherSuite, index: u32) -> Digest {
    let [a, b, c, d] = index.to_be_bytes();
    suite.hash(&[&[NODE_LEAF, a, b, c, d, 0]])
}

/// The tree hash of a parent node (RFC 9420 §7.8), from its serialised form if it is not blank.
pub(super) fn hash_of_node(
    suite: CipherSuite,
    node: Option<&[u8]>,
    (left, right): (Digest, Digest),
    buffer: &mut Vec<u8>,
) -> Digest {
    buffer.clear();
    buffer.push(NODE_PARENT);
    match node {
        None => buffer.push(0),
        Some(node) => {
            buffer.push(1);
            buffer.extend_from_slice(node);
        }
    }
    for half in [left, right] {
        write_vector(buffer, half.as_ref());
    }
    suite.hash(&[buffer])
}

/// The parent hash that a node's children carry (RFC 9420 §7.9), from the original tree hash of the other child.
pub(super) fn hash_of_parent(
    suite: CipherSuite,
    node: ParentFields<'_>,
    sibling: Digest,
    buffer: &mut Vec<u8>,
) -> Digest {
    buffer.clear();
    for part in [node.encryption_key, node.parent_hash, sibling.as_ref()] {
        write_vector(buffer, part);
    }
    suite.hash(&[buffer])
}

/// The right half that a tree of `1 << height` leaves gets when its width doubles (RFC 9420 §7.7): blank nodes with their
/// hashes. It is made once, and shared by all groups until they change it: so adding a leaf hashes no more than its direct path,
/// wherever the leaf is, and however often a commit that adds it is refused.
pub(super) fn blank_right_half(suite: CipherSuite, height: u32) -> Arc<Subtree> {
    const SUITES: usize = CipherSuite::ALL.len() + 1;
    static HALVES: [[OnceLock<Arc<Subtree>>; HEIGHT_MAX as usize]; SUITES] =
        [const { [const { OnceLock::new() }; HEIGHT_MAX as usize] }; SUITES];
    let half = || Arc::new(blank(suite, height, 1 << height, &mut Vec::new()).0);
    let of_suite = HALVES.get(usize::from(suite.number()));
    match of_suite.and_then(|heights| heights.get(height as usize)) {
        Some(made) => Arc::clone(made.get_or_init(half)),
        None => half(),
    }
}

/// A blank subtree and its hash.
fn blank(suite: CipherSuite, height: u32, first: u32, buffer: &mut Vec<u8>) -> (Subtree, Digest) {
    let (content, hash) = match height.checked_sub(1) {
        None => (Content::Leaf(None), hash_of_blank_leaf(suite, first)),
        Some(below) => {
            let (left, of_left) = blank(suite, below, first, buffer);
            let (right, of_right) = blank(suite, below, first + (1 << below), buffer);
            let hash = hash_of_node(suite, None, (of_left, of_right), buffer);
            (Content::Parent { node: None, left: Arc::new(left), right: Arc::new(right) }, hash)
        }
    };
    let mut subtree = Subtree::new(content);
    subtree.set_hash(hash);
    (subtree, hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many nodes a subtree has; each has its hash.
    fn hashed_nodes(subtree: &Subtree) -> usize {
        assert!(subtree.hash().is_some());
        match &subtree.content {
            Content::Parent { left, right, .. } => 1 + hashed_nodes(left) + hashed_nodes(right),
            Content::Leaf(_) => 1,
        }
    }

    #[test]
    fn no_leaf_of_a_tree_that_grew_needs_a_hash_besides_those_of_its_direct_path() {
        for suite in CipherSuite::ALL {
            for height in 0..7 {
                let half = blank_right_half(suite, height);
                assert!(half.is_blank());
                assert_eq!(hashed_nodes(&half), (2 << height) - 1, "{suite:?} {height}");
            }
        }
    }

    #[test]
    fn a_blank_right_half_has_the_hash_of_a_blank_subtree() {
        fn expected(suite: CipherSuite, height: u32, first: u32) -> Digest {
            let Some(below) = height.checked_sub(1) else { return hash_of_blank_leaf(suite, first) };
            let halves = (expected(suite, below, first), expected(suite, below, first + (1 << below)));
            hash_of_node(suite, None, halves, &mut Vec::new())
        }
        for suite in CipherSuite::ALL {
            for height in 0..7 {
                let half = blank_right_half(suite, height);
                assert_eq!(half.hash(), Some(expected(suite, height, 1 << height)), "{suite:?} {height}");
            }
        }
    }
}
