//! What a start does with files that a failing disk or a loss of power leaves.

use std::{
    fs::{self, File},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use snapshots::{Durability, OpenError, Store, StoreOptions, Timestamp};

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
fn accept_loss(place: &Path) -> Store {
    Store::open(&StoreOptions { accepts_loss: true, ..options(place) }).unwrap()
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
    let store = accept_loss(&place);
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
        |error| matches!(error, OpenError::DamagedJournal { what, .. } if what.contains("wrong checksum")),
    );
    // Without a sync before each answer, a loss of power may take pages of several writes.
    let store = accept_loss(&place);
    assert!(setting(&store, "first") && !setting(&store, "second") && !setting(&store, "third"));
}

/// A loss of power may take what the operating system had not yet written of the witness, but not what was synced of the journal. Then
/// the journal alone shows that a damaged write was on the disk: another one follows it.
#[test]
fn acknowledged_writes_are_not_cut_off_though_the_witness_is_old() {
    let killed = Killed::new();
    let [first, second] = [killed.ends[0], killed.ends[1]];
    let check = |damage: &dyn Fn(&mut [u8])| {
        let place = killed.with_journal_of("first", "third", damage);
        check_refused_and_unchanged(&place, |error| matches!(error, OpenError::DamagedJournal { .. }));
        // Of the two that are lost, the last may not have been acknowledged.
        assert_eq!(accept_loss(&place).lost_batches(), 1);
        assert_eq!(open(&place).lost_batches(), 0);
    };
    // Both of the last two writes have wrong checksums.
    check(&|bytes| [killed.ends[1], killed.ends[2]].into_iter().for_each(|end| lose_page(bytes, end)));
    // The last but one ends nowhere, or the last one after it does not, either.
    check(&|bytes| bytes[first + 1] ^= 4);
    check(&|bytes| (bytes[first + 1], bytes[second - 1]) = (bytes[first + 1] ^ 4, 0));
    check(&|bytes| {
        lose_page(bytes, second);
        bytes[second + 1] ^= 4;
    });
    // Whole as it is, it has all of them.
    let store = open(&killed.with_journal_of("first", "third", |_| ()));
    assert!(WRITES.iter().all(|name| setting(&store, name)));
}

/// A page has several small writes. What is left behind them shows that they were on the disk.
#[test]
fn a_lost_page_with_several_writes_is_damage_though_the_witness_is_old() {
    let directory = tempfile::tempdir().unwrap();
    let running = directory.path().join("running");
    drop(open(&running));
    let store = open(&running);
    append(&store, |batch| _ = batch.put_setting("first", "1")).unwrap();
    let place = directory.path().join("place");
    copy(&running, &place);
    let start = length(&journal(&running));
    let mut end = start;
    for number in 0..20 {
        append(&store, |batch| _ = batch.put_setting(&format!("number {number}"), [7; 30])).unwrap();
        end = if number == 9 { length(&journal(&running)) } else { end };
    }
    let mut bytes = fs::read(journal(&running)).unwrap();
    bytes[start..end].fill(0);
    fs::write(journal(&place), bytes).unwrap();
    check_refused_and_unchanged(&place, |error| matches!(error, OpenError::DamagedJournal { .. }));
    let store = accept_loss(&place);
    assert!(setting(&store, "first") && !setting(&store, "number 19"));
    assert_eq!(store.lost_batches(), 19);
}

