//! Tables as the engine sees them, and the format of their rows.

use std::cmp::Ordering;

use super::{Overlay, usage::Counting};
use crate::errors::ReadError;

/// One table, by its definition. Tables compare by number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Table(&'static TableDefinition);

/// The engine's view of a table.
#[derive(Debug)]
pub(crate) struct TableDefinition {
    /// Its number, from 1; 0 is the engine's own table.
    pub(crate) number: usize,
    /// Its name on disk.
    pub(crate) name: &'static str,
    /// The kind of its values.
    pub(crate) values: Values,
    /// What its rows count as; `None` for nothing.
    pub(crate) counting: Option<Counting>,
}

/// The kinds of values; the kind of a table decides how it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Values {
    /// Small ones.
    Small,
    /// Small ones that most batches write.
    Frequent,
    /// Packets, trees and snapshots: they are kept apart from their keys, so that compaction does not copy them.
    Large,
}

impl Table {
    pub(crate) const fn new(definition: &'static TableDefinition) -> Self {
        Self(definition)
    }

    pub(crate) const fn number(self) -> usize {
        self.0.number
    }

    pub(crate) const fn name(self) -> &'static str {
        self.0.name
    }

    pub(crate) const fn values(self) -> Values {
        self.0.values
    }

    pub(crate) const fn counting(self) -> Option<Counting> {
        self.0.counting
    }
}

impl PartialEq for Table {
    fn eq(&self, other: &Self) -> bool {
        self.number() == other.number()
    }
}

impl Eq for Table {}

impl PartialOrd for Table {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Table {
    fn cmp(&self, other: &Self) -> Ordering {
        self.number().cmp(&other.number())
    }
}

/// The tables and the format of a store.
pub(crate) struct Schema {
    /// The tables, in the order of their numbers, without the engine's own.
    pub(crate) tables: &'static [Table],
    /// The format of the rows that this program writes, and the newest that it reads.
    pub(crate) format: u64,
    /// Rewrites the rows of the older format that it is given, in one disk batch.
    pub(crate) convert: fn(&mut Overlay<'_>, u64) -> Result<(), ReadError>,
}

impl Schema {
    /// Fails to compile if the tables are not numbered from 1 in their order.
    pub(crate) const fn new(
        tables: &'static [Table],
        format: u64,
        convert: fn(&mut Overlay<'_>, u64) -> Result<(), ReadError>,
    ) -> Self {
        let (mut rest, mut number) = (tables, 1);
        while let [first, others @ ..] = rest {
            assert!(first.number() == number, "tables are numbered from 1 in their order");
            (rest, number) = (others, number + 1);
        }
        Self { tables, format, convert }
    }
}
