//! Damage on disk: one bit is flipped, or a file is cut off, and the store is opened. It refuses, or it holds exactly what it held;
//! nothing that was acknowledged is missing without a word.
//!
//! The suite flips the bits of some structural places of the journal and samples the other places; `MIMI_FLIPS=all` flips every bit of
//! the journal and takes ten times as many samples of the other files. That takes long: `MIMI_FLIPS=3/8` does the third of eight parts of
//! it. The journal is the same in every run but for times and ids, so the counts of the parts add up.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use snapshots::{BackupError, OpenError, Store, Timestamp, write_backup};

use crate::{
    crashes::{copy, journal},
    fixtures::*,
};

/// A way to end: the store is as it was, or says that it is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Ending {
    Harmless,
    /// The store is not opened, for damage.
    Damaged,
    /// The store is not opened, since it lacks what was acknowledged.
    Lost,
    /// The store is opened, and what is damaged cannot be read.
    Unreadable,
}

/// The part of all flips that a long run does: its number, from 1, and how many parts there are.
fn part() -> Option<(usize, usize)> {
    let which = std::env::var("MIMI_FLIPS").ok()?;
    let (part, of) = if which == "all" { ("1", "1") } else { which.split_once('/').unwrap() };
    let (part, of) = (part.parse().unwrap(), of.parse().unwrap());
    assert!((1..=of).contains(&part), "MIMI_FLIPS={which}");
    Some((part, of))
}

fn is_long() -> bool {
    part().is_some()
}

/// All rows, as the digest of a backup.
fn contents(store: &Store) -> Result<[u8; 32], BackupError> {
    let directory = tempfile::tempdir().unwrap();
    write_backup(&store.view(), Timestamp(0), &directory.path().join("backup")).map(|summary| summary.digest)
}

/// Opens a damaged directory. What it then shows must be what was there.
#[track_caller]
fn ending(directory: &Path, contents_before: &[u8; 32], what: &str) -> Ending {
    let store = match Store::open(&options(directory)) {
        Ok(store) => store,
        Err(OpenError::Lost { .. }) => return Ending::Lost,
        Err(OpenError::Damaged { .. } | OpenError::DamagedJournal { .. } | OpenError::Io { .. }) => {
            return Ending::Damaged;
        }
        Err(error) => panic!("{what}: {error}"),
    };
    match contents(&store) {
        Ok(after) => assert!(after == *contents_before, "{what}: it opens and holds something else"),
        Err(_) => return Ending::Unreadable,
    }
    // It goes on, and finds again what it writes.
    append(&store, |batch| _ = batch.put_setting("after", "value")).unwrap();
    drop(store);
    assert!(open(directory).view().setting("after").unwrap().is_some(), "{what}");
    Ending::Harmless
}

/// The places of a journal, by the kind of what is there, of each batch. The layout is written down here a second time.
fn places(journal: &[u8]) -> Vec<BTreeMap<&'static str, usize>> {
    let number = |at: usize, length: usize| {
        journal[at..at + length].iter().rev().fold(0_usize, |number, byte| number << 8 | usize::from(*byte))
    };
    let (mut at, mut batches) = (0, Vec::new());
    while journal.get(at) == Some(&1) {
        let mut batch = BTreeMap::from([
            ("start", at),
            ("count", at + 1),
            ("sequence, low byte", at + 5),
            ("sequence, high byte", at + 12),
        ]);
        let items = number(at + 1, 4);
        at += 13;
        for _ in 0..items {
            assert_eq!(journal[at], 2);
            let (key, value) = (number(at + 11, 2), number(at + 17, 4));
            batch.extend([
                ("item", at),
                ("kind", at + 1),
                ("compression", at + 2),
                ("table", at + 3),
                ("key length", at + 11),
                ("value length", at + 13),
                ("stored length", at + 17),
                ("stored length, high byte", at + 20),
                ("key", at + 21),
            ]);
            at += 21 + key + value;
            batch.insert("value", at - 1);
        }
        assert_eq!(journal[at], 3);
        batch.extend([
            ("end", at),
            ("checksum", at + 1),
            ("trailer", at + 9),
            ("trailer, last byte", at + 12),
        ]);
        at += 13;
        batches.push(batch);
    }
    assert_eq!(at, journal.len(), "the rest of the journal");
    batches
}

