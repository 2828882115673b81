//! Writes to a group that another gateway orders.

use std::time::{Duration, Instant};

use mimi_gateway::api::{key_packages::KeyPackageQuery, problem::ProblemKind};
use serde_json::json;

use super::{A, B, Caller, Two, Way, digest, slug};
use crate::{
    mls_support::{Member, MlsClient, assert_agree, refusal},
    support::TestGateway,
};

/// Alice at A, which orders the group, and Carol at B, invited by Alice.
struct Story {
    two: Two,
    a: TestGateway,
    b: TestGateway,
    at_alice: Member,
    at_carol: Member,
}

impl Story {
    async fn new() -> Self {
        let two = Two::new().await;
        let (a, b) = two.start().await;
        let roots = two.clients.roots();
        let alice =
            MlsClient::register_certified(&a, &two.clients.certify(A, "alice", "phone"), &roots).await;
        let carol =
            MlsClient::register_certified(&b, &two.clients.certify(B, "carol", "phone"), &roots).await;
        carol.upload_key_packages(2).await;
        let mut at_alice = alice.create_group().await;
        let mut query = KeyPackageQuery::new(1, 1, alice.id.to_string());
        query.domain = Some(B.parse().unwrap());
        let package = alice.api.retrieve_key_package(carol.id, &query).await.unwrap().key_package;
        let commit = at_alice.make_adding(&[package]);
        at_alice.commit(&commit).await;
        let since = Instant::now();
        while carol.welcomes().await.is_empty() {
            assert!(since.elapsed() < Duration::from_secs(10), "no welcome comes to B");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let at_carol = carol.join().await;
        assert_agree(&[&at_alice, &at_carol]);
        // The queue is advanced where it is, a moment after the welcome can be read.
        while carol.key_queue().await.key_packages_in_pool != 1 {
            assert!(since.elapsed() < Duration::from_secs(10), "the queue at B is not advanced");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Self { two, a, b, at_alice, at_carol }
    }

    async fn stop(self) {
        self.a.stop().await;
        self.b.stop().await;
    }
}

#[actix_web::test]
async fn a_write_goes_to_the_hub_and_is_read_where_it_was_made() {
    let mut story = Story::new().await;
    let Story { at_alice, at_carol, .. } = &mut story;
    for _ in 0..3 {
        at_carol.update().await;
        // No waiting: the answer came after the replica had it.
        at_carol.assert_gateway_agrees().await;
        at_alice.catch_up().await;
        assert_agree(&[at_alice, at_carol]);
        at_alice.assert_gateway_agrees().await;
    }
    let hub = at_carol.api.group(&at_carol.id()).await.unwrap().hub_domain;
    assert_eq!(hub, Some(A.parse().unwrap()));

    let proposal = at_carol.make_update_proposal();
    let accepted = at_carol.propose(&proposal).await.unwrap();
    assert_eq!(accepted.epoch_id, at_carol.epoch());
    let waiting = at_carol.api.proposals(&at_carol.id()).await.unwrap().messages;
    assert_eq!(waiting, std::slice::from_ref(&proposal.packet));
    // Again, the answer is the same.
    assert_eq!(at_carol.propose(&proposal).await.unwrap().proposal_ref, accepted.proposal_ref);
    assert_eq!(at_alice.fetch_proposals().await, 1);
    story.stop().await;
}

#[actix_web::test]
async fn the_hub_decides_and_the_loser_reads_here_what_won() {
    let mut story = Story::new().await;
    let Story { at_alice, at_carol, .. } = &mut story;
    for _ in 0..3 {
        let (hers, ours) = (at_carol.make_update(), at_alice.make_update());
        let (there, here) = tokio::join!(at_carol.upload(&hers), at_alice.upload(&ours));
        let (winner, loser, lost) = match (there, here) {
            (Ok(_), Err(lost)) => (&mut *at_carol, &mut *at_alice, lost),
            (Err(lost), Ok(_)) => (&mut *at_alice, &mut *at_carol, lost),
            (there, here) => panic!("one commit wins: {there:?} {here:?}"),
        };
        let problem = refusal::<()>(Err(lost));
        assert_eq!(problem.kind(), Some(ProblemKind::StaleEpoch), "{problem:?}");
        winner.apply_pending();
        loser.clear_pending();
        assert_eq!(problem.members["currentEpochId"], json!(winner.epoch().0));
        loser.catch_up().await;
        assert_agree(&[winner, loser]);
    }
    // What the hub refuses comes back as it said it.
    let mut late = at_carol.make_update();
    late.group_info = Some(mimi_gateway::api::text::Base64(vec![1]));
    let problem = refusal(at_carol.upload(&late).await);
    assert!(problem.status == 400 || problem.status == 422, "{problem:?}");
    at_carol.clear_pending();
    story.stop().await;
}

#[actix_web::test]
async fn a_write_is_passed_on_once() {
    let mut story = Story::new().await;
    let commit = story.at_carol.make_update();
    let path = story.b.path(&format!("/groups/{}/epochs", group_text(&story.at_carol)));
    let identity = story.two.pki.issue(&[A]);
    let peer = Caller::new(&story.two.pki, Some(&identity), B, story.b.federation_address());
    let body = serde_json::to_value(&commit).unwrap();
    let (status, document) = peer.send("PUT", &path, Some(&digest(story.b.app)), Some(body)).await.unwrap();
    assert_eq!((status, slug(&document).as_str()), (409, "not-hub"), "{document}");
    story.stop().await;
}

#[actix_web::test]
async fn a_hub_that_is_away_leaves_reading() {
    let mut story = Story::new().await;
    let Story { two, a, at_alice, at_carol, .. } = &mut story;
    two.to_a.lead(Way::Closed).await;
    let commit = at_carol.make_update();
    let problem = refusal(at_carol.upload(&commit).await);
    assert_eq!(problem.kind(), Some(ProblemKind::PeerUnreachable), "{problem:?}");
    assert_eq!(at_carol.api.group(&at_carol.id()).await.unwrap().epoch_id, at_carol.epoch());
    two.to_a.lead(Way::To(a.federation_address())).await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    // It is the same commit, and may be sent again.
    at_carol.commit(&commit).await;
    at_alice.catch_up().await;
    assert_agree(&[at_alice, at_carol]);
    story.stop().await;
}

fn group_text(member: &Member) -> String {
    mimi_gateway::api::text::GroupIdText(member.id()).to_string()
}
