//! The check of the engine's lists of tables before the engine reads them.
//!
//! Each keyspace has a file `current`, with the number and the checksum of its list of tables: `v0`, `v1`, and so on. The list, each
//! table and each blob file end with a table of contents, which has a checksum as well. The engine trusts the lengths in them before it
//! compares the checksums, or does not compare them, and a wrong length can end the process for lack of memory. It also takes
//! a keyspace without `current` for one that was never completed, and deletes it.

use std::{
    collections::BTreeSet,
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use xxhash_rust::xxh3::xxh3_128;

use crate::errors::OpenError;

/// The bytes at the end of a file with sections: a magic word, the version, the kind of checksum, the checksum of the table of
/// contents, its place and its length.
const TRAILER_BYTES: usize = 38;
/// A checksum with its kind.
const CHECKSUM_BYTES: usize = 17;
/// The largest table of contents, in bytes; those of the engine have a dozen entries.
const CONTENTS_BYTES_MAX: u64 = 64 << 10;
/// The number of the keyspace in which the engine keeps the names of the others.
const NAMES: u64 = 0;

/// Checks the lists of all keyspaces of a store. `in_journals` are the keyspaces that have rows in the journals.
pub(super) fn check(store: &Path, in_journals: &BTreeSet<u64>) -> Result<(), OpenError> {
    match check_store(store, in_journals) {
        Ok(()) => Ok(()),
        Err(ListError::Io(source)) => Err(OpenError::Io { path: store.to_owned(), source }),
        Err(ListError::Damaged { path, what }) => {
            let file = path.strip_prefix(store).unwrap_or(&path);
            Err(OpenError::Damaged { path: store.to_owned(), what: format!("{}: {what}", file.display()) })
        }
    }
}

enum ListError {
    Io(io::Error),
    Damaged { path: PathBuf, what: &'static str },
}

impl From<io::Error> for ListError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

fn damaged(path: &Path, what: &'static str) -> ListError {
    ListError::Damaged { path: path.to_owned(), what }
}

fn check_store(store: &Path, in_journals: &BTreeSet<u64>) -> Result<(), ListError> {
    let version = store.join("version");
    if !version.try_exists()? {
        // The engine would begin a new store in the same place.
        return Err(damaged(&version, "it is missing"));
    }
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(store.join("keyspaces"))? {
        let entry = entry?;
        let number = entry.file_name().to_str().and_then(|name| name.parse::<u64>().ok());
        if let (Some(number), true) = (number, entry.file_type()?.is_dir()) {
            found.insert(number);
            check_keyspace(&entry.path(), number == NAMES || in_journals.contains(&number))?;
        }
    }
    match in_journals.iter().chain([&NAMES]).find(|number| !found.contains(number)) {
        Some(number) => {
            let path = store.join("keyspaces").join(number.to_string());
            Err(damaged(&path, "it is missing"))
        }
        None => Ok(()),
    }
}

/// Checks one keyspace. Unless it has rows in the journals or on disk, a crash may have left it incomplete.
fn check_keyspace(keyspace: &Path, has_rows: bool) -> Result<(), ListError> {
    let current = keyspace.join("current");
    let bytes = match std::fs::read(&current) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let has_files = !is_empty(&keyspace.join("tables"))? || !is_empty(&keyspace.join("blobs"))?;
            return if has_rows || has_files { Err(damaged(&current, "it is missing")) } else { Ok(()) };
        }
        Err(error) => return Err(error.into()),
    };
    let mut fields = Fields(&bytes);
    let (number, checksum, kind) = (fields.u64(), fields.u128(), fields.u8());
    let (Some(number), Some(checksum), Some(0), []) = (number, checksum, kind, fields.0) else {
        return Err(damaged(&current, "it names no list of tables"));
    };
    let path = keyspace.join(format!("v{number}"));
    let list = match std::fs::read(&path) {
        Ok(list) => list,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(damaged(&path, "it is missing"));
        }
        Err(error) => return Err(error.into()),
    };
    if xxh3_128(&list) != checksum {
        return Err(damaged(&path, "it does not have the checksum in `current`"));
    }
    let Some((tables, blobs)) = listed(&list) else {
        return Err(damaged(&path, "it cannot be read"));
    };
    let tables = tables.into_iter().map(|number| ("tables", number));
    for (folder, number) in tables.chain(blobs.into_iter().map(|number| ("blobs", number))) {
        check_contents(&keyspace.join(folder).join(number.to_string()))?;
    }
    Ok(())
}

