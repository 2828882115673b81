//! Races: many members commit on one epoch at once; one wins, the others learn of it and continue.

use actors::Epoch;
use mimi_gateway::{
    api::{
        groups::{AcceptedCommitBody, CommitBody},
        problem::ProblemKind,
    },
    client::{Reply, RequestError},
};

use crate::mls_support::{Member, MlsClient, assert_agree, kept_in, refusal, refused};
use crate::support::TestGateway;

const RACERS: usize = 16;
const ROUNDS: usize = 4;

type Outcome = Result<Reply<AcceptedCommitBody>, RequestError>;

/// A winner's upload and the answer to it.
struct Won {
    commit: CommitBody,
    answer: AcceptedCommitBody,
}

/// A group of as many members as race, each with a connection of its own.
async fn racers(gateway: &TestGateway) -> (Vec<MlsClient>, Vec<Member>) {
    let mut clients = Vec::new();
    for index in 0..RACERS {
        let client = MlsClient::register(gateway, &format!("racer {index}")).await;
        client.upload_key_packages(1).await;
        clients.push(client);
    }
    let mut first = clients[0].create_group().await;
    first.invite(&clients[1..].iter().collect::<Vec<_>>()).await;
    let mut members = vec![first];
    for client in &clients[1..] {
        members.push(client.join().await);
    }
    assert_agree(&members.iter().collect::<Vec<_>>());
    (clients, members)
}

/// Uploads every member's commit at once.
async fn upload_all(members: &[Member], commits: &[CommitBody]) -> Vec<Outcome> {
    let uploads: Vec<_> = members
        .iter()
        .zip(commits)
        .map(|(member, commit)| {
            tokio::spawn(Member::upload_aside(member.api.clone(), member.id(), commit.clone()))
        })
        .collect();
    let mut outcomes = Vec::new();
    for upload in uploads {
        outcomes.push(upload.await.unwrap());
    }
    outcomes
}

/// One round: exactly one commit wins, all others are stale, everyone ends up in the winner's epoch.
async fn race(members: &mut [Member], commits: &[CommitBody]) -> (usize, Won) {
    let next = Epoch(members[0].epoch().0 + 1);
    let mut won = None;
    for (index, outcome) in upload_all(members, commits).await.into_iter().enumerate() {
        match outcome {
            Ok(Reply { status, body: answer }) => {
                assert_eq!((status, answer.epoch_id), (201, next));
                members[index].apply_pending();
                let before = won.replace((index, Won { commit: commits[index].clone(), answer }));
                assert!(before.is_none(), "two commits won one epoch");
            }
            Err(error) => {
                let problem = refusal::<()>(Err(error));
                assert_eq!(problem.kind(), Some(ProblemKind::StaleEpoch), "{problem:?}");
                assert_eq!(problem.status, 409);
                assert_eq!(problem.members["currentEpochId"], next.0);
                members[index].clear_pending();
                members[index].catch_up().await;
            }
        }
    }
    assert_agree(&members.iter().collect::<Vec<_>>());
    assert_eq!(members[0].epoch(), next);
    won.expect("one commit wins")
}

/// The winner of an epoch, sent again, gets its answer; with other companions it is as stale as any other.
async fn check_retries(member: &Member, won: &Won) {
    let again = member.upload(&won.commit).await.unwrap();
    assert_eq!((again.status, again.body), (200, won.answer));
    assert!(won.commit.group_info.is_some());
    let without = CommitBody { group_info: None, ..won.commit.clone() };
    let other = CommitBody { welcome_packet: won.commit.group_info.clone(), ..won.commit.clone() };
    for companions in [without, other] {
        let problem = refusal(member.upload(&companions).await);
        assert_eq!(problem.kind(), Some(ProblemKind::StaleEpoch), "{problem:?}");
        assert_eq!(problem.members["currentEpochId"], member.epoch().0);
    }
}

