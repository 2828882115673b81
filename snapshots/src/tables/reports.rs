//! Reports of members that cannot open an epoch, because its commit is wrong in a way that no outsider sees.
//!
//! | table | key | value |
//! |---|---|---|
//! | `reports` | 0, application, group, epoch | [`ReportedEpoch`] |
//! | `reports` | 1, application, group, epoch, domain, client handle | the kind of the report |
//! | `reports` | 2, application, group, number of the next log entry, number among those before it | the epoch that was told |
//! | `reports` | 3, application, group | the place of the newest epoch that was told: both numbers |
//!
//! They are deleted with the epoch, the last one with the group. So there are at most as many as members of the epochs that are
//! kept.

use serde::{Deserialize, Serialize};

use super::{
    audit::{self, AuditEntry, AuditedAt},
    events::{self, Event},
    history::EpochCommitter,
    records::{Head, LogId, log_key},
    table,
};
use crate::{
    engine::{Batch, Key, KeyRange, KeyReader, Overlay, ReportOutcome, Rows as _, Slice, View, rows},
    errors::{ReadError, Refusal},
    ids::{AppId, ClientHandle, DomainName, Epoch, GroupId, Timestamp},
};

const EPOCH: u8 = 0;
const REPORT: u8 = 1;
const TOLD: u8 = 2;
const NEWEST: u8 = 3;

/// An epoch that members have reported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportedEpoch {
    /// The number of distinct members who have.
    pub reporters: u64,
    /// The time of the first report.
    pub first_at: Timestamp,
    /// The member that committed the epoch; `None` if that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub committer: Option<EpochCommitter>,
    /// The time at which the application was told; `None` while too few have reported it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told: Option<ToldEpoch>,
}

/// The event of a reported epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToldEpoch {
    /// Its time.
    pub at: Timestamp,
    /// The number of reporters by then.
    pub reporters: u64,
    /// Its place in the group's stream.
    pub place: ToldBefore,
}

/// A report of a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberReport {
    /// The epoch that the member cannot open.
    pub epoch: Epoch,
    /// The member's handle.
    pub handle: ClientHandle,
    /// The member's domain, where the application uses domains.
    pub domain: Option<DomainName>,
    /// The kind of the report, in a word.
    pub kind: &'static str,
    /// The member that committed the epoch.
    pub committer: Option<EpochCommitter>,
    /// The number of reporters from which on the application is told, those who are [absent](View::absent_reporters) included.
    pub told_from: u64,
    /// The time of the report.
    pub at: Timestamp,
    /// The number of entries that the audit log keeps.
    pub audit_rows_max: u64,
}

/// The place of an event in a group's stream that is not an entry of the group's log: the number of the next entry, and the number of
/// the event among those before that entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ToldBefore {
    /// The number of the next entry.
    pub entry: u64,
    /// The number among those before it, from 0.
    pub index: u16,
}

fn of_group(kind: u8, app: AppId, group: &GroupId) -> Key {
    Key::new().byte(kind).uuid(app.as_uuid()).group(group)
}

fn epoch_key(app: AppId, group: &GroupId, epoch: Epoch) -> Key {
    of_group(EPOCH, app, group).u64(epoch.0)
}

fn reports_of(app: AppId, group: &GroupId, epoch: Epoch) -> Key {
    of_group(REPORT, app, group).u64(epoch.0)
}

fn report_key(app: AppId, group: &GroupId, report: &MemberReport) -> Key {
    reports_of(app, group, report.epoch).domain(report.domain.as_ref()).handle(&report.handle)
}

fn told_key(app: AppId, group: &GroupId, place: ToldBefore) -> Key {
    place.key(of_group(TOLD, app, group))
}

impl ToldBefore {
    fn key(self, before: Key) -> Key {
        before.u64(self.entry).u16(self.index)
    }

    fn read(mut reader: KeyReader<'_>) -> Result<Self, ReadError> {
        let place = Self { entry: reader.u64()?, index: reader.u16()? };
        reader.end()?;
        Ok(place)
    }