/// Any pages of the last write may be missing, and it may end anywhere. All before it was synced.
#[test]
fn whatever_a_loss_of_power_leaves_of_the_last_write_it_takes_no_acknowledged_one() {
    let killed = Killed::new();
    let [start, end] = [killed.ends[1], killed.ends[2]];
    let pages: Vec<_> = (start..end).step_by(4096).map(|at| (at / 4096 + 1) * 4096).collect();
    assert!((4..=6).contains(&pages.len()), "{pages:?}");
    let all = (1_usize << pages.len()) - 1;
    let one = (0..pages.len()).map(|number| 1 << number);
    let lost_pages: Vec<usize> = one.clone().chain(one.map(|one| all ^ one)).chain([all]).collect();
    for known in ["first", "second"] {
        for lost in lost_pages.iter().copied() {
            let place = killed.with_journal_of(known, "third", |bytes| {
                for (number, page_end) in
                    pages.iter().enumerate().filter(|(number, _)| lost >> number & 1 == 1)
                {
                    let page_start = if number == 0 { start } else { page_end - 4096 };
                    bytes[page_start..end.min(*page_end)].fill(0);
                }
            });
            let store = open(&place);
            assert!(setting(&store, "first") && setting(&store, "second"), "{known}, {lost:b}");
            assert!(!setting(&store, "third"), "{known}, {lost:b}");
        }
        for cut in (start..end).step_by(3001) {
            let place = killed.with_journal_of(known, "third", |_| ());
            File::options().write(true).open(journal(&place)).unwrap().set_len(cut as u64).unwrap();
            let store = open(&place);
            assert!(setting(&store, "first") && setting(&store, "second"), "{known}, cut at {cut}");
        }
    }
}

/// The journals of a store, the oldest first.
fn journals(place: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> =
        fs::read_dir(place.join("store")).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| path.extension().is_some_and(|end| end == "jnl"));
    found.sort();
    found
}

