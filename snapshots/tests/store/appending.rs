//! Batches and their preconditions, also many at once.

use snapshots::{AppendError, Batch, Bytes, KeyPackageRow, LoadedLog, StoreOptions, Unmet};

use crate::fixtures::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_all_who_append_after_the_same_record_one_wins() {
    const APPENDERS: u8 = 64;
    const RECORDS: u64 = 20;
    let store = temporary();
    append(&store, |batch| {
        batch.create_log(&group_log(1));
    })
    .unwrap();
    let append_all = |appender: u8| {
        let store = store.clone();
        async move {
            let mut won = Vec::new();
            let mut at = 0;
            while at < RECORDS {
                let mut batch = Batch::new();
                batch.append_record(&group_log(1), at, [appender]);
                at = match store.append(batch).await {
                    Ok(_) => {
                        won.push(at + 1);
                        at + 1
                    }
                    Err(AppendError::Precondition(Unmet::LogMoved { at: Some(moved) })) => {
                        assert!(moved > at, "it stands at {moved}, which is what was asked for");
                        moved
                    }
                    Err(error) => panic!("{error}"),
                };
            }
            (appender, won)
        }
    };
    let appenders: Vec<_> = (0..APPENDERS).map(|appender| tokio::spawn(append_all(appender))).collect();
    let mut winners = Vec::new();
    for appender in appenders {
        let (appender, won) = appender.await.unwrap();
        winners.extend(won.into_iter().map(|sequence| (sequence, vec![appender])));
    }
    winners.sort();
    let log = store.view().load_log(&group_log(1)).unwrap().unwrap();
    let records: Vec<_> =
        log.records.into_iter().map(|(sequence, bytes)| (sequence, bytes.to_vec())).collect();
    assert_eq!(records, winners);
    assert_eq!(records.len() as u64, RECORDS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_batch_does_not_hold_up_those_around_it() {
    let store = temporary();
    let mut answers = Vec::new();
    for number in 0..100 {
        let store = store.clone();
        answers.push(tokio::spawn(async move {
            let mut batch = Batch::new();
            // Two of each: one is refused.
            batch.put_setting(&format!("by {number}"), [number]).create_log(&group_log(number / 2));
            store.append(batch).await
        }));
    }
    let mut written = 0;
    for (number, answer) in answers.into_iter().enumerate() {
        let setting = store.view().setting(&format!("by {number}")).unwrap();
        match answer.await.unwrap() {
            Ok(_) => {
                written += 1;
                assert!(store.view().setting(&format!("by {number}")).unwrap().is_some());
            }
            Err(error) => {
                assert_eq!(error, AppendError::Precondition(Unmet::LogExists));
                assert_eq!(setting, None);
            }
        }
    }
    assert_eq!(written, 50);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn delivery_ids_become_visible_in_their_order() {
    let store = temporary();
    let watching = tokio::task::spawn_blocking({
        let store = store.clone();
        move || {
            let mut seen: Vec<u64> = Vec::new();
            while seen.len() < 200 {
                let found = store.view().join_infos(APP, &handle("alice"), None, 1000).unwrap();
                let found: Vec<u64> = found.into_iter().map(|(id, _)| id.0).collect();
                assert!(found.starts_with(&seen), "{found:?} after {seen:?}");
                seen = found;
            }
        }
    });
    let mut appending = Vec::new();
    for number in 0..100 {
        let store = store.clone();
        appending.push(tokio::spawn(async move {
            let mut batch = Batch::new();
            batch.put_welcome(
                APP,
                &group(number),
                snapshots::Epoch(1),
                &welcome_row(1),
                &invited(&[handle("alice"), handle("alice")]),
                invitation(),
            );
            let ids = store.append(batch).await.unwrap().deliveries;
            assert_eq!(ids.len(), 2);
            assert!(ids[0] < ids[1]);
        }));
    }
    for answer in appending {
        answer.await.unwrap();
    }
    watching.await.unwrap();
}

#[test]
fn the_steps_of_a_batch_see_each_other_and_go_together() {
    let store = temporary();
    append(&store, |batch| {
        batch
            .create_log(&group_log(1))
            .append_record(&group_log(1), 0, "one")
            .append_record(&group_log(1), 1, "two")
            .put_snapshot(&group_log(1), 1, "after one")
            .create_client(APP, &client_row(1, "alice"))
            .create_queue(APP, &queue_row(1, 1, ""));
    })
    .unwrap();
    let log = store.view().load_log(&group_log(1)).unwrap();
    let expected =
        LoadedLog { snapshot: Some((1, "after one".into())), records: vec![(2, "two".into())], head: 2 };
    assert_eq!(log, Some(expected));
    check_refused(&store, Unmet::LogMoved { at: Some(4) }, |batch| {
        batch
            .delete_client(APP, &client_row(1, "alice"))
            .append_record(&group_log(1), 2, "three")
            .append_record(&group_log(1), 3, "four")
            .append_record(&group_log(1), 3, "four again");
    });
    assert!(store.view().client(APP, client(1)).unwrap().is_some());
}

#[test]
fn what_does_not_hold_is_said() {
    let store = temporary();
    let (alice, bob) = (client_row(1, "alice"), client_row(2, "bob"));
    append(&store, |batch| {
        batch
            .create_log(&group_log(1))
            .create_client(APP, &alice)
            .create_client(APP, &bob)
            .create_queue(APP, &queue_row(1, 1, ""))
            .create_queue(APP, &queue_row(2, 1, "label"))
            .use_key_package(APP, &reference(1), false, &used_row(1))
            .create_setting("name", "value");
    })
    .unwrap();
    let (missing, changed) = (client_row(9, "nobody"), tagged(&alice, &["changed"]));

    check_refused(&store, Unmet::LogExists, |batch| _ = batch.create_log(&group_log(1)));
    let moved = |at| Unmet::LogMoved { at };
    check_refused(&store, moved(Some(0)), |batch| _ = batch.append_record(&group_log(1), 1, "x"));
    check_refused(&store, moved(None), |batch| _ = batch.append_record(&group_log(2), 0, "x"));
    check_refused(&store, moved(Some(0)), |batch| _ = batch.append_record(&group_log(1), u64::MAX, "x"));
    check_refused(&store, moved(Some(0)), |batch| _ = batch.put_snapshot(&group_log(1), 1, "x"));
    check_refused(&store, moved(None), |batch| _ = batch.put_snapshot(&group_log(2), 0, "x"));
    check_refused(&store, moved(Some(0)), |batch| _ = batch.require_log_at(&group_log(1), 1));

    check_refused(&store, Unmet::ClientExists, |batch| _ = batch.create_client(APP, &client_row(1, "other")));
    let taken = Unmet::HandleTaken { client: client(1) };
    check_refused(&store, taken.clone(), |batch| _ = batch.create_client(APP, &client_row(3, "alice")));
    check_refused(&store, taken, |batch| _ = batch.replace_client(APP, &bob, &client_row(2, "alice")));
    check_refused(&store, Unmet::ClientChanged, |batch| _ = batch.replace_client(APP, &changed, &alice));
    check_refused(&store, Unmet::ClientChanged, |batch| _ = batch.replace_client(APP, &alice, &bob));
    check_refused(&store, Unmet::ClientMissing, |batch| _ = batch.replace_client(APP, &missing, &missing));
    check_refused(&store, Unmet::ClientChanged, |batch| _ = batch.delete_client(APP, &changed));
    check_refused(&store, Unmet::ClientMissing, |batch| _ = batch.delete_client(APP, &missing));
    check_refused(&store, Unmet::ClientMissing, |batch| _ = batch.delete_client(OTHER_APP, &alice));
    check_refused(&store, Unmet::ClientChanged, |batch| _ = batch.replace_client(APP, &changed, &changed));

    let exists = |number| Unmet::QueueExists { queue: queue(number) };
    check_refused(&store, exists(1), |batch| _ = batch.create_queue(APP, &queue_row(3, 1, "")));
    check_refused(&store, Unmet::LogExists, |batch| _ = batch.create_queue(APP, &queue_row(1, 2, "")));
    check_refused(&store, Unmet::ClientMissing, |batch| _ = batch.create_queue(APP, &queue_row(3, 9, "")));
    let (first, relabelled) = (queue_row(1, 1, ""), queue_row(1, 1, "label"));
    check_refused(&store, exists(2), |batch| _ = batch.relabel_queue(APP, &first, &relabelled));
    check_refused(&store, Unmet::QueueChanged, |batch| _ = batch.relabel_queue(APP, &relabelled, &first));
    check_refused(&store, Unmet::QueueChanged, |batch| _ = batch.delete_queue(APP, &relabelled));
    check_refused(&store, Unmet::QueueMissing, |batch| _ = batch.delete_queue(APP, &queue_row(9, 1, "")));
    check_refused(&store, Unmet::QueueChanged, |batch| _ = batch.require_queue(APP, &relabelled));
    check_refused(&store, Unmet::QueueLimit { max: 2 }, |batch| {
        batch.require_queues_below(APP, client(1), 2);
    });
    check_refused(&store, Unmet::QueueMissing, |batch| {
        batch.put_key_package(APP, queue(9), &reference(1), &key_package_row(1));
    });

    let used = Unmet::KeyPackageUsed { reference: reference(1) };
    check_refused(&store, used.clone(), |batch| {
        batch.use_key_package(APP, &reference(1), false, &used_row(1));
    });
    check_refused(&store, used, |batch| _ = batch.require_unused(APP, &reference(1)));
    check_refused(&store, Unmet::SettingExists, |batch| _ = batch.create_setting("name", "value"));

    // The same names in another application are free, and what holds does not refuse.
    append(&store, |batch| {
        batch
            .create_client(OTHER_APP, &alice)
            .create_queue(OTHER_APP, &first)
            .require_unused(OTHER_APP, &reference(1))
            .replace_client(APP, &alice, &alice)
            .require_queue(APP, &first)
            .require_queues_below(APP, client(1), 3)
            .require_log_at(&group_log(1), 0);
    })
    .unwrap();
}

#[test]
fn of_two_commits_that_use_a_key_package_one_wins() {
    let store = temporary();
    let commit = |number: u8| {
        append(&store, |batch| {
            batch
                .create_log(&group_log(number))
                .use_key_package(APP, &reference(number), false, &used_row(1))
                .use_key_package(APP, &reference(100), false, &used_row(1));
        })
    };
    assert!(commit(1).is_ok());
    let refused = Unmet::KeyPackageUsed { reference: reference(100) };
    assert_eq!(commit(2), Err(AppendError::Precondition(refused)));
    assert_eq!(store.view().log_head(&group_log(2)).unwrap(), None);
    assert_eq!(store.view().used(APP, &reference(2)).unwrap(), None);
    assert_eq!(store.view().used(APP, &reference(100)).unwrap(), Some(used_row(1)));
}

/// The first use takes it out of its queue, so the second one finds it in none.
#[test]
fn a_package_of_a_pool_is_used_once_even_if_it_is_marked_as_one_of_last_resort() {
    let store = temporary();
    append(&store, |batch| {
        batch.create_client(APP, &client_row(1, "alice")).create_queue(APP, &queue_row(1, 1, ""));
        batch.put_key_package(APP, queue(1), &reference(1), &key_package_row(9));
        batch.use_key_package(APP, &reference(1), true, &used_row(9));
    })
    .unwrap();
    check_refused(&store, Unmet::KeyPackageUsed { reference: reference(1) }, |batch| {
        batch.use_key_package(APP, &reference(1), true, &used_row(9));
    });
}

#[test]
fn a_package_that_is_used_leaves_the_queues_that_hold_it_by_then() {
    let store = temporary();
    let holding = |batch: &mut Batch, of: u128, number: u8, is_final| {
        let row = KeyPackageRow { is_final, ..key_package_row(9) };
        batch.put_key_package(APP, queue(of), &reference(number), &row);
    };
    append(&store, |batch| {
        batch.create_client(APP, &client_row(1, "alice"));
        batch.create_queue(APP, &queue_row(1, 1, "")).create_queue(APP, &queue_row(2, 1, "label"));
        holding(batch, 2, 2, true);
        holding(batch, 2, 4, false);
    })
    .unwrap();
    // What uses them is ready before a queue holds the first.
    let mut using = Batch::new();
    for (number, is_last_resort) in [(1, true), (2, false), (3, true), (4, false)] {
        using.use_key_package(APP, &reference(number), is_last_resort, &used_row(9));
    }
    append(&store, |batch| {
        holding(batch, 1, 1, false);
        holding(batch, 2, 1, false);
    })
    .unwrap();
    let advanced = store.append_blocking(using).unwrap().advanced;
    let expected = [(1, 1), (2, 1), (2, 4)].map(|(of, number)| (queue(of), reference(number)));
    assert_eq!(advanced, expected);
    let view = store.view();
    let used: Vec<u8> =
        (1..=4).filter(|number| view.used(APP, &reference(*number)).unwrap().is_some()).collect();
    assert_eq!(used, [1, 4], "a final key, and one of last resort that nobody holds, may be used again");
    let held = |number| !view.queues_holding(APP, &reference(number)).unwrap().is_empty();
    assert_eq!([1, 2, 3, 4].map(held), [false, true, false, false]);
}

#[test]
fn what_is_too_large_is_refused_and_the_store_is_well() {
    let options = StoreOptions { batch_bytes_max: 10_000, queue_bytes_max: 1, ..StoreOptions::default() };
    let store = snapshots::Store::open(&options).unwrap();
    let put =
        |name: &str, length: usize| append(&store, |batch| _ = batch.put_setting(name, vec![0; length]));
    assert!(matches!(put("name", 10_000), Err(AppendError::TooLarge { bytes: 10_005, limit: 10_000 })));
    assert!(matches!(put(&"n".repeat(9_000), 0), Err(AppendError::TooLarge { .. })));
    // It is larger than all that may wait, and waits alone.
    assert!(put("name", 9_000).is_ok());
    assert_eq!(store.view().setting(&"n".repeat(9_000)).unwrap(), None);
    assert!(!store.is_failed());

    let alice = tagged(&client_row(1, "alice"), &[&"t".repeat(9_000)]);
    let created = append(&store, |batch| _ = batch.create_client(APP, &alice));
    assert!(matches!(created, Err(AppendError::TooLarge { .. })), "{created:?}");
    assert_eq!(store.view().clients(APP, None, Some(&"t".repeat(9_000)), None, 1).unwrap(), []);
    assert_eq!(rows(&store), []);
}

#[test]
fn a_batch_of_nothing_is_appended() {
    assert_eq!(append(&temporary(), |_| ()), Ok(vec![]));
}

#[test]
fn a_log_is_started_in_the_middle() {
    let store = temporary();
    let log = group_log(1);
    append(&store, |batch| {
        batch.start_log_at(&log, None, 7).put_snapshot(&log, 7, "seven").append_record(&log, 7, "eight");
    })
    .unwrap();
    let loaded = store.view().load_log(&log).unwrap().unwrap();
    assert_eq!(loaded.snapshot, Some((7, Bytes::from_static(b"seven"))));
    assert_eq!(loaded.records, [(8, Bytes::from_static(b"eight"))]);

    check_refused(&store, Unmet::LogExists, |batch| {
        batch.start_log_at(&log, None, 20);
    });
    check_refused(&store, Unmet::LogMoved { at: Some(8) }, |batch| {
        batch.start_log_at(&log, Some(7), 20);
    });
    append(&store, |batch| {
        batch.start_log_at(&log, Some(8), 20).put_snapshot(&log, 20, "twenty");
    })
    .unwrap();
    let loaded = store.view().load_log(&log).unwrap().unwrap();
    assert_eq!((loaded.head, loaded.records.len()), (20, 0));
    // What came before is the group's history.
    assert_eq!(rows(&store), [("log_heads", 1), ("actor_snapshots", 1), ("log_entries", 1)]);
    append(&store, |batch| {
        batch.append_record(&log, 20, "other").start_log_at(&log, Some(21), 0).put_snapshot(&log, 0, "new");
    })
    .unwrap();
    assert_eq!(rows(&store), [("log_heads", 1), ("actor_snapshots", 1)]);
}

#[test]
fn a_key_package_is_held_in_ways_that_agree() {
    let store = temporary();
    append(&store, |batch| {
        batch.create_client(APP, &client_row(1, "alice"));
        for number in 1..=3 {
            batch.create_queue(APP, &queue_row(number, 1, &format!("label {number}")));
        }
    })
    .unwrap();
    let once = key_package_row(10);
    let last = KeyPackageRow { is_final: true, ..once.clone() };
    let put = |of, row: &KeyPackageRow| {
        let row = row.clone();
        move |batch: &mut Batch| {
            batch.require_holdable(APP, queue(of), &reference(1), row.is_final);
            batch.put_key_package(APP, queue(of), &reference(1), &row);
        }
    };
    let held = || Unmet::KeyPackageHeld { reference: reference(1) };
    append(&store, put(1, &once)).unwrap();
    append(&store, put(1, &once)).unwrap();
    check_refused(&store, held(), put(2, &once));
    check_refused(&store, held(), put(1, &last));
    check_refused(&store, held(), put(2, &last));
    append(&store, |batch| _ = batch.delete_key_package(APP, queue(1), &reference(1))).unwrap();
    append(&store, put(2, &last)).unwrap();
    append(&store, put(3, &last)).unwrap();
    check_refused(&store, held(), put(1, &once));
}

#[tokio::test]
async fn the_tree_of_a_welcome_is_stored_once_and_only_while_it_waits() {
    let store = temporary();
    let row =
        snapshots::WelcomeRow { ratchet_tree: Bytes::new(), tree_bytes_to_store: 5000, ..welcome_row(1) };
    for epoch in [1, 2] {
        append(&store, |batch| {
            let clients = invited(&[handle("alice")]);
            batch.put_welcome(APP, &group(1), snapshots::Epoch(epoch), &row, &clients, invitation());
        })
        .unwrap();
    }
    let lacks = |number| store.view().lacks_welcome_trees(APP, &group(number)).unwrap();
    assert!(lacks(1) && !lacks(2));
    let fill = |epoch, tree: &'static [u8]| {
        append(&store, |batch| {
            batch.store_welcome_tree(APP, &group(1), snapshots::Epoch(epoch), Bytes::from_static(tree));
        })
        .unwrap();
    };
    fill(1, b"tree");
    assert!(lacks(1));
    append(&store, |batch| _ = batch.acknowledge(APP, &handle("alice"), snapshots::DeliveryId(2))).unwrap();
    assert!(!lacks(1));
    // What is stored stays, and what was acknowledged does not come back.
    fill(1, b"another");
    fill(2, b"another");
    let stored =
        snapshots::WelcomeRow { ratchet_tree: Bytes::from_static(b"tree"), tree_bytes_to_store: 0, ..row };
    let view = store.view();
    assert_eq!(view.welcome(APP, &group(1), snapshots::Epoch(1)), Ok(Some(stored)));
    assert_eq!(view.welcome(APP, &group(1), snapshots::Epoch(2)), Ok(None));
}
