//! Limits on the proposals that wait in one epoch of a group. Proposals that can no longer be committed stay until the epoch
//! ends, but do not block others.

use snapshots::{KeyPackageRef, Timestamp};

use super::GroupState;
use crate::{
    application::Source,
    mls::{ProposalNeeds, ValidationContext},
};

/// The factor by which all waiting proposals of an epoch may exceed its limits, including those that can no longer be
/// committed.
pub(crate) const WAITING_PER_LIMIT: usize = 2;

impl GroupState {
    /// Whether there is room for a proposal of this size, in bytes. Proposals that can still be committed must be within the
    /// limits of an epoch, and all proposals together within [`WAITING_PER_LIMIT`] times these limits.
    pub(super) fn has_room_for(
        &self,
        context: ValidationContext<'_>,
        packet_bytes: usize,
        at: Timestamp,
        is_used: &dyn Fn(&KeyPackageRef) -> bool,
    ) -> bool {
        let (count_max, bytes_max) =
            (context.limits.proposals_per_epoch_max, context.limits.proposal_bytes_per_epoch_max);
        let fits = |count: usize, bytes: usize, times: usize| {
            count < count_max.saturating_mul(times)
                && bytes.saturating_add(packet_bytes) <= bytes_max.saturating_mul(times)
        };
        let (count, bytes) = (self.tracked.pending().len(), self.tracked.pending_bytes());
        if fits(count, bytes, 1) {
            return true;
        }
        // The hub knows better which of its accepted proposals can still be committed.
        if !fits(count, bytes, WAITING_PER_LIMIT) || *context.source == Source::Hub {
            return fits(count, bytes, WAITING_PER_LIMIT);
        }
        let is_void = |needs: &ProposalNeeds| {
            needs.expired(at).is_some()
                || !context.application.knows(needs.domain.as_ref())
                || needs.package.as_ref().is_some_and(is_used)
        };
        let committable = self.tracked.pending().iter().filter(|pending| !is_void(&pending.needs));
        let (count, bytes) =
            committable.fold((0, 0), |(count, bytes), pending| (count + 1, bytes + pending.packet.len()));
        fits(count, bytes, 1)
    }
}
