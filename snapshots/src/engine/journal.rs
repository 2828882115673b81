//! The engine's journals, as they are before the engine opens them.
//!
//! The engine takes damage in a journal's framing for the end that a crash leaves: it cuts the journal off there, and every batch
//! behind is gone. A batch with a wrong checksum it refuses, even the last one, which a loss of power may have written in part. So
//! the journals are read here first, without changing anything. Each disk batch has its number in a row of its own, and the sequence
//! number at which the engine stood before it; see `meta.rs`. A journal is good if the numbers of its batches follow each other,
//! if the engine's sequence numbers rise, if the checksums of its batches are right, and if its end is not before the newest
//! acknowledged batch, which the [witness](super::witness) knows.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
};

use xxhash_rust::xxh3::Xxh3Default;

use super::{meta, start::OnLoss, witness::BatchStamp};

/// The extension of the engine's journals.
const EXTENSION: &str = "jnl";
/// The bytes at the end of each batch.
const TRAILER: &[u8; 4] = b"FJL\x03";

/// The sequence numbers that the engine may take for its own changes between a look at the next one and a batch; it takes a few.
const SKIPPED_MAX: u64 = 1 << 20;
/// The highest sequence number of a batch that does not say where the engine stood before: those are written when a store is made or
/// converted. The engine takes one for each batch.
const SEQUENCE_MAX: u64 = 1 << 48;

const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const CLEAR: u8 = 4;

/// What the journals of a store hold.
#[derive(Debug, Default)]
pub(super) struct Journals {
    /// The newest sound batch with a number.
    pub(super) newest: Option<BatchStamp>,
    /// The journals, the oldest first.
    pub(super) files: Vec<Journal>,
    /// The engine's numbers of the keyspaces that have rows in them.
    pub(super) keyspaces: BTreeSet<u64>,
}

/// One journal.
#[derive(Debug)]
pub(super) struct Journal {
    pub(super) path: PathBuf,
    /// The place after its last sound batch, in bytes.
    pub(super) end: u64,
    /// The last sound batch; `None` if there is none.
    pub(super) last: Option<FoundBatch>,
    /// What follows the last sound batch.
    pub(super) rest: Rest,
}

/// What follows the last sound batch of a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rest {
    /// Nothing, or the zeros of preallocated space.
    Nothing,
    /// Something that is not a whole batch.
    Torn,
    /// A whole batch with a wrong checksum, and no sound batch after it.
    Unsound,
}

/// The reason why journals are refused.
#[derive(Debug)]
pub(super) enum JournalError {
    /// They cannot be read.
    Io(io::Error),
    /// Batches in their midst are missing, damaged or out of order.
    Damaged(String),
}

impl From<io::Error> for JournalError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// A whole batch in a journal.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FoundBatch {
    /// Its number; `None` for a batch that the engine or the opening of a store has written.
    pub(super) stamp: Option<BatchStamp>,
    /// The engine's sequence number of the batch.
    sequence: u64,
    /// The sequence number at which the engine stood before the batch.
    least: Option<u64>,
    /// Whether its checksum is right.
    is_sound: bool,
}

