//! The bounds of the tables: every table is filled, and what it has ends with its group, with its client, by age, or is as many as
//! something that an operator sets. A table without a bound fails here.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use snapshots::{
    AssignedLimits, AssignedRow, Epoch, EpochCommitter, Event, KeyPackagesChange, LogId, MemberReport,
    MissedEntries, Retention, Store, Timestamp,
};

use crate::fixtures::*;

/// The end of what a table has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Bound {
    /// It is deleted with its group.
    Group,
    /// It is deleted with its client.
    Client,
    /// It is deleted by age, at a sweep; or sooner, with its group or client or over a number.
    Age,
    /// It is deleted some time after its group, when every peer was told.
    DeletedGroup,
    /// One row for each application, or each setting.
    Fixed,
}

/// Every table. Limits of a group, a client and a peer bound how many rows one of them has.
const BOUNDS: &[(&str, Bound)] = &[
    // The format, the number of the newest batch, and settings by name: of the store, of applications, of peers.
    ("meta", Bound::Fixed),
    ("log_heads", Bound::Client),
    ("records", Bound::Client),
    ("actor_snapshots", Bound::Client),
    ("groups", Bound::Group),
    ("memberships", Bound::Group),
    ("epochs", Bound::Group),
    ("accepted_proposals", Bound::Group),
    ("clients", Bound::Client),
    ("client_handles", Bound::Client),
    ("client_tags", Bound::Client),
    ("queues", Bound::Client),
    ("queue_owners", Bound::Client),
    ("queue_labels", Bound::Client),
    ("key_packages", Bound::Client),
    ("queue_key_packages", Bound::Client),
    ("used_key_packages", Bound::Age),
    ("welcomes", Bound::Client),
    ("welcome_readers", Bound::Client),
    ("join_infos", Bound::Client),
    ("expiries", Bound::Age),
    ("log_entries", Bound::Group),
    ("peer_positions", Bound::DeletedGroup),
    ("outbox", Bound::DeletedGroup),
    ("welcome_shares", Bound::Age),
    ("missed_entries", Bound::Group),
    ("assigned_key_packages", Bound::Client),
    ("snapshot_pieces", Bound::Group),
    ("events", Bound::Age),
    ("event_heads", Bound::Fixed),
    ("deleted_groups", Bound::DeletedGroup),
    ("reports", Bound::Group),
    // The number of the newest entry of each application. Entries end by age, or sooner over a number.
    ("audit", Bound::Fixed),
];

/// A batch that is larger is written in pieces.
const BATCH_BYTES_MAX: usize = 1 << 20;

/// Writes to every table: of a group, of a client that is not in it, and of a peer.
async fn fill(store: &Store) {
    let (group, log, peer) = (group(1), group_log(1), domain("peer.example"));
    append(store, |batch| {
        batch
            .create_log(&log)
            .put_group(APP, &group, &group_row(0))
            .put_log_entry(APP, &group, 0, "creation");
        batch.put_membership(APP, &handle("member"), None, (&group, Epoch(0)));
        batch.put_epoch(APP, &group, Epoch(1), &epoch_row(1));
        batch.put_accepted_proposal(APP, &group, Epoch(1), &[7; 32], "reference");
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
        batch.append_record(&log, 0, "entry");
        batch.mark_outbox(&peer, APP, &group).put_peer_position(&peer, APP, &group, 0);
    })
    .unwrap();
    append(store, |batch| {
        let report = MemberReport {
            epoch: Epoch(1),
            handle: handle("member"),
            domain: None,
            kind: "other",
            committer: Some(EpochCommitter { leaf_index: 3, handle: handle("mallory") }),
            told_from: 1,
            at: Timestamp(1),
            audit_rows_max: 9,
        };
        batch.report_epoch(APP, &group, &report).announce(APP, Timestamp(1));
    })
    .unwrap();
    store.append_snapshot(&log, Some(&group_row(0)), 1, &vec![1; 3 * BATCH_BYTES_MAX]).await.unwrap();
    append(store, |batch| {
        let row = queue_row(1, 1, "label");
        batch.create_client(APP, &tagged(&client_row(1, "client"), &["tag"])).create_queue(APP, &row);
        let log = LogId::KeyQueue(APP, queue(1));
        batch.put_snapshot(&log, 0, "empty").append_record(&log, 0, "uploaded");
        batch.put_key_package(APP, queue(1), &reference(1), &key_package_row(50));
        batch.put_key_package(APP, queue(1), &reference(2), &key_package_row(50));
        batch.use_key_package(APP, &reference(2), false, &used_row(50));
        let assigned = AssignedRow {
            client_id: client(1),
            peer: Some(peer.clone()),
            receiver: "receiver".to_owned(),
            not_after: Timestamp(50),
            at: Some(Timestamp(10)),
            is_dropped: false,
        };
        let limits = AssignedLimits { per_client_max: 9, per_peer_max: 9 };
        batch.assign_key_package(APP, &reference(1), &assigned, limits);
        // Another group invites the client.
        let clients = invited(&[handle("client")]);
        batch.put_welcome(APP, &crate::fixtures::group(2), Epoch(1), &welcome_row(1), &clients, invitation());
        let (by, limits) = (inviter(2), limits_elsewhere());
        batch.count_invitations_elsewhere(APP, &invited(&[handle("elsewhere")]), by, limits, Timestamp(1));
        let change = KeyPackagesChange::Low;
        let (client, handle) = (client(1), handle("client"));
        batch.add_event(&Event::KeyPackages { client, handle, queue: queue(1), available: 1, change });
        batch.announce(APP, Timestamp(1));
    })
    .unwrap();
}

