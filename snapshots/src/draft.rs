//! A disk batch under construction: each operation sees the store with the changes before it.

use std::collections::BTreeMap;
use std::ops::Bound;

use fjall::{OwnedWriteBatch, PersistMode, Slice};

use crate::batch::Appended;
use crate::disk::Disk;
use crate::errors::{ReadError, Refusal};
use crate::ids::{DeliveryId, KeyPackageRef, KeyQueueId};
use crate::keys::{Key, KeyRange};
use crate::meta;
use crate::rows::Rows;
use crate::tables::Table;

/// One step of a batch: checks, then writes. It runs in the committer and sees every step before it.
pub(crate) type Step = Box<dyn FnOnce(&mut Draft<'_>) -> Result<(), Refusal> + Send>;

type Place = (Table, Slice);

/// The rows that this disk batch will change, over those on disk. Only the committer writes, so what a draft reads
/// stays true until the draft is written.
pub(crate) struct Draft<'a> {
    disk: &'a Disk,
    /// `None` deletes the row.
    changes: BTreeMap<Place, Option<Slice>>,
    /// What the running element has changed so far: the changes as they were before it.
    undo: Vec<(Place, Option<Option<Slice>>)>,
    /// What the running element is answered with.
    appended: Appended,
    next_delivery: DeliveryId,
}

impl<'a> Draft<'a> {
    pub(crate) fn new(disk: &'a Disk, next_delivery: DeliveryId) -> Self {
        let (changes, undo, appended) = (BTreeMap::new(), Vec::new(), Appended::default());
        Self { disk, changes, undo, appended, next_delivery }
    }

    /// Runs one element. All of it goes into the disk batch, or, when a step refuses, nothing of it.
    pub(crate) fn run(&mut self, steps: Vec<Step>) -> Result<Appended, Refusal> {
        let first_delivery = self.next_delivery;
        let outcome = steps.into_iter().try_for_each(|step| step(self));
        let appended = std::mem::take(&mut self.appended);
        match outcome {
            Ok(()) => {
                self.undo.clear();
                Ok(appended)
            }
            Err(refusal) => {
                while let Some((place, before)) = self.undo.pop() {
                    match before {
                        Some(change) => self.changes.insert(place, change),
                        None => self.changes.remove(&place),
                    };
                }
                self.next_delivery = first_delivery;
                Err(refusal)
            }
        }
    }

