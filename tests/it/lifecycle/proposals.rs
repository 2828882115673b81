//! Proposals that can no longer be committed, and proposals repeated with other bytes.

use std::time::Duration;

use mimi_gateway::api::{
    groups::ProposalBody,
    problem::{ProblemDocument, ProblemKind},
    text::Base64,
};

use super::{clients, pair};
use crate::{
    mls_support::{Member, refusal, refused},
    support::{Setup, TestGateway},
};

async fn listed(member: &Member) -> usize {
    member.api.proposals(&member.id()).await.unwrap().messages.len()
}

/// The commit of what a member has heard proposed is refused because of this proposal.
async fn assert_caused_by(member: &mut Member, reference: &Base64) -> ProblemDocument {
    let commit = member.make_update();
    let problem = refusal(member.upload(&commit).await);
    assert_eq!(problem.members["proposalRef"], serde_json::to_value(reference).unwrap(), "{problem:?}");
    member.clear_pending();
    problem
}

#[actix_web::test]
async fn an_add_whose_package_was_used_elsewhere_is_not_current() {
    let gateway = TestGateway::start().await;
    let [alice, bob, carol] = clients(&gateway, ["alice", "bob", "carol"]).await;
    let (mut at_alice, mut at_bob) = pair(&alice, &bob).await;
    let package = carol.assign_to("alice").await.unwrap().key_package;
    let add = at_alice.make_add_proposal(&package);
    let accepted = at_alice.propose(&add).await.unwrap();
    let update = at_alice.make_update_proposal();
    at_alice.propose(&update).await.unwrap();
    assert_eq!(at_bob.fetch_proposals().await, 2);

    let mut elsewhere = alice.create_group().await;
    let commit = elsewhere.make_adding(&[package]);
    elsewhere.commit(&commit).await;
    let waiting = at_bob.api.proposals(&at_bob.id()).await.unwrap().messages;
    assert_eq!(waiting, [update.packet]);
    let problem = assert_caused_by(&mut at_bob, &accepted.proposal_ref).await;
    assert_eq!(problem.kind(), Some(ProblemKind::KeyPackageReused), "{problem:?}");
    // Who commits what is listed succeeds.
    at_bob.clear_proposals();
    assert_eq!(at_bob.fetch_proposals().await, 1);
    at_bob.update().await;
    gateway.stop().await;
}

#[actix_web::test]
async fn an_add_whose_package_has_expired_is_not_current() {
    let setup = Setup::new();
    let gateway = setup.start().await;
    let [alice, bob, carol] = clients(&gateway, ["alice", "bob", "carol"]).await;
    let (mut at_alice, mut at_bob) = pair(&alice, &bob).await;
    let add = at_alice.make_add_proposal(&carol.key_package());
    let accepted = at_alice.propose(&add).await.unwrap();
    assert_eq!(at_bob.fetch_proposals().await, 1);
    setup.pass(Duration::from_secs(300 * 24 * 3600));
    assert_eq!(listed(&at_bob).await, 1);
    setup.pass(Duration::from_secs(100 * 24 * 3600));
    assert_eq!(listed(&at_bob).await, 0);
    let problem = assert_caused_by(&mut at_bob, &accepted.proposal_ref).await;
    assert_eq!(problem.kind(), Some(ProblemKind::InvalidCommit), "{problem:?}");
    assert_eq!(problem.members["rule"], "lifetime", "{problem:?}");
    gateway.stop().await;
}

#[actix_web::test]
async fn a_reference_that_is_not_known_is_named() {
    let gateway = TestGateway::start().await;
    let [alice, bob, carol] = clients(&gateway, ["alice", "bob", "carol"]).await;
    let (mut at_alice, _) = pair(&alice, &bob).await;
    // A member counts what it proposed as proposed, whether the gateway heard of it or not.
    let add = at_alice.make_add_proposal(&carol.key_package());
    let commit = at_alice.make_update();
    let unknown = refusal(at_alice.upload(&commit).await);
    assert_eq!(unknown.members["rule"], "known-proposals", "{unknown:?}");
    let accepted = at_alice.propose(&add).await.unwrap();
    let reference = serde_json::to_value(&accepted.proposal_ref).unwrap();
    assert_eq!(unknown.members["proposalRef"], reference, "{unknown:?}");
    assert_eq!(at_alice.upload(&commit).await.unwrap().status, 201);
    gateway.stop().await;
}

#[actix_web::test]
async fn other_bytes_of_a_proposal_keep_their_answer() {
    let gateway = TestGateway::start().await;
    let [alice, bob] = clients(&gateway, ["alice", "bob"]).await;
    let (mut at_alice, mut at_bob) = pair(&alice, &bob).await;
    let update = at_bob.make_update_proposal();
    let accepted = at_bob.propose(&update).await.unwrap();
    // The membership tag comes last. The gateway cannot check it, and it is not part of the reference.
    let with_tag = |tag: u8| {
        let Base64(mut packet) = update.packet.clone();
        *packet.last_mut().unwrap() ^= tag;
        ProposalBody { packet: Base64(packet) }
    };
    for tag in 1..=20 {
        assert_eq!(at_bob.propose(&with_tag(tag)).await.unwrap(), accepted);
    }
    // The same once more takes no more room.
    assert_eq!(at_bob.propose(&with_tag(1)).await.unwrap(), accepted);
    assert_eq!(listed(&at_alice).await, 1);
    assert_eq!(at_alice.fetch_proposals().await, 1);
    at_alice.update().await;
    for tag in 0..=8 {
        assert_eq!(at_bob.propose(&with_tag(tag)).await.unwrap(), accepted, "{tag}");
    }
    // No more than that is remembered of one proposal.
    refused(at_bob.propose(&with_tag(9)).await, ProblemKind::StaleEpoch);
    gateway.stop().await;
}

#[actix_web::test]
async fn what_members_propose_for_one_leaf_stays_current() {
    let gateway = TestGateway::start().await;
    let [alice, bob] = clients(&gateway, ["alice", "bob"]).await;
    let (mut at_alice, mut at_bob) = pair(&alice, &bob).await;
    let update = at_bob.make_update_proposal();
    at_bob.propose(&update).await.unwrap();
    let remove = at_alice.make_remove_proposal(&bob.handle);
    at_alice.propose(&remove).await.unwrap();
    assert_eq!(listed(&at_alice).await, 2);
    gateway.stop().await;
}
