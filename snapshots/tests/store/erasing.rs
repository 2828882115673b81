//! Deleted groups: what goes at once, what is erased after it, and how long an id stays taken.

use std::collections::BTreeSet;

use snapshots::{
    Batch, Epoch, GroupId, InvitedClient, LogId, MissedEntries, Store, Timestamp, Unmet, UsedRow,
};

use crate::fixtures::*;

/// More rows of each kind than one batch erases.
const MANY: u64 = 700;

/// A group with everything that a group can have.
fn create(store: &Store, number: u8) {
    let (group, log) = (group(number), group_log(number));
    let members: Vec<_> = (0..MANY).map(|member| handle(&format!("member {member}"))).collect();
    append(store, |batch| {
        batch.create_log(&log).put_snapshot(&log, 0, "zero").put_group(APP, &group, &group_row(0));
        batch.put_log_entry(APP, &group, 0, "creation");
        for member in &members {
            batch.put_membership(APP, member, None, (&group, Epoch(0)));
        }
    })
    .unwrap();
    append(store, |batch| {
        for epoch in 1..=MANY {
            batch.append_record(&log, epoch - 1, "entry");
            batch.put_epoch(APP, &group, Epoch(epoch), &epoch_row(epoch));
            batch.put_accepted_proposal(APP, &group, Epoch(epoch), &[7; 32], "reference");
        }
        let missed = MissedEntries {
            next: 1,
            through: 2,
            epoch: None,
            stamp: Timestamp(1),
            proposals: Vec::new(),
            interim_transcript_hash: None,
            until: Epoch(1),
            confirmed_transcript_hash: "hash".into(),
            has_last_welcome: false,
            floor: Epoch(0),
        };
        batch.replace_missed_entries(APP, &group, None, Some(&missed));
    })
    .unwrap();
    append(store, |batch| {
        let clients: Vec<InvitedClient> = invited(&members);
        batch.put_welcome(APP, &group, Epoch(1), &welcome_row(1), &clients, invitation());
        batch.put_welcome(APP, &group, Epoch(2), &welcome_row(1), &clients[..3], invitation());
    })
    .unwrap();
}

async fn erase(store: &Store, group: &GroupId, handles: Option<Vec<snapshots::ClientHandle>>) {
    store.erase_memberships(APP, group, handles).await.unwrap();
    store.erase_join_infos(&BTreeSet::from([(APP, group.clone())])).await.unwrap();
    store.erase_group(APP, group).await.unwrap();
}

fn delete(store: &Store, number: u8, at: u64) {
    append(store, |batch| _ = batch.delete_group(APP, &group(number), &group_row(9), Timestamp(at))).unwrap();
}

#[tokio::test]
async fn a_deleted_group_leaves_its_id_and_takes_nothing_of_others() {
    for has_known_members in [true, false] {
        let store = temporary();
        create(&store, 2);
        let before = rows(&store);
        create(&store, 1);
        let of_both = rows(&store);
        delete(&store, 1, 50);
        let view = store.view();
        // It is gone at once, with all that leads to it.
        assert_eq!(view.group(APP, &group(1)).unwrap(), None);
        assert_eq!(view.log_head(&group_log(1)).unwrap(), None);
        assert_eq!(view.load_log(&group_log(1)).unwrap(), None);
        let member = handle("member 1");
        let groups = view.groups_of(APP, &member, None, None, 9).unwrap();
        assert_eq!(groups, [(group(2), Epoch(0))]);
        let waiting = view.join_infos_in(APP, &member, None, None, 1).unwrap();
        assert_eq!(waiting.iter().map(|(_, info)| &info.group).collect::<Vec<_>>(), [&group(2)]);
        assert_eq!(view.groups_to_erase(9).unwrap(), [(APP, group(1))]);
        // Its members are known until they are erased.
        let log = view.deleted_log(APP, &group(1)).unwrap().unwrap();
        assert_eq!((log.head, log.records.len() as u64), (MANY, MANY));
        drop(view);

        let handles = (0..MANY).map(|member| handle(&format!("member {member}"))).collect();
        erase(&store, &group(1), has_known_members.then_some(handles)).await;
        let mut left = rows(&store);
        let taken = left.pop().unwrap();
        assert_eq!(taken, ("deleted_groups", 2), "{of_both:?}");
        assert_eq!(left, before);
        assert_eq!(store.view().groups_to_erase(9).unwrap(), []);
        assert_eq!(store.view().deleted_log(APP, &group(1)).unwrap(), None);
        // The counts of invitations are given back.
        let counted = |name: &str| {
            let client = InvitedClient { handle: handle(name), domain: None };
            store.view().join_infos_counted(APP, &client).unwrap()
        };
        assert_eq!((counted("member 1"), counted("member 699")), (2, 1));
        // What was erased can be erased again.
        erase(&store, &group(1), Some(Vec::new())).await;
        assert_eq!(rows(&store).pop(), Some(taken));
    }
}

