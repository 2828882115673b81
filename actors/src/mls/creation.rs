//! Rules for a new group, in addition to those for any group (*Group Creation*).

use super::{Refusal, TrackedGroup, ValidationContext, group::read_group_info, wire};
use snapshots::Timestamp;

impl TrackedGroup {
    /// Opens a new group: at epoch 0, without history, of one member who supports the group's extensions.
    ///
    /// Epoch, history and the number of nodes are read from the bytes before anything else is done with the tree, so
    /// that a tree that cannot be a new group's costs nothing, however large it is.
    ///
    /// # Errors
    /// As [`TrackedGroup::open`], and [`Refusal::OpenedWith`] for a group that is valid and not a new one.
    pub(crate) fn create(
        context: ValidationContext<'_>,
        group_info: &[u8],
        ratchet_tree: Option<&[u8]>,
        now: Timestamp,
    ) -> Result<Self, Refusal> {
        let outline = read_group_info(group_info)?;
        if outline.epoch.0 != 0 {
            let epoch = outline.epoch.0;
            return Err(Refusal::OpenedWith(format!(
                "the epoch of groupInfo is {epoch}, a new group's is 0"
            )));
        }
        if !outline.confirmed_transcript_hash.is_empty() {
            return Err(Refusal::OpenedWith(
                "the confirmed_transcript_hash of a new group is empty (RFC 9420 §11)".into(),
            ));
        }
        for tree in [ratchet_tree, outline.ratchet_tree].into_iter().flatten() {
            // Where a tree is malformed is said when it is opened, which ends at that place.
            if let Ok(false) = wire::is_one_leaf(tree) {
                let detail = "the ratchet tree of a new group is exactly one leaf";
                return Err(Refusal::OpenedWith(detail.into()));
            }
        }
        let group = Self::open(context, group_info, ratchet_tree, now)?;
        let needs = group.context.extensions.needs();
        // The rules for a leaf of a group (RFC 9420 §7.3) hold for its creator as well.
        match group.leaf(0).and_then(|creator| needs.lack_of(&creator)) {
            Some(lack) => Err(Refusal::OpenedWith(lack.to_string())),
            None => Ok(group),
        }
    }
}
