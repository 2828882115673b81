//! Assigned key packages that nobody used in time: they are dropped.

use super::{Found, READ_MAX, Sweep, SweepMoment};
use crate::{
    errors::ReadError,
    ids::{AppId, KeyPackageRef},
};

/// Goes through the assignments.
#[derive(Clone, Debug, Default)]
pub(super) struct AssignmentSweep {
    pub(super) after: Option<(AppId, KeyPackageRef)>,
    /// The assignments that this sweep may still look at.
    pub(super) left: usize,
}

impl Sweep for AssignmentSweep {
    fn find(&mut self, at: &SweepMoment, found: &mut Found) -> Result<(), ReadError> {
        let Some(age_max) = at.retention.assignment_age_max else { return Ok(()) };
        let oldest_kept = at.now.saturating_sub(age_max);
        let dropped_max = at.retention.dropped_per_client_max;
        let after = self.after.clone();
        let mut assigned = at.view.assigned_after(after.as_ref());
        for read in 0.. {
            if self.left == 0 {
                return Ok(());
            }
            if read == READ_MAX || found.is_full() {
                found.more = true;
                return Ok(());
            }
            let Some(row) = assigned.next() else { break };
            let (app, reference, row) = row?;
            if row.is_unused_since(oldest_kept)
                && at.view.dropped_key_packages(app, row.client_id)? < dropped_max
            {
                found.batch.drop_unused(app, &reference, &row, dropped_max);
                found.swept.unused_key_packages += 1;
            }
            self.left -= 1;
            self.after = Some((app, reference));
        }
        self.after = None;
        Ok(())
    }
}
