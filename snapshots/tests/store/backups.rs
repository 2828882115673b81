//! Backups: what is exported is imported again, and nothing else is.

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

use snapshots::{
    BackupError, Epoch, ImportOptions, Store, Timestamp, import_backup, inspect_backup, write_backup,
};

use crate::fixtures::*;

const MADE: Timestamp = Timestamp(1_700_000_000_000);
const OPTIONS: ImportOptions<'static> = ImportOptions { cache_bytes: 1 << 20, without_settings: &[] };

fn filled(directory: &Path) -> Store {
    let store = open(directory);
    append(&store, |batch| {
        batch
            .create_client(APP, &tagged(&client_row(1, "alice"), &["tag"]))
            .create_queue(APP, &queue_row(1, 1, ""))
            .put_key_package(APP, queue(1), &reference(1), &key_package_row(1))
            .use_key_package(APP, &reference(2), false, &used_row(1))
            .create_log(&group_log(1))
            .append_record(&group_log(1), 0, "one")
            .append_record(&group_log(1), 1, "two")
            .put_snapshot(&group_log(1), 1, vec![3; 100_000])
            .put_group(APP, &group(1), &group_row(3))
            .put_membership(APP, &handle("alice"), None, (&group(1), Epoch(0)))
            .put_epoch(APP, &group(1), Epoch(3), &epoch_row(1))
            .put_welcome(APP, &group(1), Epoch(3), &welcome_row(1), &invited(&[handle("bob")]), invitation())
            .put_setting("kept", "value")
            .put_setting("own", "id");
    })
    .unwrap();
    store
}

fn backup(store: &Store, path: &Path) -> Vec<u8> {
    write_backup(&store.view(), MADE, path).unwrap();
    fs::read(path).unwrap()
}

#[test]
fn a_backup_is_one_moment_and_becomes_the_same_store() {
    let directory = tempfile::tempdir().unwrap();
    let store = filled(&directory.path().join("store"));
    let view = store.view();
    // What is written after the moment is not in it.
    append(&store, |batch| _ = batch.put_setting("later", "value")).unwrap();
    let file = directory.path().join("backup");
    let written = write_backup(&view, MADE, &file).unwrap();
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(&file).unwrap().len(), written.bytes);
    assert_eq!((written.created, written.store_format), (MADE, Store::FORMAT));
    assert_eq!(inspect_backup(&file).unwrap(), written);
    let files = fs::read_dir(directory.path()).unwrap().count();
    assert_eq!(files, 2, "nothing else is left");

    let place = directory.path().join("imported");
    let options = ImportOptions { without_settings: &["own"], ..OPTIONS };
    assert_eq!(import_backup(&file, &place, &options).unwrap(), written);
    let imported = open(&place);
    assert_eq!(rows(&imported), rows(&store));
    let view = imported.view();
    assert_eq!(view.setting("kept").unwrap().as_deref(), Some(&b"value"[..]));
    assert_eq!(view.setting("own").unwrap(), None);
    assert_eq!(view.setting("later").unwrap(), None);
    assert_eq!(view.load_log(&group_log(1)).unwrap(), store.view().load_log(&group_log(1)).unwrap());
    assert_eq!(imported.lost_batches(), 0);
    append(&imported, |batch| _ = batch.append_record(&group_log(1), 2, "three")).unwrap();
}

#[test]
fn a_backup_replaces_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let store = filled(&directory.path().join("store"));
    let file = directory.path().join("backup");
    fs::write(&file, "mine").unwrap();
    let refused = write_backup(&store.view(), MADE, &file);
    assert!(matches!(refused, Err(BackupError::Exists { .. })));
    assert_eq!(fs::read(&file).unwrap(), b"mine");
    let nowhere = write_backup(&store.view(), MADE, &directory.path().join("missing").join("backup"));
    assert!(matches!(nowhere, Err(BackupError::Io { .. })));

    let good = directory.path().join("good");
    backup(&store, &good);
    let refused = import_backup(&good, &directory.path().join("store"), &OPTIONS);
    assert!(matches!(refused, Err(BackupError::NotEmpty { .. })));
    let other = directory.path().join("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("note"), "mine").unwrap();
    assert!(matches!(import_backup(&good, &other, &OPTIONS), Err(BackupError::NotEmpty { .. })));
    assert_eq!(fs::read_dir(&other).unwrap().count(), 1);
}

