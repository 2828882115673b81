//! Reopening: everything acknowledged is found again.

use std::time::Duration;

use snapshots::{DeliveryId, Durability, Epoch, OpenError, Store, StoreOptions};

use crate::fixtures::*;

#[test]
fn everything_is_there_again() {
    let directory = tempfile::tempdir().unwrap();
    for durability in [Durability::Sync, Durability::Buffer] {
        let place = directory.path().join(format!("{durability:?}"));
        let options = StoreOptions { durability, ..options(&place) };
        let store = Store::open(&options).unwrap();
        let alice = tagged(&client_row(1, "alice"), &["tag"]);
        append(&store, |batch| {
            batch
                .create_client(APP, &alice)
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
                .put_accepted_proposal(APP, &group(1), Epoch(3), &[1; 32], "reference")
                .put_welcome(
                    APP,
                    &group(1),
                    Epoch(3),
                    &welcome_row(1),
                    &invited(&[handle("bob")]),
                    invitation(),
                )
                .put_setting("name", "value");
        })
        .unwrap();
        let (before, view) = (rows(&store), store.view());
        let log = view.load_log(&group_log(1)).unwrap().unwrap();
        drop((store, view));

        let store = Store::open(&options).unwrap();
        let view = store.view();
        assert_eq!(rows(&store), before);
        assert_eq!(view.load_log(&group_log(1)).unwrap(), Some(log));
        assert_eq!(view.client_by_handle(APP, None, &handle("alice")).unwrap(), Some(alice));
        assert_eq!(view.queues(APP, client(1)).unwrap(), [queue_row(1, 1, "")]);
        assert_eq!(view.groups_of(APP, &handle("alice"), None, None, 9).unwrap(), [(group(1), Epoch(3))]);
        assert_eq!(view.epoch(APP, &group(1), Epoch(3)).unwrap(), Some(epoch_row(1)));
        let accepted = view.accepted_proposal(APP, &group(1), Epoch(3), &[1; 32]).unwrap();
        assert_eq!(accepted.as_deref(), Some(&b"reference"[..]));
        assert_eq!(view.welcome(APP, &group(1), Epoch(3)).unwrap(), Some(welcome_row(1)));
        assert_eq!(view.setting("name").unwrap().as_deref(), Some(&b"value"[..]));
    }
}

#[test]
fn delivery_ids_go_on_where_they_were() {
    let directory = tempfile::tempdir().unwrap();
    let mut last = DeliveryId(0);
    for round in 0..4 {
        let store = open(directory.path());
        for epoch in 0..3 {
            let added = [handle("alice"), handle("bob")];
            let ids = append(&store, |batch| {
                batch.put_welcome(
                    APP,
                    &group(round),
                    Epoch(epoch),
                    &welcome_row(1),
                    &invited(&added),
                    invitation(),
                );
            })
            .unwrap();
            assert_eq!(ids, [last.0 + 1, last.0 + 2]);
            last = DeliveryId(last.0 + 2);
            // That it is gone does not make its id free.
            append(&store, |batch| _ = batch.acknowledge(APP, &handle("bob"), last)).unwrap();
        }
        let waiting = store.view().join_infos(APP, &handle("alice"), None, 99).unwrap();
        assert!(waiting.is_sorted_by_key(|(id, _)| *id));
        assert_eq!(waiting.len(), usize::from(round + 1) * 3);
    }
}

#[test]
fn a_directory_is_in_use_until_its_last_view_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let in_use = || match Store::open(&options(directory.path())) {
        Err(OpenError::InUse { path }) => {
            assert_eq!(path, directory.path());
            true
        }
        Err(error) => panic!("{error}"),
        Ok(_) => false,
    };
    assert!(in_use());
    let view = store.view();
    store.close();
    assert!(in_use());
    drop(store);
    assert!(in_use());
    assert_eq!(view.setting("name").unwrap(), None);
    drop(view);
    assert!(!in_use());
}

#[test]
fn it_is_closed_and_opened_many_times() {
    let directory = tempfile::tempdir().unwrap();
    for round in 0..20 {
        let store = open(directory.path());
        if round == 0 {
            append(&store, |batch| _ = batch.create_log(&group_log(1))).unwrap();
        }
        append(&store, |batch| _ = batch.append_record(&group_log(1), round, [1])).unwrap();
        assert_eq!(store.view().log_head(&group_log(1)).unwrap(), Some(round + 1));
    }
}

#[tokio::test]
async fn a_store_that_is_shut_down_is_not_failed() {
    let store = temporary();
    let failed = tokio::spawn({
        let store = store.clone();
        async move { store.failed().await }
    });
    store.shutdown().await;
    store.shutdown().await;
    assert!(!store.is_failed());
    assert!(tokio::time::timeout(Duration::from_millis(50), failed).await.is_err());
}
