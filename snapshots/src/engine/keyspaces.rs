//! The keyspaces of an open store: one for each table, and the memory that it may use.

use fjall::{Database, Keyspace, KeyspaceCreateOptions, KvSeparationOptions};

use super::{
    meta::META,
    schema::{Schema, Table, Values},
};

/// The part of a file of large values to which nothing leads any more, from which on a compaction writes it anew. By default the engine
/// does so with a quarter of such files at a time, and with none if they are fewer than four.
const STALE_MIN: f32 = 0.5;

/// All keyspaces, at the numbers of their tables.
#[derive(Clone)]
pub(crate) struct Keyspaces(Vec<Keyspace>);

impl Keyspaces {
    /// Opens a keyspace for each table, creating those that are missing.
    pub(crate) fn open(database: &Database, schema: &Schema) -> fjall::Result<Self> {
        let open = |table: Table| database.keyspace(table.name(), || options(table.values()));
        let tables = [META].into_iter().chain(schema.tables.iter().copied());
        tables.map(open).collect::<fjall::Result<_>>().map(Self)
    }

    #[expect(clippy::indexing_slicing, reason = "a schema numbers its tables in their order")]
    pub(crate) fn of(&self, table: Table) -> &Keyspace {
        &self.0[table.number()]
    }
}

fn options(values: Values) -> KeyspaceCreateOptions {
    let separation = KvSeparationOptions::default().staleness_threshold(STALE_MIN).age_cutoff(1.0);
    let separation = (values == Values::Large).then_some(separation);
    KeyspaceCreateOptions::default()
        .max_memtable_size(memory_bytes_max(values))
        .with_kv_separation(separation)
}

/// The size at which a table's part in memory is sealed and written out, in bytes.
fn memory_bytes_max(values: Values) -> u64 {
    match values {
        Values::Small => 4 << 20,
        Values::Frequent | Values::Large => 16 << 20,
    }
}
