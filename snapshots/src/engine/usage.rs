//! The usage of each application: how much it has of what its quotas limit. It is counted with the rows, in the batch that writes or
//! deletes them, so it is exact, and there after a restart without a count.
//!
//! | table | key | value |
//! |---|---|---|
//! | `meta` | 5, application | [`Usage`], as four numbers |
//!
//! The definition of a table says what its rows count as; see [`Counting`].

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::{
    Batch, Key, KeyRange, Rows, Slice, Table, View,
    disk::{Disk, RowKey},
    keys::KeyReader,
    meta::META,
    overlay::Overlay,
};
use crate::{
    errors::{ReadError, Refusal, Unmet},
    ids::AppId,
    quotas::{Quotas, Resource, Usage},
};

/// The place of usage among the rows of `meta`.
const USAGE: u8 = 5;

/// What the rows of a table count as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Counting {
    /// [`Resource::Bytes`] counts the bytes of values, any other resource the rows.
    pub(crate) resource: Resource,
    /// The place of the application's id in a key.
    pub(crate) app_at: usize,
}

impl Counting {
    fn app_of(&self, key: &[u8]) -> Option<AppId> {
        let id = key.get(self.app_at..)?.first_chunk::<16>()?;
        Some(AppId::new(Uuid::from_bytes(*id)))
    }

    /// What a value counts as.
    fn amount(&self, bytes: u64) -> i64 {
        match self.resource {
            Resource::Bytes => i64::try_from(bytes).unwrap_or(i64::MAX),
            Resource::Clients | Resource::Groups | Resource::KeyPackages => 1,
        }
    }
}

fn to_slice(usage: Usage) -> Slice {
    usage.amounts().iter().fold(Key::new(), |key, amount| key.u64(*amount)).to_slice()
}

fn read(value: &[u8]) -> Result<Usage, ReadError> {
    let mut reader = KeyReader::new(value, "meta");
    let usage = Usage::of_amounts([reader.u64()?, reader.u64()?, reader.u64()?, reader.u64()?]);
    reader.end()?;
    Ok(usage)
}

fn usage_key(app: AppId) -> Key {
    Key::new().byte(USAGE).uuid(app.as_uuid())
}

fn usage(rows: &impl Rows, app: AppId) -> Result<Usage, ReadError> {
    rows.value(META, &usage_key(app))?.map_or(Ok(Usage::default()), |value| read(&value))
}

/// Counts what a batch has changed: `changed` are its rows with the sizes of their values before it, the first time that each was
/// changed. Refused if a quota of the application given is exceeded.
pub(super) fn count(
    overlay: &mut Overlay<'_>,
    changed: &[(RowKey, Option<u64>)],
    quotas: Option<&(AppId, Quotas)>,
) -> Result<(), Refusal> {
    let mut changes: BTreeMap<AppId, Vec<(Resource, i64)>> = BTreeMap::new();
    for (row, before) in changed {
        let (table, key) = row;
        let Some(counting) = table.counting() else { continue };
        let Some(app) = counting.app_of(key) else { continue };
        let after = overlay.size_after(row);
        let amount = |bytes: Option<u64>| bytes.map_or(0, |bytes| counting.amount(bytes));
        let more = amount(after).saturating_sub(amount(*before));
        if more != 0 {
            changes.entry(app).or_default().push((counting.resource, more));
        }
    }
    for (app, changes) in changes {
        let before = usage(overlay, app)?;
        let mut after = before;
        for (resource, more) in changes {
            after.add(resource, more);
        }
        let exceeded =
            quotas.filter(|(of, _)| *of == app).and_then(|(_, quotas)| quotas.exceeded(&before, &after));
        if let Some(exceeded) = exceeded {
            return Err(Unmet::QuotaExceeded(exceeded).into());
        }
        overlay.put(META, &usage_key(app), to_slice(after));
    }
    Ok(())
}

impl Batch {
    /// Precondition: of no resource does the application get more than its quota, else [`Unmet::QuotaExceeded`]. A batch that adds
    /// none of a resource is not refused for it, also if there is too much already.
    pub fn require_quotas(&mut self, app: AppId, quotas: Quotas) -> &mut Self {
        self.operation(move |overlay| {
            overlay.keep_quotas(app, quotas);
            Ok(())
        })
    }
}

/// The usage of each application by its rows on disk: every row of a counted table is looked at.
fn count_all(disk: &Disk) -> Result<BTreeMap<AppId, Usage>, ReadError> {
    let mut found: BTreeMap<AppId, Usage> = BTreeMap::new();
    for table in disk.tables() {
        let Some(counting) = table.counting() else { continue };
        for row in disk.rows(table, KeyRange::all()) {
            let (key, value) = row?;
            if let Some(app) = counting.app_of(&key) {
                let amount = counting.amount(value.len() as u64);
                found.entry(app).or_default().add(counting.resource, amount);
            }
        }
    }
    Ok(found)
}

/// The rows of usage, for a store whose format has none.
pub(super) fn count_anew(disk: &Disk) -> Result<Vec<(Key, Slice)>, ReadError> {
    Ok(count_all(disk)?.into_iter().map(|(app, usage)| (usage_key(app), to_slice(usage))).collect())
}

impl View {
    /// How much an application has of what its quotas limit.
    ///
    /// # Errors
    /// [`ReadError`] when the disk fails or the row is damaged.
    pub fn usage(&self, app: AppId) -> Result<Usage, ReadError> {
        usage(self, app)
    }

    /// The usage of each application that has any, as it is counted.
    pub(crate) fn all_usage(&self) -> Result<BTreeMap<AppId, Usage>, ReadError> {
        let read_row = |row: Result<(Slice, Slice), ReadError>| -> Result<_, ReadError> {
            let (key, value) = row?;
            let mut reader = KeyReader::new(&key, "meta");
            reader.byte()?;
            let app = AppId::new(reader.uuid()?);
            reader.end()?;
            Ok((app, read(&value)?))
        };
        let all: Result<BTreeMap<_, _>, _> =
            self.scan(META, Key::new().byte(USAGE).prefix()).map(read_row).collect();
        Ok(all?.into_iter().filter(|(_, usage)| *usage != Usage::default()).collect())
    }
}

/// Usage that is counted row by row, to compare it.
#[derive(Debug, Default)]
pub(crate) struct Recount(BTreeMap<AppId, Usage>);

impl Recount {
    /// Counts a row.
    pub(crate) fn add(&mut self, table: Table, key: &[u8], value: &[u8]) {
        if let Some(counting) = table.counting()
            && let Some(app) = counting.app_of(key)
        {
            let amount = counting.amount(u64::try_from(value.len()).unwrap_or(u64::MAX));
            self.0.entry(app).or_default().add(counting.resource, amount);
        }
    }

    /// The applications whose usage is another one than was counted.
    pub(crate) fn differences(&self, counted: &BTreeMap<AppId, Usage>) -> Vec<AppId> {
        let apps = self.0.keys().chain(counted.keys());
        let differ = apps.filter(|app| self.0.get(app) != counted.get(app));
        differ.copied().collect::<BTreeSet<_>>().into_iter().collect()
    }
}
