//! The witness: a small file next to the store that records how far writes were acknowledged.
//!
//! The engine's journal can lose its end without a trace: a truncated file, or damage in its framing, looks like the end
//! of a write that a crash cut short. Every disk batch carries a number in its own row, and the witness holds the newest
//! number that was acknowledged. When the store is opened with an older number, batches that were acknowledged are gone.
//!
//! It is synced when a store is opened and closed only, since a second sync would double the cost of a batch. So a loss of power can
//! bring an older one back. No acknowledged batch is lost by that alone:
//!
//! - Each batch is synced in the journal before it is acknowledged, and before the next one is written. A loss of power leaves every
//!   acknowledged batch whole, and at most one behind them in part.
//! - A batch that is not whole is therefore cut off only if nothing follows it; see `journal.rs`. What follows it shows, without the
//!   witness, that it was synced and has been damaged since.
//! - Left is the newest batch: after a loss of power that took the last seconds of the witness, damage to this one batch looks like a
//!   write that was cut short.

use std::{fs::File, io, os::unix::fs::FileExt as _, path::Path};

use crate::ids::Timestamp;

/// The newest disk batch: its number, from 1, and the machine's time when it was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct BatchStamp {
    pub(crate) number: u64,
    pub(crate) written: Timestamp,
}

const STAMP_BYTES: usize = 16;

impl BatchStamp {
    pub(crate) fn to_bytes(self) -> [u8; STAMP_BYTES] {
        (u128::from(self.number) << 64 | u128::from(self.written.0)).to_be_bytes()
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (number, written) = bytes.split_first_chunk()?;
        Some(Self {
            number: u64::from_be_bytes(*number),
            written: Timestamp(u64::from_be_bytes(written.try_into().ok()?)),
        })
    }

    /// The stamp of the batch that follows.
    pub(crate) fn next(self, now: Timestamp) -> Self {
        Self { number: self.number.saturating_add(1), written: now }
    }
}

/// What a witness says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Testimony {
    /// The newest disk batch that was acknowledged.
    pub(crate) newest: BatchStamp,
    /// The batch up to which missing ones are known and accepted; see [`OnLoss`](super::start::OnLoss).
    pub(crate) known_through: u64,
}

const TESTIMONY_BYTES: usize = STAMP_BYTES + 8;

impl Testimony {
    fn to_bytes(self) -> [u8; TESTIMONY_BYTES] {
        let mut bytes = [0; TESTIMONY_BYTES];
        let (stamp, known) = bytes.split_at_mut(STAMP_BYTES);
        stamp.copy_from_slice(&self.newest.to_bytes());
        known.copy_from_slice(&self.known_through.to_be_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (stamp, known) = bytes.split_at_checked(STAMP_BYTES)?;
        let known_through = match known {
            [] => 0,
            known => u64::from_be_bytes(known.try_into().ok()?),
        };
        Some(Self { newest: BatchStamp::from_bytes(stamp)?, known_through })
    }
}

/// The open file. After a crash of the machine it can only be older than the store.
pub(crate) struct Witness {
    file: File,
    known_through: u64,
}

impl Witness {
    /// Opens the witness of a data directory and reads it: `None` if it is new or its checksum is wrong.
    pub(crate) fn open(directory: &Path) -> io::Result<(Self, Option<Testimony>)> {
        let path = directory.join("witness");
        let file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
        let mut bytes = [0; 2 * TESTIMONY_BYTES];
        let mut length = 0;
        while let Some(rest) = bytes.get_mut(length..).filter(|rest| !rest.is_empty()) {
            match file.read_at(rest, u64::try_from(length).unwrap_or(u64::MAX))? {
                0 => break,
                read => length += read,
            }
        }
        let said = bytes.get(..length).and_then(read);
        Ok((Self { file, known_through: said.map_or(0, |said| said.known_through) }, said))
    }

    /// Notes the newest acknowledged batch.
    pub(crate) fn note(&self, newest: BatchStamp) -> io::Result<()> {
        let bytes = Testimony { newest, known_through: self.known_through }.to_bytes();
        self.file.write_all_at(&[bytes, bytes.map(|byte| !byte)].concat(), 0)
    }

    /// Brings what was noted to the disk.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    /// From now on, missing batches up to this one are known and accepted.
    pub(crate) fn accept_through(&mut self, number: u64) {
        self.known_through = number;
    }
}

/// The testimony, if its complement follows; a torn or damaged one fails this check. Earlier versions wrote the stamp alone.
fn read(bytes: &[u8]) -> Option<Testimony> {
    let (testimony, complement) = bytes.split_at_checked(bytes.len() / 2)?;
    let is_whole = [STAMP_BYTES, TESTIMONY_BYTES].contains(&testimony.len());
    let is_good = testimony.iter().map(|byte| !byte).eq(complement.iter().copied());
    if is_whole && is_good { Testimony::from_bytes(testimony) } else { None }
}

/// Acknowledged batches that a store does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Loss {
    /// The newest batch in the store.
    pub(crate) kept: BatchStamp,
    /// The newest batch that was acknowledged.
    pub(crate) acknowledged: BatchStamp,
}

impl Loss {
    /// The batches that a store whose newest one is `kept` has lost, by its witness.
    pub(crate) fn between(kept: BatchStamp, witness: Option<Testimony>) -> Option<Self> {
        let acknowledged =
            witness.map(|witness| witness.newest).filter(|newest| newest.number > kept.number)?;
        Some(Self { kept, acknowledged })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(number: u64) -> BatchStamp {
        BatchStamp { number, written: Timestamp(number * 1000) }
    }

    #[test]
    fn a_witness_says_what_was_noted_last_and_nothing_when_it_is_damaged() {
        let directory = tempfile::tempdir().unwrap();
        let said = || Witness::open(directory.path()).unwrap().1.map(|said| said.newest);
        assert_eq!(said(), None);
        let (witness, _) = Witness::open(directory.path()).unwrap();
        for number in [1, 2, u64::MAX / 1000] {
            witness.note(stamp(number)).unwrap();
            assert_eq!(said(), Some(stamp(number)));
        }
        let path = directory.path().join("witness");
        let whole = std::fs::read(&path).unwrap();
        for place in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[place] ^= 1;
            std::fs::write(&path, &damaged).unwrap();
            assert_eq!(said(), None, "{place}");
            std::fs::write(&path, &whole[..place]).unwrap();
            assert_eq!(said(), None, "{place}");
        }
    }

    #[test]
    fn a_witness_of_an_earlier_version_is_understood() {
        let directory = tempfile::tempdir().unwrap();
        let bytes = stamp(7).to_bytes();
        std::fs::write(directory.path().join("witness"), [bytes, bytes.map(|byte| !byte)].concat()).unwrap();
        let (mut witness, said) = Witness::open(directory.path()).unwrap();
        assert_eq!(said, Some(Testimony { newest: stamp(7), known_through: 0 }));
        witness.accept_through(5);
        witness.note(stamp(8)).unwrap();
        let said = Witness::open(directory.path()).unwrap().1;
        assert_eq!(said, Some(Testimony { newest: stamp(8), known_through: 5 }));
    }

    #[test]
    fn only_an_older_store_has_lost_something() {
        let testimony = |number| Testimony { newest: stamp(number), known_through: 0 };
        let between = |kept, witness: Option<u64>| Loss::between(stamp(kept), witness.map(testimony));
        assert_eq!(between(5, None), None);
        assert_eq!(between(5, Some(4)), None);
        assert_eq!(between(5, Some(5)), None);
        assert_eq!(between(5, Some(6)), Some(Loss { kept: stamp(5), acknowledged: stamp(6) }));
    }
}
