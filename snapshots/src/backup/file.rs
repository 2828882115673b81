//! Writing a backup to a file: under a temporary name beside its place, for the owner alone, synced, and then renamed.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use super::{BackupError, BackupSummary, format};
use crate::{engine::View, ids::Timestamp};

/// Writes all that a view shows to a new file, which only the user who runs this program can read. It appears once it is complete and
/// on the disk; a file of this name is not replaced. It blocks the thread for as long as reading the whole store takes.
///
/// # Errors
/// [`BackupError::Exists`], [`BackupError::Io`] when the file cannot be written, [`BackupError::Store`] when the store cannot be
/// read. Nothing is left of a backup that failed.
pub fn write_backup(view: &View, created: Timestamp, path: &Path) -> Result<BackupSummary, BackupError> {
    write_backup_while(view, created, path, || true)
}

/// As [`write_backup`], but it ends with [`BackupError::Io`] once it is no longer wanted, which is asked before each
/// part.
///
/// # Errors
/// As [`write_backup`].
pub fn write_backup_while(
    view: &View,
    created: Timestamp,
    path: &Path,
    is_wanted: impl Fn() -> bool,
) -> Result<BackupSummary, BackupError> {
    let at = |source| BackupError::io(path, source);
    let name = path.file_name().ok_or_else(|| at(io::ErrorKind::InvalidInput.into()))?;
    if path.symlink_metadata().is_ok() {
        return Err(BackupError::Exists { path: path.to_owned() });
    }
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut unfinished = std::ffi::OsString::from(".");
    unfinished.push(name);
    unfinished.push(format!(".{}.unfinished", uuid::Uuid::new_v4().simple()));
    let unfinished = directory.join(unfinished);
    let written = write_and_sync(view, created, (&unfinished, path), &is_wanted).and_then(|summary| {
        publish_file(&unfinished, path).map_err(|error| {
            let exists = error.kind() == io::ErrorKind::AlreadyExists;
            if exists { BackupError::Exists { path: path.to_owned() } } else { at(error) }
        })?;
        Ok(summary)
    });
    if written.is_err() {
        // What is left is removed at the next start.
        let _ = std::fs::remove_file(&unfinished);
    }
    written
}

/// Gives a complete file its name, which no file may have, and syncs the directory. If that fails, no file has the name.
///
/// # Errors
/// [`io::ErrorKind::AlreadyExists`] when a file has the name, and every other error of the file system.
pub fn publish_file(unfinished: &Path, path: &Path) -> io::Result<()> {
    // Unlike a rename, a link replaces nothing. Some file systems have none; there the name is taken first.
    let named = match std::fs::hard_link(unfinished, path) {
        Ok(()) => std::fs::remove_file(unfinished),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(error),
        Err(_) => {
            File::create_new(path)?;
            std::fs::rename(unfinished, path)
        }
    };
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    named.and_then(|()| File::open(directory)?.sync_all()).inspect_err(|_| {
        // Its name was free, and it is not certain that it is a whole file: no one is to take it for one.
        let _ = std::fs::remove_file(path);
    })
}

fn write_and_sync(
    view: &View,
    created: Timestamp,
    (unfinished, path): (&Path, &Path),
    is_wanted: &impl Fn() -> bool,
) -> Result<BackupSummary, BackupError> {
    let at = |source| BackupError::io(path, source);
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(unfinished).map_err(at)?;
    let summary = format::write(view, created, Wanted { file: &file, is_wanted }, path)?;
    file.sync_all().map_err(at)?;
    Ok(summary)
}

/// A file that is written while it is wanted.
struct Wanted<'a, F> {
    file: &'a File,
    is_wanted: F,
}

impl<F: Fn() -> bool> Write for Wanted<'_, F> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        // Not of the kind that means that a write is to be tried again.
        if (self.is_wanted)() {
            self.file.write(buffer)
        } else {
            Err(io::ErrorKind::ConnectionAborted.into())
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_given_to_a_whole_file_or_to_none() {
        let directory = tempfile::tempdir().unwrap();
        let (unfinished, path) = (directory.path().join(".unfinished"), directory.path().join("backup"));
        // Neither a link nor a rename succeeds.
        publish_file(&unfinished, &path).unwrap_err();
        assert!(!path.exists());
        std::fs::write(&unfinished, "whole").unwrap();
        publish_file(&unfinished, &path).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"whole");
        assert!(!unfinished.exists());
        // A file that has the name stays.
        std::fs::write(&unfinished, "another").unwrap();
        assert_eq!(publish_file(&unfinished, &path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(&path).unwrap(), b"whole");
    }
}
