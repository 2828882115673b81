//! The receivers of assigned key packages.

use std::time::Duration;

use snapshots::{
    AssignedLimits, AssignedRow, Batch, Retention, Store, SweepProgress, Swept, Timestamp, Unmet,
};

use crate::fixtures::*;

const LIMITS: AssignedLimits = AssignedLimits { per_client_max: 3, per_peer_max: 2 };

fn assigned_row(client_number: u128, peer: Option<&str>, not_after: u64) -> AssignedRow {
    AssignedRow {
        client_id: client(client_number),
        peer: peer.map(domain),
        receiver: "bob".to_owned(),
        not_after: Timestamp(not_after),
        at: Some(Timestamp(10)),
        is_dropped: false,
    }
}

fn assign(batch: &mut Batch, number: u8, row: &AssignedRow) {
    batch.assign_key_package(APP, &reference(number), row, LIMITS);
}

/// Which of the first packages are somebody's.
fn assigned(store: &Store) -> Vec<u8> {
    let view = store.view();
    (0..20).filter(|number| view.assigned(APP, &reference(*number)).unwrap().is_some()).collect()
}

fn taken(store: &Store, client_number: u128, peer: &str) -> u64 {
    store.view().assigned_to_peer(APP, client(client_number), &domain(peer)).unwrap()
}

#[test]
fn an_assignment_is_known_until_the_package_is_used() {
    let store = temporary();
    let (row, other) = (assigned_row(1, None, 9), assigned_row(1, Some("b.example"), 9));
    append(&store, |batch| assign(batch, 1, &row)).unwrap();
    assert_eq!(store.view().assigned(APP, &reference(1)), Ok(Some(row.clone())));
    assert_eq!(store.view().assigned(OTHER_APP, &reference(1)), Ok(None));
    let unmet = || Unmet::KeyPackageAssigned { reference: reference(1) };
    for expected in [None, Some(&other)] {
        check_refused(&store, unmet(), |batch| {
            batch.require_assigned(APP, &reference(1), expected);
        });
    }
    append(&store, |batch| {
        batch.require_assigned(APP, &reference(1), Some(&row)).require_assigned(APP, &reference(2), None);
    })
    .unwrap();
    append(&store, |batch| {
        batch.use_key_package(APP, &reference(1), false, &used_row(9));
    })
    .unwrap();
    assert_eq!(assigned(&store), []);
    append(&store, |batch| {
        assign(batch, 2, &other);
        batch.note_key_package_used(APP, &reference(2), false, &used_row(9));
    })
    .unwrap();
    assert_eq!((assigned(&store), taken(&store, 1, "b.example")), (vec![], 0));
    assert_eq!(rows(&store), [("used_key_packages", 2), ("expiries", 2)]);
}

#[test]
fn a_peer_has_a_share_of_each_client() {
    let store = temporary();
    let of_b = |client_number| assigned_row(client_number, Some("b.example"), 9);
    append(&store, |batch| {
        assign(batch, 1, &of_b(1));
        assign(batch, 2, &of_b(1));
        assign(batch, 2, &of_b(1));
    })
    .unwrap();
    check_refused(&store, Unmet::PeerShareTaken { max: 2 }, |batch| assign(batch, 3, &of_b(1)));
    append(&store, |batch| {
        assign(batch, 3, &of_b(2));
        assign(batch, 4, &assigned_row(1, Some("c.example"), 9));
    })
    .unwrap();
    assert_eq!([taken(&store, 1, "b.example"), taken(&store, 1, "c.example")], [2, 1]);
    append(&store, |batch| {
        batch.use_key_package(APP, &reference(1), false, &used_row(9));
        assign(batch, 5, &of_b(1));
    })
    .unwrap();
    assert_eq!((taken(&store, 1, "b.example"), taken(&store, 2, "b.example")), (2, 1));
}