fn is_empty(directory: &Path) -> io::Result<bool> {
    match std::fs::read_dir(directory) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}

/// The numbers of the tables and of the blob files in a list, whose checksum is right.
fn listed(list: &[u8]) -> Option<(Vec<u64>, Vec<u64>)> {
    let trailer = list.split_last_chunk::<TRAILER_BYTES>().and_then(|(_, trailer)| Trailer::read(trailer))?;
    let contents = list.get(usize::try_from(trailer.contents).ok()?..)?;
    let mut tables = Fields(section(list, contents, b"tables")?);
    let mut numbers = Vec::new();
    for _ in 0..tables.u8()? {
        for _ in 0..tables.u8()? {
            for _ in 0..tables.u32()? {
                numbers.push(tables.u64()?);
                tables.bytes(CHECKSUM_BYTES + 8)?;
            }
        }
    }
    let mut blobs = Fields(section(list, contents, b"blob_files")?);
    let mut blob_numbers = Vec::new();
    for _ in 0..blobs.u32()? {
        blob_numbers.push(blobs.u64()?);
        blobs.bytes(CHECKSUM_BYTES)?;
    }
    Some((numbers, blob_numbers))
}

/// The bytes of a section, by its name in the table of contents.
fn section<'a>(file: &'a [u8], contents: &[u8], name: &[u8]) -> Option<&'a [u8]> {
    let mut fields = Fields(contents);
    fields.bytes(CONTENTS_MAGIC.len())?;
    for _ in 0..fields.u32()? {
        let (place, length) = (usize::try_from(fields.u64()?).ok()?, usize::try_from(fields.u64()?).ok()?);
        let name_bytes = fields.u16()?;
        if fields.bytes(usize::from(name_bytes))? == name {
            return file.get(place..place.checked_add(length)?);
        }
    }
    None
}

const CONTENTS_MAGIC: &[u8] = b"TOC!";

struct Trailer {
    checksum: u128,
    /// The place of the table of contents, which ends where the trailer begins.
    contents: u64,
}

impl Trailer {
    fn read(bytes: &[u8; TRAILER_BYTES]) -> Option<Self> {
        let mut fields = Fields(bytes);
        let is_known = fields.bytes(4)? == b"SFA!" && fields.u8()? == 1 && fields.u8()? == 0;
        let (checksum, contents) = (fields.u128()?, fields.u64()?);
        is_known.then_some(Self { checksum, contents })
    }
}

/// Checks the table of contents of a table or blob file.
fn check_contents(path: &Path) -> Result<(), ListError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(damaged(path, "it is missing"));
        }
        Err(error) => return Err(error.into()),
    };
    let trailer_place = file
        .metadata()?
        .len()
        .checked_sub(TRAILER_BYTES as u64)
        .ok_or_else(|| damaged(path, "it is too short"))?;
    let mut trailer = [0; TRAILER_BYTES];
    file.read_exact_at(&mut trailer, trailer_place)?;
    let trailer = Trailer::read(&trailer).ok_or_else(|| damaged(path, "its end cannot be read"))?;
    let length = trailer_place.checked_sub(trailer.contents).filter(|length| *length <= CONTENTS_BYTES_MAX);
    let length = length.and_then(|length| usize::try_from(length).ok());
    let length = length.ok_or_else(|| damaged(path, "the place of its contents is wrong"))?;
    let mut contents = vec![0; length];
    file.read_exact_at(&mut contents, trailer.contents)?;
    if !contents.starts_with(CONTENTS_MAGIC) || xxh3_128(&contents) != trailer.checksum {
        return Err(damaged(path, "its table of contents has a wrong checksum"));
    }
    Ok(())
}

/// Bytes that are taken apart, numbers with the least significant byte first.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn bytes(&mut self, length: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.bytes(N)?.try_into().ok()
    }

    fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn u128(&mut self) -> Option<u128> {
        self.array().map(u128::from_le_bytes)
    }
}
