//! The checks of a store before the engine opens it, and the repair of its journals.
//!
//! The engine may cut a journal off, and may take what is only in the operating system's memory for what is on the disk. So its files
//! are checked first, and nothing is changed if the store is refused; see `journal.rs` and `table_lists.rs`. Then the journals are
//! brought into a state that the engine reads as it should:
//!
//! - What follows the last sound batch of the newest journal is cut off, if the [witness](super::witness) knows of nothing behind it, and
//!   if it has no second batch, which would show that the first was on the disk.
//! - A journal whose last batch the witness does not know is written anew. A process that failed to sync it may have ended, and the
//!   operating system then shows pages that never reached the disk, and does not write them again.

use std::{
    fs::File,
    io::{self, Read, Seek as _},
    path::{Path, PathBuf},
};

use super::{
    directory::{Unfinished, sync_directory},
    journal::{self, Journal, JournalError, Journals, Rest},
    table_lists,
    witness::{BatchStamp, Loss, Testimony},
};
use crate::errors::OpenError;

/// What to do when acknowledged batches are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnLoss {
    /// Open nothing and change nothing.
    Refuse,
    /// Warn, and go on without those that are missing at the end: the store is as it was then.
    AcceptAtEnd,
    /// Warn, and go on with what there is, also without batches that others follow.
    Accept,
}

/// A store that is ready to be opened.
pub(super) struct Prepared {
    /// A journal that was cut off although only the tables on disk can say whether acknowledged batches were in it.
    saved: Option<SavedJournal>,
    journals: Journals,
}

impl Prepared {
    /// The batches in the midst of the journals that are missing or left out, because a loss is accepted.
    pub(super) fn missing(&self) -> u64 {
        self.journals.missing
    }

    /// Whether the numbers of the batches in the journals have a gap, or get one with the batch that follows this one.
    pub(super) fn has_gap_before(&self, kept: BatchStamp) -> bool {
        let newest = self.journals.newest;
        !self.journals.are_whole() || newest.is_some_and(|newest| newest.number < kept.number)
    }

    /// The batches that were cut off although they were on the disk, if this one is the newest that is kept.
    pub(super) fn loss_after(&self, kept: BatchStamp) -> Option<Loss> {
        self.journals.acknowledged_after(kept).map(|acknowledged| Loss { kept, acknowledged })
    }

    /// Checks that no acknowledged batch was cut off, by the newest one that is kept.
    pub(super) fn check_kept(&self, place: &Path, kept: BatchStamp) -> Result<(), OpenError> {
        if self.saved.is_some() && self.journals.is_damaged_after(kept) {
            let what = "a batch that others follow is not whole".to_owned();
            return Err(OpenError::DamagedJournal { path: place.to_owned(), what });
        }
        Ok(())
    }

    /// Puts back what is not certain if the store was not opened.
    pub(super) fn end(self, is_opened: bool) -> io::Result<()> {
        match self.saved {
            Some(saved) if is_opened => saved.remove(),
            Some(saved) => saved.put_back(),
            None => Ok(()),
        }
    }
}

/// Checks a store in a data directory, by what its witness says, and repairs its journals.
pub(super) fn prepare(
    directory: &Path,
    place: &Path,
    said: Option<Testimony>,
    on_loss: OnLoss,
) -> Result<Prepared, OpenError> {
    let io_error = |source| OpenError::Io { path: directory.to_owned(), source };
    clean_up(directory, place).map_err(io_error)?;
    let journals = check_journals(place, said, on_loss)?;
    if journals.missing > 0 {
        tracing::warn!(
            batches = journals.missing,
            "batches in the midst of the journals are missing or damaged, and are left out; rows of some of them may be in tables"
        );
    }
    table_lists::check(place, &journals.keyspaces)?;
    let torn = journals.files.iter().rfind(|journal| journal.rest != Rest::Nothing);
    let uncertain = torn.filter(|_| journals.newest.is_none());
    let saved = uncertain.map(|torn| SavedJournal::save(directory, torn.path.clone())).transpose();
    let saved = saved.map_err(io_error)?;
    let acknowledged = said.map(|said| said.newest.number);
    let repaired = journals.files.iter().try_for_each(|journal| repair(journal, directory, acknowledged));
    match (repaired, saved) {
        (Ok(()), saved) => Ok(Prepared { saved, journals }),
        (Err(error), saved) => {
            if let Some(saved) = saved {
                saved.put_back().map_err(io_error)?;
            }
            Err(io_error(error))
        }
    }
}

