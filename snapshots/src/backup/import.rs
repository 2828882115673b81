//! Making a store of a backup, in an empty directory.

use std::{
    fs::File,
    io::{self, Seek as _},
    path::Path,
};

use super::{BackupError, BackupSummary, format};
use crate::{engine::new_store::NewStore, store::Store, tables};

/// The rows that are written together, in bytes.
const WRITTEN_BYTES: usize = 4 << 20;

/// Options of an import.
#[derive(Clone, Debug)]
pub struct ImportOptions<'a> {
    /// The size of the read cache, in bytes.
    pub cache_bytes: u64,
    /// Settings that are left out, by their names: those by which others recognise a store.
    pub without_settings: &'a [&'a str],
}

/// Makes a store of a backup, in a directory that is empty or does not exist. The whole file is read and its digest checked before
/// anything is written; the store appears once it is complete and on the disk.
///
/// # Errors
/// [`BackupError`]: the file is not a backup or not whole, the directory is not empty, or the store cannot be written.
pub fn import_backup(
    path: &Path,
    directory: &Path,
    options: &ImportOptions<'_>,
) -> Result<BackupSummary, BackupError> {
    let at = |source| BackupError::io(path, source);
    let mut file = File::open(path).map_err(at)?;
    let checked = format::read(&file, path, Store::table_names(), |_, _, _| Ok(()))?;
    check_empty(directory)?;
    let mut new = NewStore::begin(directory, options.cache_bytes, Store::schema(), checked.store_format)?;
    file.rewind().map_err(at)?;
    let mut waiting = 0;
    let imported = format::read(&file, path, Store::table_names(), |table, key, value| {
        let table = new.table(table).ok_or_else(|| BackupError::damaged(path, "a row is of no table"))?;
        // Peers hold more by now: without their positions, they are asked anew.
        if new.is_its_own(table, key) || tables::is_position(table) {
            return Ok(());
        }
        if options.without_settings.iter().any(|name| tables::is_setting(table, key, name)) {
            return Ok(());
        }
        waiting += key.len().saturating_add(value.len());
        new.put(table, key, value);
        if waiting >= WRITTEN_BYTES {
            waiting = 0;
            new.write()?;
        }
        Ok(())
    })?;
    if imported != checked {
        return Err(BackupError::damaged(path, "it was changed while it was read"));
    }
    new.finish()?;
    Ok(imported)
}

/// Checks that there is nothing in a directory but what an import that failed leaves.
fn check_empty(directory: &Path) -> Result<(), BackupError> {
    let entries = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(|source| BackupError::io(directory, source))?,
    };
    for entry in entries {
        let name = entry.map_err(|source| BackupError::io(directory, source))?.file_name();
        if !NewStore::LEFT_BEHIND.iter().any(|left| name == *left) {
            return Err(BackupError::NotEmpty { path: directory.to_owned() });
        }
    }
    Ok(())
}
