//! Outline of a serialised ratchet tree (RFC 9420 §12.4.3.3): its nodes, and how many there are before any is kept.

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
        1 => skip_leaf_node(&mut nodes)?,
        2 => return Ok(false),
        _ => return Err(WireError(PART)),
    }
    match (nodes.is_empty(), reader.is_empty()) {
        (false, _) => Ok(false),
        (true, true) => Ok(true),
        (true, false) => Err(WireError(PART)),
    }
}

const RATCHET_TREE: &str = "ratchet tree";

fn ratchet_tree_content(tree: &[u8]) -> Read<Reader<'_>> {
    let mut outer = Reader::new(tree);
    let nodes = Reader::new(outer.vector(RATCHET_TREE)?);
    if outer.is_empty() { Ok(nodes) } else { Err(WireError("ratchet tree: bytes follow it")) }
}

/// Reads over one `optional<Node>`; tells whether it is a leaf.
fn skip_node(reader: &mut Reader<'_>) -> Read<bool> {
    const PART: &str = RATCHET_TREE;
    match reader.u8(PART)? {
        0 => return Ok(false),
        1 => {}
        _ => return Err(WireError(PART)),
    }
    match reader.u8(PART)? {
        1 => {
            skip_leaf_node(reader)?;
            Ok(true)
        }
        2 => {
            reader.vector(PART)?;
            reader.vector(PART)?;
            reader.vector(PART)?;
            Ok(false)
        }
        _ => Err(WireError(PART)),
    }
}

/// Reads over a leaf node (RFC 9420 §7.2).
fn skip_leaf_node(reader: &mut Reader<'_>) -> Read<()> {
    const PART: &str = "leaf node";
    reader.vector(PART)?;
    reader.vector(PART)?;
    // Every credential is a type and one vector (RFC 9420 §5.3).
    reader.u16(PART)?;
    reader.vector(PART)?;
    for _ in 0..5 {
        reader.vector("capabilities")?;
    }
    match reader.u8("leaf node source")? {
        1 => {
            reader.u64(PART)?;
            reader.u64(PART)?;
        }
        2 => {}
        3 => drop(reader.vector(PART)?),
        _ => return Err(WireError("leaf node source")),
    }
    reader.vector(PART)?;
    reader.vector(PART)?;
    Ok(())
}

/// How much there is in a serialised ratchet tree (RFC 9420 §12.4.3.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TreeSize {
    /// Nodes, blank ones included.
    pub(crate) nodes: usize,
    /// Leaves that are not blank.
    pub(crate) members: usize,
}

/// Counts without keeping anything; `None` if there are more nodes than `nodes_max`; the rest is not read.
pub(crate) fn ratchet_tree_size(tree: &[u8], nodes_max: usize) -> Read<Option<TreeSize>> {
    let mut rest = ratchet_tree_content(tree)?;
    let mut size = TreeSize::default();
    while !rest.is_empty() {
        if size.nodes >= nodes_max {
            return Ok(None);
        }
        size.members += usize::from(skip_node(&mut rest)?);
        size.nodes += 1;
    }
    Ok(Some(size))
}
