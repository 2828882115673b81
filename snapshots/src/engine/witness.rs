//! The witness: a small file next to the store that records how far writes were acknowledged.
//!
//! The engine's journal can lose its end without a trace: a truncated file, or damage in its framing, looks like the end
//! of a write that a crash cut short. Every disk batch carries a number in its own row, and the witness holds the newest
//! number that was acknowledged. When the store is opened with an older number, batches that were acknowledged are gone.

use std::{fs::File, io, os::unix::fs::FileExt as _, path::Path};

use crate::ids::Timestamp;

/// The newest disk batch: its number, from 1, and the machine's time when it was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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

/// The open file. It is not synced: it serves to detect damage, and after a crash of the machine it can only be older than the
/// store.
pub(crate) struct Witness(File);

impl Witness {
    /// Opens the witness of a data directory and reads it: `None` if it is new or its checksum is wrong.
    pub(crate) fn open(directory: &Path) -> io::Result<(Self, Option<BatchStamp>)> {
        let path = directory.join("witness");
        let file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
        let mut bytes = [0; 2 * STAMP_BYTES];
        let said = match file.read_exact_at(&mut bytes, 0) {
            Ok(()) => read(&bytes),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => None,
            Err(error) => return Err(error),
        };
        Ok((Self(file), said))
    }

    pub(crate) fn note(&self, stamp: BatchStamp) -> io::Result<()> {
        let bytes = stamp.to_bytes();
        self.0.write_all_at(&[bytes, bytes.map(|byte| !byte)].concat(), 0)
    }
}

/// The stamp, if its complement follows; a torn or damaged one fails this check.
fn read(bytes: &[u8]) -> Option<BatchStamp> {
    let (stamp, complement) = bytes.split_first_chunk::<STAMP_BYTES>()?;
    if stamp.map(|byte| !byte) != *complement {
        return None;
    }
    BatchStamp::from_bytes(stamp)
}

/// Acknowledged batches that a store does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Loss {
    /// The newest batch in the store.
    pub(crate) kept: BatchStamp,
    /// The newest batch in the witness.
    pub(crate) acknowledged: BatchStamp,
}

impl Loss {
    /// The batches that a store whose newest one is `kept` has lost, by its witness.
    pub(crate) fn between(kept: BatchStamp, witness: Option<BatchStamp>) -> Option<Self> {
        let acknowledged = witness.filter(|witness| witness.number > kept.number)?;
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
        let said = || Witness::open(directory.path()).unwrap().1;
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
    fn only_an_older_store_has_lost_something() {
        let between = |kept, witness: Option<u64>| Loss::between(stamp(kept), witness.map(stamp));
        assert_eq!(between(5, None), None);
        assert_eq!(between(5, Some(4)), None);
        assert_eq!(between(5, Some(5)), None);
        assert_eq!(between(5, Some(6)), Some(Loss { kept: stamp(5), acknowledged: stamp(6) }));
    }
}
