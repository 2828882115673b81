//! Limits on the join infos that wait for a client, by inviter.

use std::time::Duration;

use snapshots::{
    ClientHandle, DeliveryId, DomainName, Epoch, Invitation, InvitedClient, Inviter, ShareId, Store,
    Timestamp, Unmet, WelcomeLimits,
};

use crate::fixtures::*;

const LIMITS: WelcomeLimits = WelcomeLimits {
    per_client_max: 5,
    per_inviter_max: 3,
    reserved_max: 2,
    elsewhere_window: Duration::from_millis(1000),
};

fn with_reserve(number: u8) -> Inviter {
    Inviter { reserve: Some(ShareId::new([number; 16])), ..inviter(number) }
}

fn of_domain(number: u8, name: u8) -> Inviter {
    Inviter { reserve: Some(ShareId::new([name; 16])), ..inviter(number) }
}

/// Invites alice; says whether it was accepted, or which limit it would have passed.
fn invite(store: &Store, by: Inviter) -> Result<DeliveryId, bool> {
    let clients = invited(&[handle("alice")]);
    invite_all(store, &clients, Invitation::Accepted { by, limits: LIMITS }).map(|ids| ids[0])
}

fn invite_all(
    store: &Store,
    clients: &[InvitedClient],
    invitation: Invitation,
) -> Result<Vec<DeliveryId>, bool> {
    let mut batch = snapshots::Batch::new();
    batch.put_welcome(APP, &group(1), Epoch(1), &welcome_row(1), clients, invitation);
    match store.append_blocking(batch) {
        Ok(appended) => Ok(appended.deliveries),
        Err(snapshots::AppendError::Precondition(Unmet::TooManyWelcomes {
            handle: of, of_inviter, ..
        })) => {
            assert_eq!(of, handle("alice"));
            Err(of_inviter)
        }
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn an_inviter_has_a_share_and_gets_it_back() {
    let store = temporary();
    let ids: Vec<_> = (0..3).map(|_| invite(&store, inviter(1)).unwrap()).collect();
    assert_eq!(invite(&store, inviter(1)), Err(true));
    assert!(invite(&store, inviter(2)).is_ok());
    append(&store, |batch| _ = batch.acknowledge(APP, &handle("alice"), ids[1])).unwrap();
    // Twice is once.
    append(&store, |batch| _ = batch.acknowledge(APP, &handle("alice"), ids[1])).unwrap();
    assert!(invite(&store, inviter(1)).is_ok());
    assert_eq!(invite(&store, inviter(1)), Err(true));
}

#[tokio::test]
async fn a_crowd_takes_the_common_room_and_no_reserve() {
    let store = temporary();
    let crowd: Vec<_> = (10..15).map(|number| invite(&store, inviter(number)).unwrap()).collect();
    for number in 15..20 {
        assert_eq!(invite(&store, inviter(number)), Err(false));
    }
    // Who has a reserve gets that much, and not what others have.
    for number in [1, 2] {
        assert!(invite(&store, with_reserve(number)).is_ok());
        assert!(invite(&store, with_reserve(number)).is_ok());
        assert_eq!(invite(&store, with_reserve(number)), Err(false));
    }
    // The members of a domain share one.
    assert!(invite(&store, of_domain(3, 99)).is_ok());
    assert!(invite(&store, of_domain(4, 99)).is_ok());
    assert_eq!(invite(&store, of_domain(5, 99)), Err(false));
    for id in crowd {
        append(&store, |batch| _ = batch.acknowledge(APP, &handle("alice"), id)).unwrap();
    }
    // Six of the reserves still wait, so that the common room is full.
    assert_eq!(invite(&store, inviter(20)), Err(false));
    let waiting = store.view().join_infos(APP, &handle("alice"), None, 99).unwrap();
    assert_eq!(waiting.len(), 6);
    for (id, _) in waiting {
        append(&store, |batch| _ = batch.acknowledge(APP, &handle("alice"), id)).unwrap();
    }
    assert_eq!(rows(&store), []);
}

#[test]
fn domains_are_counted_apart_and_other_gateways_not_at_all() {
    let store = temporary();
    let named = |name: Option<&str>| -> Vec<InvitedClient> {
        vec![InvitedClient { handle: handle("alice"), domain: name.map(domain) }]
    };
    let by = |number| Invitation::Accepted { by: inviter(number), limits: LIMITS };
    for _ in 0..10 {
        invite_all(&store, &named(Some("a.example")), Invitation::AcceptedElsewhere).unwrap();
    }
    for name in [Some("a.example"), Some("b.example"), None] {
        for number in [1, 1, 1, 2, 2] {
            invite_all(&store, &named(name), by(number)).unwrap();
        }
        assert_eq!(invite_all(&store, &named(name), by(1)), Err(true));
        assert_eq!(invite_all(&store, &named(name), by(2)), Err(false));
    }
}

#[test]
fn what_passes_a_limit_writes_nothing() {
    let store = temporary();
    for _ in 0..3 {
        invite(&store, inviter(1)).unwrap();
    }
    let before = rows(&store);
    let others: [ClientHandle; 3] = [handle("bob"), handle("alice"), handle("carol")];
    let invitation = Invitation::Accepted { by: inviter(1), limits: LIMITS };
    assert_eq!(invite_all(&store, &invited(&others), invitation), Err(true));
    assert_eq!(rows(&store), before);
    let ids = invite_all(&store, &invited(&[handle("bob")]), invitation).unwrap();
    assert_eq!(ids, [DeliveryId(4)], "a refused invitation gives no delivery ids away");
}

#[tokio::test]
async fn clients_elsewhere_are_counted_for_a_time() {
    let store = temporary();
    let there: DomainName = domain("b.example");
    let clients = vec![InvitedClient { handle: handle("alice"), domain: Some(there) }];
    let count = |number: u8, now: u64| {
        append(&store, |batch| {
            let by = inviter(number);
            batch.count_invitations_elsewhere(APP, &clients, by, LIMITS, Timestamp(now));
        })
        .is_ok()
    };
    assert!((0..3).all(|_| count(1, 5000)));
    let full = Unmet::TooManyWelcomes {
        handle: handle("alice"),
        domain: clients[0].domain.clone(),
        of_inviter: true,
        max: 3,
        counted_until: Some(Timestamp(6000)),
    };
    check_refused(&store, full, |batch| {
        batch.count_invitations_elsewhere(APP, &clients, inviter(1), LIMITS, Timestamp(5999));
    });
    assert!(count(2, 5999) && count(2, 5999));
    assert!(!count(2, 5999), "five in all");
    assert!(count(1, 6000), "the window of the first is over");
    assert_eq!(rows(&store), [("expiries", 5), ("welcome_shares", 3)]);
    assert_eq!(
        store
            .view()
            .row_counts()
            .unwrap()
            .into_iter()
            .find(|(name, _)| *name == "join_infos")
            .map(|(_, count)| count),
        Some(0)
    );

    // What is over is swept, and a window that began meanwhile is not.
    let sweep = |now| {
        let store = store.clone();
        async move {
            let retention = snapshots::Retention { expired_age_max: Duration::ZERO, ..Default::default() };
            store.sweep(&retention, Timestamp(now)).await.unwrap().invitation_counts
        }
    };
    assert_eq!(sweep(6001).await, 2);
    assert_eq!(rows(&store), [("expiries", 3), ("welcome_shares", 3)]);
    assert!(!(0..3).all(|_| count(1, 6500)));
    assert_eq!(sweep(20_000).await, 3);
    assert_eq!(rows(&store), []);
}
