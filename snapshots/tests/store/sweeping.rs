//! Retention: what is too old is deleted, and nothing else.

use std::time::Duration;

use snapshots::{Epoch, Retention, Store, SweepProgress, Swept, Timestamp};

use crate::fixtures::*;

const NOW: Timestamp = Timestamp(1_000_000);

/// Keeps everything.
fn unlimited() -> Retention {
    Retention {
        history_epochs_max: u64::MAX,
        history_age_max: Duration::MAX,
        welcome_age_max: Duration::MAX,
        expired_age_max: Duration::MAX,
        event_rows_max: u64::MAX,
        event_age_max: Duration::MAX,
        deleted_age_max: Duration::MAX,
        compaction_period: Duration::MAX,
        read_max: usize::MAX,
        group_idle_max: None,
        assignment_age_max: None,
        dropped_per_client_max: u64::MAX,
        audit_rows_max: u64::MAX,
        audit_age_max: Duration::MAX,
        audit_queues_per_day_max: u64::MAX,
    }
}

async fn check(store: &Store, retention: Retention, expected: Swept) {
    assert_eq!(store.sweep(&retention, NOW).await, Ok(expected), "{retention:?}");
    assert_eq!(store.sweep(&retention, NOW).await, Ok(Swept::default()), "a second time: {retention:?}");
}

fn epochs(store: &Store, number: u8) -> Vec<u64> {
    let rows = store.view().epochs(APP, &group(number), Epoch(0), Epoch(u64::MAX), usize::MAX).unwrap();
    rows.into_iter().map(|(epoch, _)| epoch.0).collect()
}

/// A group whose epochs are created at a thousand times their number, with one proposal accepted in each.
fn put_history(store: &Store, number: u8, last: u64) {
    append(store, |batch| {
        batch.put_group(APP, &group(number), &group_row(last));
        for epoch in 1..=last {
            batch.put_epoch(APP, &group(number), Epoch(epoch), &epoch_row(epoch * 1000));
        }
        for epoch in 0..=last {
            batch.put_accepted_proposal(APP, &group(number), Epoch(epoch), &[1; 32], "reference");
        }
    })
    .unwrap();
}

#[tokio::test]
async fn the_oldest_epochs_go_and_the_newest_stays() {
    let store = temporary();
    put_history(&store, 1, 10);
    put_history(&store, 2, 3);
    append(&store, |batch| _ = batch.put_group(APP, &group(3), &group_row(0))).unwrap();
    check(&store, unlimited(), Swept::default()).await;
    let four = Retention { history_epochs_max: 4, ..unlimited() };
    check(&store, four, Swept { epochs: 6, accepted_proposals: 6, ..Swept::default() }).await;
    assert_eq!(epochs(&store, 1), [7, 8, 9, 10]);
    assert_eq!(epochs(&store, 2), [1, 2, 3]);
    let view = store.view();
    assert_eq!(view.first_epoch(APP, &group(1)).unwrap(), Some(Epoch(7)));
    let accepted = |epoch| view.accepted_proposal(APP, &group(1), Epoch(epoch), &[1; 32]).unwrap().is_some();
    assert!(!accepted(5));
    assert!(accepted(6));

    // What is made at 9000 is as old as it may be.
    let young = Retention { history_age_max: Duration::from_millis(NOW.0 - 9000), ..unlimited() };
    check(&store, young, Swept { epochs: 4, accepted_proposals: 4, ..Swept::default() }).await;
    assert_eq!(epochs(&store, 1), [9, 10]);
    assert_eq!(epochs(&store, 2), [3]);
    let nothing = Retention { history_epochs_max: 0, history_age_max: Duration::ZERO, ..unlimited() };
    check(&store, nothing, Swept { epochs: 1, accepted_proposals: 1, ..Swept::default() }).await;
    assert_eq!(epochs(&store, 1), [10]);
    assert_eq!(epochs(&store, 2), [3]);
}

