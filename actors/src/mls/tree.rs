//! The serialised ratchet tree, kept node by node: the tree of a staged epoch is available to joiners before the epoch
//! exists, without copying or hashing the whole tree again.

use std::{collections::BTreeMap, sync::Arc};

use openmls::prelude::{LeafNode, Node, ParentNode, tls_codec::Serialize as _};
use serde::Deserialize;

use super::wire::{NodeOutline, ratchet_tree_nodes};
use crate::presentation::write_vector_length;

/// Bytes of one node (RFC 9420 §7), without its `optional` marker; `None` where the tree is blank.
type NodeBytes = Option<Arc<[u8]>>;

/// A ratchet tree in the form of RFC 9420 §12.4.3.3. Cheap to clone: nodes are shared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SerialisedTree {
    nodes: Arc<Vec<NodeBytes>>,
    /// Bytes of all nodes with their markers.
    bytes: usize,
}

impl SerialisedTree {
    /// Splits a serialised tree; `None` if it is malformed.
    pub(crate) fn parse(tree: &[u8]) -> Option<(Self, super::shape::TreeShape)> {
        let outlines = ratchet_tree_nodes(tree).ok()?;
        let shape = super::shape::TreeShape::from_nodes(&outlines)?;
        let nodes = outlines
            .into_iter()
            .map(|node| match node {
                NodeOutline::Blank => None,
                NodeOutline::Leaf { bytes } | NodeOutline::Parent { bytes, .. } => Some(Arc::from(bytes)),
            })
            .collect();
        Some((Self::of_nodes(nodes), shape))
    }

    fn of_nodes(nodes: Vec<NodeBytes>) -> Self {
        let bytes = nodes.iter().map(|node| 1 + node.as_ref().map_or(0, |bytes| bytes.len())).sum();
        Self { nodes: Arc::new(nodes), bytes }
    }

    /// The bytes of all nodes, about as many as the serialised tree has.
    pub(crate) fn weight(&self) -> usize {
        self.bytes
    }

    /// Without trailing blanks.
    fn used(&self) -> &[NodeBytes] {
        let used = self.nodes.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
        self.nodes.get(..used).unwrap_or_default()
    }

    /// The length of [`Self::to_bytes`] without its prefix.
    fn content_length(&self) -> usize {
        self.used().iter().map(|node| 1 + node.as_ref().map_or(0, |bytes| bytes.len())).sum()
    }

    /// The length of [`Self::to_bytes`].
    pub(crate) fn length(&self) -> usize {
        let (mut prefix, length) = (Vec::new(), self.content_length());
        write_vector_length(&mut prefix, length);
        prefix.len().saturating_add(length)
    }

    /// The vector `optional<Node> ratchet_tree<V>`, length prefix included, without trailing blanks.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let length = self.content_length();
        let mut out = Vec::with_capacity(length + 4);
        write_vector_length(&mut out, length);
        for node in self.used() {
            match node {
                Some(bytes) => {
                    out.push(1);
                    out.extend_from_slice(bytes);
                }
                None => out.push(0),
            }
        }
        out
    }

    /// This tree after the changes of a staged commit.
    pub(crate) fn after(&self, changes: &TreeChanges) -> Self {
        let mut nodes = Vec::clone(&self.nodes);
        nodes.resize(changes.nodes, None);
        for (index, bytes) in &changes.changed {
            if let Some(node) = nodes.get_mut(*index) {
                node.clone_from(bytes);
            }
        }
        Self::of_nodes(nodes)
    }
}

/// The nodes that a staged commit changes, in array representation, and how many nodes there are then.
#[derive(Debug)]
pub(crate) struct TreeChanges {
    nodes: usize,
    changed: Vec<(usize, NodeBytes)>,
}

impl TreeChanges {
    /// Reads them from a `StagedCommit` that was serialised as MessagePack with named fields; `None` if it has
    /// another form. The library keeps the tree of an observer's staged commit to itself, but not its serde form,
    /// which the records on disk rely on as well.
    pub(crate) fn of_staged(staged: &[u8]) -> Option<Self> {
        let StateForm::PublicState(state) = rmp_serde::from_slice::<StagedForm>(staged).ok()?.state;
        let diff = state.staged_diff.staged_diff.diff;
        let mut changed = Vec::with_capacity(diff.leaf_diff.len() + diff.parent_diff.len());
        for (leaf, LeafForm { node }) in diff.leaf_diff {
            changed.push((index(leaf, 0)?, node_bytes(node.map(|leaf| Node::LeafNode(Box::new(leaf))))?));
        }
        for (parent, ParentForm { node }) in diff.parent_diff {
            changed.push((
                index(parent, 1)?,
                node_bytes(node.map(|parent| Node::ParentNode(Box::new(parent))))?,
            ));
        }
        Some(Self { nodes: usize::try_from(diff.size).ok()?, changed })
    }
}

fn index(place: u32, parity: usize) -> Option<usize> {
    usize::try_from(place).ok()?.checked_mul(2)?.checked_add(parity)
}

/// `None` outside if the node cannot be serialised, inside if it is blank.
fn node_bytes(node: Option<Node>) -> Option<NodeBytes> {
    match node {
        None => Some(None),
        Some(node) => Some(Some(node.tls_serialize_detached().ok()?.into())),
    }
}

#[derive(Deserialize)]
struct StagedForm {
    state: StateForm,
}

#[derive(Deserialize)]
enum StateForm {
    PublicState(PublicForm),
}

#[derive(Deserialize)]
struct PublicForm {
    staged_diff: GroupDiffForm,
}

#[derive(Deserialize)]
struct GroupDiffForm {
    staged_diff: TreeDiffForm,
}

#[derive(Deserialize)]
struct TreeDiffForm {
    diff: NodeDiffForm,
}

#[derive(Deserialize)]
struct NodeDiffForm {
    leaf_diff: BTreeMap<u32, LeafForm>,
    parent_diff: BTreeMap<u32, ParentForm>,
    size: u32,
}

#[derive(Deserialize)]
struct LeafForm {
    node: Option<LeafNode>,
}

#[derive(Deserialize)]
struct ParentForm {
    node: Option<ParentNode>,
}
