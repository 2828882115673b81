//! Deletion of rows that are numbered in each application: events, and entries of the audit log.

use super::{Found, Sweep, SweepMoment};
use crate::{
    errors::ReadError,
    ids::AppId,
    tables::{audit, events},
};

/// Goes through the events of each application until the first one to keep.
#[derive(Clone, Default)]
pub(super) struct EventSweep {
    after: Option<(AppId, u64)>,
}

impl Sweep for EventSweep {
    fn find(&mut self, at: &SweepMoment, found: &mut Found) -> Result<(), ReadError> {
        let oldest_kept = at.now.saturating_sub(at.retention.event_age_max);
        loop {
            let mut rows = at.view.events_after(self.after);
            let Some((app, first, _)) = rows.next().transpose()? else { return Ok(()) };
            let newest = at.view.event_head(app)?;
            for row in at.view.events_after(first.checked_sub(1).map(|before| (app, before))) {
                let (of, position, timestamp) = row?;
                let too_many = newest.saturating_sub(position) >= at.retention.event_rows_max;
                if of != app || !(too_many || timestamp < oldest_kept) {
                    break;
                }
                if found.is_full() {
                    found.more = true;
                    return Ok(());
                }
                found.batch.operation(move |overlay| {
                    events::delete(overlay, app, position);
                    Ok(())
                });
                found.swept.event_rows += 1;
                self.after = Some((app, position));
            }
            // On to the next application.
            self.after = Some((app, u64::MAX));
        }
    }
}

/// Goes through the audit log of each application until the first entry to keep.
#[derive(Clone, Default)]
pub(super) struct AuditSweep {
    after: Option<(AppId, u64)>,
}

impl Sweep for AuditSweep {
    fn find(&mut self, at: &SweepMoment, found: &mut Found) -> Result<(), ReadError> {
        let oldest_kept = at.now.saturating_sub(at.retention.audit_age_max);
        loop {
            let mut rows = at.view.audit_after(self.after);
            let Some((app, first, _)) = rows.next().transpose()? else { return Ok(()) };
            let newest = at.view.newest_audited(app)?;
            for row in at.view.audit_after(Some((app, first.saturating_sub(1)))) {
                let (of, number, timestamp) = row?;
                let too_many = newest.saturating_sub(number) >= at.retention.audit_rows_max;
                if of != app || !(too_many || timestamp < oldest_kept) {
                    break;
                }
                if found.is_full() {
                    found.more = true;
                    return Ok(());
                }
                found.batch.operation(move |overlay| {
                    audit::delete(overlay, app, number);
                    Ok(())
                });
                found.swept.audit_rows += 1;
                self.after = Some((app, number));
            }
            // On to the next application.
            self.after = Some((app, u64::MAX));
        }
    }
}