#[tokio::test]
async fn log_entries_go_with_the_epochs_that_they_made_once_a_snapshot_has_them() {
    let store = temporary();
    append(&store, |batch| {
        batch.put_group(APP, &group(1), &group_row(3)).put_log_entry(APP, &group(1), 0, "creation");
        batch.create_log(&group_log(1)).put_snapshot(&group_log(1), 0, "zero");
        // Each epoch is made by a proposal and a commit.
        for epoch in 1..=3 {
            let row = snapshots::EpochRow { sequence: epoch * 2, ..epoch_row(1) };
            batch.put_epoch(APP, &group(1), Epoch(epoch), &row);
            batch.append_record(&group_log(1), epoch * 2 - 2, "proposal");
            batch.append_record(&group_log(1), epoch * 2 - 1, "commit");
        }
        batch.put_log_entry(APP, &group(2), 1, "of another group");
    })
    .unwrap();
    let one = || Retention { history_epochs_max: 1, ..unlimited() };
    let entries = || {
        let view = store.view();
        assert_eq!(view.log_entries(APP, &group(2), 1, 10, 1000).unwrap().len(), 1);
        let log = view.load_log(&group_log(1)).unwrap().unwrap();
        let kept = view.log_entries(APP, &group(1), 6 - log.records.len() as u64 + 1, 10, 1000).unwrap();
        assert_eq!(kept, log.records);
        (0..=6)
            .filter(|number| view.log_entry(APP, &group(1), *number).unwrap().is_some())
            .collect::<Vec<_>>()
    };
    for (snapshot, swept, kept) in [
        (0, Swept::default(), &[0, 1, 2, 3, 4, 5, 6][..]),
        (3, Swept { epochs: 1, log_entries: 3, ..Swept::default() }, &[3, 4, 5, 6]),
        (6, Swept { epochs: 1, log_entries: 2, ..Swept::default() }, &[5, 6]),
    ] {
        append(&store, |batch| _ = batch.put_snapshot(&group_log(1), snapshot, "state")).unwrap();
        check(&store, one(), swept).await;
        assert_eq!(entries(), kept);
        check(&store, one(), Swept::default()).await;
    }
}

#[tokio::test]
async fn more_than_one_batch_holds_is_dropped() {
    let store = temporary();
    let last = 1300;
    for number in 1..=2 {
        append(&store, |batch| {
            batch.put_group(APP, &group(number), &group_row(last));
            for epoch in 1..=last {
                batch.put_epoch(APP, &group(number), Epoch(epoch), &epoch_row(1));
            }
        })
        .unwrap();
    }
    append(&store, |batch| {
        for epoch in 0..1200 {
            batch.put_welcome(
                APP,
                &group(9),
                Epoch(epoch),
                &welcome_row(epoch),
                &invited(&[handle("alice")]),
                invitation(),
            );
        }
        for number in 0..=255 {
            batch.use_key_package(APP, &reference(number), false, &used_row(u64::from(number)));
            batch.use_key_package(OTHER_APP, &reference(number), false, &used_row(u64::from(number)));
            batch.use_key_package(APP, &other_reference(number), false, &used_row(u64::from(number)));
        }
    })
    .unwrap();
    let retention = Retention {
        history_epochs_max: 7,
        welcome_age_max: Duration::from_millis(NOW.0 - 1195),
        expired_age_max: Duration::ZERO,
        ..unlimited()
    };
    let expected =
        Swept { epochs: 2 * (last - 7), join_infos: 1195, used_key_packages: 3 * 256, ..Swept::default() };
    check(&store, retention, expected).await;
    assert_eq!(epochs(&store, 2).len(), 7);
    let waiting = store.view().join_infos(APP, &handle("alice"), None, usize::MAX).unwrap();
    let waiting: Vec<u64> = waiting.into_iter().map(|(_, row)| row.epoch.0).collect();
    assert_eq!(waiting, [1195, 1196, 1197, 1198, 1199]);
    let left = [
        ("epochs", 14),
        ("groups", 2),
        ("join_infos", 5),
        ("welcome_readers", 5),
        // Of all inviters, and of the one.
        ("welcome_shares", 2),
        ("welcomes", 5),
    ];
    let mut found = rows(&store);
    found.sort();
    assert_eq!(found, left);
}

fn other_reference(number: u8) -> snapshots::KeyPackageRef {
    snapshots::KeyPackageRef::new([number; 16]).unwrap()
}

