//! The assignment of key packages: to the right receiver and never twice, before and after restarts.

use std::{collections::BTreeSet, time::Duration};

use actors::{CheckedStore, Location, Store, StoreOptions, check_store};

use mimi_gateway::{
    api::{
        clients::ClientChangeBody, key_packages::KeyPackageUploadBody, problem::ProblemKind, text::Base64,
        text::HandleText,
    },
    config::TokenAccess,
    token::Token,
};
use serde_json::json;

use crate::mls_support::{MlsClient, kept_in, refused};
use crate::support::{Request, Setup, TestGateway};

/// Stops the gateway and starts it again on the same directory.
async fn restart(setup: &Setup, gateway: TestGateway, clients: &mut [&mut MlsClient]) -> TestGateway {
    gateway.stop().await;
    let gateway = setup.start().await;
    for client in clients {
        client.reconnect(&gateway);
    }
    gateway
}

/// What a receiver is given: the package and whether it is the final key.
async fn given(client: &MlsClient, receiver: &str) -> (Base64, bool) {
    let retrieved = client.assign_to(receiver).await.unwrap();
    (retrieved.key_package, retrieved.is_final_key)
}

/// How many packages the queue holds and how many of them are free.
async fn counts(client: &MlsClient) -> (usize, usize) {
    let queue = client.key_queue().await;
    (queue.key_packages_in_pool, queue.key_packages_available)
}

#[actix_web::test]
async fn an_assignment_outlives_restarts() {
    let directory = tempfile::tempdir().unwrap();
    let setup = kept_in(&directory);
    let mut gateway = setup.start().await;
    let mut bob = MlsClient::register(&gateway, "bob").await;
    bob.upload_key_packages(5).await;

    let for_alice = given(&bob, "alice").await;
    let for_carol = given(&bob, "carol").await;
    assert_ne!(for_alice, for_carol, "two receivers get two packages");
    let mut later = Vec::new();
    for round in 0..3 {
        gateway = restart(&setup, gateway, &mut [&mut bob]).await;
        assert_eq!(counts(&bob).await, (5, 3 - round));
        assert_eq!(given(&bob, "carol").await, for_carol);
        // A receiver that comes after the restart gets an unassigned one.
        later.push(given(&bob, &format!("later {round}")).await);
        assert_eq!(given(&bob, "alice").await, for_alice);
    }
    let all: BTreeSet<_> =
        [for_alice, for_carol].into_iter().chain(later).map(|(package, _)| package.0).collect();
    assert_eq!(all.len(), 5);
    refused(bob.assign_to("one too many").await, ProblemKind::NoKeyPackage);
    gateway.stop().await;
}

#[actix_web::test]
async fn a_used_package_is_gone_for_good() {
    let directory = tempfile::tempdir().unwrap();
    let setup = kept_in(&directory);
    let mut gateway = setup.start().await;
    let mut alice = MlsClient::register(&gateway, "alice").await;
    let mut bob = MlsClient::register(&gateway, "bob").await;
    bob.upload_key_packages(3).await;
    let alice_id = alice.id.to_string();

    let (used, _) = given(&bob, &alice_id).await;
    let (other, _) = given(&bob, "carol").await;
    let mut at_alice = alice.create_group().await;
    at_alice.invite(&[&bob]).await;

    for round in 0..3 {
        // Gone from the queue, whose next one goes to the same receiver; others keep theirs.
        assert_eq!(counts(&bob).await.0, 2);
        let (next, is_final) = given(&bob, &alice_id).await;
        assert!(!is_final);
        assert!(next != used && next != other);
        assert_eq!(given(&bob, "carol").await.0, other);
        assert_eq!(counts(&bob).await, (2, 0));

        // It cannot come back: not by upload, not by commit, not by proposal.
        let upload =
            KeyPackageUploadBody { key_packages: vec![used.clone()], ..KeyPackageUploadBody::default() };
        refused(bob.upload(&upload).await, ProblemKind::InvalidKeyPackage);
        let upload =
            KeyPackageUploadBody { final_key: Some(used.clone()), ..KeyPackageUploadBody::default() };
        refused(bob.upload(&upload).await, ProblemKind::InvalidKeyPackage);
        let mut second = alice.create_group().await;
        let commit = second.make_adding(std::slice::from_ref(&used));
        refused(second.upload(&commit).await, ProblemKind::KeyPackageReused);
        second.clear_pending();
        let proposal = second.make_add_proposal(&used);
        refused(second.propose(&proposal).await, ProblemKind::KeyPackageReused);
        assert_eq!(alice.api.group(&second.id()).await.unwrap().epoch_id.0, 0);
        assert_eq!(bob.welcomes().await.len(), 1);

        if round < 2 {
            gateway = restart(&setup, gateway, &mut [&mut alice, &mut bob]).await;
            at_alice.reconnect(&gateway);
        }
    }
    // The group that it was used in continues with the next one once Bob has left.
    bob.join().await;
    at_alice.remove(&bob.handle).await;
    at_alice.invite(&[&bob]).await;
    assert_eq!(counts(&bob).await, (1, 0));
    gateway.stop().await;
}

