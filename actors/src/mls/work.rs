//! Bounds on the size of a tree, before any of it is kept.

use super::{Refusal, wire::TreeSize};

/// The largest number of nodes of a ratchet tree with this many members: joiners take the leftmost free leaf, so that it is never wider
/// than it had members.
pub(super) fn nodes_max(members_max: usize) -> usize {
    members_max.saturating_mul(2).saturating_sub(1).max(1)
}

/// Refuses a tree with too many members.
pub(super) fn check_tree_size(size: TreeSize, members_max: usize) -> Result<(), Refusal> {
    let members = size.members;
    if members > members_max {
        return Err(Refusal::OpenedWith(format!("the group has {members} members; at most {members_max}")));
    }
    Ok(())
}
