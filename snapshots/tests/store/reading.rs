//! Lists and pages.

use snapshots::{
    AssignedLimits, AssignedRow, ClientRow, DomainName, Epoch, KeyPackageRow, LogId, QueueCounts, Timestamp,
};

use crate::fixtures::*;

#[test]
fn clients_are_listed_by_domain_and_tag() {
    let store = temporary();
    let in_domain = |number, tags: &[&str]| ClientRow {
        domain: Some(domain("example.com")),
        ..tagged(&client_row(number, &format!("client {number}")), tags)
    };
    append(&store, |batch| {
        for number in 1..=5 {
            batch
                .create_client(APP, &in_domain(number, if number % 2 == 1 { &["odd", "a"] } else { &["a"] }));
        }
        batch.create_client(APP, &tagged(&client_row(6, "client 6"), &["odd", ""]));
        batch.create_client(OTHER_APP, &in_domain(7, &["odd"]));
    })
    .unwrap();
    let view = store.view();
    let example = domain("example.com");
    let ids = |rows: Vec<ClientRow>| {
        rows.into_iter().map(|row| row.client_id.as_uuid().as_u128()).collect::<Vec<_>>()
    };
    let tag = |tag, after: Option<u128>, limit| {
        ids(view.clients(APP, Some(&example), Some(tag), after.map(client), limit).unwrap())
    };
    assert_eq!(tag("odd", None, 9), [1, 3, 5]);
    assert_eq!(tag("odd", None, 2), [1, 3]);
    assert_eq!(tag("odd", Some(3), 2), [5]);
    assert_eq!(tag("odd", Some(2), 1), [3]);
    assert_eq!(tag("od", None, 9), []);
    assert_eq!(tag("a", None, 0), []);
    assert_eq!(ids(view.clients(APP, Some(&example), None, Some(client(3)), 9).unwrap()), [4, 5]);
    assert_eq!(ids(view.clients(APP, None, None, None, 9).unwrap()), [6]);
    assert_eq!(ids(view.clients(APP, None, Some(""), None, 9).unwrap()), [6]);
    assert_eq!(ids(view.clients(OTHER_APP, Some(&example), None, None, 9).unwrap()), [7]);
    let all = |after: Option<u128>, limit| ids(view.all_clients(APP, after.map(client), limit).unwrap());
    assert_eq!(all(None, 9), [1, 2, 3, 4, 5, 6], "of all domains");
    assert_eq!((all(Some(2), 3), all(Some(6), 9)), (vec![3, 4, 5], vec![]));
}

#[test]
fn what_an_application_has_is_counted_up_to_a_number() {
    let store = temporary();
    append(&store, |batch| {
        batch.create_client(APP, &client_row(1, "alice")).create_client(APP, &client_row(2, "bob"));
        batch.create_client(OTHER_APP, &client_row(3, "carol"));
        batch.create_queue(APP, &queue_row(1, 1, "")).create_queue(APP, &queue_row(2, 1, "b"));
        for (number, not_after) in [(1, 100), (2, 100), (3, 10)] {
            batch.put_key_package(APP, queue(1), &reference(number), &key_package_row(not_after));
        }
        let last = KeyPackageRow { is_final: true, ..key_package_row(100) };
        batch.put_key_package(APP, queue(1), &reference(4), &last);
        batch.put_key_package(APP, queue(2), &reference(5), &key_package_row(100));
        batch.put_group(APP, &group(1), &group_row(1)).put_group(OTHER_APP, &group(2), &group_row(1));
        let row = AssignedRow {
            client_id: client(1),
            peer: None,
            receiver: "bob".into(),
            not_after: Timestamp(100),
            at: Some(Timestamp(10)),
            is_dropped: false,
        };
        batch.assign_key_package(
            APP,
            &reference(2),
            &row,
            AssignedLimits { per_client_max: 9, per_peer_max: 9 },
        );
    })
    .unwrap();
    let view = store.view();
    let counts = |app, max| {
        let counts =
            (view.count_clients(app, max), view.count_groups(app, max), view.count_key_packages(app, max));
        (counts.0.unwrap(), counts.1.unwrap(), counts.2.unwrap())
    };
    assert_eq!(counts(APP, 9), (2, 1, 5));
    assert_eq!(counts(APP, 1), (1, 1, 1));
    assert_eq!(counts(OTHER_APP, 9), (1, 1, 0));
    let of = |number, now| view.queue_counts(APP, queue(number), Timestamp(now)).unwrap();
    // Of the first queue, one package is assigned, one is a final key and one has expired at 10.
    assert_eq!(of(1, 9), QueueCounts { held: 4, available: 2 });
    assert_eq!(of(1, 10), QueueCounts { held: 4, available: 1 });
    assert_eq!(of(2, 10), QueueCounts { held: 1, available: 1 });
    assert_eq!(of(3, 10), QueueCounts::default());
}