#[actix_web::test]
async fn a_package_in_a_proposal_is_used_when_it_is_committed() {
    let directory = tempfile::tempdir().unwrap();
    let setup = kept_in(&directory);
    let gateway = setup.start().await;
    let mut alice = MlsClient::register(&gateway, "alice").await;
    let mut bob = MlsClient::register(&gateway, "bob").await;
    bob.upload_key_packages(1).await;
    let (package, _) = given(&bob, "alice").await;

    // Two groups propose it; who commits it first has it.
    let (mut first, mut second) = (alice.create_group().await, alice.create_group().await);
    for group in [&mut first, &mut second] {
        let proposal = group.make_add_proposal(&package);
        group.propose(&proposal).await.unwrap();
    }
    assert_eq!(counts(&bob).await, (1, 0), "proposing uses nothing up");
    assert_eq!(given(&bob, "alice").await.0, package);
    let gateway = restart(&setup, gateway, &mut [&mut alice, &mut bob]).await;
    for group in [&mut first, &mut second] {
        group.reconnect(&gateway);
    }
    second.update().await;
    let late = first.make_update();
    refused(first.upload(&late).await, ProblemKind::KeyPackageReused);
    refused(bob.assign_to("alice").await, ProblemKind::NoKeyPackage);
    let at_bob = bob.join().await;
    assert_eq!(at_bob.state(), second.state());
    gateway.stop().await;
}

#[actix_web::test]
async fn the_final_key_comes_last_and_is_used_again_and_again() {
    let directory = tempfile::tempdir().unwrap();
    let setup = kept_in(&directory);
    let gateway = setup.start().await;
    let mut alice = MlsClient::register(&gateway, "alice").await;
    let mut bob = MlsClient::register(&gateway, "bob").await;
    let last = bob.upload_final_key().await;
    let ordinary = bob.upload_key_packages(1).await.remove(0);
    assert!(bob.key_queue().await.has_final_key);
    assert_eq!(counts(&bob).await, (1, 1), "the final key is not counted");

    assert_eq!(given(&bob, "first").await, (ordinary.clone(), false));
    for receiver in ["second", "third"] {
        assert_eq!(given(&bob, receiver).await, (last.clone(), true));
    }
    let gateway = restart(&setup, gateway, &mut [&mut alice, &mut bob]).await;
    assert_eq!(given(&bob, "first").await, (ordinary, false));
    assert_eq!(given(&bob, "second").await, (last.clone(), true));

    // It brings Bob into two groups, before and after another restart, and stays.
    let mut one = alice.create_group().await;
    one.invite(&[&bob]).await;
    assert_eq!(bob.join().await.state(), one.state());
    let gateway = restart(&setup, gateway, &mut [&mut alice, &mut bob]).await;
    let mut two = alice.create_group().await;
    two.invite(&[&bob]).await;
    assert_eq!(bob.welcomes().await.len(), 1);
    assert_eq!(given(&bob, "second").await, (last.clone(), true));

    // A receiver who had to take it gets an ordinary one as soon as there is one.
    let fresh = bob.upload_key_packages(1).await.remove(0);
    assert_eq!(given(&bob, "second").await, (fresh, false));
    assert_eq!(given(&bob, "third").await, (last, true));
    // A new final key takes its place.
    let newer = bob.upload_final_key().await;
    assert_eq!(given(&bob, "third").await, (newer, true));
    gateway.stop().await;
}

#[actix_web::test]
async fn a_rename_drops_the_packages_of_the_old_handle() {
    let directory = tempfile::tempdir().unwrap();
    let setup = kept_in(&directory);
    let gateway = setup.start().await;
    let mut alice = MlsClient::register(&gateway, "alice").await;
    let mut bob = MlsClient::register(&gateway, "bob").await;
    bob.upload_key_packages(3).await;
    bob.upload_final_key().await;
    given(&bob, "alice").await;

    let new_name = "robert".parse::<HandleText>().unwrap();
    let change = ClientChangeBody { client_handle: Some(new_name), ..ClientChangeBody::default() };
    bob.api.change_client(bob.id, &change).await.unwrap();
    let stale = bob.key_package();
    let mut gateway = gateway;
    for _ in 0..2 {
        assert_eq!(counts(&bob).await, (0, 0));
        assert!(!bob.key_queue().await.has_final_key);
        refused(bob.assign_to("alice").await, ProblemKind::NoKeyPackage);
        let upload =
            KeyPackageUploadBody { key_packages: vec![stale.clone()], ..KeyPackageUploadBody::default() };
        refused(bob.upload(&upload).await, ProblemKind::InvalidKeyPackage);
        gateway = restart(&setup, gateway, &mut [&mut alice, &mut bob]).await;
    }
    gateway.stop().await;
}

