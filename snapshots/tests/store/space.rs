//! Space on disk: what deleted and overwritten rows took is given back.

use std::{collections::BTreeSet, fs, os::unix::fs::MetadataExt as _, path::Path};

use snapshots::{Store, Timestamp};

use crate::fixtures::*;

/// One entry of a log, and how many there are: 128 MiB.
const ENTRY_BYTES: usize = 1 << 20;
const ENTRIES: u64 = 128;

/// The space that the files below a directory have on disk, in bytes. A journal has a length that it does not use.
fn space(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let space_of = |path: std::path::PathBuf| {
        // A file may be deleted meanwhile.
        if path.is_dir() { space(&path) } else { fs::metadata(&path).map_or(0, |found| found.blocks() * 512) }
    };
    entries.map(space_of).sum()
}

/// Bytes that do not compress.
fn noise(seed: &mut u64, length: usize) -> Vec<u8> {
    let word = |_| {
        *seed ^= *seed << 13;
        *seed ^= *seed >> 7;
        *seed ^= *seed << 17;
        seed.to_be_bytes()
    };
    (0..length / 8).flat_map(word).collect()
}

/// Appends entries to a group's log.
fn fill(store: &Store, number: u8) {
    append(store, |batch| {
        batch.create_log(&group_log(number)).put_group(APP, &group(number), &group_row(0));
    })
    .unwrap();
    let mut seed = u64::from(number);
    for entry in 0..ENTRIES {
        let bytes = noise(&mut seed, ENTRY_BYTES);
        append(store, |batch| _ = batch.append_record(&group_log(number), entry, &bytes)).unwrap();
    }
}

#[tokio::test]
async fn the_disk_gives_back_what_a_deleted_group_took() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    fill(&store, 1);
    let full = space(directory.path());
    append(&store, |batch| _ = batch.delete_group(APP, &group(1), &group_row(0), Timestamp(5))).unwrap();
    store.erase_memberships(APP, &group(1), Some(Vec::new())).await.unwrap();
    store.erase_join_infos(&BTreeSet::from([(APP, group(1))])).await.unwrap();
    store.erase_group(APP, &group(1)).await.unwrap();
    let erased = space(directory.path());
    store.give_space_back(Timestamp(7)).await.unwrap();
    assert_eq!(store.space_given_back_at(), Ok(Some(Timestamp(7))));
    let tables = space(&directory.path().join("store/keyspaces"));
    let after = space(directory.path());
    println!("{full} bytes full, {erased} erased, {after} given back, {tables} of them in tables");
    let entries = ENTRIES * ENTRY_BYTES as u64;
    assert!(full >= entries, "{full}");
    assert!(tables < entries / 64, "{tables} bytes are left in tables");
    // The newest journal is kept until it has 64 MB.
    assert!(after < entries / 64 + (70 << 20), "{after} of {full} bytes are left");
}

/// Large values that are written over and over, such as snapshots: none but the last is needed.
#[tokio::test]
async fn the_disk_gives_back_what_was_overwritten() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    append(&store, |batch| _ = batch.create_log(&group_log(1))).unwrap();
    let mut seed = 1;
    let mut last = Vec::new();
    for _ in 0..64 {
        last = noise(&mut seed, ENTRY_BYTES);
        append(&store, |batch| _ = batch.put_snapshot(&group_log(1), 0, &last)).unwrap();
    }
    store.give_space_back(Timestamp(7)).await.unwrap();
    let tables = space(&directory.path().join("store/keyspaces"));
    assert!(tables < 4 << 20, "{tables} bytes are left in tables");
    let log = store.view().load_log(&group_log(1)).unwrap().unwrap();
    assert!(log.snapshot.is_some_and(|(_, bytes)| bytes == last));
    // It is whole when it is opened again.
    drop(store);
    let log = open(directory.path()).view().load_log(&group_log(1)).unwrap().unwrap();
    assert!(log.snapshot.is_some_and(|(_, bytes)| bytes == last));
}
