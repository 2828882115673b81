//! Quotas: what each application has is counted exactly, and a batch that exceeds a quota changes nothing.

use snapshots::{Batch, QuotaExceeded, Quotas, Resource, Store, Timestamp, Unmet, Usage};

use crate::fixtures::*;

const RESOURCES: [Resource; 4] = Resource::ALL;

fn amounts(usage: Usage) -> [u64; 4] {
    RESOURCES.map(|resource| usage.of(resource))
}

fn used(store: &Store) -> [u64; 4] {
    amounts(store.view().usage(APP).unwrap())
}

/// What is counted is what is there.
fn check_counted(store: &Store) {
    store.view().check_rows(|fault| assert!(!fault.contains("usage"), "{fault}")).unwrap();
}

/// A batch with one client, one group, one package and some bytes.
fn some_of_each(batch: &mut Batch, number: u8) {
    let id = u128::from(number);
    batch
        .create_client(APP, &client_row(id, &format!("client {number}")))
        .create_queue(APP, &queue_row(id, id, ""))
        .put_key_package(APP, queue(id), &reference(number), &key_package_row(1000))
        .create_log(&group_log(number))
        .put_group(APP, &group(number), &group_row(0))
        .append_record(&group_log(number), 0, "four")
        .put_snapshot(&group_log(number), 0, "snapshot");
}

#[test]
fn what_is_written_and_deleted_is_counted_for_its_application() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    append(&store, |batch| some_of_each(batch, 1)).unwrap();
    let each = used(&store);
    assert_eq!(each[..3], [1, 1, 1]);
    assert!(each[3] >= 12, "the record and the snapshot: {each:?}");
    append(&store, |batch| _ = batch.create_client(OTHER_APP, &client_row(9, "other"))).unwrap();
    // Rows that are written again count once, also in one batch.
    append(&store, |batch| {
        batch.put_group(APP, &group(1), &group_row(5)).put_group(APP, &group(1), &group_row(6));
        batch.put_key_package(APP, queue(1), &reference(1), &key_package_row(2000));
    })
    .unwrap();
    assert_eq!(used(&store), each);
    // The bytes of a snapshot that replaces another are those of the new one.
    append(&store, |batch| _ = batch.put_snapshot(&group_log(1), 1, "a longer snapshot")).unwrap();
    assert_eq!(used(&store)[3], each[3] + 9);
    check_counted(&store);
    // It is there after a restart.
    let before = used(&store);
    drop(store);
    let store = open(directory.path());
    assert_eq!(used(&store), before);
    append(&store, |batch| {
        batch.delete_client(APP, &client_row(1, "client 1"));
        batch.delete_group(APP, &group(1), &group_row(0), Timestamp(1));
    })
    .unwrap();
    assert_eq!(used(&store)[..3], [0, 0, 0]);
    assert_eq!(amounts(store.view().usage(OTHER_APP).unwrap()), [1, 0, 0, 0]);
    check_counted(&store);
}

#[test]
fn a_batch_that_exceeds_a_quota_changes_nothing() {
    let store = temporary();
    append(&store, |batch| some_of_each(batch, 1)).unwrap();
    let each = used(&store);
    for (place, resource) in RESOURCES.into_iter().enumerate() {
        // One more of each would be one too many, at last of this one.
        let max = 2 * each[place] - 1;
        let quotas = Quotas::default().with(resource, Some(max));
        check_refused(&store, Unmet::QuotaExceeded(QuotaExceeded { resource, max }), |batch| {
            some_of_each(batch, 2);
            batch.require_quotas(APP, quotas);
        });
        assert_eq!(used(&store), each);
    }
    // To the quota, and not beyond it.
    let twice = each.map(|amount| Some(2 * amount));
    let quotas =
        RESOURCES.into_iter().zip(twice).fold(Quotas::default(), |quotas, (of, max)| quotas.with(of, max));
    append(&store, |batch| {
        batch.require_quotas(APP, quotas);
        some_of_each(batch, 2);
    })
    .unwrap();
    // Where there is too much already, what adds nothing of it is accepted, and a refusal before is forgotten.
    let none = RESOURCES.into_iter().fold(Quotas::default(), |quotas, of| quotas.with(of, Some(0)));
    append(&store, |batch| {
        batch.require_quotas(APP, none).delete_key_package(APP, queue(2), &reference(2));
    })
    .unwrap();
    append(&store, |batch| some_of_each(batch, 3)).unwrap();
    assert_eq!(used(&store)[..3], [3, 3, 2]);
    check_counted(&store);
}
