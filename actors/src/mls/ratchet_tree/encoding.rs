//! Serialised ratchet tree (RFC 9420 §12.4.3.3).

use super::{
    Content, RatchetTree, Subtree,
    hash::{NODE_LEAF, NODE_PARENT},
};
use crate::presentation::write_vector_length;

/// The bytes of a vector's length prefix (RFC 9420 §2.1.2).
fn prefix_length(length: usize) -> usize {
    match length {
        0..0x40 => 1,
        0x40..0x4000 => 2,
        _ => 4,
    }
}

impl RatchetTree {
    /// How many nodes the serialised tree has: it ends with the last that is not blank.
    fn serialised_nodes(&self) -> usize {
        let (mut subtree, mut height, mut before) = (&self.root, self.height, 0);
        loop {
            match &subtree.content {
                Content::Leaf(None) => return before,
                Content::Leaf(Some(_)) => return before + 1,
                Content::Parent { node, left, right } => {
                    height -= 1;
                    let of_half = (2_usize << height) - 1;
                    if right.counts.nodes > 0 {
                        before += of_half + 1;
                        subtree = right;
                    } else if node.is_some() {
                        return before + of_half + 1;
                    } else {
                        subtree = left;
                    }
                }
            }
        }
    }

    fn content_length(&self) -> usize {
        // Each node has a byte that says whether it is blank.
        self.root.counts.bytes as usize + self.serialised_nodes()
    }

    /// The length of [`Self::to_bytes`].
    pub(crate) fn length(&self) -> usize {
        let length = self.content_length();
        prefix_length(length) + length
    }

    /// The vector `optional<Node> ratchet_tree<V>` (RFC 9420 §12.4.3.3), length prefix included, without trailing blanks.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let length = self.content_length();
        let mut out = Vec::with_capacity(length + 4);
        write_vector_length(&mut out, length);
        let mut left = self.serialised_nodes();
        write_nodes(&self.root, self.height, &mut left, &mut out);
        out
    }
}

/// Writes nodes in the order of the array representation (RFC 9420 Appendix C), until `left` are written.
fn write_nodes(subtree: &Subtree, height: u32, left: &mut usize, out: &mut Vec<u8>) {
    let mut take = || {
        let is_left = *left > 0;
        *left = left.saturating_sub(1);
        is_left
    };
    if subtree.is_blank() {
        let blank = (*left).min((2_usize << height) - 1);
        *left -= blank;
        out.resize(out.len() + blank, 0);
        return;
    }
    match &subtree.content {
        Content::Leaf(None) => {}
        Content::Leaf(Some(leaf)) => {
            if take() {
                out.extend_from_slice(&[1, NODE_LEAF]);
                out.extend_from_slice(&leaf.bytes);
            }
        }
        Content::Parent { node, left: left_half, right } => {
            write_nodes(left_half, height - 1, left, out);
            if *left > 0 {
                *left -= 1;
                match node {
                    None => out.push(0),
                    Some(node) => {
                        out.extend_from_slice(&[1, NODE_PARENT]);
                        out.extend_from_slice(node.bytes());
                    }
                }
            }
            write_nodes(right, height - 1, left, out);
        }
    }
}
