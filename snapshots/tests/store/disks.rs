//! Disks that hang, and directories that vanish under a store.

use std::fs;
use std::path::Path;
use std::time::Duration;

use snapshots::{AppendError, Batch, Store, StoreOptions};

use crate::fixtures::*;

fn setting(name: &str) -> Batch {
    let mut batch = Batch::new();
    batch.put_setting(name, "value");
    batch
}

/// What happens to the directory is noticed by the next write, which is not acknowledged, and the store ends.
#[track_caller]
fn check_noticed(change: impl FnOnce(&Path)) {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("data");
    let store = open(&place);
    store.append_blocking(setting("before")).unwrap();
    change(&place);
    match store.append_blocking(setting("after")) {
        Err(AppendError::Storage(reason)) => {
            assert!(reason.contains("while the gateway was running"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
    assert!(store.is_failed());
}

#[test]
fn a_directory_that_is_gone_is_noticed_before_a_write_is_acknowledged() {
    check_noticed(|place| fs::remove_dir_all(place).unwrap());
    check_noticed(|place| fs::rename(place, place.with_extension("moved")).unwrap());
    check_noticed(|place| fs::rename(place.join("store"), place.join("moved")).unwrap());
    check_noticed(|place| fs::remove_file(place.join("lock")).unwrap());
    // Another store is in its place.
    check_noticed(|place| {
        fs::rename(place, place.with_extension("moved")).unwrap();
        open(place).append_blocking(setting("of another")).unwrap();
    });
}

#[tokio::test]
async fn a_directory_that_is_gone_is_noticed_without_a_write() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("data");
    let store = open(&place);
    fs::remove_dir_all(&place).unwrap();
    tokio::time::timeout(Duration::from_secs(30), store.failed()).await.expect("it is noticed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_well_is_not_stalled() {
    let store =
        Store::open(&StoreOptions { stalled_after: Duration::from_secs(5), ..StoreOptions::default() });
    let store = store.unwrap();
    for _ in 0..50 {
        store.append(setting("one")).await.unwrap();
    }
    assert!(!store.is_stalled());
}
