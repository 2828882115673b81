//! The format of a backup, version 1: MessagePack values one after another.
//!
//! | value | |
//! |---|---|
//! | header | an array: the text `mimi-gateway backup`, the version of this format, the format of the store's rows, when the backup was made in Unix milliseconds, an array of the names of the tables |
//! | rows | arrays: the number of the table among those names from 0, the key as bytes, the value as bytes; ordered by table and key |
//! | trailer | an array: the number of rows, the SHA-256 of all bytes before this array as bytes |
//!
//! The encoding of each value is the shortest one. A file is read as a stream, and nothing is allocated for a length that the
//! file only claims.

use std::{
    io::{self, BufReader, BufWriter, Read, Write},
    path::Path,
};

use rmp::{Marker, decode, encode};
use sha2::{Digest as _, Sha256};

use super::BackupError;
use crate::{
    engine::{KEY_BYTES_MAX, KeyRange, View, meta},
    errors::ReadError,
    ids::Timestamp,
    store::Store,
};

/// The version of the format that this program writes, and the newest that it reads.
pub const VERSION: u64 = 1;

const NAME: &str = "mimi-gateway backup";
const HEADER_VALUES: u32 = 5;
const ROW_VALUES: u32 = 3;
const TRAILER_VALUES: u32 = 2;
/// The most tables, and the longest name of one, in bytes.
const TABLES_MAX: u32 = 256;
const TABLE_NAME_BYTES_MAX: u32 = 64;
/// The longest value, in bytes.
const VALUE_BYTES_MAX: u64 = 1 << 30;
const DIGEST_BYTES: usize = 32;

/// What a backup holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupSummary {
    /// The version of the backup's format.
    pub version: u64,
    /// The format of the rows in it; see [`Store::FORMAT`].
    pub store_format: u64,
    /// When it was made.
    pub created: Timestamp,
    /// The tables.
    pub tables: Vec<BackupTable>,
    /// The SHA-256 of all that is before the trailer.
    pub digest: [u8; DIGEST_BYTES],
    /// The size of the file, in bytes.
    pub bytes: u64,
}

impl BackupSummary {
    /// The number of rows in all tables.
    pub fn rows(&self) -> u64 {
        self.tables.iter().map(|table| table.rows).sum()
    }
}

/// One table in a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupTable {
    /// Its name.
    pub name: String,
    /// Its rows.
    pub rows: u64,
    /// The size of their keys and values, in bytes.
    pub bytes: u64,
}

/// The two sides through which the bytes of a backup pass: it counts them, and hashes all before the trailer.
struct Hashed<T> {
    inner: T,
    digest: Sha256,
    bytes: u64,
}

impl<T> Hashed<T> {
    fn new(inner: T) -> Self {
        Self { inner, digest: Sha256::new(), bytes: 0 }
    }

    fn passed(&mut self, bytes: &[u8]) {
        self.digest.update(bytes);
        self.bytes = self.bytes.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
    }

    fn digest_so_far(&self) -> [u8; DIGEST_BYTES] {
        self.digest.clone().finalize().into()
    }
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.inner.write_all(buffer)?;
        self.passed(buffer);
        Ok(buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        if let Some(read) = buffer.get(..length) {
            self.passed(read);
        }
        Ok(length)
    }
}