#[tokio::test]
async fn join_infos_go_by_age_alone() {
    let store = temporary();
    for epoch in 0..4 {
        append(&store, |batch| {
            let row = welcome_row(epoch * 1000);
            batch.put_welcome(
                APP,
                &group(1),
                Epoch(epoch),
                &row,
                &invited(&[handle("alice"), handle("ali")]),
                invitation(),
            );
            batch.put_welcome(
                OTHER_APP,
                &group(1),
                Epoch(epoch),
                &row,
                &invited(&[handle("alice")]),
                invitation(),
            );
        })
        .unwrap();
    }
    append(&store, |batch| {
        batch.put_welcome(
            APP,
            &group(2),
            Epoch(9),
            &welcome_row(9000),
            &invited(&[handle("alice")]),
            invitation(),
        );
    })
    .unwrap();
    let waiting = |app, name: &str| {
        let found = store.view().join_infos(app, &handle(name), None, 99).unwrap();
        found.into_iter().map(|(_, row)| row.epoch.0).collect::<Vec<_>>()
    };
    check(&store, unlimited(), Swept::default()).await;
    let young = Retention { welcome_age_max: Duration::from_millis(NOW.0 - 1000), ..unlimited() };
    check(&store, young, Swept { join_infos: 3, ..Swept::default() }).await;
    assert_eq!(waiting(APP, "alice"), [1, 2, 3, 9]);
    assert_eq!(waiting(APP, "ali"), [1, 2, 3]);
    assert_eq!(waiting(OTHER_APP, "alice"), [1, 2, 3]);
    // Each of them as a whole: the welcome while anyone needs it.
    let welcome = |epoch| store.view().welcome(APP, &group(1), Epoch(epoch)).unwrap().is_some();
    assert_eq!([0, 1, 2, 3].map(welcome), [false, true, true, true]);
    let young = Retention { welcome_age_max: Duration::from_millis(NOW.0 - 3000), ..unlimited() };
    check(&store, young, Swept { join_infos: 6, ..Swept::default() }).await;
    assert_eq!(waiting(APP, "alice"), [3, 9]);
    assert_eq!([0, 1, 2, 3].map(welcome), [false, false, false, true]);
}

#[tokio::test]
async fn key_packages_go_some_time_after_they_expired() {
    let store = temporary();
    append(&store, |batch| {
        batch.create_client(APP, &client_row(1, "alice")).create_queue(APP, &queue_row(1, 1, ""));
        for number in 0..10 {
            let not_after = u64::from(number) * 1000;
            batch.use_key_package(APP, &reference(number), false, &used_row(not_after)).put_key_package(
                APP,
                queue(1),
                &reference(number),
                &key_package_row(not_after),
            );
        }
        // Its lifetime became longer: the first one no longer counts.
        batch.put_key_package(APP, queue(1), &reference(0), &key_package_row(9_000));
        batch.delete_key_package(APP, queue(1), &reference(1));
    })
    .unwrap();
    check(&store, unlimited(), Swept::default()).await;
    let five = Retention { expired_age_max: Duration::from_millis(NOW.0 - 5_000), ..unlimited() };
    check(&store, five, Swept { key_packages: 3, used_key_packages: 5, ..Swept::default() }).await;
    let view = store.view();
    let held = |number| view.queues_holding(APP, &reference(number)).unwrap().len();
    assert_eq!([0, 1, 2, 3, 4, 5, 6].map(held), [1, 0, 0, 0, 0, 1, 1]);
    let used = |number| view.used(APP, &reference(number)).unwrap().is_some();
    assert_eq!([0, 1, 4, 5, 9].map(used), [false, false, false, true, true]);
    let all = Retention { expired_age_max: Duration::ZERO, ..unlimited() };
    check(&store, all, Swept { key_packages: 6, used_key_packages: 5, ..Swept::default() }).await;
    append(&store, |batch| _ = batch.delete_client(APP, &client_row(1, "alice"))).unwrap();
    // Each sweep told the client that packages have expired.
    assert_eq!(rows(&store), [("events", 2), ("event_heads", 1)]);
    let none = Retention { event_rows_max: 0, ..unlimited() };
    check(&store, none, Swept { event_rows: 2, ..Swept::default() }).await;
    assert_eq!(rows(&store), [("event_heads", 1)]);
}

