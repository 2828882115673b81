//! Errors of backups, each with its remedy where there is one.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::errors::{OpenError, ReadError};

/// The reason why a backup was not written, read or imported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The error of the file system.
        source: io::Error,
    },
    /// The file is something else.
    #[error("{} is not a backup of a MIMI gateway", path.display())]
    NotABackup {
        /// The file.
        path: PathBuf,
    },
    /// A later version of this program wrote it.
    #[error("{} is of {what}, this program reads up to {supported}: use a newer program", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// The format on disk, in words.
        what: String,
        /// The newest that this program reads.
        supported: u64,
    },
    /// It is incomplete or damaged.
    #[error("{} is incomplete or damaged: {what}. Use another backup", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The damage.
        what: String,
    },
    /// The file exists already.
    #[error("{} exists already: choose another name", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// A backup is imported into an empty directory only.
    #[error("{} is not empty: import into a new directory, or move what is in this one away first", path.display())]
    NotEmpty {
        /// The directory.
        path: PathBuf,
    },
    /// The store cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The store cannot be read or written.
    #[error(transparent)]
    Store(#[from] ReadError),
}

impl BackupError {
    pub(super) fn io(path: &Path, source: io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }

    pub(super) fn damaged(path: &Path, what: impl Into<String>) -> Self {
        Self::Damaged { path: path.to_owned(), what: what.into() }
    }
}
