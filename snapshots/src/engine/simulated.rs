//! A simulated disk: tables in memory, which outlive the stores that are opened on them, and one disk batch on its way.
//!
//! A disk batch has three moments: it is begun, it has reached the disk, its writers are answered. The simulation decides when
//! each of them comes, and a process that ends between two of them is a crash there. One that was begun and has not reached the
//! disk is there afterwards, whole, or it is not: the engine's journal has a checksum over each batch, so that a torn one is
//! none.

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{
    Slice,
    append_queue::AppendQueue,
    committer::{Committer, Writing},
    disk::Changes,
    keys::KeyRange,
    schema::Table,
};

/// A simulated disk. Clones are the same disk.
#[derive(Clone, Default)]
pub struct SimulatedDisk(Arc<Mutex<Medium>>);

#[derive(Default)]
struct Medium {
    tables: Arc<Tables>,
    /// The batch that was begun and has not reached the disk.
    under_way: Option<Changes>,
    /// Those that have.
    batches: u64,
    fault: Option<DiskFault>,
}

/// A fault of a disk, to prove that a simulation finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskFault {
    /// A crash leaves the half of a batch that was on its way.
    TearsBatches,
    /// Rows that are put into the table of this name are not there.
    Loses(&'static str),
    /// Rows that are deleted from the table of this name stay.
    Keeps(&'static str),
}

/// The rows of a table, by their keys.
type RowsOfTable = BTreeMap<Slice, Slice>;

/// All tables at one moment, at their numbers.
#[derive(Clone, Default)]
pub(crate) struct Tables(Vec<Arc<RowsOfTable>>);

/// Rows of a table in the order of their keys, from both ends.
pub(crate) struct SimulatedRows {
    rows: Arc<RowsOfTable>,
    range: KeyRange,
}

impl SimulatedDisk {
    /// What a process that ends now leaves: `keeps` says whether a batch that is under way has reached the disk.
    pub fn crash(&self, keeps: bool) {
        let mut medium = self.medium();
        let Some(mut changes) = medium.under_way.take() else { return };
        if medium.fault == Some(DiskFault::TearsBatches) {
            let half = changes.len() / 2;
            changes = changes.into_iter().take(half).collect();
        } else if !keeps {
            return;
        }
        medium.apply(changes);
    }

    /// From now on the disk has this fault.
    pub fn inject(&self, fault: DiskFault) {
        self.medium().fault = Some(fault);
    }

    /// Whether a batch was begun and has not reached the disk.
    pub fn is_writing(&self) -> bool {
        self.medium().under_way.is_some()
    }

    pub(super) fn tables(&self) -> Arc<Tables> {
        Arc::clone(&self.medium().tables)
    }

    /// The number of disk batches that have reached it.
    pub fn batches(&self) -> u64 {
        self.medium().batches
    }

    pub(super) fn write(&self, changes: Changes) {
        self.medium().apply(changes);
    }

    fn begin(&self, changes: Changes) {
        self.medium().under_way = Some(changes);
    }

    fn medium(&self) -> MutexGuard<'_, Medium> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Medium {
    fn apply(&mut self, changes: Changes) {
        let Tables(tables) = Arc::make_mut(&mut self.tables);
        for ((table, key), change) in changes {
            if tables.len() <= table.number() {
                tables.resize_with(table.number() + 1, Arc::default);
            }
            let Some(rows) = tables.get_mut(table.number()).map(Arc::make_mut) else { continue };
            match (change, self.fault) {
                (Some(_), Some(DiskFault::Loses(name))) | (None, Some(DiskFault::Keeps(name)))
                    if name == table.name() => {}
                (Some(value), _) => {
                    rows.insert(key, value);
                }
                (None, _) => {
                    rows.remove(&key);
                }
            }
        }
        self.batches += 1;
    }
}

impl Tables {
    fn of(&self, table: Table) -> Option<&Arc<RowsOfTable>> {
        self.0.get(table.number())
    }

    pub(super) fn value(&self, table: Table, key: &[u8]) -> Option<Slice> {
        self.of(table)?.get(key).cloned()
    }

    pub(super) fn range(&self, table: Table, range: KeyRange) -> SimulatedRows {
        SimulatedRows { rows: self.of(table).cloned().unwrap_or_default(), range }
    }

    pub(super) fn rows(&self, table: Table) -> usize {
        self.of(table).map_or(0, |rows| rows.len())
    }
}

impl SimulatedRows {
    fn left(&self) -> Option<std::collections::btree_map::Range<'_, Slice, Slice>> {
        let KeyRange { start, end } = &self.range;
        let bounds = (start.as_ref().map(|key| &key[..]), end.as_ref().map(|key| &key[..]));
        (!self.range.is_empty()).then(|| self.rows.range::<[u8], _>(bounds))
    }
}

impl Iterator for SimulatedRows {
    type Item = (Slice, Slice);

    fn next(&mut self) -> Option<(Slice, Slice)> {
        let (key, value) = self.left()?.next()?;
        let row = (key.clone(), value.clone());
        self.range.start = Bound::Excluded(row.0.to_vec());
        Some(row)
    }
}

impl DoubleEndedIterator for SimulatedRows {
    fn next_back(&mut self) -> Option<(Slice, Slice)> {
        let (key, value) = self.left()?.next_back()?;
        let row = (key.clone(), value.clone());
        self.range.end = Bound::Excluded(row.0.to_vec());
        Some(row)
    }
}

/// The committer of a store on a simulated disk: it has no thread, and the simulation runs it.
pub(crate) struct SteppedCommitter {
    disk: SimulatedDisk,
    committer: Mutex<Committer>,
    queue: Arc<AppendQueue>,
}

/// A disk batch on its way. Dropping it is a crash of the process.
pub struct SimulatedWrite {
    stepped: Arc<SteppedCommitter>,
    writing: Writing,
}

impl SteppedCommitter {
    pub(crate) fn new(disk: SimulatedDisk, committer: Committer, queue: Arc<AppendQueue>) -> Arc<Self> {
        Arc::new(Self { disk, committer: Mutex::new(committer), queue })
    }

    /// Begins to write the batches that wait.
    pub(crate) fn begin(self: &Arc<Self>) -> Option<SimulatedWrite> {
        let waiting = self.queue.take_now()?;
        let writing = self.committer().begin(waiting);
        self.disk.begin(writing.changes.clone());
        Some(SimulatedWrite { stepped: Arc::clone(self), writing })
    }

    fn committer(&self) -> MutexGuard<'_, Committer> {
        self.committer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SimulatedWrite {
    /// The batch reaches the disk: from now on readers see it, and a crash does not lose it.
    pub fn reach_disk(&mut self) {
        self.stepped.disk.medium().under_way = None;
        if let Err(reason) = self.stepped.committer().put(&mut self.writing) {
            self.stepped.queue.fail(&reason);
        }
    }

    /// Answers its writers.
    pub fn answer(self) {
        self.stepped.committer().answer(self.writing.outcomes, None);
    }

    /// A fault: answers its writers before it has reached the disk.
    pub fn answer_early(&mut self) {
        let outcomes = std::mem::take(&mut self.writing.outcomes);
        self.stepped.committer().answer(outcomes, None);
    }

    /// The disk fails: the store takes no more, and its writers are told. The batch may have reached the disk.
    pub fn fail(self, reason: &str) {
        self.stepped.queue.fail(reason);
        self.stepped.committer().answer(self.writing.outcomes, Some(reason));
    }
}