#[actix_web::test]
async fn a_reset_drops_assignments_too() {
    let directory = tempfile::tempdir().unwrap();
    let setup = kept_in(&directory);
    let mut gateway = setup.start().await;
    let mut bob = MlsClient::register(&gateway, "bob").await;
    bob.upload_key_packages(3).await;
    let (before, _) = given(&bob, "alice").await;
    let replacement = bob.key_package();
    let reset = KeyPackageUploadBody {
        key_packages: vec![replacement.clone()],
        is_reset: true,
        ..KeyPackageUploadBody::default()
    };
    bob.upload(&reset).await.unwrap();
    for available in [1, 0] {
        assert_eq!(counts(&bob).await, (1, available));
        let (after, _) = given(&bob, "alice").await;
        assert_eq!(after, replacement);
        assert_ne!(after, before);
        gateway = restart(&setup, gateway, &mut [&mut bob]).await;
    }
    gateway.stop().await;
}

/// The faults of a gateway's store, which no gateway has open.
fn check_stored(setup: &Setup) -> CheckedStore {
    let mimi_gateway::config::DataDir::Directory(path) = &setup.config.data_dir else {
        panic!("a directory")
    };
    let options = StoreOptions { location: Location::Directory(path.clone()), ..StoreOptions::default() };
    let store = Store::open(&options).unwrap();
    let checked = check_store(&store.view(), setup.clock().now()).unwrap();
    store.close();
    checked
}

