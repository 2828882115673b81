//! Tables as the engine sees them, and the format of their rows.

use std::cmp::Ordering;

use super::Overlay;
use crate::errors::ReadError;

/// One table, named by whoever defines it. Comparing two compares their numbers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Table(&'static TableDefinition);

/// What the engine has to know about a table.
#[derive(Debug)]
pub(crate) struct TableDefinition {
    /// Its place among the tables. 0 is the engine's own.
    pub(crate) number: usize,
    /// Its name on disk.
    pub(crate) name: &'static str,
    /// What its values are like.
    pub(crate) values: Values,
}

/// What the values of a table are like, which decides how they are kept.
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

/// What a store is opened with.
pub(crate) struct Schema {
    /// The tables, in the order of their numbers, without the engine's own.
    pub(crate) tables: &'static [Table],
    /// The format of the rows that this program writes, and the newest that it reads.
    pub(crate) format: u64,
    /// Rewrites the rows of an older format, which it is given, in one disk batch.
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
