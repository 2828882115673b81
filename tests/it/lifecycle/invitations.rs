//! Limits on waiting welcomes, and the answers to commits that would exceed them.

use mimi_gateway::api::{groups::CommitBody, problem::ProblemKind};

use crate::{
    mls_support::{Member, MlsClient, refusal},
    support::{Setup, TestGateway},
};

/// Three welcomes of all inviters, two of one, and reserves of two.
async fn narrow() -> TestGateway {
    let mut setup = Setup::new();
    let limits = &mut setup.config.limits;
    limits.welcomes_per_client_max = 3;
    limits.welcomes_per_inviter_max = 2;
    limits.welcomes_reserved_max = 2;
    setup.start().await
}

/// A new group of the inviter, and the commit that adds the client to it by a package that needs not be its own.
async fn invitation(by: &MlsClient, of: &MlsClient) -> (Member, CommitBody) {
    let mut member = by.create_group().await;
    let commit = member.make_adding(&[of.key_package()]);
    (member, commit)
}

async fn invite(by: &MlsClient, of: &MlsClient) {
    let (mut member, commit) = invitation(by, of).await;
    member.commit(&commit).await;
}

/// The invitation is refused, since a limit is reached that `part` of the detail names.
async fn assert_refused(by: &MlsClient, of: &MlsClient, part: &str) {
    let (member, commit) = invitation(by, of).await;
    let problem = refusal(member.upload(&commit).await);
    assert_eq!(problem.kind(), Some(ProblemKind::TooManyWelcomes), "{problem:?}");
    assert_eq!(problem.members["clientHandle"], "victim", "{problem:?}");
    assert!(problem.detail.contains(part) && problem.detail.contains("victim"), "{problem:?}");
    assert_eq!(member.api.group(&member.id()).await.unwrap().epoch_id.0, 0, "nothing has changed");
}

#[actix_web::test]
async fn nobody_uses_up_what_others_need_to_invite_a_client() {
    let gateway = narrow().await;
    let victim = MlsClient::register(&gateway, "victim").await;
    let alice = MlsClient::register(&gateway, "alice").await;
    alice.upload_key_packages(1).await;
    let (mut at_alice, commit) = invitation(&alice, &victim).await;
    at_alice.commit(&commit).await;

    let mallory = MlsClient::made_up(&gateway, "mallory");
    // The packages that a stranger makes of the victim are as good as its own, as far as the gateway can tell.
    let decoy = MlsClient::made_up(&gateway, "victim");
    invite(&mallory, &decoy).await;
    invite(&mallory, &decoy).await;
    assert_refused(&mallory, &decoy, "of this inviter").await;
    // A crowd of made-up names has one room for all, a borrowed name too.
    for name in ["trudy", "alice", "bob"] {
        assert_refused(&MlsClient::made_up(&gateway, name), &decoy, "of all inviters").await;
    }
    // A client of the application that has shown its key has a reserve, and no more than that.
    let bob = MlsClient::register(&gateway, "bob").await;
    assert_refused(&bob, &victim, "of all inviters").await;
    bob.upload_key_packages(1).await;
    invite(&bob, &victim).await;
    invite(&alice, &victim).await;
    assert_refused(&alice, &victim, "of this inviter").await;

    // What was acknowledged is all there, the first invitation first.
    let waiting = victim.welcomes().await;
    assert_eq!(waiting.len(), 5);
    assert_eq!(waiting[0].group_id.0, at_alice.id());
    victim.join().await;
    for info in &waiting[1..] {
        victim.acknowledge(info.id.0).await;
    }
    invite(&mallory, &decoy).await;
    gateway.stop().await;
}

#[actix_web::test]
async fn a_refused_invitation_succeeds_once_there_is_room() {
    let gateway = narrow().await;
    let victim = MlsClient::register(&gateway, "victim").await;
    let (alice, carol) =
        (MlsClient::register(&gateway, "alice").await, MlsClient::register(&gateway, "carol").await);
    invite(&alice, &victim).await;
    invite(&alice, &victim).await;
    let mut third = alice.create_group().await;
    let commit = third.make_adding(&[carol.key_package(), victim.key_package()]);
    let refused = refusal(third.upload(&commit).await);
    assert_eq!(refused.kind(), Some(ProblemKind::TooManyWelcomes), "{refused:?}");
    assert!(carol.welcomes().await.is_empty(), "all or nothing");
    // Others of the same group are not held up.
    victim.acknowledge(victim.welcomes().await[0].id.0).await;
    assert_eq!(third.upload(&commit).await.unwrap().status, 201);
    third.apply_pending();
    assert_eq!(third.upload(&commit).await.unwrap().status, 200, "the winner, sent again");
    assert_eq!(carol.welcomes().await.len(), 1);
    gateway.stop().await;
}

#[actix_web::test]
async fn commits_at_once_leave_no_more_welcomes_than_may_wait() {
    let gateway = narrow().await;
    let victim = MlsClient::register(&gateway, "victim").await;
    for _ in 0..3 {
        let mut uploads = Vec::new();
        for number in 0..12 {
            let by = MlsClient::made_up(&gateway, &format!("inviter {number}"));
            let (member, commit) = invitation(&by, &victim).await;
            let upload = Member::upload_aside(member.api.clone(), member.id(), commit);
            uploads.push(actix_web::rt::spawn(upload));
        }
        let mut accepted = 0;
        for upload in uploads {
            match upload.await.unwrap() {
                Ok(_) => accepted += 1,
                refused => {
                    assert_eq!(refusal(refused).kind(), Some(ProblemKind::TooManyWelcomes));
                }
            }
        }
        let waiting = victim.welcomes().await;
        assert_eq!((accepted, waiting.len()), (3, 3));
        for info in waiting {
            victim.acknowledge(info.id.0).await;
        }
    }
    gateway.stop().await;
}

#[actix_web::test]
async fn the_answer_says_when_to_try_again() {
    let gateway = narrow().await;
    let (alice, victim) =
        (MlsClient::register(&gateway, "alice").await, MlsClient::register(&gateway, "victim").await);
    invite(&alice, &victim).await;
    invite(&alice, &victim).await;
    let (member, commit) = invitation(&alice, &victim).await;
    let path = format!("/groups/{}/epochs", mimi_gateway::api::text::GroupIdText(member.id()));
    let reply = gateway.put(&path, serde_json::to_value(&commit).unwrap()).await;
    reply.problem(429, "too-many-welcomes", "acknowledge");
    assert_eq!(reply.header("retry-after"), Some("60"));
    gateway.stop().await;
}