fn limits_elsewhere() -> snapshots::WelcomeLimits {
    snapshots::WelcomeLimits {
        per_client_max: u64::MAX,
        per_inviter_max: u64::MAX,
        reserved_max: 0,
        elsewhere_window: Duration::from_millis(10),
    }
}

/// The tables that have rows.
fn filled(store: &Store) -> BTreeSet<&'static str> {
    let counts = store.view().row_counts().unwrap();
    counts.into_iter().filter(|(_, count)| *count > 0).map(|(table, _)| table).collect()
}

#[tokio::test]
async fn what_every_table_has_ends_as_it_is_listed() {
    let store = Store::open(&snapshots::StoreOptions {
        batch_bytes_max: BATCH_BYTES_MAX,
        ..snapshots::StoreOptions::default()
    })
    .unwrap();
    fill(&store).await;
    let all: BTreeSet<_> = store.view().row_counts().unwrap().into_iter().map(|(table, _)| table).collect();
    let at_first = filled(&store);
    // A group that was deleted is only there later.
    assert_eq!(&all - &at_first, BTreeSet::from(["deleted_groups"]), "these are not filled by this test");
    let mut emptied: BTreeMap<&str, Bound> = BTreeMap::new();
    let mut note = |before: &BTreeSet<&'static str>, store: &Store, bound: Bound| {
        let now = filled(store);
        emptied.extend((before - &now).into_iter().map(|table| (table, bound)));
        now
    };

    append(&store, |batch| _ = batch.delete_group(APP, &group(1), &group_row(0), Timestamp(5))).unwrap();
    store.erase_memberships(APP, &group(1), Some(vec![handle("member")])).await.unwrap();
    store.erase_join_infos(&BTreeSet::from([(APP, group(1))])).await.unwrap();
    store.erase_group(APP, &group(1)).await.unwrap();
    let left = note(&at_first, &store, Bound::Group);
    let row = tagged(&client_row(1, "client"), &["tag"]);
    append(&store, |batch| _ = batch.delete_client(APP, &row)).unwrap();
    let left = note(&left, &store, Bound::Client);
    let retention = Retention {
        expired_age_max: Duration::from_millis(1),
        event_age_max: Duration::from_millis(1),
        audit_age_max: Duration::from_millis(1),
        ..Retention::default()
    };
    store.sweep(&retention, Timestamp(1000)).await.unwrap();
    let left = note(&left, &store, Bound::Age);
    assert!(store.view().audit_entries(APP, None, 9).unwrap().is_empty());
    append(&store, |batch| {
        batch.forget_deleted_group(APP, &group(1)).forget_peer_of(&domain("peer.example"), APP, &group(1));
    })
    .unwrap();
    let left = note(&left, &store, Bound::DeletedGroup);
    emptied.extend(left.into_iter().map(|table| (table, Bound::Fixed)));
    emptied.insert("deleted_groups", Bound::DeletedGroup);
    assert_eq!(emptied, BOUNDS.iter().copied().collect());
    assert_eq!(BOUNDS.len(), all.len(), "a table is listed twice");
}