/// The positions of the rows of events that are kept.
fn positions(store: &Store) -> Vec<u64> {
    let view = store.view();
    let head = view.event_head(APP).unwrap();
    let first = (0..=head).find(|after| !view.events(APP, *after, head, 1).unwrap().is_cut);
    let kept = view.events(APP, first.unwrap_or(head), head, 100).unwrap();
    kept.rows.into_iter().map(|(position, _)| position).collect()
}

#[tokio::test]
async fn events_go_by_age_and_by_number() {
    let store = temporary();
    let event = snapshots::Event::GroupCreated { group: group(1) };
    for app in [APP, OTHER_APP] {
        for written in 1..=6_u64 {
            append(&store, |batch| _ = batch.add_event(&event).announce(app, Timestamp(written * 1000)))
                .unwrap();
        }
    }
    let age = |until: u64| Duration::from_millis(NOW.0 - until);
    check(&store, unlimited(), Swept::default()).await;
    assert_eq!(positions(&store), [1, 2, 3, 4, 5, 6]);
    let old = Retention { event_age_max: age(3000), ..unlimited() };
    check(&store, old, Swept { event_rows: 4, ..Swept::default() }).await;
    assert_eq!(positions(&store), [3, 4, 5, 6]);
    let many = Retention { event_rows_max: 3, ..unlimited() };
    check(&store, many, Swept { event_rows: 2, ..Swept::default() }).await;
    assert_eq!(positions(&store), [4, 5, 6]);
    let view = store.view();
    assert!(view.events(APP, 2, 6, 9).unwrap().is_cut, "the third is no longer kept");
    assert_eq!(view.events(APP, 3, 5, 9).unwrap().rows.len(), 2);
    assert_eq!(view.events(APP, 6, 6, 9).unwrap(), snapshots::EventRows { rows: Vec::new(), is_cut: false });
    assert_eq!(view.event_head(OTHER_APP), Ok(6));
}

#[tokio::test]
async fn others_append_while_it_sweeps() {
    let store = temporary();
    put_history(&store, 1, 900);
    append(&store, |batch| _ = batch.create_log(&group_log(1))).unwrap();
    let sweeping = tokio::spawn({
        let store = store.clone();
        async move { store.sweep(&Retention { history_epochs_max: 1, ..unlimited() }, NOW).await }
    });
    for after in 0..50 {
        let mut batch = snapshots::Batch::new();
        batch.append_record(&group_log(1), after, [0]);
        store.append(batch).await.unwrap();
    }
    assert_eq!(sweeping.await.unwrap().unwrap().epochs, 899);
    assert_eq!(epochs(&store, 1), [900]);
}

#[tokio::test]
async fn a_sweep_looks_at_a_part_of_the_groups_and_the_next_goes_on() {
    let store = temporary();
    for number in 1..=5 {
        append(&store, |batch| {
            batch.create_log(&group_log(number)).put_group(APP, &group(number), &group_row(2));
            batch.put_epoch(APP, &group(number), Epoch(1), &epoch_row(1));
            batch.put_epoch(APP, &group(number), Epoch(2), &epoch_row(1));
        })
        .unwrap();
        let clients = invited(&[handle(&format!("client {number}"))]);
        append(&store, |batch| {
            batch.put_welcome(APP, &group(number), Epoch(1), &welcome_row(1), &clients, invitation());
        })
        .unwrap();
    }
    let retention = Retention {
        history_epochs_max: 1,
        welcome_age_max: Duration::from_millis(1),
        read_max: 2,
        ..unlimited()
    };
    let mut progress = SweepProgress::default();
    // Twice around: two, two and the last one.
    for expected in [2, 2, 1, 0, 0, 0] {
        let swept = store.sweep_part(&mut progress, &retention, NOW).await.unwrap();
        assert_eq!((swept.epochs, swept.join_infos), (expected, expected));
    }
    // What is new is found in its turn, wherever it is.
    append(&store, |batch| _ = batch.put_epoch(APP, &group(1), Epoch(3), &epoch_row(1))).unwrap();
    let mut found = 0;
    for _ in 0..3 {
        found += store.sweep_part(&mut progress, &retention, NOW).await.unwrap().epochs;
    }
    assert_eq!(found, 1);
}