#[test]
fn groups_are_listed_by_handle() {
    let store = temporary();
    append(&store, |batch| {
        for number in 1..=4 {
            batch.put_group(APP, &group(number), &group_row(u64::from(number)));
            batch.put_membership(APP, &handle("alice"), None, (&group(number), Epoch(0)));
        }
        batch.put_membership(APP, &handle("alic"), None, (&group(1), Epoch(0)));
        batch.delete_membership(APP, &handle("alice"), None, &group(2));
    })
    .unwrap();
    let view = store.view();
    let of = |name, after: Option<u8>, limit| {
        let found = view.groups_of(APP, &handle(name), None, after.map(group), limit).unwrap();
        found.into_iter().map(|(_, epoch)| epoch.0).collect::<Vec<_>>()
    };
    assert_eq!(of("alice", None, 9), [1, 3, 4]);
    assert_eq!(of("alice", Some(1), 1), [3]);
    assert_eq!(of("alic", None, 9), [1]);
    assert_eq!(of("nobody", None, 9), []);
    assert_eq!(view.groups(APP, Some(group(2)), 1).unwrap(), [(group(3), group_row(3))]);
    assert_eq!(view.groups(OTHER_APP, None, 9).unwrap(), []);
}

#[test]
fn two_members_of_one_handle_are_kept_apart_by_their_domains() {
    let store = temporary();
    let [here, there] = [Some(domain("a.example")), Some(domain("b.example"))];
    let of = |domain: &Option<DomainName>| {
        store.view().groups_of(APP, &handle("alice"), domain.as_ref(), None, 9).unwrap().len()
    };
    // In the domain here, in the one there, and in none.
    let listed = || [of(&here), of(&there), of(&None)];
    let change = |put: &[&Option<DomainName>], delete: &[&Option<DomainName>]| {
        append(&store, |batch| {
            for domain in delete {
                batch.delete_membership(APP, &handle("alice"), domain.as_ref(), &group(1));
            }
            for domain in put {
                batch.put_membership(APP, &handle("alice"), domain.as_ref(), (&group(1), Epoch(0)));
            }
        })
        .unwrap();
        listed()
    };
    append(&store, |batch| {
        batch.put_group(APP, &group(1), &group_row(1));
    })
    .unwrap();
    assert_eq!(change(&[&here, &there, &here], &[]), [1, 1, 0]);
    assert_eq!(change(&[], &[&here]), [0, 1, 0]);
    assert_eq!(change(&[&here], &[&there, &there]), [1, 0, 0]);
    assert_eq!(change(&[], &[&here]), [0, 0, 0]);
    // One without a domain is another one again.
    assert_eq!(change(&[&None], &[]), [0, 0, 1]);
    assert_eq!(change(&[&here], &[&None]), [1, 0, 0]);
    assert_eq!(change(&[&None], &[&here]), [0, 0, 1]);
    assert_eq!(change(&[], &[&None]), [0, 0, 0]);
}

#[test]
fn epochs_are_read_in_a_range() {
    let store = temporary();
    append(&store, |batch| {
        for epoch in [1, 2, 255, 256, 257] {
            batch.put_epoch(APP, &group(1), Epoch(epoch), &epoch_row(epoch));
        }
        batch.put_epoch(APP, &group(2), Epoch(3), &epoch_row(3));
    })
    .unwrap();
    let view = store.view();
    let range = |from, to, limit| {
        let found = view.epochs(APP, &group(1), Epoch(from), Epoch(to), limit).unwrap();
        found.into_iter().map(|(epoch, row)| (epoch.0, row.timestamp.0)).collect::<Vec<_>>()
    };
    assert_eq!(range(2, 256, 9), [(2, 2), (255, 255), (256, 256)]);
    assert_eq!(range(0, u64::MAX, 2), [(1, 1), (2, 2)]);
    assert_eq!(range(257, 2, 9), []);
    assert_eq!(range(3, 3, 9), []);
    assert_eq!(view.first_epoch(APP, &group(1)).unwrap(), Some(Epoch(1)));
    assert_eq!(view.last_epoch(APP, &group(1)).unwrap(), Some(Epoch(257)));
    assert_eq!(view.first_epoch(APP, &group(3)).unwrap(), None);
}

#[test]
fn logs_are_listed_and_a_view_is_one_moment() {
    let store = temporary();
    let queue_log = LogId::KeyQueue(APP, queue(1));
    append(&store, |batch| {
        batch.create_log(&group_log(1)).create_log(&group_log(2)).create_log(&queue_log);
    })
    .unwrap();
    let view = store.view();
    append(&store, |batch| {
        batch.append_record(&group_log(1), 0, "one").delete_log(&group_log(2));
    })
    .unwrap();
    assert_eq!(view.logs(None, 9).unwrap(), [group_log(1), group_log(2), queue_log.clone()]);
    assert_eq!(view.logs(Some(&group_log(1)), 1).unwrap(), [group_log(2)]);
    assert_eq!(view.log_head(&group_log(1)).unwrap(), Some(0));
    assert_eq!(store.view().logs(None, 9).unwrap(), [group_log(1), queue_log]);
    assert_eq!(store.view().log_head(&group_log(1)).unwrap(), Some(1));
}