    /// The first place after this one before an entry or a later one; `None` if there is none.
    fn next(newest: Option<Self>, entry: u64) -> Option<Self> {
        match newest {
            // The last index is that of the place after an entry.
            Some(newest) if newest.entry >= entry => {
                let index = newest.index.checked_add(1).filter(|index| *index < u16::MAX)?;
                Some(Self { index, ..newest })
            }
            Some(_) | None => Some(Self { entry, index: 0 }),
        }
    }
}

/// The keys of everything that was reported in a group.
pub(super) fn ranges_of(app: AppId, group: &GroupId) -> [KeyRange; 4] {
    [EPOCH, REPORT, TOLD, NEWEST].map(|kind| of_group(kind, app, group).prefix())
}

/// The application, the group and the epoch of the key of a reported epoch; `None` for that of another row.
pub(super) fn read_epoch_key(key: &[u8]) -> Result<Option<(AppId, GroupId, Epoch)>, ReadError> {
    let mut reader = KeyReader::new(key, "reports");
    if reader.byte()? != EPOCH {
        return Ok(None);
    }
    let (app, group, epoch) = (reader.app()?, reader.group()?, Epoch(reader.u64()?));
    reader.end()?;
    Ok(Some((app, group, epoch)))
}

/// The number of reports of an epoch.
pub(super) fn count_reports(
    view: &View,
    app: AppId,
    group: &GroupId,
    epoch: Epoch,
) -> Result<u64, ReadError> {
    view.scan_keys(table::REPORTS, reports_of(app, group, epoch).prefix()).map(|key| key.map(|_| 1)).sum()
}

/// The keys of up to `limit` reports of an epoch.
pub(super) fn report_keys(
    view: &View,
    app: AppId,
    group: &GroupId,
    epoch: Epoch,
    limit: usize,
) -> Result<Vec<Slice>, ReadError> {
    view.scan_keys(table::REPORTS, reports_of(app, group, epoch).prefix()).take(limit).collect()
}

/// Deletes some reports of an epoch whose others will follow. The epoch is told once all the same.
pub(super) fn delete_some(
    overlay: &mut Overlay<'_>,
    app: AppId,
    group: &GroupId,
    epoch: Epoch,
    keys: Vec<Slice>,
) -> Result<(), Refusal> {
    let summary = epoch_key(app, group, epoch);
    let mut row = overlay.row::<ReportedEpoch>(table::REPORTS, &summary)?;
    for key in keys {
        if overlay.holds(table::REPORTS, &Key::new().last(&key))? {
            if let Some(row) = &mut row {
                row.reporters = row.reporters.saturating_sub(1);
            }
            overlay.delete_at(table::REPORTS, key);
        }
    }
    row.map_or(Ok(()), |row| put(overlay, &summary, &row))
}

/// Deletes what was reported of an epoch.
pub(super) fn delete_reports(
    overlay: &mut Overlay<'_>,
    app: AppId,
    group: &GroupId,
    epoch: Epoch,
) -> Result<(), ReadError> {
    let key = epoch_key(app, group, epoch);
    let Some(row) = overlay.row::<ReportedEpoch>(table::REPORTS, &key)? else { return Ok(()) };
    if let Some(told) = row.told {
        overlay.delete(table::REPORTS, &told_key(app, group, told.place));
    }
    for (key, _) in overlay.scan(table::REPORTS, reports_of(app, group, epoch).prefix())? {
        overlay.delete_at(table::REPORTS, key);
    }
    overlay.delete(table::REPORTS, &key);
    Ok(())
}