/// Waits until the queues of the application hold this number of key packages on disk.
async fn await_stored(gateway: &TestGateway, operator: &Token, expected: u64) {
    loop {
        let list = Request::new("GET", "/operator/v1/applications").token(operator);
        let list = gateway.operate(list).await.success(200);
        let of_app =
            list["applications"].as_array().unwrap().iter().find(|found| found["id"] == json!(gateway.app));
        if of_app.unwrap()["quotas"]["keyPackages"]["used"].as_u64() == Some(expected) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

const HOUR: Duration = Duration::from_secs(3600);

/// A gateway whose assignments end after ten hours, and the token of its operator.
fn with_ending_assignments(directory: &tempfile::TempDir) -> (Setup, Token) {
    let mut setup = kept_in(directory);
    let operator = Token::generate().unwrap();
    setup.watched_by(&[(&operator, TokenAccess::Read)]);
    setup.config.retention.assignment_age_s_max = 10 * 3600;
    setup.config.retention.period_s = 1;
    (setup, operator)
}

#[actix_web::test]
async fn an_assignment_that_nobody_uses_ends_and_the_package_goes_to_nobody_else() {
    let directory = tempfile::tempdir().unwrap();
    let (setup, operator) = with_ending_assignments(&directory);
    let gateway = setup.start().await;
    let mut alice = MlsClient::register(&gateway, "alice").await;
    let mut bob = MlsClient::register(&gateway, "bob").await;
    bob.upload_key_packages(3).await;
    let (first, _) = given(&bob, "alice").await;
    setup.pass(5 * HOUR);
    let (for_carol, _) = given(&bob, "carol").await;
    assert_eq!(given(&bob, "alice").await.0, first, "the same until then");
    setup.pass(6 * HOUR);
    let (second, _) = given(&bob, "alice").await;
    assert_ne!(second, first);
    assert_eq!(given(&bob, "alice").await.0, second);
    assert_eq!(given(&bob, "carol").await.0, for_carol, "younger than that");
    refused(bob.assign_to("dave").await, ProblemKind::NoKeyPackage);
    await_stored(&gateway, &operator, 2).await;

    // It does not come back: not over a restart, not by another upload, nor in a new queue.
    let gateway = restart(&setup, gateway, &mut [&mut alice, &mut bob]).await;
    let again = KeyPackageUploadBody { key_packages: vec![first.clone()], ..KeyPackageUploadBody::default() };
    for _ in 0..2 {
        bob.upload(&again).await.unwrap();
        assert_eq!(given(&bob, "carol").await.0, for_carol);
        refused(bob.assign_to("dave").await, ProblemKind::NoKeyPackage);
        assert_eq!(counts(&bob).await, (2, 0));
        assert_eq!(given(&bob, "alice").await.0, second);
    }
    // Alice may still use it, once.
    let mut at_alice = alice.create_group().await;
    let late = at_alice.make_adding(std::slice::from_ref(&first));
    at_alice.upload(&late).await.unwrap();
    assert_eq!(bob.welcomes().await.len(), 1);
    let mut other = alice.create_group().await;
    let twice = other.make_adding(std::slice::from_ref(&first));
    refused(other.upload(&twice).await, ProblemKind::KeyPackageReused);
    gateway.stop().await;
    let checked = check_stored(&setup);
    assert_eq!(checked.faults_count, 0, "{checked:?}");
}

#[actix_web::test]
async fn no_more_packages_are_dropped_than_are_remembered() {
    let directory = tempfile::tempdir().unwrap();
    let (mut setup, operator) = with_ending_assignments(&directory);
    // Half of them may be dropped ones.
    setup.config.limits.assigned_key_packages_per_client_max = 2;
    let gateway = setup.start().await;
    let mut bob = MlsClient::register(&gateway, "bob").await;
    let uploaded = bob.upload_key_packages(5).await;
    let first = given(&bob, "alice").await;
    setup.pass(11 * HOUR);
    let second = given(&bob, "alice").await;
    assert_ne!(second, first);
    await_stored(&gateway, &operator, 4).await;
    // Further assignments push others out of the memory, but not the dropped package.
    let for_carol = given(&bob, "carol").await;
    let for_dave = given(&bob, "dave").await;
    setup.pass(11 * HOUR);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let again = KeyPackageUploadBody { key_packages: uploaded, ..KeyPackageUploadBody::default() };
    let mut gateway = gateway;
    let for_eve = given(&bob, "eve").await;
    for _ in 0..2 {
        bob.upload(&again).await.unwrap();
        for (receiver, held) in
            [("alice", &second), ("carol", &for_carol), ("dave", &for_dave), ("eve", &for_eve)]
        {
            assert_eq!(given(&bob, receiver).await, *held, "{receiver}");
        }
        refused(bob.assign_to("frank").await, ProblemKind::NoKeyPackage);
        assert_eq!(counts(&bob).await, (4, 0));
        gateway = restart(&setup, gateway, &mut [&mut bob]).await;
    }
    gateway.stop().await;
    let checked = check_stored(&setup);
    assert_eq!(checked.faults_count, 0, "{checked:?}");
}

#[actix_web::test]
async fn what_has_expired_in_a_queue_that_sleeps_is_no_fault_of_the_store() {
    let directory = tempfile::tempdir().unwrap();
    let mut setup = kept_in(&directory);
    let operator = Token::generate().unwrap();
    setup.watched_by(&[(&operator, TokenAccess::Read)]);
    setup.config.retention.expired_age_s_max = 1;
    setup.config.retention.period_s = 1;
    setup.config.limits.clock_settle_s = 0;
    let gateway = setup.start().await;
    let bob = MlsClient::register(&gateway, "bob").await;
    bob.upload_key_packages(3).await;
    await_stored(&gateway, &operator, 3).await;
    setup.pass(Duration::from_secs(10 * 366 * 24 * 3600));
    await_stored(&gateway, &operator, 0).await;
    gateway.stop().await;
    let checked = check_stored(&setup);
    assert_eq!((checked.key_queues, checked.faults_count), (1, 0), "{checked:?}");
}

#[actix_web::test]
async fn receivers_who_ask_at_once_get_different_packages() {
    const RECEIVERS: usize = 20;
    let gateway = TestGateway::start().await;
    let bob = MlsClient::register(&gateway, "bob").await;
    let uploaded = bob.upload_key_packages(RECEIVERS).await;
    // Each receiver asks twice at once, which is still one assignment.
    let asking: Vec<_> = (0..2 * RECEIVERS)
        .map(|index| {
            let query = mimi_gateway::api::key_packages::KeyPackageQuery::new(
                1,
                1,
                format!("receiver {}", index % RECEIVERS),
            );
            let (api, id) = (bob.api.clone(), bob.id);
            tokio::spawn(async move { api.retrieve_key_package(id, &query).await })
        })
        .collect();
    let mut packages = Vec::new();
    for asked in asking {
        let retrieved = asked.await.unwrap().unwrap();
        assert!(!retrieved.is_final_key);
        packages.push(retrieved.key_package.0);
    }
    assert_eq!(packages[..RECEIVERS], packages[RECEIVERS..], "the same receiver gets the same package");
    let distinct: BTreeSet<_> = packages.into_iter().collect();
    assert_eq!(distinct, uploaded.into_iter().map(|package| package.0).collect());
    assert_eq!(counts(&bob).await, (RECEIVERS, 0));
    refused(bob.assign_to("one too many").await, ProblemKind::NoKeyPackage);
    gateway.stop().await;
}
