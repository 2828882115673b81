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
        for (read, row) in at.view.assigned_after(self.after.clone().as_ref()).enumerate() {
            if self.left == 0 {
                return Ok(());
            }
            if read == READ_MAX || found.is_full() {
                found.more = true;
                return Ok(());
            }
            let (app, reference, row) = row?;
            if !row.is_dropped && row.is_unused_since(Some(oldest_kept)) {
                found.batch.drop_unused(app, &reference, &row);
                found.swept.unused_key_packages += 1;
            }
            self.left -= 1;
            self.after = Some((app, reference));
        }
        self.after = None;
        Ok(())
    }
}
