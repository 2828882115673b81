//! The data directory: made for the gateway's user alone, and locked by the process that has it open.

use std::{
    fs::{DirBuilder, File, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use crate::errors::OpenError;

/// A file or directory that is made next to the place that it is to take. It is removed if it does not take it.
pub(super) struct Unfinished {
    path: PathBuf,
    has_moved: bool,
}

impl Unfinished {
    pub(super) const fn new(path: PathBuf) -> Self {
        Self { path, has_moved: false }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Moves it, which must be on the disk, to its place, and makes sure that the move is on the disk as well.
    pub(super) fn take_place(mut self, place: &Path) -> io::Result<()> {
        std::fs::rename(&self.path, place)?;
        self.has_moved = true;
        place.parent().map_or(Ok(()), sync_directory)
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if self.has_moved {
            return;
        }
        let removed = match self.path.symlink_metadata() {
            Ok(found) if found.is_dir() => std::fs::remove_dir_all(&self.path),
            Ok(_) => std::fs::remove_file(&self.path),
            Err(error) => Err(error),
        };
        if let Err(error) = removed
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.path.display(), %error, "what was not finished could not be removed");
        }
    }
}

/// Makes sure that the names in a directory are on the disk.
pub(super) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Makes a directory for the gateway's user alone, because the store holds who talks with whom; those above it are as usual.
pub(super) fn make_private(directory: &Path) -> io::Result<()> {
    if let Some(above) = directory.parent() {
        std::fs::create_dir_all(above)?;
    }
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && directory.is_dir() => Ok(()),
        made => made,
    }
}

pub(super) fn warn_if_others_read(directory: &Path) {
    let mode = directory.metadata().map_or(0, |metadata| metadata.permissions().mode() & 0o777);
    if mode & 0o077 != 0 {
        tracing::warn!(
            directory = %directory.display(),
            mode = format!("{mode:03o}"),
            "other users of the machine have access to the data directory: chmod 700 ends that"
        );
    }
}

/// Locks a data directory for this process.
pub(super) fn lock(directory: &Path) -> Result<File, OpenError> {
    let io_error = |source| OpenError::Io { path: directory.to_owned(), source };
    let options = File::options().create(true).truncate(false).write(true).open(directory.join("lock"));
    let file = options.map_err(io_error)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse { path: directory.to_owned() }),
        Err(TryLockError::Error(error)) => Err(io_error(error)),
    }
}
