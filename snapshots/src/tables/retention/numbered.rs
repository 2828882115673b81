//! Deletion of rows that are numbered in each application: events, and entries of the audit log.

use std::{marker::PhantomData, time::Duration};

use super::{Found, Retention, Sweep, SweepMoment, Swept};
use crate::{
    engine::{Overlay, View},
    errors::ReadError,
    ids::{AppId, Timestamp},
    tables::{audit, events},
};

/// Rows that each application numbers from 1, each with its time.
pub(super) trait NumberedRows: Clone + Default + Send + 'static {
    /// The rows of all applications, in order, after the one given.
    fn after(
        view: &View,
        after: Option<(AppId, u64)>,
    ) -> impl Iterator<Item = Result<(AppId, u64, Timestamp), ReadError>>;

    /// The number of the newest row of an application.
    fn newest(view: &View, app: AppId) -> Result<u64, ReadError>;

    /// How many rows of an application are kept, and for how long.
    fn limits(retention: &Retention) -> (u64, Duration);

    fn delete(overlay: &mut Overlay<'_>, app: AppId, number: u64) -> Result<(), ReadError>;

    /// The count of those that a sweep has deleted.
    fn count(swept: &mut Swept) -> &mut u64;
}

/// Goes through the rows of each application until the first one to keep.
#[derive(Clone, Default)]
pub(super) struct NumberedSweep<R> {
    after: Option<(AppId, u64)>,
    rows: PhantomData<R>,
}

impl<R: NumberedRows> Sweep for NumberedSweep<R> {
    fn find(&mut self, at: &SweepMoment, found: &mut Found) -> Result<(), ReadError> {
        let (rows_max, age_max) = R::limits(&at.retention);
        let oldest_kept = at.now.saturating_sub(age_max);
        loop {
            let mut rows = R::after(&at.view, self.after);
            let Some((app, first, _)) = rows.next().transpose()? else { return Ok(()) };
            let newest = R::newest(&at.view, app)?;
            for row in R::after(&at.view, Some((app, first.saturating_sub(1)))) {
                let (of, number, timestamp) = row?;
                let too_many = newest.saturating_sub(number) >= rows_max;
                if of != app || !(too_many || timestamp < oldest_kept) {
                    break;
                }
                if found.is_full() {
                    found.more = true;
                    return Ok(());
                }
                found.batch.operation(move |overlay| Ok(R::delete(overlay, app, number)?));
                *R::count(&mut found.swept) += 1;
                self.after = Some((app, number));
            }
            // On to the next application.
            self.after = Some((app, u64::MAX));
        }
    }
}

/// Rows of events.
#[derive(Clone, Default)]
pub(super) struct Events;

impl NumberedRows for Events {
    fn after(
        view: &View,
        after: Option<(AppId, u64)>,
    ) -> impl Iterator<Item = Result<(AppId, u64, Timestamp), ReadError>> {
        view.events_after(after)
    }

    fn newest(view: &View, app: AppId) -> Result<u64, ReadError> {
        view.event_head(app)
    }

    fn limits(retention: &Retention) -> (u64, Duration) {
        (retention.event_rows_max, retention.event_age_max)
    }

    fn delete(overlay: &mut Overlay<'_>, app: AppId, number: u64) -> Result<(), ReadError> {
        events::delete(overlay, app, number);
        Ok(())
    }

    fn count(swept: &mut Swept) -> &mut u64 {
        &mut swept.event_rows
    }
}

/// Entries of the audit log.
#[derive(Clone, Default)]
pub(super) struct AuditEntries;

impl NumberedRows for AuditEntries {
    fn after(
        view: &View,
        after: Option<(AppId, u64)>,
    ) -> impl Iterator<Item = Result<(AppId, u64, Timestamp), ReadError>> {
        view.audit_after(after)
    }

    fn newest(view: &View, app: AppId) -> Result<u64, ReadError> {
        view.newest_audited(app)
    }

    fn limits(retention: &Retention) -> (u64, Duration) {
        (retention.audit_rows_max, retention.audit_age_max)
    }

    fn delete(overlay: &mut Overlay<'_>, app: AppId, number: u64) -> Result<(), ReadError> {
        audit::delete(overlay, app, number)
    }

    fn count(swept: &mut Swept) -> &mut u64 {
        &mut swept.audit_rows
    }
}
