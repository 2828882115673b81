//! The data directory: made for the gateway's user alone, and locked by the process that has it open.

use std::{
    fs::{DirBuilder, File, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::Path,
};

use crate::errors::OpenError;

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
