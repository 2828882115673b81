//! Retention: data that is too old is deleted, the oldest first, in small steps.
//!
//! | table | key | value |
//! |---|---|---|
//! | `expiries` | when it expires, kind, application, then queue and reference, or reference | nothing |
//! | `expiries` | when it expires, kind, the key of a row of `welcome_shares` | nothing |

mod assignments;
mod numbered;

use std::{collections::BTreeSet, ops::Bound};

use self::{
    assignments::AssignmentSweep,
    numbered::{AuditEntries, Events, NumberedSweep},
};
use super::{
    assigned_key_packages,
    events::{Event, KeyPackagesChange},
    history, key_packages,
    records::{Head, LogId, log_key},
    reports,
    retention_limits::Retention,
    table, welcome_shares,
};
use crate::{
    away::away,
    engine::{Batch, Key, KeyReader, Overlay, Rows, View},
    errors::{AppendError, ReadError, Refusal},
    ids::{AppId, ClientHandle, DeliveryId, Epoch, GroupId, KeyPackageRef, KeyQueueId, Timestamp},
    store::Store,
};

/// The approximate number of rows that one batch of a sweep deletes; other batches wait behind it.
const DROPPED_MAX: usize = 500;
/// The number of rows that a sweep reads from one view before it takes a new one.
const READ_MAX: usize = 2_000;

const HELD: u8 = 1;
const USED: u8 = 2;
const SHARE: u8 = 3;
const ASSIGNED: u8 = 4;

/// The rows that a sweep deleted, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Epochs of groups' histories.
    pub epochs: u64,
    /// Answers to proposals, deleted with their epochs.
    pub accepted_proposals: u64,
    /// Entries of groups' logs, deleted with the epochs that they led to.
    pub log_entries: u64,
    /// Reports of members, deleted with their epochs.
    pub reports: u64,
    /// Join infos, each with its welcome when it was the last.
    pub join_infos: u64,
    /// Expired key packages that a queue held.
    pub key_packages: u64,
    /// Expired key packages that were used.
    pub used_key_packages: u64,
    /// Expired key packages that were assigned.
    pub assigned_key_packages: u64,
    /// Key packages that nobody used in time after their assignment.
    pub unused_key_packages: u64,
    /// Counts of invitations to clients of other gateways.
    pub invitation_counts: u64,
    /// Rows of events.
    pub event_rows: u64,
    /// Entries of audit logs.
    pub audit_rows: u64,
}

/// The reason why a sweep stopped. Earlier deletions stay; the next sweep continues.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SweepError {
    /// Something could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Something could not be deleted.
    #[error(transparent)]
    Append(#[from] AppendError),
}

impl Store {
    /// Deletes the data over a limit at `now`: epochs with the proposals accepted before them, join infos with their welcomes,
    /// expired key packages. It reads on a blocking thread, holds no view for long, and appends one small batch at a time, so
    /// that other batches are not held up.
    ///
    /// # Errors
    /// [`SweepError`] when the store cannot be read or written.
    pub async fn sweep(&self, retention: &Retention, now: Timestamp) -> Result<Swept, SweepError> {
        let whole = Retention { read_max: usize::MAX, ..retention.clone() };
        self.sweep_part(&mut SweepProgress::default(), &whole, now).await
    }

    /// As [`Store::sweep`], but it looks at no more groups, join infos and assigned key packages than [`Retention::read_max`],
    /// after those of the part before. If it fails, the next part is the first.
    ///
    /// # Errors
    /// As [`Store::sweep`].
    pub async fn sweep_part(
        &self,
        progress: &mut SweepProgress,
        retention: &Retention,
        now: Timestamp,
    ) -> Result<Swept, SweepError> {
        let mut swept = Swept::default();
        let SweepProgress { mut history, mut join_infos, mut assignments } =
            std::mem::take(progress).begin(retention);
        while self.sweep_once(&mut history, retention, now, &mut swept).await? {}
        while self.sweep_once(&mut join_infos, retention, now, &mut swept).await? {}
        while self.sweep_once(&mut assignments, retention, now, &mut swept).await? {}
        *progress = SweepProgress { history, join_infos, assignments };
        let mut expiries = ExpirySweep::default();
        while self.sweep_once(&mut expiries, retention, now, &mut swept).await? {}
        let mut events = NumberedSweep::<Events>::default();
        while self.sweep_once(&mut events, retention, now, &mut swept).await? {}
        let mut audit = NumberedSweep::<AuditEntries>::default();
        while self.sweep_once(&mut audit, retention, now, &mut swept).await? {}
        Ok(swept)
    }

