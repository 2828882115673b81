//! Tree hashes and parent hashes (RFC 9420 §7.8, §7.9).

use std::sync::{Arc, OnceLock};

use super::{CipherSuite, Content, Digest, HEIGHT_MAX, ParentNode, Subtree};
use crate::presentation::write_vector_length;

/// Types of nodes (RFC 9420 §7.8).
pub(super) const NODE_LEAF: u8 = 1;
pub(super) const NODE_PARENT: u8 = 2;

/// The hash of a subtree, for which only what was changed is hashed.
pub(super) fn rehash(
    subtree: &mut Arc<Subtree>,
    suite: CipherSuite,
    (height, first): (u32, u32),
    buffer: &mut Vec<u8>,
) -> Digest {
    if let Some(hash) = subtree.hash {
        return hash;
    }
    let subtree = Arc::make_mut(subtree);
    let hash = match &mut subtree.content {
        Content::Blank => hash_of_blank(suite, height, first),
        Content::Leaf(leaf) => hash_of_leaf(suite, first, &leaf.bytes),
        Content::Parent { node, left, right } => {
            let below = height.saturating_sub(1);
            let left = rehash(left, suite, (below, first), buffer);
            let right = rehash(right, suite, (below, first + (1 << below)), buffer);
            hash_of_node(suite, node.as_deref(), (left, right), buffer)
        }
    };
    subtree.hash = Some(hash);
    hash
}

/// The tree hash of a leaf that is not blank (RFC 9420 §7.8).
pub(super) fn hash_of_leaf(suite: CipherSuite, index: u32, leaf: &[u8]) -> Digest {
    let [a, b, c, d] = index.to_be_bytes();
    suite.hash(&[&[NODE_LEAF, a, b, c, d, 1], leaf])
}

/// The tree hash of a subtree in which every node is blank (RFC 9420 §7.8).
pub(super) fn hash_of_blank(suite: CipherSuite, height: u32, first: u32) -> Digest {
    let Some(below) = height.checked_sub(1) else {
        let [a, b, c, d] = first.to_be_bytes();
        return suite.hash(&[&[NODE_LEAF, a, b, c, d, 0]]);
    };
    let halves = (hash_of_blank(suite, below, first), hash_of_blank(suite, below, first + (1_u32 << below)));
    hash_of_node(suite, None, halves, &mut Vec::new())
}

/// The tree hash of a parent node (RFC 9420 §7.8).
pub(super) fn hash_of_node(
    suite: CipherSuite,
    node: Option<&ParentNode>,
    (left, right): (Digest, Digest),
    buffer: &mut Vec<u8>,
) -> Digest {
    buffer.clear();
    buffer.push(NODE_PARENT);
    match node {
        None => buffer.push(0),
        Some(node) => {
            buffer.push(1);
            node.write(buffer);
        }
    }
    for half in [left, right] {
        write_vector_length(buffer, half.as_ref().len());
        buffer.extend_from_slice(half.as_ref());
    }
    suite.hash(&[buffer])
}

/// The parent hash that a node's children carry (RFC 9420 §7.9), from the original tree hash of the other child.
pub(super) fn hash_of_parent(suite: CipherSuite, node: &ParentNode, sibling: Digest) -> Digest {
    let mut input = Vec::with_capacity(160);
    for part in [&*node.encryption_key, &*node.parent_hash, sibling.as_ref()] {
        write_vector_length(&mut input, part.len());
        input.extend_from_slice(part);
    }
    suite.hash(&[&input])
}

/// The right half that a tree of `1 << height` leaves gets when its width doubles (RFC 9420 §7.7). It is blank, and laid out on
/// the way to its first leaf, so that adding this leaf hashes no more than its direct path.
pub(super) fn blank_right_half(suite: CipherSuite, height: u32) -> Subtree {
    let mut way = Subtree { hash: Some(hash_of_blank(suite, 0, 1 << height)), ..Subtree::blank() };
    for hash in copath_of_first_leaf(suite, height) {
        let halves = (way.hash.unwrap_or_default(), *hash);
        let right = Subtree { hash: Some(*hash), ..Subtree::blank() };
        way = Subtree {
            content: Content::Parent { node: None, left: Arc::new(way), right: Arc::new(right) },
            hash: Some(hash_of_node(suite, None, halves, &mut Vec::new())),
            ..Subtree::blank()
        };
    }
    way
}

/// The hashes beside the way to leaf `1 << height` in the blank subtree of this height that begins with it, from the leaf up.
/// They are computed once: a group whose size goes back and forth over a power of two hashes them no second time.
fn copath_of_first_leaf(suite: CipherSuite, height: u32) -> &'static [Digest] {
    const SUITES: usize = CipherSuite::ALL.len() + 1;
    static COPATHS: [[OnceLock<Box<[Digest]>>; HEIGHT_MAX as usize]; SUITES] =
        [const { [const { OnceLock::new() }; HEIGHT_MAX as usize] }; SUITES];
    let hash = || {
        let first = 1_u32 << height;
        (0..height).map(|below| hash_of_blank(suite, below, first + (1 << below))).collect()
    };
    let of_suite = COPATHS.get(usize::from(suite.number()));
    of_suite.and_then(|heights| heights.get(height as usize)).map_or(&[], |copath| copath.get_or_init(hash))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blank_right_half_has_the_hash_of_a_blank_subtree() {
        for suite in CipherSuite::ALL {
            for height in 0..7 {
                let half = blank_right_half(suite, height);
                assert_eq!(half.hash, Some(hash_of_blank(suite, height, 1 << height)), "{suite:?} {height}");
            }
        }
    }
}
