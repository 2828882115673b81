//! Claims of key packages in the audit log.

use std::time::Duration;

use snapshots::{
    AuditEntry, AuditRow, Claim, ClaimLimits, ClaimedKeyPackages, ClaimedQueue, Retention, Store, Swept,
    Timestamp,
};

use crate::fixtures::*;

const LIMITS: ClaimLimits = ClaimLimits { queues_per_day_max: 2, rows_max: 100 };
const DAY_MS: u64 = 24 * 60 * 60 * 1000;

fn of(number: u128) -> ClaimedQueue {
    ClaimedQueue { client: client(number), handle: handle("alice"), queue: queue(number) }
}

/// Notes that a claimant was assigned a package of a queue.
fn claim(store: &Store, peer: Option<&str>, number: u128, receiver: &str, at: u64) {
    claim_within(store, LIMITS, (peer, number, receiver, at));
}

fn claim_within(
    store: &Store,
    limits: ClaimLimits,
    (peer, number, receiver, at): (Option<&str>, u128, &str, u64),
) {
    let (peer, receiver, at) = (peer.map(domain), receiver.to_owned(), Timestamp(at));
    let claim = Claim { peer, queue: of(number), receiver, at };
    append(store, |batch| _ = batch.audit_claim(APP, claim, limits)).unwrap();
}

/// An entry: number, claimant, queue, packages, and the times of the first and the last.
type Short = (u64, Option<String>, Option<u128>, u64, [u64; 2]);

/// The entries, the oldest first.
fn entries(store: &Store) -> Vec<Short> {
    let entries = store.view().audit_entries(APP, None, usize::MAX).unwrap();
    let short = |(number, AuditRow { at, entry })| match entry {
        AuditEntry::KeyPackagesClaimed(ClaimedKeyPackages { peer, queue, taken, last_at, .. }) => {
            let peer = peer.map(|peer| peer.to_string());
            let queue = queue.map(|queue| queue.queue.as_uuid().as_u128());
            (number, peer, queue, taken, [at.0, last_at.0])
        }
        AuditEntry::EpochReported { .. } => panic!("nothing was reported"),
    };
    entries.into_iter().rev().map(short).collect()
}

#[test]
fn what_one_claimant_took_from_a_queue_in_a_day_is_one_entry() {
    let store = temporary();
    let peer = || Some("b.example".to_owned());
    for (at, receiver) in (1..=10).zip('a'..) {
        claim(&store, Some("b.example"), 1, &receiver.to_string(), at);
    }
    claim(&store, None, 1, "own", 11);
    claim(&store, Some("b.example"), 2, "x", 12);
    let first = (1, peer(), Some(queue(1).as_uuid().as_u128()), 10, [1, 10]);
    let own = (2, None, Some(queue(1).as_uuid().as_u128()), 1, [11, 11]);
    let second = (3, peer(), Some(queue(2).as_uuid().as_u128()), 1, [12, 12]);
    assert_eq!(entries(&store), [first.clone(), own.clone(), second.clone()]);
    let (_, row) = store.view().audit_entries(APP, Some(2), 1).unwrap().remove(0);
    let AuditEntry::KeyPackagesClaimed(claimed) = row.entry else { panic!("{row:?}") };
    assert_eq!(claimed.receivers, ["c", "d", "e", "f", "g", "h", "i", "j"], "the newest eight");
    assert_eq!(claimed.queue, Some(of(1)));
    // All further queues of the day are one entry, and those that have one keep it.
    for (queue, at) in [(3, 20), (4, 21), (3, 22), (2, 23)] {
        claim(&store, Some("b.example"), queue, "x", at);
    }
    let second = (3, peer(), second.2, 2, [12, 23]);
    let others = (4, peer(), None, 3, [20, 22]);
    assert_eq!(entries(&store), [first.clone(), own.clone(), second.clone(), others.clone()]);
    // The next day begins anew.
    claim(&store, Some("b.example"), 3, "x", DAY_MS);
    claim(&store, Some("b.example"), 1, "x", DAY_MS + 1);
    let third = (5, peer(), Some(queue(3).as_uuid().as_u128()), 1, [DAY_MS; 2]);
    let again = (6, peer(), first.2, 1, [DAY_MS + 1; 2]);
    assert_eq!(entries(&store), [first, own, second, others, third, again]);
    assert_eq!(store.view().audit_entries(OTHER_APP, None, 9).unwrap(), []);
    let mut faults = Vec::new();
    store.view().check_rows(|fault| faults.push(fault)).unwrap();
    assert_eq!(faults, Vec::<String>::new());
}

#[tokio::test]
async fn what_finds_an_entry_goes_with_it() {
    let store = temporary();
    for queue in 1..=2 {
        claim(&store, Some("b.example"), queue, "x", 1);
    }
    claim(&store, Some("b.example"), 1, "x", 3 * DAY_MS);
    // Three entries, what finds the newest of each queue, the claimant's day, and the number of the newest entry.
    assert_eq!(rows(&store), [("audit", 3 + 2 + 1 + 1)]);
    let retention = Retention { audit_age_max: Duration::from_millis(DAY_MS), ..Retention::default() };
    let swept = store.sweep(&retention, Timestamp(3 * DAY_MS)).await.unwrap();
    assert_eq!(swept, Swept { audit_rows: 2, ..Swept::default() });
    assert_eq!(
        rows(&store),
        [("audit", 1 + 1 + 1 + 1)],
        "the newest entry of the first queue is still found"
    );
    claim(&store, Some("b.example"), 1, "x", 3 * DAY_MS + 5);
    assert_eq!(entries(&store).len(), 1);
    // The entry that is one too many goes in the same way.
    let one = ClaimLimits { rows_max: 1, ..LIMITS };
    claim_within(&store, one, (None, 2, "x", 3 * DAY_MS + 6));
    assert_eq!(rows(&store), [("audit", 1 + 1 + 2 + 1)]);
    claim_within(&store, one, (Some("b.example"), 1, "x", 3 * DAY_MS + 7));
    let [(number, peer, _, taken, _)] = &entries(&store)[..] else { panic!("one entry") };
    assert_eq!((*number, peer.as_deref(), *taken), (5, Some("b.example"), 1), "it begins anew");
}
