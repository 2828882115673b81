//! Cascading deletes: the rows that are deleted with another, and those that stay.

use snapshots::{Batch, ClientRow, DeliveryId, Epoch, InvitedClient, LogId, Store, Unmet};

use crate::fixtures::*;

/// A client with everything that a client can have: two queues with logs, snapshots and key packages, and a welcome.
fn register(batch: &mut Batch, row: &ClientRow, number: u8) {
    batch.create_client(APP, row);
    for queue_number in [u128::from(number) * 10, u128::from(number) * 10 + 1] {
        let mut key_queue = queue_row(queue_number, 0, &format!("label {queue_number}"));
        key_queue.client_id = row.client_id;
        let log = LogId::KeyQueue(APP, key_queue.queue_id);
        batch
            .create_queue(APP, &key_queue)
            .append_record(&log, 0, "one")
            .append_record(&log, 1, "two")
            .append_record(&log, 2, "three")
            .put_snapshot(&log, 1, "after one");
        for package in 0..5 {
            let row = key_package_row(u64::from(package));
            batch.put_key_package(APP, key_queue.queue_id, &reference(number * 10 + package), &row);
        }
    }
    for epoch in 1..4 {
        batch.put_welcome(
            APP,
            &group(number),
            Epoch(epoch),
            &welcome_row(1),
            &invited(std::slice::from_ref(&row.handle)),
            invitation(),
        );
    }
}

#[test]
fn a_deleted_client_leaves_nothing_and_takes_nothing_of_others() {
    let store = temporary();
    let bob = tagged(&client_row(2, "bob"), &["tag"]);
    append(&store, |batch| register(batch, &bob, 2)).unwrap();
    let before = rows(&store);
    let alice = tagged(&client_row(1, "alice"), &["tag", "other tag"]);
    append(&store, |batch| register(batch, &alice, 1)).unwrap();
    assert!(rows(&store).iter().zip(&before).all(|(now, then)| now > then), "{:?}", rows(&store));
    append(&store, |batch| _ = batch.delete_client(APP, &alice)).unwrap();
    assert_eq!(rows(&store), before);
    assert_eq!(store.view().queues_holding(APP, &reference(20)).unwrap().len(), 2);
    append(&store, |batch| _ = batch.delete_client(APP, &bob)).unwrap();
    assert_eq!(rows(&store), []);
}

#[test]
fn a_client_is_registered_used_and_deleted_by_one_batch() {
    let store = temporary();
    let alice = tagged(&client_row(1, "alice"), &["tag"]);
    append(&store, |batch| {
        register(batch, &alice, 1);
        batch.delete_client(APP, &alice);
    })
    .unwrap();
    assert_eq!(rows(&store), []);
}

#[test]
fn what_was_changed_before_leaves_nothing_either() {
    let store = temporary();
    let alice = tagged(&client_row(1, "alice"), &["old tag"]);
    let mut renamed = tagged(&client_row(1, "alice's"), &["new tag"]);
    renamed.domain = Some(domain("example.com"));
    append(&store, |batch| {
        batch
            .create_client(APP, &alice)
            .create_queue(APP, &queue_row(1, 1, "old"))
            .put_key_package(APP, queue(1), &reference(1), &key_package_row(1))
            .put_key_package(APP, queue(1), &reference(1), &key_package_row(2));
    })
    .unwrap();
    append(&store, |batch| {
        batch.replace_client(APP, &alice, &renamed).relabel_queue(
            APP,
            &queue_row(1, 1, "old"),
            &queue_row(1, 1, "new"),
        );
    })
    .unwrap();
    let view = store.view();
    assert_eq!(view.client_by_handle(APP, None, &handle("alice")).unwrap(), None);
    assert_eq!(view.clients(APP, None, Some("old tag"), None, 9).unwrap(), []);
    assert_eq!(view.queue_matching(APP, client(1), 1, 1, "old").unwrap(), None);
    assert_eq!(view.queue_matching(APP, client(1), 1, 1, "new").unwrap(), Some(queue_row(1, 1, "new")));
    append(&store, |batch| _ = batch.delete_client(APP, &renamed)).unwrap();
    assert_eq!(rows(&store), []);
}