#[tokio::test]
async fn the_id_of_a_deleted_group_is_taken_until_it_is_erased_and_forgotten() {
    let store = temporary();
    create(&store, 1);
    check_refused(&store, Unmet::GroupReplaced, |batch| {
        let other = snapshots::GroupRow { creation_digest: [8; 32], ..group_row(0) };
        batch.delete_group(APP, &group(1), &other, Timestamp(5));
    });
    check_refused(&store, Unmet::LogMoved { at: Some(MANY) }, |batch| {
        batch.require_log_at(&group_log(1), 3).delete_group(APP, &group(1), &group_row(0), Timestamp(5));
    });
    delete(&store, 1, 50);
    let again = |batch: &mut Batch| {
        batch.require_not_deleted(APP, &group(1)).create_log(&group_log(1));
    };
    check_refused(&store, Unmet::GroupReplaced, |batch| {
        batch.delete_group(APP, &group(1), &group_row(0), Timestamp(60));
    });
    check_refused(&store, Unmet::GroupDeleted, again);
    // Not before everything of the group is erased.
    append(&store, |batch| _ = batch.forget_deleted_group(APP, &group(1))).unwrap();
    check_refused(&store, Unmet::GroupDeleted, again);
    erase(&store, &group(1), None).await;
    check_refused(&store, Unmet::GroupDeleted, again);
    append(&store, |batch| _ = batch.forget_deleted_group(APP, &group(1))).unwrap();
    assert_eq!(rows(&store), []);
    append(&store, again).unwrap();
}

#[test]
fn a_group_that_was_never_here_leaves_its_id_too() {
    let store = temporary();
    let hub = domain("hub.example");
    let note = |batch: &mut Batch| _ = batch.note_deleted_group(APP, &group(1), &hub, Timestamp(7));
    append(&store, note).unwrap();
    check_refused(&store, Unmet::GroupDeleted, note);
    let row = store.view().deleted_group(APP, &group(1)).unwrap().unwrap();
    assert_eq!((row.deleted_at, row.hub, row.is_erased), (Timestamp(7), Some(hub.clone()), true));
    assert_eq!(store.view().groups_to_erase(9).unwrap(), []);
    append(&store, |batch| _ = batch.put_group(APP, &group(2), &group_row(0))).unwrap();
    check_refused(&store, Unmet::GroupReplaced, |batch| {
        batch.note_deleted_group(APP, &group(2), &hub, Timestamp(7));
    });
}

#[test]
fn deleted_groups_are_found_by_the_time_of_their_deletion() {
    let store = temporary();
    for (number, at) in [(1, 30), (2, 10), (3, 20), (4, 20)] {
        append(&store, |batch| {
            _ = batch.note_deleted_group(APP, &group(number), &domain("a.example"), Timestamp(at))
        })
        .unwrap();
    }
    let found = |before: u64, after: Option<(u64, u8)>, limit: usize| -> Vec<(u64, GroupId)> {
        let after = after.map(|(at, number)| (Timestamp(at), APP, group(number)));
        let found = store.view().groups_deleted_before(Timestamp(before), after.as_ref(), limit).unwrap();
        found.into_iter().map(|(at, _, group)| (at.0, group)).collect()
    };
    assert_eq!(found(20, None, 9), [(10, group(2))]);
    assert_eq!(found(31, None, 2), [(10, group(2)), (20, group(3))]);
    assert_eq!(found(31, Some((20, 3)), 9), [(20, group(4)), (30, group(1))]);
    assert_eq!(found(30, Some((20, 4)), 9), []);
    let listed = |after: Option<u8>, limit: usize| {
        store.view().deleted_groups(APP, after.map(group), limit).unwrap().len()
    };
    assert_eq!([listed(None, 9), listed(None, 3), listed(Some(3), 9)], [4, 3, 1]);
    assert_eq!(store.view().deleted_groups(OTHER_APP, None, 9).unwrap(), []);
}

/// A peer's position that is written late must not delete the mark by which the peer is told of the deletion.
#[test]
fn the_mark_of_a_deleted_group_stays_until_the_peer_was_told() {
    let store = temporary();
    let peer = domain("b.example");
    append(&store, |batch| {
        batch.create_log(&group_log(1)).put_group(APP, &group(1), &group_row(0));
        batch.mark_outbox(&peer, APP, &group(1)).put_peer_position(&peer, APP, &group(1), 0);
    })
    .unwrap();
    delete(&store, 1, 50);
    append(&store, |batch| _ = batch.mark_outbox(&peer, APP, &group(1))).unwrap();
    append(&store, |batch| _ = batch.put_peer_position(&peer, APP, &group(1), 9)).unwrap();
    let view = store.view();
    assert!(view.is_in_outbox(&peer, APP, &group(1)).unwrap());
    assert!(!view.is_in_outbox(&peer, APP, &group(2)).unwrap());
    append(&store, |batch| _ = batch.forget_peer_of(&peer, APP, &group(1))).unwrap();
    assert!(!store.view().is_in_outbox(&peer, APP, &group(1)).unwrap());
    assert_eq!(store.view().peer_position(&peer, APP, &group(1)).unwrap(), None);
}

/// That a key package was used is remembered for as long as it could be used again.
#[tokio::test]
async fn used_key_packages_stay_used() {
    let store = temporary();
    create(&store, 1);
    append(&store, |batch| {
        let row = UsedRow { group: group(1), epoch: Epoch(1), not_after: Timestamp(900) };
        batch.note_key_package_used(APP, &reference(1), false, &row);
    })
    .unwrap();
    delete(&store, 1, 50);
    erase(&store, &group(1), None).await;
    check_refused(&store, Unmet::KeyPackageUsed { reference: reference(1) }, |batch| {
        batch.require_unused(APP, &reference(1));
    });
}

/// A snapshot that the owner is still writing when the group is deleted is not written.
#[tokio::test]
async fn a_late_snapshot_leaves_nothing() {
    let store = temporary();
    create(&store, 1);
    let log = LogId::Group(APP, group(1));
    delete(&store, 1, 50);
    let late = store.append_snapshot(&log, Some(&group_row(0)), MANY, &[1; 100]).await;
    assert_eq!(late, Err(snapshots::AppendError::Precondition(Unmet::GroupReplaced)));
    erase(&store, &group(1), None).await;
    assert_eq!(rows(&store), [("deleted_groups", 2)]);
}
