//! Files whose changes are noticed without being told: by their metadata, and then by their content.
//!
//! A poll, and not notifications of the file system, so that renames over a file, network file systems and the symbolic links of
//! mounted configurations all work.

use std::{
    fs,
    io::Read as _,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};

/// The files and their state when they were last looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct WatchedFiles(Vec<(PathBuf, FileState)>);

/// The state of a file. One that cannot be read has neither.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct FileState {
    outline: Option<Outline>,
    /// SHA-256.
    content: Option<[u8; 32]>,
}

/// What changes whenever a file is written or replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Outline {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl WatchedFiles {
    /// Looks at these files. It reads the disk.
    pub(super) fn new(paths: Vec<PathBuf>) -> Self {
        let look = |path: PathBuf| {
            let state = FileState::of(&path, outline(&path));
            (path, state)
        };
        Self(paths.into_iter().map(look).collect())
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Looks at the files again, and returns whether the content of any is another. It reads those whose metadata changed.
    pub(super) fn look_again(&mut self) -> bool {
        let mut is_changed = false;
        for (path, state) in &mut self.0 {
            let outline = outline(path);
            if outline != state.outline {
                let newer = FileState::of(path, outline);
                is_changed |= newer.content != state.content;
                *state = newer;
            }
        }
        is_changed
    }
}

/// The metadata of a regular file, behind all links.
fn outline(path: &Path) -> Option<Outline> {
    let found = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
    Some(Outline {
        device: found.dev(),
        inode: found.ino(),
        bytes: found.size(),
        modified: (found.mtime(), found.mtime_nsec()),
        changed: (found.ctime(), found.ctime_nsec()),
    })
}

impl FileState {
    fn of(path: &Path, outline: Option<Outline>) -> Self {
        Self { outline, content: outline.and_then(|_| hash(path)) }
    }
}

fn hash(path: &Path) -> Option<[u8; 32]> {
    let mut file = fs::File::open(path).ok()?;
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; 1 << 16]);
    loop {
        match file.read(&mut buffer).ok()? {
            0 => return Some(hash.finalize().into()),
            length => hash.update(buffer.get(..length)?),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn changed_content_is_noticed_however_it_is_changed() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::write(path("a"), "one").unwrap();
        fs::create_dir(path("v1")).unwrap();
        fs::create_dir(path("v2")).unwrap();
        fs::write(path("v1/b"), "one").unwrap();
        fs::write(path("v2/b"), "two").unwrap();
        symlink(path("v1"), path("current")).unwrap();
        let mut files = WatchedFiles::new(vec![path("a"), path("current/b"), path("missing")]);
        assert!(!files.is_empty() && !files.look_again());

        // Written again, with the same length.
        fs::write(path("a"), "two").unwrap();
        assert!(files.look_again() && !files.look_again());
        // Touched, and written with the same content.
        fs::File::open(path("a")).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
        assert!(!files.look_again());
        fs::write(path("a"), "two").unwrap();
        assert!(!files.look_again());
        // Another file in its place, as old as the first and as long.
        fs::write(path("new"), "six").unwrap();
        let age = fs::metadata(path("a")).unwrap().modified().unwrap();
        fs::File::open(path("new")).unwrap().set_modified(age).unwrap();
        fs::rename(path("new"), path("a")).unwrap();
        assert!(files.look_again() && !files.look_again());
        // A link on the way that leads elsewhere.
        symlink(path("v2"), path("next")).unwrap();
        fs::rename(path("next"), path("current")).unwrap();
        assert!(files.look_again() && !files.look_again());
        // Gone, and there.
        fs::remove_file(path("a")).unwrap();
        assert!(files.look_again() && !files.look_again());
        fs::write(path("missing"), "").unwrap();
        assert!(files.look_again() && !files.look_again());
    }
}