#[test]
fn a_client_takes_the_join_infos_of_its_domain_with_it_and_no_others() {
    let store = temporary();
    let in_domain =
        |number: u128, name: &str| ClientRow { domain: Some(domain(name)), ..client_row(number, "alice") };
    let (here, there) = (in_domain(1, "a.example"), in_domain(2, "b.example"));
    // Nobody registered her third domain: welcomes go by credential.
    let welcomed = [&here.domain, &there.domain, &Some(domain("c.example"))]
        .map(|domain| InvitedClient { handle: here.handle.clone(), domain: domain.clone() });
    let waiting = || -> Vec<usize> {
        let of = |client: &InvitedClient| {
            let view = store.view();
            view.join_infos_in(APP, &client.handle, client.domain.as_ref(), None, 9).unwrap().len()
        };
        welcomed.iter().map(of).collect()
    };
    append(&store, |batch| {
        batch.create_client(APP, &here).create_client(APP, &there).put_welcome(
            APP,
            &group(1),
            Epoch(1),
            &welcome_row(1),
            &welcomed,
            invitation(),
        );
    })
    .unwrap();
    assert_eq!(waiting(), [1, 1, 1]);
    append(&store, |batch| _ = batch.delete_client(APP, &here)).unwrap();
    assert_eq!(waiting(), [0, 1, 1]);
    append(&store, |batch| _ = batch.delete_client(APP, &there)).unwrap();
    assert_eq!(waiting(), [0, 0, 1]);
    let counted = |client: &InvitedClient| store.view().join_infos_counted(APP, client).unwrap();
    assert_eq!(welcomed.iter().map(counted).collect::<Vec<_>>(), [0, 0, 1]);
}

#[test]
fn a_join_info_without_a_domain_stays_for_the_other_clients_of_its_handle() {
    let store = temporary();
    let here = client_row(1, "alice");
    let there = ClientRow { domain: Some(domain("example.com")), ..client_row(2, "alice") };
    append(&store, |batch| {
        batch.create_client(APP, &here).create_client(APP, &there).put_welcome(
            APP,
            &group(1),
            Epoch(1),
            &welcome_row(1),
            &invited(std::slice::from_ref(&here.handle)),
            invitation(),
        );
    })
    .unwrap();
    append(&store, |batch| _ = batch.delete_client(APP, &here)).unwrap();
    assert_eq!(store.view().join_infos(APP, &here.handle, None, 9).unwrap().len(), 1);
    append(&store, |batch| _ = batch.delete_client(APP, &there)).unwrap();
    assert_eq!(rows(&store), []);
}

#[test]
fn a_queue_behind_the_deletion_of_its_client_finds_it_missing() {
    let store = temporary();
    let alice = client_row(1, "alice");
    append(&store, |batch| _ = batch.create_client(APP, &alice)).unwrap();
    check_refused(&store, Unmet::ClientMissing, |batch| {
        batch.delete_client(APP, &alice).create_queue(APP, &queue_row(1, 1, ""));
    });
    append(&store, |batch| {
        batch.create_queue(APP, &queue_row(1, 1, "")).delete_client(APP, &alice);
    })
    .unwrap();
    assert_eq!(rows(&store), []);
}

#[test]
fn a_deleted_queue_leaves_its_siblings() {
    let store = temporary();
    let alice = client_row(1, "alice");
    append(&store, |batch| register(batch, &alice, 1)).unwrap();
    let row = store.view().queue_by_id(APP, queue(10)).unwrap().unwrap();
    append(&store, |batch| _ = batch.delete_queue(APP, &row)).unwrap();
    let view = store.view();
    assert_eq!(view.queue(APP, client(1), queue(10)).unwrap(), None);
    assert_eq!(view.queue_by_id(APP, queue(10)).unwrap(), None);
    assert_eq!(view.load_log(&LogId::KeyQueue(APP, queue(10))).unwrap(), None);
    assert_eq!(view.queues(APP, client(1)).unwrap().len(), 1);
    let holding = view.queues_holding(APP, &reference(10)).unwrap();
    assert_eq!(holding, [(queue(11), client(1), key_package_row(0))]);
    // Its place is free for another of the same label, also of the same id.
    append(&store, |batch| _ = batch.create_queue(APP, &row)).unwrap();
    assert_eq!(store.view().log_head(&LogId::KeyQueue(APP, queue(10))).unwrap(), Some(0));
}