impl Batch {
    /// Notes a report, and answers with [`Appended::reported`](crate::Appended). The same member counts once for an epoch. When
    /// [`MemberReport::told_from`] members have reported it, the event is added and the audit log has an entry, once for an epoch.
    pub fn report_epoch(&mut self, app: AppId, group: &GroupId, report: &MemberReport) -> &mut Self {
        let key = self.key(report_key(app, group, report));
        let kind = self.raw(report.kind.as_bytes());
        let (group, report) = (group.clone(), report.clone());
        self.operation(move |overlay| {
            let summary = epoch_key(app, &group, report.epoch);
            let stored = overlay.row::<ReportedEpoch>(table::REPORTS, &summary)?;
            let mut row = stored.clone().unwrap_or(ReportedEpoch {
                reporters: 0,
                first_at: report.at,
                committer: report.committer,
                told: None,
            });
            if !overlay.holds(table::REPORTS, &key)? {
                overlay.put(table::REPORTS, &key, kind);
                row.reporters = row.reporters.saturating_add(1);
            }
            let is_told_now = row.told.is_none() && row.reporters >= report.told_from;
            if is_told_now {
                let at = AuditedAt { app, at: report.at, rows_max: report.audit_rows_max };
                row.told = tell(overlay, &at, &group, (report.epoch, &row))?;
            }
            overlay.reported(ReportOutcome { reporters: row.reporters, is_told_now });
            if stored.as_ref() != Some(&row) {
                put(overlay, &summary, &row)?;
            }
            Ok(())
        })
    }
}

/// Adds the event of an epoch that enough members have reported, and the entry of the audit log.
fn tell(
    overlay: &mut Overlay<'_>,
    audited: &AuditedAt,
    group: &GroupId,
    (epoch, row): (Epoch, &ReportedEpoch),
) -> Result<Option<ToldEpoch>, Refusal> {
    let (app, newest_key) = (audited.app, of_group(NEWEST, audited.app, group));
    let newest = overlay.value(table::REPORTS, &newest_key)?;
    let newest = newest.map(|value| ToldBefore::read(KeyReader::new(&value, "reports"))).transpose()?;
    let head = overlay.row::<Head>(table::LOG_HEADS, &log_key(&LogId::Group(app, group.clone())))?;
    let entry = head.map_or(0, |head| head.head).saturating_add(1);
    // More than 65,534 epochs between two entries cannot be told; no group has as many that are kept by default.
    let Some(place) = ToldBefore::next(newest, entry) else { return Ok(None) };
    let told = ToldEpoch { at: audited.at, reporters: row.reporters, place };
    overlay.put(table::REPORTS, &newest_key, place.key(Key::new()).to_slice());
    overlay.put(table::REPORTS, &told_key(app, group, place), Slice::from(epoch.0.to_be_bytes()));
    events::note(overlay, &event(group, epoch, row.committer.as_ref(), told))?;
    let entry = AuditEntry::EpochReported {
        group: group.clone(),
        epoch,
        reporters: row.reporters,
        committer: row.committer.clone(),
    };
    audit::put(overlay, audited, &entry)?;
    Ok(Some(told))
}

fn put(overlay: &mut Overlay<'_>, key: &Key, row: &ReportedEpoch) -> Result<(), Refusal> {
    let value = rows::encode(row).map_err(|error| ReadError::damaged(error.to_string()))?;
    overlay.put(table::REPORTS, key, value);
    Ok(())
}

fn event(group: &GroupId, epoch: Epoch, committer: Option<&EpochCommitter>, told: ToldEpoch) -> Event {
    Event::EpochReported {
        group: group.clone(),
        epoch,
        reporters: told.reporters,
        committer: committer.cloned(),
        before: told.place,
    }
}

impl View {
    /// The row of an epoch that members have reported.
    ///
    /// # Errors
    /// [`ReadError`] when the disk fails or the row is damaged.
    pub fn reported_epoch(
        &self,
        app: AppId,
        group: &GroupId,
        epoch: Epoch,
    ) -> Result<Option<ReportedEpoch>, ReadError> {
        self.row(table::REPORTS, &epoch_key(app, group, epoch))
    }

    /// Whether a member has reported the epoch of this report.
    ///
    /// # Errors
    /// [`ReadError`] when the disk fails.
    pub fn has_reported(
        &self,
        app: AppId,
        group: &GroupId,
        report: &MemberReport,
    ) -> Result<bool, ReadError> {
        self.holds(table::REPORTS, &report_key(app, group, report))
    }