/// The error of an operation on a stream: the stream's own, or that of the store behind it.
enum Failed {
    Io(io::Error),
    Store(ReadError),
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<ReadError> for Failed {
    fn from(error: ReadError) -> Self {
        Self::Store(error)
    }
}

impl From<encode::ValueWriteError> for Failed {
    fn from(error: encode::ValueWriteError) -> Self {
        Self::Io(error.into())
    }
}

/// Writes all that a view shows. `path` names the file in errors.
pub(super) fn write(
    view: &View,
    created: Timestamp,
    out: impl Write,
    path: &Path,
) -> Result<BackupSummary, BackupError> {
    write_values(view, created, out).map_err(|failed| match failed {
        Failed::Io(source) => BackupError::io(path, source),
        Failed::Store(error) => BackupError::Store(error),
    })
}

fn write_values(view: &View, created: Timestamp, out: impl Write) -> Result<BackupSummary, Failed> {
    let mut out = Hashed::new(BufWriter::with_capacity(256 << 10, out));
    encode::write_array_len(&mut out, HEADER_VALUES)?;
    encode::write_str(&mut out, NAME)?;
    encode::write_uint(&mut out, VERSION)?;
    encode::write_uint(&mut out, Store::FORMAT)?;
    encode::write_uint(&mut out, created.0)?;
    let names: Vec<&str> = Store::table_names().collect();
    encode::write_array_len(&mut out, length(names.len())?)?;
    for name in &names {
        encode::write_str(&mut out, name)?;
    }
    let mut tables = Vec::with_capacity(names.len());
    for (number, (table, name)) in view.tables().zip(names).enumerate() {
        let mut summary = BackupTable { name: name.to_owned(), rows: 0, bytes: 0 };
        for row in view.scan(table, KeyRange::all()) {
            let (key, value) = row?;
            if meta::is_of_the_copy(table, &key) {
                continue;
            }
            encode::write_array_len(&mut out, ROW_VALUES)?;
            encode::write_uint(&mut out, u64::from(length(number)?))?;
            for bytes in [&key, &value] {
                encode::write_bin(&mut out, bytes)?;
                summary.bytes += u64::from(length(bytes.len())?);
            }
            summary.rows += 1;
        }
        tables.push(summary);
    }
    let digest = out.digest_so_far();
    encode::write_array_len(&mut out, TRAILER_VALUES)?;
    encode::write_uint(&mut out, tables.iter().map(|table| table.rows).sum())?;
    encode::write_bin(&mut out, &digest)?;
    out.flush()?;
    let bytes = out.bytes;
    Ok(BackupSummary { version: VERSION, store_format: Store::FORMAT, created, tables, digest, bytes })
}

fn length(length: usize) -> Result<u32, Failed> {
    u32::try_from(length).map_err(|_| Failed::Io(io::Error::other("a row is larger than 4 GiB")))
}

/// Reads a backup to its end. Each row goes to `on_row` with the name of its table, before the digest could be checked.
pub(super) fn read<'a>(
    source: impl Read,
    path: &Path,
    known: impl Iterator<Item = &'a str>,
    mut on_row: impl FnMut(&str, &[u8], Vec<u8>) -> Result<(), BackupError>,
) -> Result<BackupSummary, BackupError> {
    let mut reader = BackupReader { source: Hashed::new(BufReader::with_capacity(256 << 10, source)), path };
    let (version, store_format, created) = reader.header()?;
    let known: Vec<&str> = known.collect();
    let mut tables = reader.tables(&known)?;
    let mut last: Option<(usize, Vec<u8>)> = None;
    loop {
        // The next value may be the trailer.
        let before = reader.source.digest.clone();
        match reader.array()? {
            ROW_VALUES => {
                let number = usize::try_from(reader.number()?).unwrap_or(usize::MAX);
                let key = reader.bytes(u64::try_from(KEY_BYTES_MAX).unwrap_or(u64::MAX))?;
                let value = reader.bytes(VALUE_BYTES_MAX)?;
                if key.is_empty() {
                    return Err(reader.damaged("a row has no key"));
                }
                let table = tables.get_mut(number).ok_or_else(|| reader.damaged("a row is of no table"))?;
                let is_first = last.as_ref().is_none_or(|(before, at)| (*before, at) < (number, &key));
                if !is_first {
                    return Err(reader.damaged("its rows are not in order"));
                }
                table.rows += 1;
                let bytes = key.len().saturating_add(value.len());
                table.bytes = table.bytes.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
                on_row(&table.name, &key, value)?;
                last = Some((number, key));
            }
            TRAILER_VALUES => {
                let digest = before.finalize().into();
                let rows = reader.number()?;
                let summary = BackupSummary { version, store_format, created, tables, digest, bytes: 0 };
                if rows != summary.rows() {
                    return Err(reader.damaged(format!("it has {} rows of {rows}", summary.rows())));
                }
                if reader.bytes(u64::try_from(DIGEST_BYTES).unwrap_or(u64::MAX))? != digest {
                    return Err(reader.damaged("its digest is wrong"));
                }
                let bytes = reader.source.bytes;
                return match reader.source.read(&mut [0]) {
                    Ok(0) => Ok(BackupSummary { bytes, ..summary }),
                    Ok(_) => Err(reader.damaged("something follows its end")),
                    Err(error) => Err(BackupError::io(path, error)),
                };
            }
            _ => return Err(reader.damaged("a value of it is neither a row nor its end")),
        }
    }
}