/// A directory with a journal of some batches, as a crash leaves it; and what it holds.
fn with_journal(directory: &Path) -> [u8; 32] {
    let running = directory.join("running");
    let store = open(&running);
    append(&store, |batch| _ = batch.create_log(&group_log(1))).unwrap();
    for after in 0..4_u8 {
        append(&store, |batch| {
            batch.append_record(&group_log(1), u64::from(after), [after; 40]);
            batch.put_setting("changing", [after; 7]);
        })
        .unwrap();
    }
    let contents = contents(&store).unwrap();
    copy(&running, &directory.join("crashed"));
    contents
}

#[test]
fn every_flip_in_a_journal_is_harmless_or_refused() {
    let directory = tempfile::tempdir().unwrap();
    let contents = with_journal(directory.path());
    let crashed = directory.path().join("crashed");
    let whole = fs::read(journal(&crashed)).unwrap();
    let batches = places(&whole);
    assert!(batches.len() >= 6, "{}", batches.len());
    let mut flips: Vec<(String, usize, u8)> = Vec::new();
    if let Some((part, of)) = part() {
        let all = (0..whole.len()).flat_map(|at| (0..8).map(move |bit| (String::new(), at, bit)));
        flips.extend(all.skip(part - 1).step_by(of));
    } else {
        // The first batch makes the store; the last ones are those that nothing follows.
        for (number, batch) in batches.iter().enumerate() {
            for (place, at) in batch {
                let bits: &[u8] = if number == 0 || number + 2 >= batches.len() { &[0, 2, 7] } else { &[1] };
                flips.extend(bits.iter().map(|bit| (format!("{place} of batch {number}"), *at, *bit)));
            }
        }
        flips.extend((0..whole.len()).step_by(97).map(|at| (String::new(), at, (at % 8) as u8)));
    }
    let mut endings: BTreeMap<Ending, usize> = BTreeMap::new();
    for (place, at, bit) in flips {
        let damaged = directory.path().join("damaged");
        copy(&crashed, &damaged);
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << bit;
        fs::write(journal(&damaged), &bytes).unwrap();
        let what = format!("bit {bit} of byte {at}: {place}");
        let ending = ending(&damaged, &contents, &what);
        if ending == Ending::Lost {
            assert!(fs::read(journal(&damaged)).unwrap() == bytes, "{what}: the journal was changed");
        }
        assert_ne!(ending, Ending::Unreadable, "{what}");
        *endings.entry(ending).or_default() += 1;
        fs::remove_dir_all(&damaged).unwrap();
    }
    println!("flips in the journal: {endings:?}");
    // All kinds occur, so the flips reach what they mean to.
    assert!(endings.contains_key(&Ending::Lost) && endings.contains_key(&Ending::Damaged), "{endings:?}");
}

#[test]
fn a_journal_that_is_cut_off_anywhere_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let contents = with_journal(directory.path());
    let crashed = directory.path().join("crashed");
    let whole = fs::read(journal(&crashed)).unwrap();
    for length in (0..whole.len()).step_by(if is_long() { 1 } else { 41 }) {
        let damaged = directory.path().join("damaged");
        copy(&crashed, &damaged);
        fs::write(journal(&damaged), &whole[..length]).unwrap();
        let what = format!("cut at {length}");
        let ending = ending(&damaged, &contents, &what);
        assert!(matches!(ending, Ending::Lost | Ending::Damaged), "{what}: {ending:?}");
        fs::remove_dir_all(&damaged).unwrap();
    }
}

/// The files of a directory.
fn files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
}