/// Reads all journals in the engine's directory. Gaps before the batch `known_through` are known and accepted. A journal that
/// goes on after an unsound batch is refused, unless a loss is accepted: then it ends there.
pub(super) fn read(store: &Path, known_through: u64, on_loss: OnLoss) -> Result<Journals, JournalError> {
    let mut journals = Journals::default();
    let mut last: Option<FoundBatch> = None;
    let mut unsound: Option<PathBuf> = None;
    for path in paths(store)? {
        let mut reader = Reader::open(&path)?;
        let mut journal = Journal { path, end: 0, last: None, rest: Rest::Nothing };
        while let Some(found) = reader.next_batch()? {
            let at = |what| JournalError::Damaged(format!("{what} in {}", journal.path.display()));
            if !found.is_sound {
                unsound.get_or_insert_with(|| journal.path.clone());
                if on_loss == OnLoss::Accept {
                    break;
                }
                continue;
            }
            if let Some(path) = unsound {
                let what = format!("a batch that others follow has a wrong checksum in {}", path.display());
                return Err(JournalError::Damaged(what));
            }
            let number = found.stamp.map(|stamp| stamp.number);
            let is_known = number.is_some_and(|number| number <= known_through);
            if !is_known {
                check_order(last.as_ref(), &found).map_err(at)?;
            }
            journals.newest = found.stamp.or(journals.newest);
            last = Some(FoundBatch { stamp: journals.newest, ..found });
            (journal.last, journal.end) = (Some(found), reader.position);
        }
        journal.rest = match &unsound {
            Some(path) if *path == journal.path => Rest::Unsound,
            _ if reader.is_torn()? => Rest::Torn,
            _ => Rest::Nothing,
        };
        if on_loss == OnLoss::Accept {
            // What follows is in another journal, and its order is checked.
            unsound = None;
        }
        journals.keyspaces.append(&mut reader.keyspaces);
        journals.files.push(journal);
    }
    Ok(journals)
}

/// Checks that a batch can follow the one before it.
fn check_order(before: Option<&FoundBatch>, found: &FoundBatch) -> Result<(), String> {
    let FoundBatch { stamp, sequence, least, .. } = *found;
    if least.is_some_and(|least| sequence < least) {
        return Err(format!("a batch has the sequence number {sequence}, which is too low"));
    }
    // No checksum covers it, and the engine stops when it has no higher one.
    if sequence > least.map_or(SEQUENCE_MAX, |least| least.saturating_add(SKIPPED_MAX)) {
        return Err(format!("a batch has the sequence number {sequence}, which is too high"));
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
    /// The bytes that were read.
    position: u64,
    /// The bytes that are not read yet.
    left: u64,
    /// The checksum of the rows of the batch that is read.
    hasher: Xxh3Default,
    keyspaces: BTreeSet<u64>,
    stopped: Option<Stop>,
}

impl Reader {
    fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let left = file.metadata()?.len();
        Ok(Self {
            file: BufReader::with_capacity(64 << 10, file),
            position: 0,
            left,
            hasher: Xxh3Default::new(),
            keyspaces: BTreeSet::new(),
            stopped: None,
        })
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
        self.hasher.reset();
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
        let checksum = self.hasher.digest();
        if self.byte()? != END {
            return Ok(Err(Stop::InBatch));
        }
        found.is_sound = u64::from_le_bytes(self.array()?) == checksum;
        if self.array()? != *TRAILER {
            return Ok(Err(Stop::InBatch));
        }
        Ok(Ok(found))
    }

    /// Reads a row; returns whether it can be one.
    fn item(&mut self, found: &mut FoundBatch) -> io::Result<bool> {
        let [kind, compression] = self.array()?;
        let keyspace = u64::from_le_bytes(self.array()?);
        let key_bytes = u16::from_le_bytes(self.array()?);
        let value_bytes = u32::from_le_bytes(self.array()?);
        let stored_bytes = u32::from_le_bytes(self.array()?);
        if kind > 2 || compression != 0 || value_bytes != stored_bytes {
            return Ok(false);
        }
        self.keyspaces.insert(keyspace);
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
        io::Read::read_exact(&mut self.file, &mut bytes)?;
        self.hasher.update(&bytes);
        Ok(bytes)
    }

    /// Reads bytes for the checksum alone.
    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        self.count(bytes)?;
        let mut left = usize::try_from(bytes).map_err(io::Error::other)?;
        while left > 0 {
            let buffer = self.file.fill_buf()?;
            let read = buffer.get(..left).unwrap_or(buffer);
            if read.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.hasher.update(read);
            let length = read.len();
            self.file.consume(length);
            left -= length;
        }
        Ok(())
    }

    /// Counts bytes that are about to be read, which the file must have.
    fn count(&mut self, bytes: u64) -> io::Result<()> {
        self.left = self.left.checked_sub(bytes).ok_or(io::ErrorKind::UnexpectedEof)?;
        self.position += bytes;
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
