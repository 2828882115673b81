//! Backups: one moment of the whole store as one file.
//!
//! A backup is a sequence of MessagePack values: a header, a row of each table after another, a trailer with a digest. `format.rs`
//! has their layout, `file.rs` writes one to a file, `import.rs` makes a store of one.
//!
//! A backup holds all that the store holds: clients, groups with their messages, key packages, welcomes, settings. Tokens are in
//! it as hashes only.

mod error;
mod file;
mod format;
mod import;

use std::path::Path;

pub use self::{
    error::BackupError,
    file::{publish_file, write_backup, write_backup_while},
    format::{BackupSummary, BackupTable, VERSION as BACKUP_VERSION},
    import::{ImportOptions, import_backup},
};
use crate::store::Store;

/// Reads a backup to its end, checks its structure and its digest, and says what is in it.
///
/// # Errors
/// [`BackupError`] says what is wrong with the file.
pub fn inspect_backup(path: &Path) -> Result<BackupSummary, BackupError> {
    let file = std::fs::File::open(path).map_err(|source| BackupError::io(path, source))?;
    format::read(file, path, Store::table_names(), |_, _, _| Ok(()))
}