/// The place of some bytes in a file.
fn find(path: &Path, wanted: &[u8]) -> usize {
    let bytes = fs::read(path).unwrap();
    bytes.windows(wanted.len()).position(|found| found == wanted).unwrap()
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

/// Tables on disk may have what follows a damaged write in an older journal, so nothing else is left out.
#[test]
fn the_loss_of_a_damaged_write_in_an_older_journal_can_be_accepted() {
    let directory = tempfile::tempdir().unwrap();
    let running = directory.path().join("running");
    let store = open(&running);
    append(&store, |batch| _ = batch.put_setting("before", "1")).unwrap();
    append(&store, |batch| _ = batch.put_setting("damaged", [77; 100])).unwrap();
    append(&store, |batch| _ = batch.put_setting("behind", "1")).unwrap();
    append(&store, |batch| _ = batch.create_log(&group_log(1))).unwrap();
    // Until the engine begins another journal.
    let mut entries = 0;
    while journals(&running).len() < 2 {
        append(&store, |batch| _ = batch.append_record(&group_log(1), entries, [7; 1 << 20])).unwrap();
        entries += 1;
        assert!(entries < 200);
    }
    append(&store, |batch| _ = batch.put_setting("newest", "1")).unwrap();
    let older = &journals(&running)[0];
    let bytes = fs::read(older).unwrap();
    // The second byte of the batch with these bytes; it begins behind the last end before them.
    let framing_of = |wanted: &[u8]| {
        let before = find(older, wanted);
        bytes[..before].windows(4).rposition(|bytes| bytes == b"FJL\x03").unwrap() + 5
    };
    let damages = [
        ("checksum", find(older, &[77; 100]), [true, false, true, true]),
        ("framing", framing_of(&[77; 100]), [true, false, false, true]),
        ("framing of the first", framing_of(b"before"), [false, false, false, true]),
    ];
    for (what, at, expected) in damages {
        let in_framing = what != "checksum";
        let place = directory.path().join(what);
        copy(&running, &place);
        flip(&journals(&place)[0], at);
        // It was synced before the next journal was begun, also where answers do not wait for the disk.
        let buffered = StoreOptions { durability: Durability::Buffer, ..options(&place) };
        let refused = Store::open(&buffered).map(drop);
        assert!(matches!(refused, Err(OpenError::DamagedJournal { .. })), "{what}");
        check_refused_and_unchanged(&place, |error| {
            matches!(error, OpenError::DamagedJournal { .. }) && error.to_string().contains("accept-loss")
        });
        let store = accept_loss(&place);
        let found = ["before", "damaged", "behind", "newest"].map(|name| setting(&store, name));
        assert_eq!(found, expected, "{what}");
        let left_out = store.left_out_batches();
        assert!(if in_framing { left_out > entries / 2 } else { left_out == 1 }, "{left_out} left out");
        assert_eq!(store.lost_batches(), 0);
        append(&store, |batch| _ = batch.put_setting("after", "1")).unwrap();
        drop(store);
        let store = open(&place);
        assert!(setting(&store, "after") && setting(&store, "newest"));
        assert_eq!((store.left_out_batches(), store.lost_batches()), (0, 0), "it is accepted once");
    }
}

/// The tables have more than the journal that is cut off, so that the numbers of its batches have a gap from then on.
#[tokio::test]
async fn a_loss_can_be_accepted_where_tables_have_more_than_the_journal() {
    let directory = tempfile::tempdir().unwrap();
    let running = directory.path().join("running");
    let store = open(&running);
    for name in ["first", "second", "third"] {
        append(&store, |batch| _ = batch.put_setting(name, [77; 100])).unwrap();
    }
    store.give_space_back(Timestamp(7)).await.unwrap();
    append(&store, |batch| _ = batch.put_setting("newest", "1")).unwrap();
    let place = directory.path().join("damaged");
    copy(&running, &place);
    let newest = journals(&place).pop().unwrap();
    flip(&newest, find(&newest, &[77; 100]));
    check_refused_and_unchanged(&place, |error| matches!(error, OpenError::DamagedJournal { .. }));
    let store = accept_loss(&place);
    assert!(["first", "second", "third"].iter().all(|name| setting(&store, name)));
    assert!(!setting(&store, "newest") && store.lost_batches() >= 1);
    append(&store, |batch| _ = batch.put_setting("after", "1")).unwrap();
    drop(store);
    assert!(setting(&open(&place), "after"));
}

/// Where answers do not wait for the disk, a loss of power may take the end of the journal, and of the witness with it, while tables
/// have what was there.
#[tokio::test]
async fn a_buffered_store_goes_on_where_tables_have_more_than_the_journal() {
    let directory = tempfile::tempdir().unwrap();
    let (running, place) = (directory.path().join("running"), directory.path().join("place"));
    let store = open(&running);
    append(&store, |batch| _ = batch.put_setting("first", "1")).unwrap();
    let witness = fs::read(running.join("witness")).unwrap();
    let end = length(&journal(&running));
    for name in ["second", "third"] {
        append(&store, |batch| _ = batch.put_setting(name, "1")).unwrap();
    }
    store.give_space_back(Timestamp(7)).await.unwrap();
    copy(&running, &place);
    fs::write(place.join("witness"), witness).unwrap();
    for newer in journals(&place).split_off(1) {
        fs::write(newer, "").unwrap();
    }
    let older = journals(&place).remove(0);
    File::options().write(true).open(&older).unwrap().set_len(end as u64).unwrap();
    let buffered = StoreOptions { durability: Durability::Buffer, ..options(&place) };
    for after in ["once", "twice"] {
        let store = Store::open(&buffered).unwrap();
        assert!(setting(&store, "third"), "{after}");
        append(&store, |batch| _ = batch.put_setting(after, "1")).unwrap();
    }
    assert!(setting(&Store::open(&buffered).unwrap(), "twice"));
}

#[test]
fn without_a_witness_a_write_with_a_wrong_checksum_is_refused() {
    let killed = Killed::new();
    let place = killed.with_journal_of("first", "second", |bytes| lose_page(bytes, killed.ends[1]));
    fs::remove_file(place.join("witness")).unwrap();
    let refused = Store::open(&options(&place)).map(drop).unwrap_err();
    let is_expected =
        matches!(&refused, OpenError::DamagedJournal { what, .. } if what.contains("`witness`"));
    assert!(is_expected, "{refused}");
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
