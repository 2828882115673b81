//! Reported epochs and the audit log.

use std::time::Duration;

use snapshots::{
    AppendError, AuditEntry, AuditRow, Batch, DomainName, Epoch, EpochCommitter, Event, EventRow, GroupRow,
    MemberReport, ReportOutcome, Retention, Store, Timestamp, ToldBefore, Unmet,
};

use crate::fixtures::*;

fn report(name: &str, epoch: u64, told_from: u64) -> MemberReport {
    MemberReport {
        epoch: Epoch(epoch),
        handle: handle(name),
        domain: None,
        kind: "other",
        committer: Some(EpochCommitter { leaf_index: 3, handle: handle("mallory") }),
        told_from,
        at: Timestamp(1000 * epoch),
        audit_rows_max: 2,
    }
}

/// The outcome of a report, and the events that were announced with it.
fn note(store: &Store, report: &MemberReport) -> (ReportOutcome, Vec<Event>) {
    let before = store.view().event_head(APP).unwrap();
    let mut batch = Batch::new();
    batch.report_epoch(APP, &group(1), report).announce(APP, report.at);
    let outcome = store.append_blocking(batch).unwrap().reported.unwrap();
    let rows = store.view().events(APP, before, u64::MAX, 9).unwrap().rows;
    (outcome, rows.into_iter().flat_map(|(_, EventRow { events, .. })| events).collect())
}

fn group_of_epochs(store: &Store, last: u64) {
    append(store, |batch| {
        batch.create_log(&group_log(1)).put_group(APP, &group(1), &group_row(last));
        for epoch in 1..=last {
            batch.append_record(&group_log(1), epoch - 1, "entry");
            batch.put_epoch(APP, &group(1), Epoch(epoch), &epoch_row(1000 * epoch));
        }
    })
    .unwrap();
}

/// The reports agree with each other and with the epochs.
fn check_reports(store: &Store) {
    store.view().check_rows(|fault| assert!(!fault.starts_with("reports"), "{fault}")).unwrap();
}

fn count(store: &Store, table: &str) -> u64 {
    rows(store).iter().filter(|(of, _)| *of == table).map(|(_, count)| count).sum()
}

fn outcome(reporters: u64, is_told_now: bool) -> ReportOutcome {
    ReportOutcome { reporters, is_told_now }
}

#[test]
fn a_member_counts_once_and_the_epoch_is_told_once() {
    let store = temporary();
    group_of_epochs(&store, 2);
    assert_eq!(note(&store, &report("alice", 1, 2)), (outcome(1, false), vec![]));
    assert_eq!(note(&store, &report("alice", 1, 2)), (outcome(1, false), vec![]));
    let elsewhere = MemberReport { domain: Some(domain("b.example")), ..report("alice", 1, 2) };
    let (told, events) = note(&store, &elsewhere);
    assert_eq!(told, outcome(2, true));
    let place = ToldBefore { entry: 3, index: 0 };
    let event = Event::EpochReported {
        group: group(1),
        epoch: Epoch(1),
        reporters: 2,
        committer: Some(EpochCommitter { leaf_index: 3, handle: handle("mallory") }),
        before: place,
    };
    assert_eq!(events, std::slice::from_ref(&event));
    assert_eq!(note(&store, &report("carol", 1, 2)), (outcome(3, false), vec![]));
    // The group's stream has what the application's has.
    let told = store.view().told_reports(APP, &group(1), ToldBefore { entry: 0, index: 0 }, 9).unwrap();
    assert_eq!(told, [(place, event)]);
    // Fewer are needed when members have left, also of a member that has reported it.
    assert_eq!(note(&store, &report("alice", 2, 2)).0, outcome(1, false));
    assert_eq!(note(&store, &report("alice", 2, 1)).0, outcome(1, true));
    assert_eq!(
        store.view().newest_told_report(APP, &group(1)).unwrap(),
        Some(ToldBefore { entry: 3, index: 1 })
    );
    let listed: Vec<_> = store.view().reported_epochs(APP, None, 9).unwrap();
    assert_eq!(
        listed.iter().map(|(_, epoch, row)| (epoch.0, row.reporters)).collect::<Vec<_>>(),
        [(1, 3), (2, 1)]
    );
    let after = Some((group(1), Epoch(1)));
    assert_eq!(store.view().reported_epochs(APP, after, 9).unwrap().len(), 1);
    check_reports(&store);
}

