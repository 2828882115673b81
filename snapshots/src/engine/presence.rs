//! The presence of the store's files at their paths. A process can continue to write to files that were deleted or
//! moved, and loses what it writes.

use std::{
    fs::Metadata,
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

/// The paths of an open store, each with the id of its file when the store was opened.
pub(crate) struct Presence(Vec<(PathBuf, FileId)>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    fn of(metadata: &Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino() }
    }
}

impl Presence {
    /// Remembers the files at these paths.
    pub(crate) fn of(paths: impl IntoIterator<Item = PathBuf>) -> io::Result<Self> {
        let with_id = |path: PathBuf| Ok((path.clone(), FileId::of(&std::fs::metadata(&path)?)));
        paths.into_iter().map(with_id).collect::<io::Result<_>>().map(Self)
    }

    /// Checks that every path still leads to its file; the error names one that does not. It costs about a microsecond for each
    /// path.
    pub(crate) fn check(&self) -> Result<(), String> {
        self.0.iter().try_for_each(|(path, id)| check(path, *id))
    }
}

fn check(path: &Path, id: FileId) -> Result<(), String> {
    match std::fs::metadata(path) {
        Ok(metadata) if FileId::of(&metadata) == id => Ok(()),
        Ok(_) => Err(format!("{} was replaced while the gateway was running", path.display())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(format!("{} was deleted or moved while the gateway was running", path.display()))
        }
        Err(error) => Err(format!("{} cannot be reached any more: {error}", path.display())),
    }
}