#[test]
fn an_import_that_was_cut_short_is_begun_again() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("backup");
    backup(&filled(&directory.path().join("store")), &file);
    let place = directory.path().join("imported");
    fs::create_dir_all(place.join("store.new")).unwrap();
    fs::write(place.join("store.new").join("0.jnl"), "half a journal").unwrap();
    fs::write(place.join("lock"), "").unwrap();
    import_backup(&file, &place, &OPTIONS).unwrap();
    assert_eq!(open(&place).view().setting("kept").unwrap().as_deref(), Some(&b"value"[..]));
}

#[test]
fn every_damaged_backup_is_refused_and_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let good = backup(&filled(&directory.path().join("store")), &directory.path().join("good"));
    let bad = directory.path().join("bad");
    let place = directory.path().join("imported");
    let check = |bytes: &[u8], what: &str| {
        fs::write(&bad, bytes).unwrap();
        assert!(inspect_backup(&bad).is_err(), "{what}");
        assert!(import_backup(&bad, &place, &OPTIONS).is_err(), "{what}");
        assert!(!place.exists(), "{what}: something is left");
    };
    // The long value in the midst is as good as its first bytes.
    let sampled = |at: usize| at < 120 || at + 200 > good.len() || at.is_multiple_of(997);
    for at in (0..good.len()).filter(|at| sampled(*at)) {
        let mut flipped = good.clone();
        flipped[at] ^= 1 << (at % 8);
        check(&flipped, &format!("byte {at}"));
        check(&good[..at], &format!("cut at {at}"));
    }
    check(&[&good[..], &[0]].concat(), "something follows");
    check(&[], "empty");
}

/// A backup that claims much and has little.
#[test]
fn a_length_that_is_only_claimed_takes_no_memory() {
    let directory = tempfile::tempdir().unwrap();
    let good = backup(&filled(&directory.path().join("store")), &directory.path().join("good"));
    // The header, up to the first row.
    let first_row = good.windows(3).position(|bytes| bytes == [0x93, 0, 0xc4]).unwrap();
    let bad = directory.path().join("bad");
    for claim in [&[0x93, 0, 0xc6, 255, 255, 255, 255][..], &[0x93, 0, 0xc4, 1, 9, 0xc6, 63, 255, 255, 255]] {
        let mut file = File::create(&bad).unwrap();
        file.write_all(&good[..first_row]).unwrap();
        file.write_all(claim).unwrap();
        drop(file);
        let refused = inspect_backup(&bad);
        assert!(matches!(refused, Err(BackupError::Damaged { .. })), "{refused:?}");
    }
}

#[test]
fn what_is_newer_or_foreign_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let good = backup(&filled(&directory.path().join("store")), &directory.path().join("good"));
    let file = directory.path().join("other");
    let with = |place: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[place] = value;
        fs::write(&file, bytes).unwrap();
        inspect_backup(&file).unwrap_err().to_string()
    };
    // An array of five, a text of 19 bytes, and the two versions.
    let version = 1 + 1 + 19;
    assert!(with(version, 2).contains("is of version 2, this program reads up to 1: use a newer program"));
    assert!(with(version + 1, 99).contains("is of a store of format 99"));
    assert!(with(5, b'x').contains("is not a backup of a MIMI gateway"));
}

/// The golden file of format 1: it was written once, and every later version reads it.
#[test]
fn the_golden_file_is_read() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/store/golden/backup-1");
    let directory = tempfile::tempdir().unwrap();
    let store = filled(&directory.path().join("store"));
    // A golden file is written once.
    if std::env::var_os("MIMI_RECORD").is_some() && !golden.exists() {
        write_backup(&store.view(), MADE, &golden).unwrap();
    }
    let summary = inspect_backup(&golden).unwrap();
    assert_eq!((summary.version, summary.store_format, summary.created), (1, 5, MADE));
    let place = directory.path().join("imported");
    import_backup(&golden, &place, &OPTIONS).unwrap();
    let imported = open(&place);
    assert_eq!(rows(&imported), rows(&store));
    assert_eq!(
        imported.view().load_log(&group_log(1)).unwrap(),
        store.view().load_log(&group_log(1)).unwrap()
    );
    let mut bytes = Vec::new();
    File::open(&golden).unwrap().read_to_end(&mut bytes).unwrap();
    if summary.store_format == Store::FORMAT {
        assert!(backup(&imported, &directory.path().join("again")) == bytes, "written anew, it is the same");
    }
}
