//! A disk batch under construction: each operation sees the store with the changes before it.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

use super::{
    Slice,
    batch::{Appended, ReportOutcome},
    disk::{Changes, Disk, RowKey},
    feed::Announcement,
    keys::{Key, KeyRange},
    meta::META,
    rows::Rows,
    schema::Table,
    usage,
};
use crate::{
    errors::{ReadError, Refusal},
    ids::{AppId, DeliveryId, KeyPackageRef, KeyQueueId},
    quotas::Quotas,
};

/// One operation of a batch: checks, then writes. It runs in the committer and sees every operation before it.
pub(crate) type Operation = Box<dyn FnOnce(&mut Overlay<'_>) -> Result<(), Refusal> + Send>;

/// The changed rows of this disk batch, over those on disk. Only the committer writes, so what an overlay reads stays true
/// until it is written.
pub(crate) struct Overlay<'a> {
    disk: &'a Disk,
    changes: Changes,
    /// The values before the running batch of the rows that it has changed.
    undo: Vec<(RowKey, Option<Option<Slice>>)>,
    /// The answer to the running batch.
    appended: Appended,
    /// The events of the running batch, encoded.
    events: Vec<Slice>,
    announcements: Vec<Announcement>,
    /// The quotas that the running batch keeps, and their application.
    quotas: Option<(AppId, Quotas)>,
}

impl<'a> Overlay<'a> {
    pub(crate) fn new(disk: &'a Disk) -> Self {
        Self {
            disk,
            changes: Changes::new(),
            undo: Vec::new(),
            appended: Appended::default(),
            events: Vec::new(),
            announcements: Vec::new(),
            quotas: None,
        }
    }

    /// Runs one batch. All of its changes go into the disk batch, or none when an operation refuses.
    pub(crate) fn run(
        &mut self,
        operations: Vec<Operation>,
    ) -> Result<(Appended, Vec<Announcement>), Refusal> {
        self.quotas = None;
        let outcome = operations.into_iter().try_for_each(|operation| operation(self));
        let outcome = outcome.and_then(|()| self.count());
        let appended = std::mem::take(&mut self.appended);
        let announcements = std::mem::take(&mut self.announcements);
        self.events.clear();
        match outcome {
            Ok(()) => {
                self.undo.clear();
                Ok((appended, announcements))
            }
            Err(refusal) => {
                while let Some((row, before)) = self.undo.pop() {
                    match before {
                        Some(change) => self.changes.insert(row, change),
                        None => self.changes.remove(&row),
                    };
                }
                Err(refusal)
            }
        }
    }

    /// Counts what the running batch has changed, and checks the quotas that it keeps.
    fn count(&mut self) -> Result<(), Refusal> {
        let (mut seen, mut changed) = (BTreeSet::new(), Vec::new());
        for (row, before) in &self.undo {
            let (table, key) = row;
            if table.counting().is_none() || !seen.insert(row) {
                continue;
            }
            let bytes = match before {
                Some(change) => change.as_ref().map(length),
                None => self.disk.size_of(*table, key)?,
            };
            changed.push((row.clone(), bytes));
        }
        let quotas = self.quotas.take();
        usage::count(self, &changed, quotas.as_ref())
    }

    /// The running batch is refused if an application gets more than these quotas by it.
    pub(super) fn keep_quotas(&mut self, app: AppId, quotas: Quotas) {
        self.quotas = Some((app, quotas));
    }

    /// The size of the value that a changed row has now, in bytes.
    pub(super) fn size_after(&self, row: &RowKey) -> Option<u64> {
        self.changes.get(row).and_then(Option::as_ref).map(length)
    }