#[test]
fn a_deleted_log_can_be_begun_again() {
    let store = temporary();
    for _ in 0..2 {
        append(&store, |batch| {
            batch.create_log(&group_log(1));
            for after in 0..10 {
                batch.append_record(&group_log(1), after, [0]);
            }
            batch.put_snapshot(&group_log(1), 4, "after four");
        })
        .unwrap();
        append(&store, |batch| _ = batch.delete_log(&group_log(1))).unwrap();
        assert_eq!(rows(&store), []);
        assert_eq!(store.view().load_log(&group_log(1)).unwrap(), None);
    }
}

#[test]
fn snapshots_take_the_records_of_key_queues_with_them_and_leave_the_entries_of_groups() {
    let store = temporary();
    let logs = [group_log(1), LogId::KeyQueue(APP, queue(1))];
    append(&store, |batch| {
        for log in &logs {
            batch.create_log(log);
            for after in 0..10 {
                batch.append_record(log, after, [0]);
            }
        }
    })
    .unwrap();
    let check = |at: u64, bytes: &'static str, kept: Option<(u64, &'static str)>, records: u64| {
        for log in &logs {
            append(&store, |batch| _ = batch.put_snapshot(log, at, bytes)).unwrap();
            let log = store.view().load_log(log).unwrap().unwrap();
            assert_eq!(log.snapshot, kept.map(|(at, bytes)| (at, bytes.into())));
            assert_eq!(log.head, 10);
            assert_eq!(log.records.len() as u64, records);
        }
        let stored = |name| rows(&store).into_iter().find(|(table, _)| *table == name);
        assert_eq!(stored("records").map_or(0, |(_, count)| count), records);
        assert_eq!(stored("log_entries").map_or(0, |(_, count)| count), 10);
    };
    check(0, "zero", Some((0, "zero")), 10);
    check(3, "three", Some((3, "three")), 7);
    check(2, "older", Some((3, "three")), 7);
    check(3, "again", Some((3, "again")), 7);
    check(10, "ten", Some((10, "ten")), 0);
}

#[tokio::test]
async fn a_welcome_goes_with_its_last_join_info() {
    let store = temporary();
    let added = [handle("alice"), handle("bob"), handle("carol")];
    let ids = append(&store, |batch| {
        batch.put_welcome(APP, &group(1), Epoch(5), &welcome_row(1), &invited(&added), invitation());
    })
    .unwrap();
    let waiting = |store: &Store| store.view().welcome(APP, &group(1), Epoch(5)).unwrap().is_some();
    for (handle, id) in added.iter().zip(&ids) {
        assert!(waiting(&store));
        // Another's is not acknowledged, nor is one twice.
        append(&store, |batch| _ = batch.acknowledge(APP, handle, DeliveryId(id + 100))).unwrap();
        append(&store, |batch| _ = batch.acknowledge(OTHER_APP, handle, DeliveryId(*id))).unwrap();
        for _ in 0..2 {
            append(&store, |batch| _ = batch.acknowledge(APP, handle, DeliveryId(*id))).unwrap();
        }
        assert_eq!(store.view().join_infos(APP, handle, None, 9).unwrap(), []);
    }
    assert!(!waiting(&store));
    assert_eq!(rows(&store), []);
    assert_eq!(
        append(&store, |batch| _ =
            batch.put_welcome(APP, &group(1), Epoch(5), &welcome_row(1), &[], invitation())),
        Ok(vec![])
    );
    assert_eq!(rows(&store), []);
}
