//! The check of the engine's journals before the engine opens them.
//!
//! The engine takes damage in a journal's framing for the end that a crash leaves: it cuts the journal off there, and every batch
//! behind is gone. So the journals are read here first, without changing anything. Each disk batch has its number in a row of its
//! own, and the sequence number at which the engine stood before it; see `meta.rs`. A journal is good if the numbers of its batches
//! follow each other, if the engine's sequence numbers rise, and if its end is not before the newest acknowledged batch, which the
//! [witness](super::witness) knows.
//!
//! What a batch contains is covered by a checksum that the engine verifies itself, and refuses.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::{Path, PathBuf},
};

use super::{meta, witness::BatchStamp};

/// The extension of the engine's journals.
const EXTENSION: &str = "jnl";
/// The bytes at the end of each batch.
const TRAILER: &[u8; 4] = b"FJL\x03";

const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const CLEAR: u8 = 4;

/// What the journals of a store hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Journals {
    /// The newest whole batch with a number.
    pub(super) newest: Option<BatchStamp>,
    /// The newest journal, if it ends with something that is not a whole batch.
    pub(super) torn: Option<PathBuf>,
}

/// The reason why journals are refused.
#[derive(Debug)]
pub(super) enum JournalError {
    /// They cannot be read.
    Io(io::Error),
    /// Batches in their midst are missing, or out of order.
    Damaged(String),
}

impl From<io::Error> for JournalError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// A whole batch in a journal.
#[derive(Clone, Copy, Debug, Default)]
struct FoundBatch {
    /// Its number; `None` for a batch that the engine or the opening of a store has written.
    stamp: Option<BatchStamp>,
    /// The engine's sequence number of the batch.
    sequence: u64,
    /// The sequence number at which the engine stood before the batch.
    least: Option<u64>,
}

/// Reads all journals in the engine's directory. Gaps before the batch `known_through` are known and accepted.
pub(super) fn read(store: &Path, known_through: u64) -> Result<Journals, JournalError> {
    let mut journals = Journals::default();
    let mut last: Option<FoundBatch> = None;
    for path in paths(store)? {
        let mut reader = Reader::open(&path)?;
        while let Some(found) = reader.next_batch()? {
            let number = found.stamp.map(|stamp| stamp.number);
            let is_known = number.is_some_and(|number| number <= known_through);
            if !is_known {
                check_order(last.as_ref(), &found)
                    .map_err(|what| JournalError::Damaged(format!("{what} in {}", path.display())))?;
            }
            journals.newest = found.stamp.or(journals.newest);
            last = Some(FoundBatch { stamp: journals.newest, ..found });
        }
        journals.torn = reader.is_torn()?.then_some(path);
    }
    Ok(journals)
}

/// Checks that a batch can follow the one before it.
fn check_order(before: Option<&FoundBatch>, found: &FoundBatch) -> Result<(), String> {
    let FoundBatch { stamp, sequence, least } = *found;
    if least.is_some_and(|least| sequence < least) {
        return Err(format!("a batch has the sequence number {sequence}, which is too low"));
    }
    let Some(before) = before else { return Ok(()) };
    if sequence <= before.sequence {
        return Err(format!("the sequence number {sequence} does not follow {}", before.sequence));
    }
    match (before.stamp, stamp) {
        (Some(before), Some(stamp)) if before.number.checked_add(1) != Some(stamp.number) => {
            Err(format!("batch {} follows batch {}", stamp.number, before.number))
        }
        (Some(_) | None, Some(_) | None) => Ok(()),
    }
}

/// The journals, the oldest first. A name that is not a journal's is left to the engine.
fn paths(store: &Path) -> io::Result<Vec<PathBuf>> {
    let mut numbered = Vec::new();
    for entry in std::fs::read_dir(store)? {
        let path = entry?.path();
        let number =
            path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse::<u64>().ok());
        if let (Some(number), true) = (number, path.extension().is_some_and(|end| end == EXTENSION)) {
            numbered.push((number, path));
        }
    }
    numbered.sort();
    Ok(numbered.into_iter().map(|(_, path)| path).collect())
}

