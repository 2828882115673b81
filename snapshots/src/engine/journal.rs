//! The engine's journals, as they are before the engine opens them.
//!
//! The engine takes damage in a journal's framing for the end that a crash leaves: it cuts the journal off there, and every batch
//! behind is gone. A batch with a wrong checksum it refuses, even the last one, which a loss of power may have written in part. So
//! the journals are read here first, without changing anything. Each disk batch has its number in a row of its own, and the sequence
//! number at which the engine stood before it; see `meta.rs`. A journal is good if the numbers of its batches follow each other,
//! if the engine's sequence numbers rise, if the checksums of its batches are right, and if its end is not before the newest
//! acknowledged batch, which the [witness](super::witness) knows.
//!
//! Each disk batch is synced before the next one is written, so a loss of power leaves at most one that is not whole, and nothing
//! behind it. Whatever follows a batch that is not whole shows that this one was on the disk, and was damaged later.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, BufRead, BufReader, Read as _, Seek as _},
    ops::Range,
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
    /// The numbered batches that are missing in their midst, or are left out as damaged, because a loss is accepted.
    pub(super) missing: u64,
    /// The batches in what follows the last sound one of the newest journal, as far as they can be found.
    pub(super) behind: BTreeSet<BatchStamp>,
}

impl Journals {
    /// Whether more than one batch follows this one in what is cut off, so that the first of them was on the disk.
    pub(super) fn is_damaged_after(&self, kept: BatchStamp) -> bool {
        self.acknowledged_after(kept).is_some()
    }

    /// The newest batch that is cut off behind this one although it was on the disk: all but the last, which may not have been.
    pub(super) fn acknowledged_after(&self, kept: BatchStamp) -> Option<BatchStamp> {
        let last = self.behind.last().filter(|last| last.number > kept.number.saturating_add(1))?;
        Some(BatchStamp { number: last.number - 1, ..*last })
    }

    /// Looks for batches behind the last sound one of a journal. Returns the least number of those of an older journal that are left out.
    fn look_behind(
        &mut self,
        journal: &Journal,
        is_newest: bool,
        on_loss: OnLoss,
    ) -> Result<u64, JournalError> {
        if journal.rest == Rest::Nothing {
            return Ok(0);
        }
        let mut behind = batches_behind(journal)?;
        if is_newest {
            self.behind = behind;
            return Ok(0);
        }
        if on_loss != OnLoss::Accept {
            return Err(followed(&journal.path));
        }
        behind.retain(|stamp| self.newest.is_none_or(|newest| newest.number < stamp.number));
        Ok(u64::try_from(behind.len()).unwrap_or(u64::MAX).max(1))
    }

    /// Whether anything is cut off or left out.
    pub(super) fn are_whole(&self) -> bool {
        self.missing == 0
            && self.files.iter().all(|journal| journal.rest == Rest::Nothing && journal.left_out.is_empty())
    }
}