    /// Runs one view and one batch of a sweep. Returns whether there is more to do.
    async fn sweep_once<S: Sweep>(
        &self,
        sweep: &mut S,
        retention: &Retention,
        now: Timestamp,
        swept: &mut Swept,
    ) -> Result<bool, SweepError> {
        let (store, retention, mut state) = (self.clone(), retention.clone(), sweep.clone());
        let found = blocking(move || {
            let mut found = Found::default();
            let at = SweepMoment { view: store.view(), retention, now };
            state.find(&at, &mut found).map(|()| (state, found))
        });
        let (state, found) = found.await?;
        *sweep = state;
        if !found.batch.is_empty() {
            self.append(found.batch).await?;
        }
        swept.add(&found.swept);
        Ok(found.more)
    }
}

impl Swept {
    fn add(&mut self, other: &Self) {
        self.epochs += other.epochs;
        self.accepted_proposals += other.accepted_proposals;
        self.log_entries += other.log_entries;
        self.reports += other.reports;
        self.join_infos += other.join_infos;
        self.key_packages += other.key_packages;
        self.used_key_packages += other.used_key_packages;
        self.assigned_key_packages += other.assigned_key_packages;
        self.unused_key_packages += other.unused_key_packages;
        self.invitation_counts += other.invitation_counts;
        self.event_rows += other.event_rows;
        self.audit_rows += other.audit_rows;
    }

    fn rows(&self) -> u64 {
        self.epochs
            + self.accepted_proposals
            + self.log_entries
            + self.reports
            + self.join_infos
            + self.key_packages
            + self.used_key_packages
            + self.assigned_key_packages
            + self.unused_key_packages
            + self.invitation_counts
            + self.event_rows
            + self.audit_rows
    }
}

/// The place where the next part of a sweep goes on.
#[derive(Debug, Default)]
pub struct SweepProgress {
    history: HistorySweep,
    join_infos: JoinInfoSweep,
    assignments: AssignmentSweep,
}

impl SweepProgress {
    /// The sweeps, each of which may look at as many rows again.
    fn begin(self, retention: &Retention) -> Self {
        let left = retention.read_max;
        Self {
            history: HistorySweep { left, ..self.history },
            join_infos: JoinInfoSweep { left, ..self.join_infos },
            assignments: AssignmentSweep { left, ..self.assignments },
        }
    }
}

/// The view that one step of a sweep reads, and the limits at its time.
struct SweepMoment {
    view: View,
    retention: Retention,
    now: Timestamp,
}

/// The result of one step of a sweep.
#[derive(Default)]
struct Found {
    batch: Batch,
    swept: Swept,
    more: bool,
}

impl Found {
    fn is_full(&self) -> bool {
        self.room() == 0
    }

    /// The number of rows that the batch may still delete.
    fn room(&self) -> usize {
        let rows = usize::try_from(self.swept.rows()).unwrap_or(usize::MAX);
        DROPPED_MAX.saturating_sub(rows)
    }
}

/// One kind of sweep, with its position.
trait Sweep: Clone + Send + 'static {
    fn find(&mut self, at: &SweepMoment, found: &mut Found) -> Result<(), ReadError>;
}

/// Goes through the groups and reads the first and the last epoch of each, and the rows to delete.
#[derive(Clone, Debug, Default)]
struct HistorySweep {
    after: Option<(AppId, GroupId)>,
    /// The groups that this sweep may still look at.
    left: usize,
}

impl Sweep for HistorySweep {
    fn find(&mut self, at: &SweepMoment, found: &mut Found) -> Result<(), ReadError> {
        for (read, group) in at.view.groups_after(self.after.clone().as_ref()).enumerate() {
            if self.left == 0 {
                return Ok(());
            }
            if read == READ_MAX {
                found.more = true;
                return Ok(());
            }
            let (app, group, _) = group?;
            drop_epochs(at, app, &group, found)?;
            if found.is_full() {
                // The group may have more and is read again.
                found.more = true;
                return Ok(());
            }
            self.left -= 1;
            self.after = Some((app, group));
        }
        self.after = None;
        Ok(())
    }
}