/// Checks that the journals hold what was acknowledged.
fn check_journals(place: &Path, said: Option<Testimony>, on_loss: OnLoss) -> Result<Journals, OpenError> {
    let damaged = |what: String| OpenError::DamagedJournal { path: place.to_owned(), what };
    let known_through = said.map_or(0, |said| said.known_through);
    match journal::read(place, known_through, on_loss) {
        Ok(journals) => {
            let is_unsound = journals.files.iter().any(|journal| journal.rest == Rest::Unsound);
            if is_unsound && said.is_none() && on_loss == OnLoss::Refuse {
                return Err(damaged(
                    "the last batch of its journal has a wrong checksum, and the file `witness` does not say whether it was \
                     acknowledged"
                        .to_owned(),
                ));
            }
            let loss = journals.newest.and_then(|newest| Loss::between(newest, said));
            match loss.filter(|_| on_loss == OnLoss::Refuse) {
                Some(loss) => Err(lost(place, loss)),
                None => Ok(journals),
            }
        }
        Err(JournalError::Io(source)) => Err(OpenError::Io { path: place.to_owned(), source }),
        Err(JournalError::Damaged(what)) => Err(damaged(what)),
    }
}

/// Cuts off what follows the last sound batch, and makes sure that what is read of the journal is on the disk.
fn repair(journal: &Journal, directory: &Path, acknowledged: Option<u64>) -> io::Result<()> {
    let Some(last) = &journal.last else {
        return if journal.rest == Rest::Nothing { Ok(()) } else { cut_off(journal) };
    };
    // The witness is written after the sync, so the sync of every batch up to this number has succeeded.
    let is_synced = last.stamp.is_some_and(|stamp| acknowledged.is_some_and(|newest| stamp.number <= newest));
    match (is_synced && journal.left_out.is_empty(), journal.rest) {
        (true, Rest::Nothing) => Ok(()),
        (true, Rest::Torn | Rest::Unsound) => cut_off(journal),
        (false, _) => write_anew(journal, directory),
    }
}

fn cut_off(journal: &Journal) -> io::Result<()> {
    tracing::info!(
        journal = %journal.path.display(),
        length = journal.end,
        "the journal ends with a write that was not completed; it is cut off"
    );
    let file = File::options().write(true).open(&journal.path)?;
    file.set_len(journal.end)?;
    file.sync_all()
}

/// The name of a copy of a journal that is not finished, in the data directory.
const COPY: &str = "journal.new";
/// What follows the name of a journal in the name of its saved copy.
const SAVED: &str = ".saved";

/// Removes and puts back what a start leaves that a crash has cut short.
fn clean_up(directory: &Path, place: &Path) -> io::Result<()> {
    drop(Unfinished::new(directory.join(COPY)));
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let journal = name.and_then(|name| name.strip_suffix(SAVED)).map(|name| place.join(name));
        if let Some(journal) = journal.filter(|journal| journal::is_one(journal)) {
            SavedJournal { copy: path, journal }.put_back()?;
        }
    }
    Ok(())
}