struct BackupReader<'a, R> {
    source: Hashed<BufReader<R>>,
    path: &'a Path,
}

impl<R: Read> BackupReader<'_, R> {
    /// The version, the format of the rows, and the time.
    fn header(&mut self) -> Result<(u64, u64, Timestamp), BackupError> {
        let foreign = || BackupError::NotABackup { path: self.path.to_owned() };
        let mut beginning = [0; 1 + 1 + NAME.len()];
        match self.source.read_exact(&mut beginning) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(foreign()),
            Err(error) => return Err(BackupError::io(self.path, error)),
        }
        let [array, text, name @ ..] = &beginning;
        let markers = [Marker::FixArray(5).to_u8(), Marker::FixStr(19).to_u8()];
        if [*array, *text] != markers || name != NAME.as_bytes() {
            return Err(foreign());
        }
        let newer =
            |what: String, supported| BackupError::Newer { path: self.path.to_owned(), what, supported };
        let version = self.number()?;
        if version > VERSION {
            return Err(newer(format!("version {version}"), VERSION));
        }
        let store_format = self.number()?;
        if store_format > Store::FORMAT {
            return Err(newer(format!("a store of format {store_format}"), Store::FORMAT));
        }
        if version == 0 || store_format == 0 {
            return Err(self.damaged("there is no such format"));
        }
        Ok((version, store_format, Timestamp(self.number()?)))
    }

    fn tables(&mut self, known: &[&str]) -> Result<Vec<BackupTable>, BackupError> {
        let count = self.array()?;
        if count > TABLES_MAX {
            return Err(self.damaged("it has too many tables"));
        }
        let mut tables: Vec<BackupTable> = Vec::new();
        for _ in 0..count {
            let length = self.decoded(decode::read_str_len)?;
            let name = self.exactly(u64::from(length), u64::from(TABLE_NAME_BYTES_MAX))?;
            let name =
                String::from_utf8(name).map_err(|_| self.damaged("the name of a table is not a text"))?;
            if !known.contains(&&*name) || tables.iter().any(|table| table.name == name) {
                return Err(self.damaged(format!("it has a table {name:?} that is not expected")));
            }
            tables.push(BackupTable { name, rows: 0, bytes: 0 });
        }
        Ok(tables)
    }

    fn array(&mut self) -> Result<u32, BackupError> {
        self.decoded(decode::read_array_len)
    }

    fn number(&mut self) -> Result<u64, BackupError> {
        self.decoded(decode::read_int)
    }

    fn bytes(&mut self, max: u64) -> Result<Vec<u8>, BackupError> {
        let length = self.decoded(decode::read_bin_len)?;
        self.exactly(u64::from(length), max)
    }

    /// As many bytes as were claimed. Memory grows only with what the file has.
    fn exactly(&mut self, length: u64, max: u64) -> Result<Vec<u8>, BackupError> {
        if length > max {
            return Err(self.damaged(format!("a value has {length} bytes, more than {max}")));
        }
        let mut bytes = Vec::new();
        let read = (&mut self.source).take(length).read_to_end(&mut bytes);
        let read = read.map_err(|error| BackupError::io(self.path, error))?;
        if u64::try_from(read) != Ok(length) {
            return Err(self.damaged("it ends early"));
        }
        Ok(bytes)
    }

    fn decoded<T, E: std::fmt::Display>(
        &mut self,
        decode: impl FnOnce(&mut Hashed<BufReader<R>>) -> Result<T, E>,
    ) -> Result<T, BackupError> {
        decode(&mut self.source).map_err(|error| {
            BackupError::damaged(self.path, format!("a value of it cannot be read: {error}"))
        })
    }

    fn damaged(&self, what: impl Into<String>) -> BackupError {
        BackupError::damaged(self.path, what)
    }
}
