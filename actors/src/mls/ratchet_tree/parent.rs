//! Parent nodes (RFC 9420 §7.1).

use std::{fmt, sync::Arc};

use crate::presentation::{Read, Reader, WireError, write_vector, write_vector_length};

/// A parent node, serialised. It is one allocation, because a commit replaces a node at each level of the tree.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::mls) struct ParentNode(Arc<[u8]>);

/// The fields of a parent node.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ParentFields<'a> {
    pub(super) encryption_key: &'a [u8],
    pub(super) parent_hash: &'a [u8],
    /// Ascending, each in network byte order.
    pub(super) unmerged_leaves: &'a [[u8; 4]],
}

impl<'a> ParentFields<'a> {
    pub(super) fn read(reader: &mut Reader<'a>) -> Read<Self> {
        const PART: &str = "parent node";
        let (encryption_key, parent_hash) = (reader.vector(PART)?, reader.vector(PART)?);
        let (unmerged_leaves, rest) = reader.vector("unmerged leaves")?.as_chunks::<4>();
        // Big-endian numbers are in the order of their bytes.
        if rest.is_empty() && unmerged_leaves.is_sorted_by(|one, next| one < next) {
            Ok(Self { encryption_key, parent_hash, unmerged_leaves })
        } else {
            Err(WireError::in_part("unmerged leaves"))
        }
    }

    /// The fields of a serialised node that was read before.
    pub(super) fn of_bytes(bytes: &'a [u8]) -> Self {
        let mut reader = Reader::new(bytes);
        let mut vector = || reader.vector("parent node").unwrap_or_default();
        let (encryption_key, parent_hash) = (vector(), vector());
        Self { encryption_key, parent_hash, unmerged_leaves: vector().as_chunks().0 }
    }

    /// How many leaves are unmerged.
    pub(super) fn unmerged_count(self) -> u32 {
        u32::try_from(self.unmerged_leaves.len()).unwrap_or(u32::MAX - 1)
    }

    /// The unmerged leaves, ascending.
    pub(super) fn unmerged_leaves(self) -> impl Iterator<Item = u32> + 'a {
        self.unmerged_leaves.iter().map(|leaf| u32::from_be_bytes(*leaf))
    }

    /// Whether a leaf is unmerged.
    pub(super) fn lists(self, leaf: u32) -> bool {
        self.unmerged_leaves.binary_search(&leaf.to_be_bytes()).is_ok()
    }

    /// Writes the node with these leaves in the place of its unmerged ones.
    pub(super) fn write_with(self, unmerged_leaves: &[[u8; 4]], out: &mut Vec<u8>) {
        write_vector(out, self.encryption_key);
        write_vector(out, self.parent_hash);
        let leaves = unmerged_leaves.as_flattened();
        write_vector_length(out, leaves.len());
        out.extend_from_slice(leaves);
    }
}

impl ParentNode {
    /// A node of a new update path, which has no unmerged leaves. The buffer is scratch memory.
    pub(super) fn of_path(encryption_key: &[u8], parent_hash: &[u8], buffer: &mut Vec<u8>) -> Self {
        buffer.clear();
        ParentFields { encryption_key, parent_hash, unmerged_leaves: &[] }.write_with(&[], buffer);
        Self(buffer.as_slice().into())
    }

    /// A node of its serialised form, which was read before.
    pub(super) fn of_bytes(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn fields(&self) -> ParentFields<'_> {
        ParentFields::of_bytes(&self.0)
    }

    pub(in crate::mls) fn encryption_key(&self) -> &[u8] {
        self.fields().encryption_key
    }

    /// The node with one more unmerged leaf (RFC 9420 §12.1.1).
    pub(super) fn with_unmerged(&self, leaf: u32) -> Self {
        let fields = self.fields();
        let leaf = leaf.to_be_bytes();
        let Err(place) = fields.unmerged_leaves.binary_search(&leaf) else { return self.clone() };
        let mut leaves = Vec::with_capacity(fields.unmerged_leaves.len() + 1);
        leaves.extend_from_slice(fields.unmerged_leaves);
        leaves.insert(place, leaf);
        let mut bytes = Vec::with_capacity(self.0.len() + 8);
        fields.write_with(&leaves, &mut bytes);
        Self(bytes.into())
    }
}

impl fmt::Debug for ParentNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fields().fmt(f)
    }
}
