//! What a start does with files that a failing disk or a loss of power leaves.

use std::{
    fs::{self, File},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use snapshots::{OpenError, Store, StoreOptions};

use crate::{
    crashes::{copy, journal},
    fixtures::*,
};

fn setting(store: &Store, name: &str) -> bool {
    store.view().setting(name).unwrap().is_some()
}

fn length(journal: &Path) -> usize {
    usize::try_from(fs::metadata(journal).unwrap().len()).unwrap()
}

/// A store that was killed after three writes, and how its directory was after each: a setting of the write's name.
struct Killed {
    directory: tempfile::TempDir,
    /// The ends of the writes in the journal.
    ends: Vec<usize>,
}

const WRITES: [&str; 3] = ["first", "second", "third"];

impl Killed {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let running = directory.path().join("running");
        // What the first start makes is in a journal of its own length; the second finds it whole.
        drop(open(&running));
        let store = open(&running);
        let mut ends = Vec::new();
        for name in WRITES {
            append(&store, |batch| _ = batch.put_setting(name, vec![7; 20_000])).unwrap();
            ends.push(length(&journal(&running)));
            copy(&running, &directory.path().join(name));
        }
        Self { directory, ends }
    }

    /// The directory after a write, with the journal as it is after a later one, changed: the witness knows of the earlier.
    fn with_journal_of(&self, known: &str, written: &str, change: impl FnOnce(&mut [u8])) -> PathBuf {
        let place = self.directory.path().join(format!("{known} and {written}"));
        let _ = fs::remove_dir_all(&place);
        copy(&self.directory.path().join(known), &place);
        let mut bytes = fs::read(journal(&self.directory.path().join(written))).unwrap();
        change(&mut bytes);
        fs::write(journal(&place), bytes).unwrap();
        place
    }
}

/// A page in the midst of what a write wrote, as a loss of power leaves it: the bytes before and behind it are there.
fn lose_page(bytes: &mut [u8], end: usize) {
    let page = (end - 10_000).next_multiple_of(4096);
    bytes[page..page + 4096].fill(0);
}

#[track_caller]
fn check_refused_and_unchanged(place: &Path, is_expected: impl Fn(&OpenError) -> bool) {
    let before = fs::read(journal(place)).unwrap();
    for _ in 0..2 {
        let refused = Store::open(&options(place)).map(drop).unwrap_err();
        assert!(is_expected(&refused), "{refused}");
        assert!(fs::read(journal(place)).unwrap() == before, "the journal was changed");
    }
}

#[test]
fn a_last_write_that_is_on_the_disk_in_part_is_cut_off_if_it_was_not_acknowledged() {
    let killed = Killed::new();
    let place = killed.with_journal_of("first", "second", |bytes| lose_page(bytes, killed.ends[1]));
    let store = open(&place);
    assert_eq!(store.lost_batches(), 0);
    assert!(setting(&store, "first") && !setting(&store, "second"));
    append(&store, |batch| _ = batch.put_setting("after", "value")).unwrap();
    drop(store);
    assert!(setting(&open(&place), "after"));
}

#[test]
fn an_acknowledged_write_with_a_wrong_checksum_is_refused_until_its_loss_is_accepted() {
    let killed = Killed::new();
    let place = killed.with_journal_of("second", "second", |bytes| lose_page(bytes, killed.ends[1]));
    check_refused_and_unchanged(&place, |error| matches!(error, OpenError::Lost { batches: 1, .. }));
    let store = Store::open(&StoreOptions { accepts_loss: true, ..options(&place) }).unwrap();
    assert!(setting(&store, "first") && !setting(&store, "second"));
    drop(store);
    assert_eq!(open(&place).lost_batches(), 0);
}

#[test]
fn a_write_with_a_wrong_checksum_before_others_is_damage() {
    let killed = Killed::new();
    let place = killed.with_journal_of("first", "third", |bytes| lose_page(bytes, killed.ends[1]));
    check_refused_and_unchanged(
        &place,
        |error| matches!(error, OpenError::Damaged { what, .. } if what.contains("wrong checksum")),
    );
    // Without a sync before each answer, a loss of power may take pages of several writes.
    let store = Store::open(&StoreOptions { accepts_loss: true, ..options(&place) }).unwrap();
    assert!(setting(&store, "first") && !setting(&store, "second") && !setting(&store, "third"));
}

#[test]
fn without_a_witness_a_write_with_a_wrong_checksum_is_refused() {
    let killed = Killed::new();
    let place = killed.with_journal_of("first", "second", |bytes| lose_page(bytes, killed.ends[1]));
    fs::remove_file(place.join("witness")).unwrap();
    let refused = Store::open(&options(&place)).map(drop).unwrap_err();
    assert!(matches!(&refused, OpenError::Damaged { what, .. } if what.contains("`witness`")), "{refused}");
}

/// The sync of the second write failed, so its page never reaches the disk although the next process reads it. What that process
/// acknowledges must survive a loss of power.
#[test]
fn writes_after_a_failed_sync_survive_a_loss_of_power() {
    let killed = Killed::new();
    let place = killed.with_journal_of("first", "second", |_| ());
    let path = journal(&place);
    // Held open, so that no other file gets its number.
    let failed = File::open(&path).unwrap();
    let store = open(&place);
    assert!(setting(&store, "second"), "nothing was lost yet");
    append(&store, |batch| _ = batch.put_setting("after", "value")).unwrap();
    drop(store);
    if fs::metadata(&path).unwrap().ino() == failed.metadata().unwrap().ino() {
        let mut bytes = fs::read(&path).unwrap();
        bytes[killed.ends[0]..killed.ends[1]].fill(0);
        fs::write(&path, bytes).unwrap();
    }
    let store = open(&place);
    assert!(setting(&store, "first") && setting(&store, "second") && setting(&store, "after"));
}

#[test]
fn a_journal_that_is_known_to_be_on_the_disk_is_not_written_anew() {
    let killed = Killed::new();
    let place = killed.with_journal_of("second", "second", |_| ());
    let before = fs::metadata(journal(&place)).unwrap().ino();
    drop(open(&place));
    assert_eq!(fs::metadata(journal(&place)).unwrap().ino(), before);
    assert!(!place.join("journal.new").exists());
}

/// The engine takes such a keyspace for one that was never completed, deletes it, and goes on without its rows.
#[test]
fn a_missing_file_of_a_keyspace_is_refused_and_nothing_is_deleted() {
    let killed = Killed::new();
    let keyspaces = killed.directory.path().join("first/store/keyspaces");
    // The names of the others, and the one that has the settings; their rows are in the journal.
    let mut refused = 0;
    for entry in fs::read_dir(keyspaces).unwrap() {
        let number = entry.unwrap().file_name();
        let place = killed.with_journal_of("first", "first", |_| ());
        let current = place.join("store/keyspaces").join(&number).join("current");
        fs::remove_file(&current).unwrap();
        match Store::open(&options(&place)) {
            Err(OpenError::Damaged { what, .. }) => {
                assert!(what.contains("current") && what.contains("missing"), "{what}");
                assert!(current.parent().unwrap().is_dir());
                refused += 1;
            }
            // No row is in it.
            Ok(store) => assert!(setting(&store, "first"), "{number:?}"),
            Err(error) => panic!("{number:?}: {error}"),
        }
    }
    assert_eq!(refused, 2, "keyspaces with rows");
    let place = killed.with_journal_of("first", "first", |_| ());
    fs::remove_file(place.join("store/version")).unwrap();
    check_refused_and_unchanged(&place, |error| matches!(error, OpenError::Damaged { .. }));
}