#[actix_web::test]
async fn one_commit_wins_each_epoch_and_keeps_its_answer() {
    let directory = tempfile::tempdir().unwrap();
    let setup = kept_in(&directory);
    let gateway = setup.start().await;
    let (_, mut members) = racers(&gateway).await;

    let mut winners = Vec::new();
    for _ in 0..ROUNDS {
        let commits: Vec<_> = members.iter_mut().map(Member::make_update).collect();
        let (_, won) = race(&mut members, &commits).await;
        check_retries(&members[0], &won).await;
        winners.push(won);
    }
    members[0].assert_gateway_agrees().await;
    let history = members[0].control_messages(Epoch(2)).await;
    let recorded: Vec<_> = history.epochs.iter().map(|entry| (&entry.commit, entry.timestamp)).collect();
    let answered: Vec<_> =
        winners.iter().map(|won| (&won.commit.commit_packet, won.answer.timestamp)).collect();
    assert_eq!(recorded, answered);
    gateway.stop().await;

    // All of this holds on the same data directory after a restart, and the race continues.
    let gateway = setup.start().await;
    for member in &mut members {
        member.reconnect(&gateway);
    }
    for won in &winners {
        check_retries(&members[1], won).await;
    }
    assert_eq!(members[0].control_messages(Epoch(2)).await, history);
    members[0].assert_gateway_agrees().await;
    let commits: Vec<_> = members.iter_mut().map(Member::make_update).collect();
    let (_, won) = race(&mut members, &commits).await;
    check_retries(&members[2], &won).await;
    for won in &winners {
        check_retries(&members[2], won).await;
    }
    gateway.stop().await;
}

#[actix_web::test]
async fn the_winner_is_recognised_while_it_races_with_itself() {
    let gateway = TestGateway::start().await;
    let (_, mut members) = racers(&gateway).await;
    // Every member's connection carries the same commit.
    let commit = members[0].make_update();
    let outcomes = upload_all(&members, &vec![commit.clone(); RACERS]).await;
    let replies: Vec<_> = outcomes.into_iter().map(Result::unwrap).collect();
    let first = replies.iter().filter(|reply| reply.status == 201).count();
    let repeated = replies.iter().filter(|reply| reply.status == 200).count();
    assert_eq!((first, repeated), (1, RACERS - 1));
    assert!(replies.iter().all(|reply| reply.body == replies[0].body));
    members[0].apply_pending();
    for member in &mut members[1..] {
        member.catch_up().await;
    }
    assert_agree(&members.iter().collect::<Vec<_>>());
    gateway.stop().await;
}

#[actix_web::test]
async fn a_newcomer_is_welcomed_by_the_winner_alone() {
    let gateway = TestGateway::start().await;
    let (_, mut members) = racers(&gateway).await;
    let newcomer = MlsClient::register(&gateway, "newcomer").await;
    newcomer.upload_key_packages(RACERS).await;
    let mut commits = Vec::new();
    for (index, member) in members.iter_mut().enumerate() {
        let package = newcomer.assign_to(&format!("racer {index}")).await.unwrap().key_package;
        commits.push(member.make_adding(&[package]));
    }
    assert_eq!(newcomer.key_queue().await.key_packages_available, 0);
    let (winner, _) = race(&mut members, &commits).await;

    assert_eq!(newcomer.welcomes().await.len(), 1, "the losers' welcomes are not delivered");
    let joined = newcomer.join().await;
    assert_agree(&[&joined, &members[winner]]);
    joined.assert_gateway_agrees().await;
    // The losers' packages are still theirs.
    let queue = newcomer.key_queue().await;
    assert_eq!((queue.key_packages_in_pool, queue.key_packages_available), (RACERS - 1, 0));
    gateway.stop().await;
}

#[actix_web::test]
async fn two_groups_race_for_one_key_package() {
    let gateway = TestGateway::start().await;
    let alice = MlsClient::register(&gateway, "alice").await;
    let bob = MlsClient::register(&gateway, "bob").await;
    for _ in 0..ROUNDS {
        let package = bob.upload_key_packages(1).await.remove(0);
        let mut groups = Vec::new();
        let mut commits = Vec::new();
        for _ in 0..RACERS {
            let mut member = alice.create_group().await;
            commits.push(member.make_adding(std::slice::from_ref(&package)));
            groups.push(member);
        }
        let mut accepted = 0;
        for outcome in upload_all(&groups, &commits).await {
            if outcome.is_ok() {
                accepted += 1;
            } else {
                refused(outcome, ProblemKind::KeyPackageReused);
            }
        }
        assert_eq!(accepted, 1, "a package is used once, whichever group it is in");
        bob.join().await;
        assert!(bob.welcomes().await.is_empty());
    }
    gateway.stop().await;
}