#[test]
fn a_place_in_the_stream_is_given_once_though_epochs_are_deleted() {
    let store = temporary();
    group_of_epochs(&store, 3);
    note(&store, &report("alice", 1, 1));
    append(&store, |batch| _ = batch.delete_epoch(APP, &group(1), Epoch(1))).unwrap();
    assert_eq!(store.view().reported_epochs(APP, None, 9).unwrap(), []);
    let from = ToldBefore { entry: 0, index: 0 };
    assert_eq!(store.view().told_reports(APP, &group(1), from, 9).unwrap(), []);
    note(&store, &report("alice", 2, 1));
    let told = store.view().told_reports(APP, &group(1), from, 9).unwrap();
    assert_eq!(told[0].0, ToldBefore { entry: 4, index: 1 }, "index 0 was that of the epoch that is gone");
    check_reports(&store);
    // The epoch that it is about must be there.
    let unmet = append(&store, |batch| {
        batch.require_epoch(APP, &group(1), Epoch(1)).report_epoch(APP, &group(1), &report("alice", 1, 1));
    });
    assert_eq!(unmet, Err(AppendError::Precondition(Unmet::EpochMissing)));
}

#[tokio::test]
async fn reports_go_with_the_group_and_the_audit_log_stays() {
    let store = temporary();
    group_of_epochs(&store, 2);
    note(&store, &report("alice", 1, 1));
    note(&store, &report("alice", 2, 2));
    let row: GroupRow = group_row(2);
    append(&store, |batch| _ = batch.delete_group(APP, &group(1), &row, Timestamp(5))).unwrap();
    store.erase_memberships(APP, &group(1), Some(Vec::new())).await.unwrap();
    store.erase_group(APP, &group(1)).await.unwrap();
    assert!(rows(&store).iter().all(|(table, _)| *table != "reports"), "{:?}", rows(&store));
    assert_eq!(store.view().audit_entries(APP, None, 9).unwrap().len(), 1);
}

#[test]
fn reporters_who_are_absent_are_counted() {
    let store = temporary();
    group_of_epochs(&store, 2);
    let at_b = Some(domain("b.example"));
    let of_b = |name| MemberReport { domain: at_b.clone(), ..report(name, 1, 9) };
    for report in [report("alice", 1, 9), report("bob", 1, 9), of_b("bob"), of_b("carol")] {
        note(&store, &report);
    }
    note(&store, &report("dave", 2, 9));
    let absent = |epoch| store.view().absent_reporters(APP, &group(1), Epoch(epoch)).unwrap();
    assert_eq!((absent(1), absent(2)), (4, 1));
    append(&store, |batch| {
        batch.put_membership(APP, &handle("alice"), None, (&group(1), Epoch(0)));
        batch.put_membership(APP, &handle("bob"), at_b.as_ref(), (&group(1), Epoch(1)));
        // Back, after the epoch.
        batch.put_membership(APP, &handle("carol"), at_b.as_ref(), (&group(1), Epoch(2)));
    })
    .unwrap();
    assert_eq!((absent(1), absent(2)), (2, 1));
}

/// The most rows that a sweep deletes at once, about.
const AT_ONCE: u64 = 500;