fn drop_epochs(
    SweepMoment { view, retention, now }: &SweepMoment,
    app: AppId,
    group: &GroupId,
    found: &mut Found,
) -> Result<(), ReadError> {
    let oldest_kept = now.saturating_sub(retention.history_age_max);
    let Some(newest) = view.last_epoch(app, group)? else { return Ok(()) };
    let log = log_key(&LogId::Group(app, group.clone()));
    let mut last_sequence = None;
    let mut entries = Vec::new();
    for epoch in view.epochs_before(app, group, newest) {
        let epoch: Epoch = epoch?;
        let Some(row) = view.epoch(app, group, epoch)? else { continue };
        let too_many = newest.0.saturating_sub(epoch.0) >= retention.history_epochs_max;
        if found.is_full() || !(too_many || row.timestamp < oldest_kept) {
            break;
        }
        // A restart needs the entries after the snapshot. They go with their epochs, so those stay as well.
        if row.sequence > in_snapshot(view, &log)? {
            break;
        }
        // An epoch has up to as many reports as members. If they are too many, they go first.
        let room = found.room();
        let reports = reports::report_keys(view, app, group, epoch, room.saturating_add(1))?;
        if reports.len() > room {
            found.swept.reports += room as u64;
            let (group, some) = (group.clone(), reports.into_iter().take(room).collect());
            found.batch.operation(move |overlay| reports::delete_some(overlay, app, &group, epoch, some));
            break;
        }
        found.batch.delete_epoch(app, group, epoch);
        found.swept.epochs += 1;
        found.swept.reports += reports.len() as u64;
        found.swept.accepted_proposals += history::count_accepted_before(view, app, group, epoch)?;
        let first = last_sequence.map_or(0, |last: u64| last.saturating_add(1));
        let keys = view.log_entry_keys(app, group, (first, row.sequence));
        let before = entries.len();
        for key in keys {
            entries.push(key?);
        }
        found.swept.log_entries += (entries.len() - before) as u64;
        last_sequence = Some(row.sequence);
    }
    let Some(last_sequence) = last_sequence else { return Ok(()) };
    found.batch.operation(move |overlay| {
        // The log may have been replaced since: then these are entries of another one.
        if last_sequence <= in_snapshot(overlay, &log)? {
            entries.into_iter().for_each(|key| overlay.delete_at(table::LOG_ENTRIES, key));
        }
        Ok(())
    });
    Ok(())
}

/// The last entry in the snapshot of a group's log.
fn in_snapshot(rows: &impl Rows, log: &Key) -> Result<u64, ReadError> {
    let head = rows.row::<Head>(table::LOG_HEADS, log)?;
    Ok(head.and_then(|head| head.snapshot).unwrap_or(0))
}

/// Goes through the join infos.
#[derive(Clone, Debug, Default)]
struct JoinInfoSweep {
    after: Option<(AppId, ClientHandle, DeliveryId)>,
    /// The join infos that this sweep may still look at.
    left: usize,
}

impl Sweep for JoinInfoSweep {
    fn find(&mut self, at: &SweepMoment, found: &mut Found) -> Result<(), ReadError> {
        let oldest_kept = at.now.saturating_sub(at.retention.welcome_age_max);
        for (read, info) in at.view.join_infos_after(self.after.clone().as_ref()).enumerate() {
            if self.left == 0 {
                return Ok(());
            }
            if read == READ_MAX || found.is_full() {
                found.more = true;
                return Ok(());
            }
            let ((app, handle, id), row) = info?;
            if row.timestamp < oldest_kept {
                found.batch.acknowledge(app, &handle, id);
                found.swept.join_infos += 1;
            }
            self.left -= 1;
            self.after = Some((app, handle, id));
        }
        self.after = None;
        Ok(())
    }
}

/// Takes expiries from the front until the first one to keep. It continues after the last one taken, so it does not read
/// deleted rows again.
#[derive(Clone, Default)]
struct ExpirySweep {
    after: Option<Vec<u8>>,
}

impl Sweep for ExpirySweep {
    fn find(&mut self, at: &SweepMoment, found: &mut Found) -> Result<(), ReadError> {
        let oldest_kept = at.now.saturating_sub(at.retention.expired_age_max);
        let mut range = Key::new().u64(oldest_kept.0).before();
        if let Some(after) = self.after.take() {
            range.start = Bound::Excluded(after);
        }
        let mut queues = BTreeSet::new();
        for key in at.view.scan_keys(table::EXPIRIES, range) {
            let key = key?;
            if found.is_full() {
                found.more = true;
                break;
            }
            let (not_after, expired) = Expiring::read(&key)?;
            self.after = Some(key.to_vec());
            match &expired {
                Expiring::Held { app, queue, .. } => {
                    queues.insert((*app, *queue));
                    found.swept.key_packages += 1;
                }
                Expiring::Used { .. } => found.swept.used_key_packages += 1,
                Expiring::Assigned { .. } => found.swept.assigned_key_packages += 1,
                Expiring::Share { .. } => found.swept.invitation_counts += 1,
            }
            found.batch.operation(move |overlay| expired.expire(overlay, not_after));
        }
        for (app, queue) in queues {
            if let Some(event) = expired_event(at, app, queue)? {
                found.batch.add_event(&event).announce(app, at.now);
            }
        }
        Ok(())
    }
}