    pub(crate) fn next_delivery(&self) -> DeliveryId {
        self.next_delivery
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Writes everything as one atomic batch.
    pub(crate) fn write(self, persist: Option<PersistMode>) -> fjall::Result<()> {
        let database = self.disk.database.clone();
        let mut batch = OwnedWriteBatch::with_capacity(database, self.changes.len()).durability(persist);
        for ((table, key), change) in self.changes {
            let keyspace = self.disk.tables.of(table);
            match change {
                Some(value) => batch.insert(keyspace, key, value),
                None => batch.remove(keyspace, key),
            }
        }
        batch.commit()
    }

    pub(crate) fn put(&mut self, table: Table, key: &Key, value: Slice) {
        self.change((table, key.to_slice()), Some(value));
    }

    pub(crate) fn delete(&mut self, table: Table, key: &Key) {
        self.delete_at(table, key.to_slice());
    }

    /// As [`Draft::delete`], of a key that a scan returned.
    pub(crate) fn delete_at(&mut self, table: Table, key: Slice) {
        self.change((table, key), None);
    }

    /// The next place in the order of delivery. It counts when the element is written.
    pub(crate) fn give_delivery_id(&mut self) -> Result<DeliveryId, ReadError> {
        let id = self.next_delivery;
        let next = id.0.checked_add(1).ok_or_else(|| ReadError::damaged("delivery ids are used up"))?;
        self.next_delivery = DeliveryId(next);
        self.appended.deliveries.push(id);
        self.put(Table::Meta, &meta::next_delivery_key(), Slice::from(next.to_be_bytes()));
        Ok(id)
    }

    /// Says that a queue lost a key package because it was used.
    pub(crate) fn advanced(&mut self, queue: KeyQueueId, reference: KeyPackageRef) {
        self.appended.advanced.push((queue, reference));
    }

    /// The rows in a range, all of them, in order: only for ranges that are known to be small.
    pub(crate) fn scan(&self, table: Table, range: KeyRange) -> Result<Vec<(Slice, Slice)>, ReadError> {
        if range.is_empty() {
            return Ok(Vec::new());
        }
        let mut rows = BTreeMap::new();
        for guard in self.disk.tables.of(table).range((range.start.clone(), range.end.clone())) {
            let (key, value) = guard.into_inner()?;
            rows.insert(key, value);
        }
        for ((_, key), change) in self.changes_in(table, range) {
            match change {
                Some(value) => rows.insert(key.clone(), value.clone()),
                None => rows.remove(key),
            };
        }
        Ok(rows.into_iter().collect())
    }

    /// Whether any row is in a range.
    pub(crate) fn any(&self, table: Table, range: KeyRange) -> Result<bool, ReadError> {
        if range.is_empty() {
            return Ok(false);
        }
        if self.changes_in(table, range.clone()).any(|(_, change)| change.is_some()) {
            return Ok(true);
        }
        for guard in self.disk.tables.of(table).range((range.start, range.end)) {
            // It is not put by this draft, or the question was answered above; so it is deleted or as on disk.
            if !self.changes.contains_key(&(table, guard.key()?)) {
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
        for guard in self.disk.tables.of(table).range((range.start, range.end)) {
            let key = guard.key()?;
            if put.as_ref().is_some_and(|put| *put <= key) {
                break;
            }
            if !self.changes.contains_key(&(table, key.clone())) {
                return Ok(Some(key));
            }
        }
        Ok(put)
    }

    fn change(&mut self, place: Place, change: Option<Slice>) {
        let before = self.changes.insert(place.clone(), change);
        self.undo.push((place, before));
    }

    fn changes_in(&self, table: Table, range: KeyRange) -> impl Iterator<Item = (&Place, &Option<Slice>)> {
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

impl Rows for Draft<'_> {
    fn value(&self, table: Table, key: &Key) -> Result<Option<Slice>, ReadError> {
        let place = (table, key.to_slice());
        match self.changes.get(&place) {
            Some(change) => Ok(change.clone()),
            None => Ok(self.disk.tables.of(table).get(&place.1)?),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ops::RangeBounds;

    use proptest::prelude::*;
    use proptest::test_runner::TestRunner;

    use super::*;
    use crate::errors::Unmet;
    use crate::store::Location;

    const TABLES: [Table; 3] = [Table::Memberships, Table::Groups, Table::Epochs];

    fn disk() -> Disk {
        Disk::open(&Location::Temporary, 1 << 20).unwrap()
    }

    fn key(bytes: &[u8]) -> Key {
        Key::new().last(bytes)
    }

    fn put(table: Table, bytes: &'static [u8], value: &'static [u8]) -> Step {
        Box::new(move |draft| {
            draft.put(table, &key(bytes), Slice::from(value));
            Ok(())
        })
    }

    fn deliver() -> Step {
        Box::new(|draft| Ok(draft.give_delivery_id().map(|_| ())?))
    }

    /// Precondition: there is no such row.
    fn require_absent(table: Table, bytes: &'static [u8]) -> Step {
        Box::new(
            move |draft| {
                if draft.holds(table, &key(bytes))? { Err(Unmet::SettingExists.into()) } else { Ok(()) }
            },
        )
    }

    #[test]
    fn each_element_sees_those_before_it() {
        let disk = disk();
        let mut draft = Draft::new(&disk, DeliveryId(1));
        let create = || vec![require_absent(Table::Groups, b"a"), put(Table::Groups, b"a", b"1")];
        assert!(draft.run(create()).is_ok());
        assert!(draft.run(create()).is_err());
        draft.write(None).unwrap();
        let mut draft = Draft::new(&disk, DeliveryId(1));
        assert!(draft.run(create()).is_err());
        assert!(draft.is_empty());
    }

    #[test]
    fn an_element_that_is_refused_leaves_nothing() {
        let disk = disk();
        let mut draft = Draft::new(&disk, DeliveryId(7));
        let first = vec![put(Table::Groups, b"a", b"1"), deliver()];
        assert_eq!(draft.run(first).unwrap().deliveries, [DeliveryId(7)]);
        let refused = vec![
            put(Table::Groups, b"a", b"2"),
            put(Table::Groups, b"a", b"3"),
            put(Table::Groups, b"b", b"2"),
            deliver(),
            deliver(),
            require_absent(Table::Groups, b"b"),
        ];
        assert!(draft.run(refused).is_err());
        assert_eq!(draft.run(vec![deliver(), deliver()]).unwrap().deliveries, [DeliveryId(8), DeliveryId(9)]);
        assert_eq!(draft.next_delivery(), DeliveryId(10));
        draft.write(None).unwrap();
        let groups: Vec<_> =
            disk.tables.of(Table::Groups).iter().map(|guard| guard.into_inner().unwrap()).collect();
        assert_eq!(groups, [(Slice::from(b"a"), Slice::from(b"1"))]);
        assert_eq!(disk.next_delivery(), Ok(DeliveryId(10)));
    }

    #[test]
    fn delivery_ids_end_without_a_panic() {
        let disk = disk();
        let mut draft = Draft::new(&disk, DeliveryId(u64::MAX));
        assert!(draft.run(vec![deliver()]).is_err());
        assert!(draft.is_empty());
    }

    type Change = (usize, Vec<u8>, Option<u8>);

    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(prop::sample::select(vec![0, 1, 255]), 1..3)
    }

    /// Disk batches of elements of changes; an element of which the flag is set is refused at its end.
    fn disk_batches() -> impl Strategy<Value = Vec<Vec<(Vec<Change>, bool)>>> {
        let change = (0..TABLES.len(), bytes(), any::<Option<u8>>());
        let element = (prop::collection::vec(change, 0..6), prop::bool::weighted(0.3));
        prop::collection::vec(prop::collection::vec(element, 1..5), 1..4)
    }

    fn steps(element: &[Change], refused: bool) -> Vec<Step> {
        let change = |(table, bytes, value): &Change| -> Step {
            let (table, key, value) = (TABLES[*table], key(bytes), *value);
            Box::new(move |draft| {
                match value {
                    Some(value) => draft.put(table, &key, Slice::from([value])),
                    None => draft.delete(table, &key),
                }
                Ok(())
            })
        };
        let end: Step = Box::new(move |_| if refused { Err(Unmet::SettingExists.into()) } else { Ok(()) });
        element.iter().map(change).chain([end]).collect()
    }

    /// Every row of the tables under test is deleted, so that cases share one disk.
    fn clear(disk: &Disk) {
        let mut draft = Draft::new(disk, DeliveryId(1));
        for table in TABLES {
            for (key, _) in draft.scan(table, KeyRange::all()).unwrap() {
                draft.delete_at(table, key);
            }
        }
        draft.write(None).unwrap();
    }

    fn check(disk: &Disk, batches: Vec<Vec<(Vec<Change>, bool)>>, ranges: &[KeyRange]) {
        clear(disk);
        let mut model: BTreeMap<(usize, Vec<u8>), u8> = BTreeMap::new();
        for batch in batches {
            let mut draft = Draft::new(disk, DeliveryId(1));
            for (element, refused) in batch {
                assert_eq!(draft.run(steps(&element, refused)).is_err(), refused);
                for (table, bytes, value) in element.into_iter().filter(|_| !refused) {
                    match value {
                        Some(value) => model.insert((table, bytes), value),
                        None => model.remove(&(table, bytes)),
                    };
                }
                for range in ranges {
                    check_range(&draft, &model, range);
                }
            }
            draft.write(None).unwrap();
        }
    }

    fn check_range(draft: &Draft<'_>, model: &BTreeMap<(usize, Vec<u8>), u8>, range: &KeyRange) {
        let bounds = (range.start.clone(), range.end.clone());
        for (number, table) in TABLES.into_iter().enumerate() {
            let inside = model.iter().filter(|((of, bytes), _)| *of == number && bounds.contains(bytes));
            let expected: Vec<_> = inside.map(|((_, bytes), value)| (bytes.clone(), vec![*value])).collect();
            let found = draft.scan(table, range.clone()).unwrap();
            let found: Vec<_> = found.iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect();
            assert_eq!(found, expected);
            assert_eq!(draft.any(table, range.clone()), Ok(!expected.is_empty()));
            let first = draft.first_key(table, range.clone()).unwrap();
            assert_eq!(first.as_deref(), expected.first().map(|(key, _)| &key[..]));
            for (bytes, value) in expected {
                assert_eq!(draft.value(table, &key(&bytes)).unwrap().as_deref(), Some(&value[..]));
            }
        }
    }

    #[test]
    fn a_draft_shows_what_was_written_over_what_is_on_disk() {
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