/// Replaces a journal by a copy up to its last sound batch, without those that are left out. A second sync of the same file would not
/// do: after one that failed, the operating system may take its pages for written.
fn write_anew(journal: &Journal, directory: &Path) -> io::Result<()> {
    let copy = Unfinished::new(directory.join(COPY));
    let mut from = File::open(&journal.path)?;
    let mut to = File::create(copy.path())?;
    let starts = [0].into_iter().chain(journal.left_out.iter().map(|range| range.end));
    let ends = journal.left_out.iter().map(|range| range.start).chain([journal.end]);
    for (start, end) in starts.zip(ends) {
        from.seek(io::SeekFrom::Start(start))?;
        let length = end.saturating_sub(start);
        if io::copy(&mut Read::by_ref(&mut from).take(length), &mut to)? != length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    to.sync_all()?;
    copy.take_place(&journal.path)
}

/// A copy of a journal, from before it was cut off.
struct SavedJournal {
    copy: PathBuf,
    journal: PathBuf,
}

impl SavedJournal {
    fn save(directory: &Path, journal: PathBuf) -> io::Result<Self> {
        let unfinished = Unfinished::new(directory.join(COPY));
        let mut name = journal.file_name().unwrap_or_default().to_owned();
        name.push(SAVED);
        let copy = directory.join(name);
        std::fs::copy(&journal, unfinished.path())?;
        File::open(unfinished.path())?.sync_all()?;
        unfinished.take_place(&copy)?;
        Ok(Self { copy, journal })
    }

    /// Removes the copy for good: it must not come back after a loss of power, when there is more in the journal.
    fn remove(self) -> io::Result<()> {
        std::fs::remove_file(&self.copy)?;
        self.copy.parent().map_or(Ok(()), sync_directory)
    }

    /// Puts the copy back. A journal that is not the beginning of it has been written to since, and is left alone.
    fn put_back(self) -> io::Result<()> {
        let (whole, cut) = (std::fs::read(&self.copy)?, std::fs::read(&self.journal)?);
        let end = cut.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        if !cut.get(..end).is_some_and(|cut| whole.starts_with(cut)) {
            return Err(io::Error::other(format!(
                "{} is a copy of {} from a start that was cut short, but the journal has been written to since: move the copy to \
                 another directory",
                self.copy.display(),
                self.journal.display()
            )));
        }
        std::fs::rename(self.copy, &self.journal)?;
        self.journal.parent().map_or(Ok(()), sync_directory)
    }
}

/// The error for a store that lacks acknowledged batches.
pub(super) fn lost(place: &Path, Loss { kept, acknowledged }: Loss) -> OpenError {
    OpenError::Lost {
        path: place.to_owned(),
        kept: kept.written,
        acknowledged: acknowledged.written,
        batches: acknowledged.number.saturating_sub(kept.number),
    }
}

/// Warns of a loss that is accepted.
pub(super) fn warn_of(Loss { kept, acknowledged }: Loss) {
    tracing::warn!(
        kept_batch = kept.number,
        kept_written = %kept.written,
        missing_batches_min = acknowledged.number.saturating_sub(kept.number),
        last_acknowledged_batch = acknowledged.number,
        last_acknowledged_written = %acknowledged.written,
        "the store lacks its newest writes although they were acknowledged: its journal ends early, an older store was \
         put in its place, or it was copied before the file `witness` while the gateway ran",
    );
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    fn journal(path: PathBuf, end: u64) -> Journal {
        Journal { path, end, left_out: vec![2..4, 5..6], last: None, rest: Rest::Unsound }
    }

    fn names(directory: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(directory).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_journal_is_written_anew_without_what_is_left_out() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0.jnl");
        std::fs::write(&path, "0123456789").unwrap();
        write_anew(&journal(path.clone(), 8), directory.path()).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"01467");
        assert_eq!(names(directory.path()), ["0.jnl"]);
    }

    #[test]
    fn a_journal_that_cannot_be_written_anew_stays_and_no_copy_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0.jnl");
        std::fs::write(&path, "0123456789").unwrap();
        // It is shorter than it was.
        write_anew(&journal(path.clone(), 20), directory.path()).unwrap_err();
        assert_eq!(std::fs::read(&path).unwrap(), b"0123456789");
        assert_eq!(names(directory.path()), ["0.jnl"]);
    }

    #[test]
    fn a_journal_on_another_file_system_stays_and_no_copy_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let skipped = || {
            // Not captured, as what is printed would be.
            let line = b"SKIPPED: a journal on another file system: there is none at /dev/shm\n";
            io::Write::write_all(&mut io::stderr(), line).unwrap();
        };
        let Ok(elsewhere) = tempfile::tempdir_in("/dev/shm") else { return skipped() };
        let device = |of: &tempfile::TempDir| of.path().metadata().unwrap().dev();
        if device(&directory) == device(&elsewhere) {
            return skipped();
        }
        let path = elsewhere.path().join("0.jnl");
        std::fs::write(&path, "0123456789").unwrap();
        let failed = write_anew(&journal(path.clone(), 8), directory.path()).unwrap_err();
        assert_eq!(failed.kind(), io::ErrorKind::CrossesDevices);
        assert_eq!(std::fs::read(&path).unwrap(), b"0123456789");
        assert_eq!(names(directory.path()), [""; 0]);
    }

    #[test]
    fn what_a_start_was_doing_when_it_was_cut_short_is_undone_by_the_next() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("mine.saved"), "a file of somebody else").unwrap();
        let place = directory.path().join("store");
        std::fs::create_dir(&place).unwrap();
        let path = place.join("7.jnl");
        std::fs::write(&path, "whole").unwrap();
        let saved = SavedJournal::save(directory.path(), path.clone()).unwrap();
        std::fs::write(&path, "who\0\0").unwrap();
        std::fs::write(directory.path().join(COPY), "half").unwrap();
        drop(saved);
        clean_up(directory.path(), &place).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"whole");
        let mut left = names(directory.path());
        left.sort();
        assert_eq!(left, ["mine.saved", "store"]);
        // One that was written to since is not replaced.
        drop(SavedJournal::save(directory.path(), path.clone()).unwrap());
        std::fs::write(&path, "who else").unwrap();
        let refused = clean_up(directory.path(), &place).unwrap_err();
        assert!(refused.to_string().contains("7.jnl.saved"), "{refused}");
        assert_eq!(std::fs::read(&path).unwrap(), b"who else");
        std::fs::remove_file(directory.path().join("7.jnl.saved")).unwrap();
        SavedJournal::save(directory.path(), path.clone()).unwrap().remove().unwrap();
        assert!(!directory.path().join("7.jnl.saved").exists());
    }
}
