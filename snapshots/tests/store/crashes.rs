//! Recovery after a crash: everything acknowledged, and each other batch as a whole or not at all.
//!
//! A crash is a copy of the directory while the store is open, with what a half-done write leaves at the journal's end.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use snapshots::{OpenError, Store, StoreOptions};

use crate::fixtures::*;

const RECORDS: u64 = 10;

fn record(sequence: u64) -> Vec<u8> {
    vec![u8::try_from(sequence).unwrap(); 700]
}

/// A directory as a crash leaves it, without what the operating system forgets of a dead process.
pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let copied = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &copied);
        } else {
            fs::copy(entry.path(), copied).unwrap();
        }
    }
}

pub(crate) fn journal(directory: &Path) -> PathBuf {
    let files = fs::read_dir(directory.join("store")).unwrap().map(|entry| entry.unwrap().path());
    let mut journals: Vec<_> =
        files.filter(|path| path.extension().is_some_and(|end| end == "jnl")).collect();
    journals.sort();
    journals.pop().unwrap()
}

/// Says that a directory that lacks acknowledged batches is refused, time and again, and its journal left alone; opens it all the same.
#[track_caller]
fn accept_loss(directory: &Path) -> Store {
    let before = fs::read(journal(directory)).unwrap();
    for _ in 0..2 {
        let refused = Store::open(&options(directory)).map(drop);
        assert!(matches!(refused, Err(OpenError::Lost { .. })), "{refused:?}");
        assert!(fs::read(journal(directory)).unwrap() == before);
    }
    Store::open(&StoreOptions { accepts_loss: true, ..options(directory) }).unwrap()
}

/// Opens what the crash left: it holds the records up to `head`, and is as good as before.
#[track_caller]
fn check(directory: &Path, head: u64) {
    // The witness knows of the last batch.
    let store = if head > RECORDS { open(directory) } else { accept_loss(directory) };
    assert_eq!(store.lost_batches(), RECORDS + 1 - head);
    let log = store.view().load_log(&group_log(1)).unwrap().unwrap();
    assert_eq!(log.head, head);
    let expected: Vec<_> = (1..=head).map(|sequence| (sequence, record(sequence).into())).collect();
    assert_eq!(log.records, expected);
    // The setting is in the batch of the last record.
    assert_eq!(store.view().setting("last").unwrap().is_some(), head > RECORDS);
    append(&store, |batch| _ = batch.append_record(&group_log(1), head, record(head + 1))).unwrap();
    drop(store);
    let store = open(directory);
    assert_eq!(store.lost_batches(), 0, "a loss is said once");
    let log = store.view().load_log(&group_log(1)).unwrap().unwrap();
    assert_eq!(log.records.last(), Some(&(head + 1, record(head + 1).into())));
}

#[test]
fn a_torn_journal_tail_takes_only_the_batch_that_was_being_written() {
    let directory = tempfile::tempdir().unwrap();
    let running = directory.path().join("running");
    let store = open(&running);
    append(&store, |batch| {
        batch.create_log(&group_log(1));
    })
    .unwrap();
    for after in 0..RECORDS {
        append(&store, |batch| _ = batch.append_record(&group_log(1), after, record(after + 1))).unwrap();
    }
    let before = fs::metadata(journal(&running)).unwrap().len();
    append(&store, |batch| {
        batch.append_record(&group_log(1), RECORDS, record(RECORDS + 1)).put_setting("last", [1; 100]);
    })
    .unwrap();
    let after = fs::metadata(journal(&running)).unwrap().len();
    assert!(after > before + 800, "{before} to {after}");

    // Nothing was being written, or the beginning of another batch.
    for (number, tail) in [&[][..], &[0; 4096], &[255; 100]].into_iter().enumerate() {
        let crashed = directory.path().join(format!("whole {number}"));
        copy(&running, &crashed);
        File::options().append(true).open(journal(&crashed)).unwrap().write_all(tail).unwrap();
        check(&crashed, RECORDS + 1);
    }
    // The last batch was being written: the file ends within it, or continues with preallocated space.
    for cut in [before + 1, before + (after - before) / 2, after - 1] {
        for zeros in [0, 4096] {
            let crashed = directory.path().join(format!("cut at {cut} with {zeros}"));
            copy(&running, &crashed);
            let file = File::options().write(true).open(journal(&crashed)).unwrap();
            file.set_len(cut).unwrap();
            file.set_len(cut + zeros).unwrap();
            drop(file);
            check(&crashed, RECORDS);
        }
    }
}

#[test]
fn a_store_that_is_put_back_says_what_it_lacks() {
    let directory = tempfile::tempdir().unwrap();
    let (running, backup) = (directory.path().join("running"), directory.path().join("backup"));
    let store = open(&running);
    append(&store, |batch| _ = batch.put_setting("one", "1")).unwrap();
    store.close();
    drop(store);
    copy(&running, &backup);
    let store = open(&running);
    assert_eq!(store.lost_batches(), 0);
    for number in 0..7_u8 {
        append(&store, |batch| _ = batch.put_setting("two", [number])).unwrap();
    }
    store.close();
    drop(store);
    // The engine's files alone are put back, and then all of the directory.
    fs::remove_dir_all(running.join("store")).unwrap();
    copy(&backup.join("store"), &running.join("store"));
    assert_eq!(accept_loss(&running).lost_batches(), 7);
    assert_eq!(open(&running).lost_batches(), 0, "it is accepted once");
    assert_eq!(open(&backup).lost_batches(), 0);
}