/// Tells that key packages of a queue have expired; `None` if the queue is gone.
fn expired_event(
    SweepMoment { view, now, .. }: &SweepMoment,
    app: AppId,
    queue: KeyQueueId,
) -> Result<Option<Event>, ReadError> {
    let Some(row) = view.queue_by_id(app, queue)? else { return Ok(None) };
    let Some(client) = view.client(app, row.client_id)? else { return Ok(None) };
    let available = view.queue_counts(app, queue, *now)?.available;
    let change = KeyPackagesChange::Expired;
    Ok(Some(Event::KeyPackages { client: row.client_id, handle: client.handle, queue, available, change }))
}

/// A row with a known time of expiry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Expiring {
    /// A queue holds a key package: the end of the package's lifetime.
    Held { app: AppId, queue: KeyQueueId, reference: KeyPackageRef },
    /// A key package was used: the end of its lifetime.
    Used { app: AppId, reference: KeyPackageRef },
    /// A key package was assigned: the end of its lifetime.
    Assigned { app: AppId, reference: KeyPackageRef },
    /// Invitations of a client of another gateway were counted: the end of the window.
    Share { key: Vec<u8> },
}

impl Expiring {
    pub(crate) fn key(&self, at: Timestamp) -> Key {
        let key = Key::new().u64(at.0);
        match self {
            Self::Held { app, queue, reference } => {
                key.byte(HELD).uuid(app.as_uuid()).uuid(queue.as_uuid()).last(reference.as_bytes())
            }
            Self::Used { app, reference } => key.byte(USED).uuid(app.as_uuid()).last(reference.as_bytes()),
            Self::Assigned { app, reference } => {
                key.byte(ASSIGNED).uuid(app.as_uuid()).last(reference.as_bytes())
            }
            Self::Share { key: counted } => key.byte(SHARE).last(counted),
        }
    }

    fn read(key: &[u8]) -> Result<(Timestamp, Self), ReadError> {
        let mut reader = KeyReader::new(key, "expiries");
        let at = Timestamp(reader.u64()?);
        let kind = reader.byte()?;
        if kind == SHARE {
            return Ok((at, Self::Share { key: reader.last().to_vec() }));
        }
        let app = reader.app()?;
        let queue = match kind {
            HELD => Some(KeyQueueId::new(reader.uuid()?)),
            USED | ASSIGNED => None,
            _ => return Err(reader.damaged()),
        };
        let reference = KeyPackageRef::new(reader.last()).map_err(|_| reader.damaged())?;
        Ok((
            at,
            match queue {
                Some(queue) => Self::Held { app, queue, reference },
                None if kind == ASSIGNED => Self::Assigned { app, reference },
                None => Self::Used { app, reference },
            },
        ))
    }

    /// Deletes the expired row, unless another batch has done so.
    fn expire(&self, overlay: &mut Overlay<'_>, at: Timestamp) -> Result<(), Refusal> {
        let expiry = self.key(at);
        if !overlay.holds(table::EXPIRIES, &expiry)? {
            return Ok(());
        }
        overlay.delete(table::EXPIRIES, &expiry);
        match self {
            Self::Held { app, queue, reference } => {
                key_packages::delete_key_package(overlay, *app, *queue, reference)
            }
            Self::Used { app, reference } => {
                key_packages::delete_used(overlay, *app, reference);
                Ok(())
            }
            Self::Assigned { app, reference } => assigned_key_packages::forget(overlay, *app, reference),
            Self::Share { key } => welcome_shares::expire(overlay, key, at),
        }
    }
}

/// Runs a disk read on a blocking thread, or, outside a runtime, on this one.
pub(super) async fn blocking<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, ReadError> + Send + 'static,
) -> Result<T, ReadError> {
    if tokio::runtime::Handle::try_current().is_err() {
        return read();
    }
    let stopped = |error| Err(ReadError::Storage(format!("a sweep stopped: {error}")));
    away(read).await.unwrap_or_else(stopped)
}
