//! The checks of a store before the engine opens it, and the repair of its journals.
//!
//! The engine may cut a journal off, and may take what is only in the operating system's memory for what is on the disk. So its files
//! are checked first, and nothing is changed if the store is refused; see `journal.rs` and `table_lists.rs`. Then the journals are
//! brought into a state that the engine reads as it should:
//!
//! - What follows the last sound batch is cut off, if the [witness](super::witness) knows of nothing behind it.
//! - A journal whose last batch the witness does not know is written anew. A process that failed to sync it may have ended, and the
//!   operating system then shows pages that never reached the disk, and does not write them again.

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use super::{
    journal::{self, Journal, JournalError, Journals, Rest},
    table_lists,
    witness::{Loss, Testimony},
};
use crate::errors::OpenError;

/// What to do when acknowledged batches are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnLoss {
    /// Open nothing and change nothing.
    Refuse,
    /// Warn, and go on with what there is.
    Accept,
}

/// A store that is ready to be opened.
pub(super) struct Prepared {
    /// A journal that was cut off although only the tables on disk can say whether acknowledged batches were in it.
    saved: Option<SavedJournal>,
}

impl Prepared {
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
    let journals = check_journals(place, said, on_loss)?;
    table_lists::check(place, &journals.keyspaces)?;
    let torn = journals.files.iter().rfind(|journal| journal.rest != Rest::Nothing);
    let uncertain = torn.filter(|_| journals.newest.is_none() && said.is_some());
    let saved = uncertain.map(|torn| SavedJournal::save(directory, torn.path.clone())).transpose();
    let saved = saved.map_err(io_error)?;
    let acknowledged = said.map(|said| said.newest.number);
    let repaired = journals.files.iter().try_for_each(|journal| repair(journal, directory, acknowledged));
    match (repaired, saved) {
        (Ok(()), saved) => Ok(Prepared { saved }),
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
    let damaged = |what: String| OpenError::Damaged { path: place.to_owned(), what };
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
        Err(JournalError::Damaged(what)) if on_loss == OnLoss::Accept => {
            tracing::warn!(what, "the store's journal is damaged; the store is opened as it is");
            Ok(Journals::default())
        }
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
    match (is_synced, journal.rest) {
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

/// Replaces a journal by a copy up to its last sound batch. A second sync of the same file would not do: after one that failed, the
/// operating system may take its pages for written.
fn write_anew(journal: &Journal, directory: &Path) -> io::Result<()> {
    let copy = directory.join("journal.new");
    let mut from = File::open(&journal.path)?.take(journal.end);
    let mut to = File::create(&copy)?;
    let copied = io::copy(&mut from, &mut to)?;
    if copied != journal.end {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    to.sync_all()?;
    std::fs::rename(&copy, &journal.path)?;
    match journal.path.parent() {
        Some(store) => File::open(store)?.sync_all(),
        None => Ok(()),
    }
}

/// A copy of a journal, from before it was cut off.
struct SavedJournal {
    copy: PathBuf,
    journal: PathBuf,
}

impl SavedJournal {
    fn save(directory: &Path, journal: PathBuf) -> io::Result<Self> {
        let copy = directory.join("journal.saved");
        std::fs::copy(&journal, &copy)?;
        File::open(&copy)?.sync_all()?;
        Ok(Self { copy, journal })
    }

    fn remove(self) -> io::Result<()> {
        std::fs::remove_file(self.copy)
    }

    fn put_back(self) -> io::Result<()> {
        std::fs::rename(self.copy, self.journal)
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
