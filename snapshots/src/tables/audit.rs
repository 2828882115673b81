//! The audit log of each application: what an operator may have to explain later.
//!
//! | table | key | value |
//! |---|---|---|
//! | `audit` | 0, application | the number of the newest entry |
//! | `audit` | 1, application, number | [`AuditRow`] |
//!
//! Entries are numbered from 1 without a gap, and deleted by number and by age; see `retention.rs`. Claims of key packages have rows of
//! their own that find their entries; see `claims.rs`.

use serde::{Deserialize, Serialize};

use super::{
    claims::{self, ClaimedKeyPackages},
    history::EpochCommitter,
    table,
};
use crate::{
    engine::{Batch, Key, KeyRange, KeyReader, Overlay, Rows, Slice, View, rows},
    errors::ReadError,
    ids::{AppId, Epoch, GroupId, Timestamp},
};

const NEWEST: u8 = 0;
const ENTRY: u8 = 1;

/// An entry of the audit log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AuditEntry {
    /// Enough members have reported that they cannot open an epoch.
    EpochReported {
        /// The group.
        group: GroupId,
        /// The epoch.
        epoch: Epoch,
        /// The number of distinct members who have.
        reporters: u64,
        /// The member that committed it, if that is known.
        committer: Option<EpochCommitter>,
    },
    /// A claimant was assigned key packages.
    KeyPackagesClaimed(ClaimedKeyPackages),
}

/// An entry of the audit log as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRow {
    /// Its time.
    pub at: Timestamp,
    /// What happened.
    pub entry: AuditEntry,
}

/// The log, the time of an entry, and the number of entries that the log keeps.
#[derive(Clone, Copy, Debug)]
pub(super) struct AuditedAt {
    pub(super) app: AppId,
    pub(super) at: Timestamp,
    pub(super) rows_max: u64,
}

fn newest_key(app: AppId) -> Key {
    Key::new().byte(NEWEST).uuid(app.as_uuid())
}

fn entries_of(app: AppId) -> Key {
    Key::new().byte(ENTRY).uuid(app.as_uuid())
}

fn entry_key(app: AppId, number: u64) -> Key {
    entries_of(app).u64(number)
}

fn read_entry_key(key: &[u8]) -> Result<(AppId, u64), ReadError> {
    let mut reader = KeyReader::new(key, "audit");
    reader.byte()?;
    let (app, number) = (reader.app()?, reader.u64()?);
    reader.end()?;
    Ok((app, number))
}

fn newest(rows: &impl Rows, app: AppId) -> Result<u64, ReadError> {
    let value = rows.value(table::AUDIT, &newest_key(app))?;
    value.map_or(Ok(0), |value| rows::number(table::AUDIT, &value))
}

/// Adds an entry, and deletes the one that is too many; returns the number of the new one.
pub(super) fn put(
    overlay: &mut Overlay<'_>,
    audited: &AuditedAt,
    entry: &AuditEntry,
) -> Result<u64, ReadError> {
    let AuditedAt { app, at, rows_max } = *audited;
    let number = newest(overlay, app)?.saturating_add(1);
    overlay.put(table::AUDIT, &newest_key(app), Slice::from(number.to_be_bytes()));
    replace(overlay, app, number, &AuditRow { at, entry: entry.clone() })?;
    if let Some(old) = number.checked_sub(rows_max).filter(|old| *old > 0) {
        delete(overlay, app, old)?;
    }
    Ok(number)
}

/// Writes an entry over the one of the same number.
pub(super) fn replace(
    overlay: &mut Overlay<'_>,
    app: AppId,
    number: u64,
    row: &AuditRow,
) -> Result<(), ReadError> {
    let value = rows::encode(row).map_err(|error| ReadError::damaged(error.to_string()))?;
    overlay.put(table::AUDIT, &entry_key(app, number), value);
    Ok(())
}

/// The entry of a number, if it is kept.
pub(super) fn entry(overlay: &Overlay<'_>, app: AppId, number: u64) -> Result<Option<AuditRow>, ReadError> {
    overlay.row(table::AUDIT, &entry_key(app, number))
}

/// Deletes an entry.
pub(super) fn delete(overlay: &mut Overlay<'_>, app: AppId, number: u64) -> Result<(), ReadError> {
    match entry(overlay, app, number)?.map(|row| row.entry) {
        Some(AuditEntry::KeyPackagesClaimed(claimed)) => claims::forget(overlay, app, number, &claimed)?,
        Some(AuditEntry::EpochReported { .. }) | None => {}
    }
    overlay.delete(table::AUDIT, &entry_key(app, number));
    Ok(())
}

/// Whether a row can be read.
pub(super) fn check(key: &[u8], value: &[u8]) -> Result<Result<(), String>, ReadError> {
    match key.first() {
        Some(&NEWEST) => rows::number(table::AUDIT, value).map(drop)?,
        Some(&ENTRY) | None => {
            read_entry_key(key)?;
            rows::decode::<AuditRow>(table::AUDIT, value)?;
        }
        Some(_) => match claims::check(key, value) {
            Some(readable) => readable?,
            None => return Ok(Err("a row of the audit log is of no known kind".to_owned())),
        },
    }
    Ok(Ok(()))
}

impl Batch {
    /// Adds an entry to the audit log of an application, which keeps the newest `rows_max`.
    pub fn audit(&mut self, app: AppId, row: &AuditRow, rows_max: u64) -> &mut Self {
        let (audited, entry) = (AuditedAt { app, at: row.at, rows_max }, row.entry.clone());
        self.row(row);
        self.operation(move |overlay| {
            put(overlay, &audited, &entry)?;
            Ok(())
        })
    }
}

impl View {
    /// Up to `limit` entries of the audit log of an application with their numbers, the newest first, before the number given.
    ///
    /// # Errors
    /// [`ReadError`] when the disk fails or a row is damaged.
    pub fn audit_entries(
        &self,
        app: AppId,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<(u64, AuditRow)>, ReadError> {
        let range = entry_key(app, 0).until(entry_key(app, before.unwrap_or(u64::MAX)));
        let read = |row: Result<(Slice, Slice), ReadError>| {
            let (key, value) = row?;
            Ok((read_entry_key(&key)?.1, rows::decode(table::AUDIT, &value)?))
        };
        self.scan(table::AUDIT, range).rev().take(limit).map(read).collect()
    }

    /// The entries of every application, in the order of their keys, after the one given, and the number of the newest of its
    /// application with each.
    pub(super) fn audit_after(
        &self,
        after: Option<(AppId, u64)>,
    ) -> impl Iterator<Item = Result<(AppId, u64, Timestamp), ReadError>> {
        let start = match after {
            Some((app, number)) => KeyRange::after(entry_key(app, number).as_bytes()).start,
            None => Key::new().byte(ENTRY).prefix().start,
        };
        let range = KeyRange { start, end: Key::new().byte(ENTRY).prefix().end };
        self.scan(table::AUDIT, range).map(|row| {
            let (key, value) = row?;
            let (app, number) = read_entry_key(&key)?;
            let AuditRow { at, .. } = rows::decode(table::AUDIT, &value)?;
            Ok((app, number, at))
        })
    }

    /// The number of the newest entry of the audit log of an application; 0 if there is none.
    pub(super) fn newest_audited(&self, app: AppId) -> Result<u64, ReadError> {
        newest(self, app)
    }
}