/// One journal.
#[derive(Debug)]
pub(super) struct Journal {
    pub(super) path: PathBuf,
    /// The place after its last sound batch, in bytes.
    pub(super) end: u64,
    /// Damaged batches before this place that are left out.
    pub(super) left_out: Vec<Range<u64>>,
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
    /// A whole batch that is damaged, and no sound batch after it.
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

/// Reads all journals in the engine's directory. Missing batches up to `known_through` are known and accepted.
///
/// Damage that a crash cannot have left is refused, unless a loss is accepted. Then the newest journal ends before its first damaged
/// batch, as the store was then. Of older journals, only the damaged batches are left out: tables on disk may have those that follow.
/// The engine syncs a journal before it begins the next one, so that no crash leaves damage in an older one, whatever the durability.
pub(super) fn read(store: &Path, known_through: u64, on_loss: OnLoss) -> Result<Journals, JournalError> {
    let mut journals = Journals::default();
    let mut last: Option<FoundBatch> = None;
    let mut unsound: Option<PathBuf> = None;
    let mut left_out = 0_u64;
    let mut paths = paths(store)?.into_iter().peekable();
    while let Some(path) = paths.next() {
        let is_newest = paths.peek().is_none();
        let mut reader = Reader::open(&path)?;
        let mut journal = Journal { path, end: 0, left_out: Vec::new(), last: None, rest: Rest::Nothing };
        loop {
            let start = reader.position;
            let Some(found) = reader.next_batch()? else { break };
            if let Some(path) = &unsound {
                return Err(followed(path));
            }
            let fault = fault_of(last.as_ref(), &found, known_through);
            match (fault, on_loss) {
                (None, _) => {}
                // It may be the last one, which a loss of power has left in part.
                (Some(Fault::Checksum), OnLoss::Refuse) => {
                    unsound = Some(journal.path.clone());
                    journal.rest = Rest::Unsound;
                    continue;
                }
                (Some(fault), OnLoss::Refuse) => {
                    return Err(JournalError::Damaged(format!("{fault} in {}", journal.path.display())));
                }
                (Some(fault), OnLoss::AcceptAtEnd) if !is_newest || matches!(fault, Fault::Number { .. }) => {
                    return Err(JournalError::Damaged(format!("{fault} in {}", journal.path.display())));
                }
                (Some(Fault::Number { missing, .. }), OnLoss::Accept | OnLoss::AcceptAtEnd) => {
                    journals.missing = journals.missing.saturating_add(missing.max(left_out));
                    left_out = 0;
                }
                (Some(fault), OnLoss::Accept | OnLoss::AcceptAtEnd) => {
                    tracing::warn!(journal = %journal.path.display(), %fault, "a damaged batch is left out");
                    journal.rest = Rest::Unsound;
                    if is_newest {
                        break;
                    }
                    left_out = left_out.saturating_add(1);
                    journal.left_out.push(start..reader.position);
                    continue;
                }
            }
            journals.missing = journals.missing.saturating_add(std::mem::take(&mut left_out));
            journals.newest = found.stamp.or(journals.newest);
            last = Some(FoundBatch { stamp: journals.newest, ..found });
            (journal.last, journal.end, journal.rest) = (Some(found), reader.position, Rest::Nothing);
        }
        if reader.is_torn()? {
            if let Some(path) = &unsound {
                return Err(followed(path));
            }
            if journal.rest == Rest::Nothing {
                journal.rest = Rest::Torn;
            }
        }
        left_out = left_out.max(journals.look_behind(&journal, is_newest, on_loss)?);
        // What nothing sound follows is behind the end.
        journal.left_out.retain(|range| range.start < journal.end);
        journals.keyspaces.append(&mut reader.keyspaces);
        journals.files.push(journal);
    }
    if on_loss == OnLoss::Refuse
        && let Some(newest) = journals.newest
        && journals.is_damaged_after(newest)
    {
        let newest = journals.files.last();
        return Err(followed(newest.map_or(store, |journal| &journal.path)));
    }
    Ok(journals)
}

/// The error of a batch that is not whole although the next one was written.
fn followed(journal: &Path) -> JournalError {
    let journal = journal.display();
    JournalError::Damaged(format!(
        "a batch that others follow is not whole or has a wrong checksum in {journal}"
    ))
}

/// The reason why a whole batch cannot follow the one before it.
#[derive(Clone, Copy, Debug, thiserror::Error)]
enum Fault {
    #[error("a batch has a wrong checksum")]
    Checksum,
    #[error("a batch has the sequence number {0}, which is too low")]
    SequenceTooLow(u64),
    #[error("a batch has the sequence number {0}, which is too high")]
    SequenceTooHigh(u64),
    #[error("the sequence number {found} does not follow {before}")]
    Sequence { before: u64, found: u64 },
    #[error("batch {found} follows batch {before}")]
    Number { before: u64, found: u64, missing: u64 },
}

/// Checks that a batch can follow the one before it.
fn fault_of(before: Option<&FoundBatch>, found: &FoundBatch, known_through: u64) -> Option<Fault> {
    let FoundBatch { stamp, sequence, least, is_sound } = *found;
    if !is_sound {
        return Some(Fault::Checksum);
    }
    if least.is_some_and(|least| sequence < least) {
        return Some(Fault::SequenceTooLow(sequence));
    }
    // No checksum covers it, and the engine stops when it has no higher one.
    if sequence > least.map_or(SEQUENCE_MAX, |least| least.saturating_add(SKIPPED_MAX)) {
        return Some(Fault::SequenceTooHigh(sequence));
    }
    let before = before?;
    if sequence <= before.sequence {
        return Some(Fault::Sequence { before: before.sequence, found: sequence });
    }
    let (before, found) = (before.stamp?.number, stamp?.number);
    let expected = before.max(known_through).saturating_add(1);
    if found == before.saturating_add(1) || found == expected || (before..=known_through).contains(&found) {
        return None;
    }
    Some(Fault::Number { before, found, missing: found.saturating_sub(expected) })
}

/// The batches behind the last sound one of a journal, as far as the rows with their numbers can be found. Other rows can hold the
/// same bytes.
fn batches_behind(journal: &Journal) -> io::Result<BTreeSet<BatchStamp>> {
    let mut file = File::open(&journal.path)?;
    file.seek(io::SeekFrom::Start(journal.end))?;
    let mut rest = Vec::new();
    file.read_to_end(&mut rest)?;
    Ok(rest.windows(STAMP_ITEM_BYTES).filter_map(stamp_in).collect())
}

/// The bytes of a row with the number of a batch, and of the beginning of the row that follows it.
const STAMP_ITEM_BYTES: usize = 21 + 1 + 16 + 22;

/// The number of a batch, if these bytes are the row with it and the beginning of the one that follows: table, lengths and key.
fn stamp_in(bytes: &[u8]) -> Option<BatchStamp> {
    let (head, rest) = bytes.split_first_chunk::<21>()?;
    let (key, rest) = rest.split_first_chunk::<1>()?;
    let (stamp, rest) = rest.split_first_chunk::<16>()?;
    let (head_after, key_after) = rest.split_first_chunk::<21>()?;
    let is_stamp = *key == meta::BATCH_STAMP && key_after == meta::BATCH_SEQUENCE;
    let is_of_one_table = table_of_row(head, 16)? == table_of_row(head_after, 8)?;
    BatchStamp::from_bytes(stamp).filter(|_| is_stamp && is_of_one_table)
}

/// The table in the beginning of a row whose key has one byte, and whose value has this length.
fn table_of_row(head: &[u8; 21], value_bytes: u8) -> Option<&[u8]> {
    let (start, lengths) = (head.get(..3)?, head.get(11..)?);
    let is_row = start == [ITEM, 0, 0] && lengths == [1, 0, value_bytes, 0, 0, 0, value_bytes, 0, 0, 0];
    head.get(3..11).filter(|_| is_row)
}

/// The journals, the oldest first. A name that is not a journal's is left to the engine.
fn paths(store: &Path) -> io::Result<Vec<PathBuf>> {
    let mut numbered = Vec::new();
    for entry in std::fs::read_dir(store)? {
        let path = entry?.path();
        numbered.extend(number_of(&path).map(|number| (number, path)));
    }
    numbered.sort();
    Ok(numbered.into_iter().map(|(_, path)| path).collect())
}

/// Whether a path is named as a journal is.
pub(super) fn is_one(path: &Path) -> bool {
    number_of(path).is_some()
}

fn number_of(path: &Path) -> Option<u64> {
    let number = path.file_stem()?.to_str()?.parse().ok()?;
    (path.extension()? == EXTENSION).then_some(number)
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