    /// Counts all rows that are on disk.
    pub(crate) fn count_anew(&mut self) -> Result<(), ReadError> {
        for (key, value) in usage::count_anew(self.disk)? {
            self.put(META, &key, value);
        }
        Ok(())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// The changes to write.
    pub(crate) fn into_changes(self) -> Changes {
        self.changes
    }

    pub(crate) fn put(&mut self, table: Table, key: &Key, value: Slice) {
        self.change((table, key.to_slice()), Some(value));
    }

    pub(crate) fn delete(&mut self, table: Table, key: &Key) {
        self.delete_at(table, key.to_slice());
    }

    /// As [`Overlay::delete`], of a key that a scan returned.
    pub(crate) fn delete_at(&mut self, table: Table, key: Slice) {
        self.change((table, key), None);
    }

    /// Records, for the answer, that a queue lost a key package because it was used.
    pub(crate) fn advanced(&mut self, queue: KeyQueueId, reference: KeyPackageRef) {
        self.appended.advanced.push((queue, reference));
    }

    /// Adds an id to the answer to the running batch.
    pub(crate) fn answer_with(&mut self, id: DeliveryId) {
        self.appended.deliveries.push(id);
    }

    /// Records, for the answer, the outcome of a report of an epoch.
    pub(crate) fn reported(&mut self, outcome: ReportOutcome) {
        self.appended.reported = Some(outcome);
    }

    /// Adds an event, encoded, to those that the running batch announces.
    pub(crate) fn note_event(&mut self, event: Slice) {
        self.events.push(event);
    }

    /// Takes the events that the running batch has so far.
    pub(crate) fn take_events(&mut self) -> Vec<Slice> {
        std::mem::take(&mut self.events)
    }

    /// Announces the running batch, if it is written.
    pub(crate) fn announce(&mut self, announcement: Announcement) {
        self.announcements.push(announcement);
    }

    /// The rows of a table as they are on disk, read lazily.
    pub(crate) fn on_disk(
        &self,
        table: Table,
    ) -> impl Iterator<Item = Result<(Slice, Slice), ReadError>> + use<'a> {
        self.disk.rows(table, KeyRange::all())
    }

    /// All rows in a range, in order: only for ranges that are known to be small.
    pub(crate) fn scan(&self, table: Table, range: KeyRange) -> Result<Vec<(Slice, Slice)>, ReadError> {
        if range.is_empty() {
            return Ok(Vec::new());
        }
        let mut rows: BTreeMap<Slice, Slice> =
            self.disk.rows(table, range.clone()).collect::<Result<_, _>>()?;
        for ((_, key), change) in self.changes_in(table, range) {
            match change {
                Some(value) => rows.insert(key.clone(), value.clone()),
                None => rows.remove(key),
            };
        }
        Ok(rows.into_iter().collect())
    }

    /// Up to `limit` keys in a range, without reading large values.
    pub(crate) fn keys(
        &self,
        table: Table,
        range: KeyRange,
        limit: usize,
    ) -> Result<BTreeSet<Slice>, ReadError> {
        if range.is_empty() {
            return Ok(BTreeSet::new());
        }
        let put = self.changes_in(table, range.clone()).filter(|(_, change)| change.is_some());
        let mut keys: BTreeSet<Slice> = put.map(|((_, key), _)| key.clone()).take(limit).collect();
        for key in self.disk.keys(table, range) {
            if keys.len() >= limit {
                break;
            }
            let row = (table, key?);
            if !self.changes.contains_key(&row) {
                keys.insert(row.1);
            }
        }
        Ok(keys)
    }

