//! Bounds on the comparisons that a message causes in the MLS library (RFC 9420 §7.3). The library looks up each type
//! in use in the capabilities of each leaf, one by one, so long lists cost their product. A message that would cost too
//! much is refused first.

use super::{
    Refusal, Rule, TrackedGroup,
    wire::{Listed, TreeSize},
};

/// The most comparisons that one handshake message may cause: about half a second.
///
/// 1000 Adds to a group of 20,000 members whose leaves list eight credential types each stay below it.
const COMPARISONS_MAX: usize = 1 << 29;

/// The most comparisons when a whole tree is opened: each leaf is compared with every other.
///
/// 20,000 leaves that list ten credential types each stay below it.
const TREE_COMPARISONS_MAX: usize = 1 << 32;

/// Leaves that are compared with all members whatever those list: most messages have no more.
const FEW_LEAVES: usize = 64;

impl TrackedGroup {
    /// Refuses a message whose lists are too long to be compared with those of the members.
    pub(super) fn check_comparable(&self, listed: Listed) -> Result<(), Refusal> {
        let members = self.members.len();
        let of_members = if listed.leaves > FEW_LEAVES {
            self.leaves().map(|leaf| leaf.capabilities().credentials().len()).sum()
        } else {
            0
        };
        let in_context = self.public.group_context().extensions().iter().count();
        let comparisons = sum_of_products([
            (listed.credential_types, members),
            (listed.leaves, of_members),
            (listed.extension_types, in_context.saturating_add(listed.context_extensions)),
            (listed.context_extensions, listed.required_types),
        ]);
        if comparisons <= COMPARISONS_MAX {
            return Ok(());
        }
        Err(Refusal::broken(
            Rule::Capabilities,
            format!(
                "the leaf nodes and extensions of this message list {} types; to compare them with those of {members} \
                 members is more than this gateway does for one message",
                listed
                    .credential_types
                    .saturating_add(listed.extension_types)
                    .saturating_add(listed.required_types),
            ),
        ))
    }
}

/// The largest number of nodes of a ratchet tree with this many members: joiners take the leftmost free leaf, so that it is never wider
/// than it had members.
pub(super) fn nodes_max(members_max: usize) -> usize {
    members_max.saturating_mul(2).saturating_sub(1).max(1)
}

/// Refuses a tree with too many members, or with lists that are too long to be compared with each other.
pub(super) fn check_tree_size(size: TreeSize, members_max: usize) -> Result<(), Refusal> {
    let Listed { leaves, credential_types, .. } = size.listed;
    if leaves > members_max {
        return Err(Refusal::OpenedWith(format!("the group has {leaves} members; at most {members_max}")));
    }
    if sum_of_products([(credential_types, leaves)]) > TREE_COMPARISONS_MAX {
        return Err(Refusal::OpenedWith(format!(
            "the leaves of the ratchet tree list {credential_types} credential types, which is too many to compare"
        )));
    }
    Ok(())
}

fn sum_of_products<const N: usize>(factors: [(usize, usize); N]) -> usize {
    factors.into_iter().fold(0_usize, |sum, (one, other)| sum.saturating_add(one.saturating_mul(other)))
}