#[test]
fn beyond_the_limit_what_expires_first_is_forgotten() {
    let store = temporary();
    for (number, not_after) in [(1, 50), (2, 20), (3, 40), (4, 30)] {
        append(&store, |batch| assign(batch, number, &assigned_row(1, None, not_after))).unwrap();
    }
    append(&store, |batch| assign(batch, 5, &assigned_row(2, None, 1))).unwrap();
    assert_eq!(assigned(&store), [1, 3, 4, 5], "another client's is not counted");
    let one = AssignedLimits { per_client_max: 1, ..LIMITS };
    append(&store, |batch| {
        batch.assign_key_package(APP, &reference(6), &assigned_row(1, None, 60), one);
    })
    .unwrap();
    assert_eq!(assigned(&store), [1, 5, 6], "two at once when the limit was made smaller");
}

#[tokio::test]
async fn an_assignment_goes_with_its_client_and_when_it_has_expired() {
    let store = temporary();
    append(&store, |batch| {
        batch.create_client(APP, &client_row(1, "alice")).create_client(APP, &client_row(2, "bob"));
        assign(batch, 1, &assigned_row(1, Some("b.example"), 100));
        assign(batch, 2, &assigned_row(2, None, 100));
        assign(batch, 3, &assigned_row(2, Some("b.example"), 200));
        batch.delete_client(APP, &client_row(1, "alice"));
    })
    .unwrap();
    assert_eq!((assigned(&store), taken(&store, 1, "b.example")), (vec![2, 3], 0));
    let retention = Retention { expired_age_max: Duration::ZERO, ..Retention::default() };
    let swept = store.sweep(&retention, Timestamp(101)).await.unwrap();
    assert_eq!(swept, Swept { assigned_key_packages: 1, ..Swept::default() });
    assert_eq!((assigned(&store), taken(&store, 2, "b.example")), (vec![3], 1));
    store.sweep(&retention, Timestamp(201)).await.unwrap();
    append(&store, |batch| {
        batch.delete_client(APP, &client_row(2, "bob"));
    })
    .unwrap();
    assert_eq!(rows(&store), []);
}

#[tokio::test]
async fn a_package_that_nobody_used_in_time_is_dropped_and_stays_assigned() {
    let store = temporary();
    append(&store, |batch| {
        batch.create_client(APP, &client_row(1, "alice")).create_queue(APP, &queue_row(1, 1, ""));
        for number in 1..=4 {
            batch.put_key_package(APP, queue(1), &reference(number), &key_package_row(9_000));
        }
        let at = |at, peer| AssignedRow { at, ..assigned_row(1, peer, 9_000) };
        assign(batch, 1, &at(Some(Timestamp(99)), Some("b.example")));
        assign(batch, 2, &at(Some(Timestamp(100)), Some("b.example")));
        // As earlier versions wrote it.
        assign(batch, 3, &at(None, None));
        batch.assign_key_package(OTHER_APP, &reference(1), &at(Some(Timestamp(5)), None), LIMITS);
    })
    .unwrap();
    let held = |number| store.view().queues_holding(APP, &reference(number)).unwrap().len();
    let dropped = |app, number| store.view().assigned(app, &reference(number)).unwrap().unwrap().is_dropped;
    let sweep = async |age_max| {
        let retention = Retention { assignment_age_max: age_max, ..Retention::default() };
        store.sweep(&retention, Timestamp(1_000)).await.unwrap()
    };
    assert_eq!(sweep(None).await, Swept::default());
    let age_max = Some(Duration::from_millis(900));
    assert_eq!(sweep(age_max).await, Swept { unused_key_packages: 2, ..Swept::default() });
    assert_eq!(sweep(age_max).await, Swept::default(), "a second time");
    assert_eq!([1, 2, 3, 4].map(held), [0, 1, 1, 1]);
    assert_eq!([1, 2, 3].map(|number| dropped(APP, number)), [true, false, false]);
    assert!(dropped(OTHER_APP, 1));
    assert_eq!(taken(&store, 1, "b.example"), 1, "it no longer counts for the peer");
    // It may still be used, but only once, even if it is marked as a package of last resort.
    append(&store, |batch| _ = batch.use_key_package(APP, &reference(1), true, &used_row(9_000))).unwrap();
    check_refused(&store, Unmet::KeyPackageUsed { reference: reference(1) }, |batch| {
        batch.use_key_package(APP, &reference(1), true, &used_row(9_000));
    });
    assert_eq!((assigned(&store), taken(&store, 1, "b.example")), (vec![2, 3], 1));
    append(&store, |batch| _ = batch.delete_client(APP, &client_row(1, "alice"))).unwrap();
    assert_eq!(taken(&store, 1, "b.example"), 0);
}