    /// The number of members who have reported an epoch and are not in the group now, or came back to it after the epoch. It reads
    /// every report.
    ///
    /// # Errors
    /// [`ReadError`] when the disk fails or a row is damaged.
    pub fn absent_reporters(&self, app: AppId, group: &GroupId, epoch: Epoch) -> Result<u64, ReadError> {
        let reports = reports_of(app, group, epoch);
        let prefix = reports.as_bytes().len();
        let mut absent = 0;
        for key in self.scan_keys(table::REPORTS, reports.prefix()) {
            let key = key?;
            let mut reader = KeyReader::new(key.get(prefix..).unwrap_or(&[]), "reports");
            let domain = reader.domain()?;
            let handle = reader.handle()?;
            reader.end()?;
            let since = self.member_since(app, &handle, domain.as_ref(), group)?;
            absent += u64::from(since.is_none_or(|since| since > epoch));
        }
        Ok(absent)
    }

    /// Up to `limit` epochs of an application that were reported, in the order of their groups, after the one given.
    ///
    /// # Errors
    /// [`ReadError`] when the disk fails or a row is damaged.
    pub fn reported_epochs(
        &self,
        app: AppId,
        after: Option<(GroupId, Epoch)>,
        limit: usize,
    ) -> Result<Vec<(GroupId, Epoch, ReportedEpoch)>, ReadError> {
        let prefix = Key::new().byte(EPOCH).uuid(app.as_uuid());
        let skipped = prefix.as_bytes().len();
        let range = prefix.prefix_from(after.map(|(group, epoch)| epoch_key(app, &group, epoch)));
        let read = |row: Result<(Slice, Slice), ReadError>| {
            let (key, value) = row?;
            let mut reader = KeyReader::new(key.get(skipped..).unwrap_or(&[]), "reports");
            let (group, epoch) = (reader.group()?, Epoch(reader.u64()?));
            Ok((group, epoch, rows::decode(table::REPORTS, &value)?))
        };
        self.scan(table::REPORTS, range).take(limit).map(read).collect()
    }

    /// Up to `limit` events of reported epochs of a group from a place in its stream on, with their places, in order.
    ///
    /// # Errors
    /// [`ReadError`] when the disk fails or a row is damaged.
    pub fn told_reports(
        &self,
        app: AppId,
        group: &GroupId,
        from: ToldBefore,
        limit: usize,
    ) -> Result<Vec<(ToldBefore, Event)>, ReadError> {
        let of_group = of_group(TOLD, app, group);
        let prefix = of_group.as_bytes().len();
        let last = ToldBefore { entry: u64::MAX, index: u16::MAX };
        let range = told_key(app, group, from).through(told_key(app, group, last));
        let read = |row: Result<(Slice, Slice), ReadError>| {
            let (key, value) = row?;
            let place = ToldBefore::read(KeyReader::new(key.get(prefix..).unwrap_or(&[]), "reports"))?;
            let epoch = Epoch(rows::number(table::REPORTS, &value)?);
            let found = self.reported_epoch(app, group, epoch)?;
            let told = found.and_then(|row| Some((row.told?, row.committer)));
            Ok(told.map(|(told, committer)| (place, event(group, epoch, committer.as_ref(), told))))
        };
        self.scan(table::REPORTS, range).map(read).filter_map(Result::transpose).take(limit).collect()
    }

    /// The place of the newest event of a reported epoch in a group's stream.
    ///
    /// # Errors
    /// [`ReadError`] when the disk fails or the row is damaged.
    pub fn newest_told_report(&self, app: AppId, group: &GroupId) -> Result<Option<ToldBefore>, ReadError> {
        let value = self.value(table::REPORTS, &of_group(NEWEST, app, group))?;
        value.map(|value| ToldBefore::read(KeyReader::new(&value, "reports"))).transpose()
    }
}