#[test]
fn a_flip_in_any_other_file_is_harmless_or_refused() {
    let directory = tempfile::tempdir().unwrap();
    let running = directory.path().join("running");
    let store = open(&running);
    append(&store, |batch| _ = batch.create_log(&group_log(1))).unwrap();
    // More than the tables keep in memory, of small and of large values, so that there are tables and blobs on disk.
    for number in 0..40_u8 {
        append(&store, |batch| {
            batch.put_setting(&format!("setting {number}"), vec![number; 150_000]);
            batch.append_record(&group_log(1), u64::from(number), vec![number; 600_000]);
        })
        .unwrap();
    }
    let contents = contents(&store).unwrap();
    store.close();
    drop(store);
    // What waits is written at the next start.
    drop(open(&running));
    let mut all = Vec::new();
    files(&running, &mut all);
    let is_journal = |path: &Path| path.extension().is_some_and(|end| end == "jnl");
    all.retain(|path| !is_journal(path) && fs::metadata(path).unwrap().len() > 0);
    all.sort();
    let is_large = |path: &Path| fs::metadata(path).unwrap().len() > 100_000;
    assert!(all.iter().any(|path| is_large(path)), "no table is on disk: {all:?}");
    let mut endings: BTreeMap<Ending, usize> = BTreeMap::new();
    // Few places of the many small files, more of those with rows.
    let samples = if is_long() { 40 } else { 4 };
    for (number, path) in all.iter().enumerate() {
        let length = usize::try_from(fs::metadata(path).unwrap().len()).unwrap();
        let is_sampled = is_long() || is_large(path) || number.is_multiple_of(17);
        for sample in 0..if is_sampled { samples } else { 0 } {
            let at = (length * sample / samples + sample * 7).min(length - 1);
            let name = path.strip_prefix(&running).unwrap();
            let what = format!("byte {at} of {} in {}", length, name.display());
            let damaged = directory.path().join("damaged");
            copy(&running, &damaged);
            let mut bytes = fs::read(path).unwrap();
            bytes[at] ^= 1 << (sample % 8);
            fs::write(damaged.join(name), bytes).unwrap();
            *endings.entry(ending(&damaged, &contents, &what)).or_default() += 1;
            fs::remove_dir_all(&damaged).unwrap();
        }
    }
    println!("flips in other files: {endings:?}");
}

/// The engine trusts the lengths in these, and ends the process for lack of memory: each flip must be found before it reads them.
#[test]
fn every_flip_in_a_list_of_tables_or_contents_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let running = directory.path().join("running");
    let store = open(&running);
    append(&store, |batch| _ = batch.create_log(&group_log(1))).unwrap();
    for number in 0..30_u8 {
        append(&store, |batch| {
            _ = batch.append_record(&group_log(1), u64::from(number), vec![number; 600_000])
        })
        .unwrap();
    }
    store.close();
    drop(store);
    drop(open(&running));
    let mut all = Vec::new();
    files(&running.join("store/keyspaces"), &mut all);
    let in_folder = |path: &Path, name: &str| path.parent().unwrap().file_name().unwrap() == name;
    let is_named = |path: &Path, start: &str| path.file_name().unwrap().to_str().unwrap().starts_with(start);
    let tables = all.iter().filter(|path| in_folder(path, "tables")).take(1);
    let blobs = all.iter().filter(|path| in_folder(path, "blobs")).take(1);
    let with_tables: Vec<PathBuf> =
        tables.clone().map(|table| table.parent().unwrap().parent().unwrap().to_owned()).collect();
    let lists = all
        .iter()
        .filter(|path| with_tables.iter().any(|keyspace| path.parent() == Some(keyspace)))
        .filter(|path| is_named(path, "current") || is_named(path, "v"));
    let (tables, blobs, lists): (Vec<_>, Vec<_>, Vec<_>) =
        (tables.collect(), blobs.collect(), lists.collect());
    assert!(tables.len() == 1 && blobs.len() == 1 && lists.len() >= 2, "{all:?}");
    let mut count = 0;
    for path in [tables, blobs, lists].concat() {
        let whole = fs::read(path).unwrap();
        // The table of contents of a table or a blob file ends before the trailer, of 38 bytes; its place is in it.
        let place = whole.len() - 16;
        let contents = u64::from_le_bytes(whole[place..place + 8].try_into().unwrap());
        let is_list = in_folder(path, "tables") || in_folder(path, "blobs");
        let first = if is_list { usize::try_from(contents).unwrap() } else { 0 };
        // The length of the contents is not read.
        let end = if is_list { place + 8 } else { whole.len() };
        for at in first..end {
            for bit in if is_long() { 0..8 } else { (at % 8) as u8..(at % 8) as u8 + 1 } {
                let mut bytes = whole.clone();
                bytes[at] ^= 1 << bit;
                fs::write(path, bytes).unwrap();
                let opened = Store::open(&options(&running)).map(drop);
                assert!(
                    matches!(opened, Err(OpenError::Damaged { .. })),
                    "bit {bit} of byte {at} of {}: {opened:?}",
                    path.display()
                );
                count += 1;
            }
        }
        fs::write(path, whole).unwrap();
    }
    drop(open(&running));
    println!("flips in lists of tables and contents: {count}");
}