    /// Whether any row is in a range.
    pub(crate) fn any(&self, table: Table, range: KeyRange) -> Result<bool, ReadError> {
        if range.is_empty() {
            return Ok(false);
        }
        if self.changes_in(table, range.clone()).any(|(_, change)| change.is_some()) {
            return Ok(true);
        }
        for key in self.disk.keys(table, range) {
            // A row that this overlay put was found above, so this one is deleted or as on disk.
            if !self.changes.contains_key(&(table, key?)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The first key in a range.
    pub(crate) fn first_key(&self, table: Table, range: KeyRange) -> Result<Option<Slice>, ReadError> {
        if range.is_empty() {
            return Ok(None);
        }
        let mut put = self.changes_in(table, range.clone()).filter(|(_, change)| change.is_some());
        let put = put.next().map(|((_, key), _)| key.clone());
        for key in self.disk.keys(table, range) {
            let key = key?;
            if put.as_ref().is_some_and(|put| *put <= key) {
                break;
            }
            if !self.changes.contains_key(&(table, key.clone())) {
                return Ok(Some(key));
            }
        }
        Ok(put)
    }

    fn change(&mut self, row: RowKey, change: Option<Slice>) {
        let before = self.changes.insert(row.clone(), change);
        self.undo.push((row, before));
    }

    fn changes_in(&self, table: Table, range: KeyRange) -> impl Iterator<Item = (&RowKey, &Option<Slice>)> {
        let start = match range.start {
            Bound::Included(key) => Bound::Included((table, Slice::from(key))),
            Bound::Excluded(key) => Bound::Excluded((table, Slice::from(key))),
            Bound::Unbounded => Bound::Included((table, Slice::from([]))),
        };
        let in_table = self.changes.range((start, Bound::Unbounded));
        in_table.take_while(move |((of, key), _)| {
            let inside = match &range.end {
                Bound::Included(end) => **key <= **end,
                Bound::Excluded(end) => **key < **end,
                Bound::Unbounded => true,
            };
            *of == table && inside
        })
    }
}

fn length(value: &Slice) -> u64 {
    u64::try_from(value.len()).unwrap_or(u64::MAX)
}

impl Rows for Overlay<'_> {
    fn value(&self, table: Table, key: &Key) -> Result<Option<Slice>, ReadError> {
        let row = (table, key.to_slice());
        match self.changes.get(&row) {
            Some(change) => Ok(change.clone()),
            None => self.disk.value(table, &row.1),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ops::RangeBounds as _;

    use proptest::{prelude::*, test_runner::TestRunner};

    use super::*;
    use crate::{
        engine::{
            schema::{Schema, TableDefinition, Values},
            start::OnLoss,
        },
        errors::Unmet,
        options::Location,
    };

    const A: Table =
        Table::new(&TableDefinition { number: 1, name: "a", values: Values::Small, counting: None });
    const B: Table =
        Table::new(&TableDefinition { number: 2, name: "b", values: Values::Frequent, counting: None });
    const C: Table =
        Table::new(&TableDefinition { number: 3, name: "c", values: Values::Large, counting: None });
    const TABLES: [Table; 3] = [A, B, C];
    static SCHEMA: Schema = Schema::new(&TABLES, 1, |_, _| Ok(()));

    fn disk() -> Disk {
        Disk::open(&Location::Temporary, 1 << 20, OnLoss::Refuse, &SCHEMA).unwrap()
    }

    fn key(bytes: &[u8]) -> Key {
        Key::new().last(bytes)
    }

    fn put(table: Table, bytes: &'static [u8], value: &'static [u8]) -> Operation {
        Box::new(move |overlay| {
            overlay.put(table, &key(bytes), Slice::from(value));
            Ok(())
        })
    }

    fn deliver(id: u64) -> Operation {
        Box::new(move |overlay| {
            overlay.answer_with(DeliveryId(id));
            Ok(())
        })
    }

    /// Precondition: there is no such row.
    fn require_absent(table: Table, bytes: &'static [u8]) -> Operation {
        Box::new(
            move |overlay| {
                if overlay.holds(table, &key(bytes))? { Err(Unmet::SettingExists.into()) } else { Ok(()) }
            },
        )
    }

    #[test]
    fn each_element_sees_those_before_it() {
        let disk = disk();
        let mut overlay = Overlay::new(&disk);
        let create = || vec![require_absent(B, b"a"), put(B, b"a", b"1")];
        assert!(overlay.run(create()).is_ok());
        assert!(overlay.run(create()).is_err());
        disk.write(overlay.into_changes(), None).unwrap();
        let mut overlay = Overlay::new(&disk);
        assert!(overlay.run(create()).is_err());
        assert!(overlay.is_empty());
    }

    #[test]
    fn an_element_that_is_refused_leaves_nothing() {
        let disk = disk();
        let mut overlay = Overlay::new(&disk);
        let first = vec![put(B, b"a", b"1"), deliver(7)];
        assert_eq!(overlay.run(first).unwrap().0.deliveries, [DeliveryId(7)]);
        let refused = vec![
            put(B, b"a", b"2"),
            put(B, b"a", b"3"),
            put(B, b"b", b"2"),
            deliver(8),
            deliver(9),
            require_absent(B, b"b"),
        ];
        assert!(overlay.run(refused).is_err());
        assert_eq!(
            overlay.run(vec![deliver(8), deliver(9)]).unwrap().0.deliveries,
            [DeliveryId(8), DeliveryId(9)]
        );
        disk.write(overlay.into_changes(), None).unwrap();
        let rows: Vec<_> = disk.rows(B, KeyRange::all()).map(Result::unwrap).collect();
        assert_eq!(rows, [(Slice::from(b"a"), Slice::from(b"1"))]);
    }

    type Change = (usize, Vec<u8>, Option<u8>);

    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(prop::sample::select(vec![0, 1, 255]), 1..3)
    }

    /// Disk batches of elements of changes; an element whose flag is set is refused at its end.
    fn disk_batches() -> impl Strategy<Value = Vec<Vec<(Vec<Change>, bool)>>> {
        let change = (0..TABLES.len(), bytes(), any::<Option<u8>>());
        let element = (prop::collection::vec(change, 0..6), prop::bool::weighted(0.3));
        prop::collection::vec(prop::collection::vec(element, 1..5), 1..4)
    }

    fn operations(element: &[Change], refused: bool) -> Vec<Operation> {
        let change = |(table, bytes, value): &Change| -> Operation {
            let (table, key, value) = (TABLES[*table], key(bytes), *value);
            Box::new(move |overlay| {
                match value {
                    Some(value) => overlay.put(table, &key, Slice::from([value])),
                    None => overlay.delete(table, &key),
                }
                Ok(())
            })
        };
        let end: Operation =
            Box::new(move |_| if refused { Err(Unmet::SettingExists.into()) } else { Ok(()) });
        element.iter().map(change).chain([end]).collect()
    }

    /// Every row of the tables under test is deleted, so that cases share one disk.
    fn clear(disk: &Disk) {
        let mut overlay = Overlay::new(disk);
        for table in TABLES {
            for (key, _) in overlay.scan(table, KeyRange::all()).unwrap() {
                overlay.delete_at(table, key);
            }
        }
        disk.write(overlay.into_changes(), None).unwrap();
    }

    fn check(disk: &Disk, batches: Vec<Vec<(Vec<Change>, bool)>>, ranges: &[KeyRange]) {
        clear(disk);
        let mut model: BTreeMap<(usize, Vec<u8>), u8> = BTreeMap::new();
        for batch in batches {
            let mut overlay = Overlay::new(disk);
            for (element, refused) in batch {
                assert_eq!(overlay.run(operations(&element, refused)).is_err(), refused);
                for (table, bytes, value) in element.into_iter().filter(|_| !refused) {
                    match value {
                        Some(value) => model.insert((table, bytes), value),
                        None => model.remove(&(table, bytes)),
                    };
                }
                for range in ranges {
                    check_range(&overlay, &model, range);
                }
            }
            disk.write(overlay.into_changes(), None).unwrap();
        }
    }

    fn check_range(overlay: &Overlay<'_>, model: &BTreeMap<(usize, Vec<u8>), u8>, range: &KeyRange) {
        let bounds = (range.start.clone(), range.end.clone());
        for (number, table) in TABLES.into_iter().enumerate() {
            let inside = model.iter().filter(|((of, bytes), _)| *of == number && bounds.contains(bytes));
            let expected: Vec<_> = inside.map(|((_, bytes), value)| (bytes.clone(), vec![*value])).collect();
            let found = overlay.scan(table, range.clone()).unwrap();
            let found: Vec<_> = found.iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect();
            assert_eq!(found, expected);
            assert_eq!(overlay.any(table, range.clone()), Ok(!expected.is_empty()));
            let first = overlay.first_key(table, range.clone()).unwrap();
            assert_eq!(first.as_deref(), expected.first().map(|(key, _)| &key[..]));
            for (bytes, value) in expected {
                assert_eq!(overlay.value(table, &key(&bytes)).unwrap().as_deref(), Some(&value[..]));
            }
        }
    }

    #[test]
    fn an_overlay_shows_what_was_written_over_what_is_on_disk() {
        let disk = disk();
        let mut runner =
            TestRunner::new(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(96) });
        let cases = (disk_batches(), bytes(), bytes(), bytes());
        let outcome = runner.run(&cases, |(batches, prefix, start, end)| {
            let ranges = [
                KeyRange::all(),
                key(&prefix).prefix(),
                key(&start).until(key(&end)),
                key(&start).through(key(&end)),
                KeyRange::after(&start),
            ];
            check(&disk, batches, &ranges);
            Ok(())
        });
        outcome.unwrap();
    }
}