#[tokio::test]
async fn a_sweep_deletes_no_more_reports_at_once_than_other_rows() {
    let store = temporary();
    group_of_epochs(&store, 5);
    append(&store, |batch| _ = batch.put_snapshot(&group_log(1), 5, "state")).unwrap();
    let reported = [(1, 300), (2, 300), (3, 1300), (4, 1)];
    for (epoch, reporters) in reported {
        for number in 0..reporters {
            note(&store, &report(&format!("member {number}"), epoch, 250));
        }
    }
    let before = store.counts().appended;
    let retention = Retention { history_epochs_max: 1, ..Retention::default() };
    let swept = store.sweep(&retention, Timestamp(6000)).await.unwrap();
    let all: u64 = reported.iter().map(|(_, reporters)| reporters).sum();
    assert_eq!((swept.epochs, swept.reports), (4, all));
    let batches = store.counts().appended - before;
    assert!((all / AT_ONCE..all / AT_ONCE + 3).contains(&batches), "{batches} batches");
    assert_eq!(store.view().reported_epochs(APP, None, 9).unwrap(), []);
    assert_eq!(count(&store, "reports"), 1, "the place of the newest event stays");
    check_reports(&store);
}

#[tokio::test]
async fn the_audit_log_is_bounded_by_number_and_by_age() {
    let store = temporary();
    let row = |number: u64| AuditRow {
        at: Timestamp(1000 * number),
        entry: AuditEntry::EpochReported {
            group: group(1),
            epoch: Epoch(number),
            reporters: 1,
            committer: None,
        },
    };
    for number in 1..=5 {
        append(&store, |batch| _ = batch.audit(APP, &row(number), 3)).unwrap();
    }
    append(&store, |batch| _ = batch.audit(OTHER_APP, &row(9), 3)).unwrap();
    let numbers = |before: Option<u64>, limit: usize| {
        let found = store.view().audit_entries(APP, before, limit).unwrap();
        found.iter().map(|(number, row)| (*number, row.at.0)).collect::<Vec<_>>()
    };
    assert_eq!(numbers(None, 9), [(5, 5000), (4, 4000), (3, 3000)]);
    assert_eq!(numbers(Some(5), 1), [(4, 4000)]);
    let sweep =
        async |retention: Retention| store.sweep(&retention, Timestamp(6000)).await.unwrap().audit_rows;
    assert_eq!(sweep(Retention { audit_rows_max: 2, ..Retention::default() }).await, 1);
    assert_eq!(
        sweep(Retention { audit_age_max: Duration::from_millis(1000), ..Retention::default() }).await,
        1
    );
    assert_eq!(numbers(None, 9), [(5, 5000)]);
    append(&store, |batch| _ = batch.audit(APP, &row(6), 3)).unwrap();
    assert_eq!(numbers(None, 9), [(6, 6000), (5, 5000)], "numbers go on");
    assert_eq!(store.view().audit_entries(OTHER_APP, None, 9).unwrap().len(), 1);
    store.view().check_rows(|fault| panic!("{fault}")).unwrap();
}

#[test]
fn a_member_is_there_since_the_epoch_in_which_it_came() {
    let store = temporary();
    let [here, none]: [Option<DomainName>; 2] = [Some(domain("a.example")), None];
    let since = |domain: &Option<DomainName>| {
        store
            .view()
            .member_since(APP, &handle("alice"), domain.as_ref(), &group(1))
            .unwrap()
            .map(|epoch| epoch.0)
    };
    let put = |domain: &Option<DomainName>, epoch| {
        append(&store, |batch| {
            batch.put_membership(APP, &handle("alice"), domain.as_ref(), (&group(1), Epoch(epoch)));
        })
        .unwrap();
    };
    put(&none, 300);
    put(&here, 7);
    put(&none, 400);
    assert_eq!([since(&none), since(&here)], [Some(300), Some(7)]);
    append(&store, |batch| _ = batch.delete_membership(APP, &handle("alice"), None, &group(1))).unwrap();
    assert_eq!([since(&none), since(&here)], [None, Some(7)]);
    put(&none, 400);
    assert_eq!(since(&none), Some(400));
}
