//! Outline of a serialised ratchet tree (RFC 9420 §12.4.3.3): its nodes, and how many there are before any is kept.

use super::{Listed, skip_leaf_node};
use crate::presentation::{Read, Reader, WireError};

/// Whether a serialised `ratchet_tree` (RFC 9420 §12.4.3.3) is one leaf and nothing else. Nothing after the first node is
/// read.
pub(crate) fn is_one_leaf(tree: &[u8]) -> Read<bool> {
    const PART: &str = "ratchet tree";
    let mut reader = Reader::new(tree);
    let mut nodes = Reader::new(reader.vector(PART)?);
    if nodes.is_empty() {
        return Ok(false);
    }
    match nodes.u8(PART)? {
        0 => return Ok(false),
        1 => {}
        _ => return Err(WireError(PART)),
    }
    match nodes.u8(PART)? {
        1 => drop(skip_leaf_node(&mut nodes)?),
        2 => return Ok(false),
        _ => return Err(WireError(PART)),
    }
    match (nodes.is_empty(), reader.is_empty()) {
        (false, _) => Ok(false),
        (true, true) => Ok(true),
        (true, false) => Err(WireError(PART)),
    }
}

/// One node of a serialised `ratchet_tree` (RFC 9420 §12.4.3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NodeOutline<'a> {
    Blank,
    Leaf { bytes: &'a [u8] },
    Parent { bytes: &'a [u8], unmerged_leaves: &'a [u8] },
}

/// Splits a serialised `optional<Node> ratchet_tree<V>` into its nodes.
pub(crate) fn ratchet_tree_nodes(tree: &[u8]) -> Read<Vec<NodeOutline<'_>>> {
    let mut nodes = ratchet_tree_content(tree)?;
    let mut split = Vec::new();
    while !nodes.is_empty() {
        split.push(next_node(&mut nodes)?.0);
    }
    Ok(split)
}

const RATCHET_TREE: &str = "ratchet tree";

fn ratchet_tree_content(tree: &[u8]) -> Read<Reader<'_>> {
    let mut outer = Reader::new(tree);
    let nodes = Reader::new(outer.vector(RATCHET_TREE)?);
    if outer.is_empty() { Ok(nodes) } else { Err(WireError("ratchet tree: bytes follow it")) }
}

/// Reads one `optional<Node>`, and what its leaf lists.
fn next_node<'a>(reader: &mut Reader<'a>) -> Read<(NodeOutline<'a>, Listed)> {
    const PART: &str = RATCHET_TREE;
    match reader.u8(PART)? {
        0 => return Ok((NodeOutline::Blank, Listed::default())),
        1 => {}
        _ => return Err(WireError(PART)),
    }
    let start = *reader;
    match reader.u8(PART)? {
        1 => {
            let listed = skip_leaf_node(reader)?;
            Ok((NodeOutline::Leaf { bytes: reader.since(start) }, listed))
        }
        2 => {
            reader.vector(PART)?;
            reader.vector(PART)?;
            let unmerged_leaves = reader.vector(PART)?;
            let bytes = reader.since(start);
            Ok((NodeOutline::Parent { bytes, unmerged_leaves }, Listed::default()))
        }
        _ => Err(WireError(PART)),
    }
}

/// How much there is in a serialised ratchet tree (RFC 9420 §12.4.3.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TreeSize {
    /// Nodes, blank ones included.
    pub(crate) nodes: usize,
    /// What its leaves list together; their number is that of its members.
    pub(crate) listed: Listed,
}

/// Counts without keeping anything; `None` if there are more nodes than `nodes_max`; the rest is not read.
pub(crate) fn ratchet_tree_size(tree: &[u8], nodes_max: usize) -> Read<Option<TreeSize>> {
    let mut rest = ratchet_tree_content(tree)?;
    let mut size = TreeSize::default();
    while !rest.is_empty() {
        if size.nodes >= nodes_max {
            return Ok(None);
        }
        let (_, listed) = next_node(&mut rest)?;
        size.nodes += 1;
        size.listed.add(listed);
    }
    Ok(Some(size))
}