/// The place at which the batches of a journal end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    /// The file has no further byte, or one that begins no batch.
    AtBatch,
    /// A batch begins, and is not whole.
    InBatch,
}

struct Reader {
    file: BufReader<File>,
    /// The bytes that are not read yet.
    left: u64,
    stopped: Option<Stop>,
}

impl Reader {
    fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let left = file.metadata()?.len();
        Ok(Self { file: BufReader::with_capacity(64 << 10, file), left, stopped: None })
    }

    /// The next whole batch; `None` from the first place on where there is none.
    fn next_batch(&mut self) -> io::Result<Option<FoundBatch>> {
        if self.stopped.is_some() {
            return Ok(None);
        }
        let found = self.batch();
        match found {
            Ok(Ok(found)) => Ok(Some(found)),
            Ok(Err(stop)) => {
                self.stopped = Some(stop);
                Ok(None)
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                self.stopped = Some(Stop::InBatch);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn batch(&mut self) -> io::Result<Result<FoundBatch, Stop>> {
        if self.file.fill_buf()?.first() != Some(&START) {
            return Ok(Err(Stop::AtBatch));
        }
        self.skip(1)?;
        let count = u32::from_le_bytes(self.array()?);
        let mut found = FoundBatch { sequence: u64::from_le_bytes(self.array()?), ..FoundBatch::default() };
        for _ in 0..count {
            let is_good = match self.byte()? {
                ITEM => self.item(&mut found)?,
                CLEAR => {
                    self.skip(8)?;
                    true
                }
                _ => false,
            };
            if !is_good {
                return Ok(Err(Stop::InBatch));
            }
        }
        if self.byte()? != END {
            return Ok(Err(Stop::InBatch));
        }
        self.skip(8)?;
        if self.array()? != *TRAILER {
            return Ok(Err(Stop::InBatch));
        }
        Ok(Ok(found))
    }

    /// Reads a row; returns whether it can be one.
    fn item(&mut self, found: &mut FoundBatch) -> io::Result<bool> {
        let [kind, compression] = self.array()?;
        self.skip(8)?;
        let key_bytes = u16::from_le_bytes(self.array()?);
        let value_bytes = u32::from_le_bytes(self.array()?);
        let stored_bytes = u32::from_le_bytes(self.array()?);
        if kind > 2 || compression != 0 || value_bytes != stored_bytes {
            return Ok(false);
        }
        if key_bytes != 1 {
            self.skip(u64::from(key_bytes) + u64::from(stored_bytes))?;
            return Ok(true);
        }
        // Only the engine's own rows have such a short key.
        let key = self.array::<1>()?;
        if key == meta::BATCH_STAMP && stored_bytes == 16 {
            found.stamp = BatchStamp::from_bytes(&self.array::<16>()?);
        } else if key == meta::BATCH_SEQUENCE && stored_bytes == 8 {
            found.least = Some(u64::from_be_bytes(self.array()?));
        } else {
            self.skip(u64::from(stored_bytes))?;
        }
        Ok(true)
    }

    fn byte(&mut self) -> io::Result<u8> {
        self.array().map(u8::from_be_bytes)
    }

    fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.count(u64::try_from(N).unwrap_or(u64::MAX))?;
        self.file.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        self.count(bytes)?;
        self.file.seek_relative(i64::try_from(bytes).map_err(io::Error::other)?)
    }

    /// Counts bytes that are about to be read, which the file must have.
    fn count(&mut self, bytes: u64) -> io::Result<()> {
        self.left = self.left.checked_sub(bytes).ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok(())
    }

    /// Whether something other than the zeros of preallocated space follows the last whole batch.
    fn is_torn(&mut self) -> io::Result<bool> {
        if self.stopped == Some(Stop::InBatch) {
            return Ok(true);
        }
        loop {
            let bytes = self.file.fill_buf()?;
            if bytes.is_empty() {
                return Ok(false);
            }
            if bytes.iter().any(|byte| *byte != 0) {
                return Ok(true);
            }
            let length = bytes.len();
            self.file.consume(length);
        }
    }
}