#[tokio::test]
async fn a_dropped_package_is_remembered_until_its_lifetime_ends() {
    let store = temporary();
    let limits = AssignedLimits { per_client_max: 2, per_peer_max: 2 };
    let assign = |number, not_after| {
        append(&store, |batch| {
            let row =
                AssignedRow { at: Some(Timestamp(10)), ..assigned_row(1, Some("b.example"), not_after) };
            batch.assign_key_package(APP, &reference(number), &row, limits);
        })
    };
    append(&store, |batch| {
        batch.create_client(APP, &client_row(1, "alice")).create_queue(APP, &queue_row(1, 1, ""));
        for number in 1..=9 {
            batch.put_key_package(APP, queue(1), &reference(number), &key_package_row(9_000));
        }
    })
    .unwrap();
    let sweep = async |now| {
        let retention = Retention {
            assignment_age_max: Some(Duration::from_millis(100)),
            dropped_per_client_max: 1,
            expired_age_max: Duration::ZERO,
            ..Retention::default()
        };
        store.sweep(&retention, Timestamp(now)).await.unwrap().unused_key_packages
    };
    // The first package expires first, and is dropped.
    assign(1, 2_000).unwrap();
    assert_eq!(sweep(1_000).await, 1);
    for number in 2..=5 {
        assign(number, 3_000).unwrap();
        append(&store, |batch| _ = batch.use_key_package(APP, &reference(number), false, &used_row(9)))
            .unwrap();
    }
    assign(6, 3_000).unwrap();
    assign(7, 3_001).unwrap();
    assert_eq!(assigned(&store), [1, 7], "only what was not dropped is forgotten");
    assert_eq!(store.view().dropped_key_packages(APP, client(1)), Ok(1));
    // No more are dropped than are remembered.
    assert_eq!(sweep(1_000).await, 0);
    let row = store.view().assigned(APP, &reference(7)).unwrap().unwrap();
    append(&store, |batch| _ = batch.drop_unused(APP, &reference(7), &row, 1)).unwrap();
    assert_eq!(store.view().assigned(APP, &reference(7)), Ok(Some(row)));
    assert_eq!(store.view().queues_holding(APP, &reference(7)).unwrap().len(), 1);
    // Once the lifetime of the first has ended, there is room again.
    sweep(2_001).await;
    assert_eq!((assigned(&store), sweep(2_001).await), (vec![7], 1));
    append(&store, |batch| _ = batch.delete_client(APP, &client_row(1, "alice"))).unwrap();
    assert_eq!(assigned(&store), []);
    assert!(rows(&store).iter().all(|(table, _)| *table != "assigned_key_packages"), "{:?}", rows(&store));
}

#[tokio::test]
async fn a_sweep_of_assignments_comes_to_those_of_every_application() {
    let store = temporary();
    append(&store, |batch| {
        for app in [APP, OTHER_APP] {
            for (number, number_of_client) in [(1, 1), (2, 1), (3, 2)] {
                batch.assign_key_package(
                    app,
                    &reference(number),
                    &assigned_row(number_of_client, None, 9_000),
                    LIMITS,
                );
            }
        }
    })
    .unwrap();
    let retention = Retention {
        assignment_age_max: Some(Duration::from_millis(100)),
        read_max: 2,
        ..Retention::default()
    };
    let mut progress = SweepProgress::default();
    let mut dropped = Vec::new();
    for _ in 0..4 {
        let swept = store.sweep_part(&mut progress, &retention, Timestamp(1_000)).await.unwrap();
        dropped.push(swept.unused_key_packages);
    }
    assert_eq!(dropped, [2, 2, 2, 0]);
}
