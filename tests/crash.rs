//! Crashes: the gateway is killed (`kill -9`) under load, repeatedly on the same directory. Everything acknowledged is
//! there, and everything else can be sent again. `MIMI_CRASH_ROUNDS` sets the number of rounds.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that meets what it does not expect has failed"
)]

#[path = "crash/deletion.rs"]
mod deletion;
#[path = "crash/group.rs"]
mod group;
#[path = "crash/process.rs"]
mod process;
#[path = "crash/registry.rs"]
mod registry;

use std::time::Duration;

use mimi_gateway::client::{GatewayClient, RequestError};

use self::{
    deletion::Deletions,
    group::GroupWriter,
    process::{Installation, Process},
    registry::{Assignments, Clients},
};

const ROUNDS: usize = 20;
/// Of each kind at least one a round must have been acknowledged, or the test has tested nothing.
const KINDS: [&str; 5] = ["clients", "tags", "assignments", "commits", "deletions of groups"];

/// What one writer was answered before the gateway was gone; anything but a broken connection is a failure.
#[track_caller]
fn acknowledged<T>(answer: Result<T, RequestError>) -> Option<T> {
    match answer {
        Ok(answer) => Some(answer),
        Err(RequestError::Transport(_)) => None,
        Err(error @ (RequestError::Problem(_) | RequestError::Unexpected { .. })) => panic!("{error}"),
    }
}

#[actix_web::test]
async fn what_was_acknowledged_survives_being_killed() {
    let rounds = std::env::var("MIMI_CRASH_ROUNDS").map_or(ROUNDS, |rounds| rounds.parse().unwrap());
    let installation = Installation::new();
    let process = Process::start(&installation);
    let api = installation.client(&process);
    let mut clients = Clients::default();
    let mut assignments = Assignments::create(&api).await;
    let mut groups = vec![GroupWriter::create(&api).await, GroupWriter::create(&api).await];
    let mut deletions = Deletions::default();
    process.kill();

    for round in 0..rounds {
        let process = Process::start(&installation);
        let api = installation.client(&process);
        settle(&api, &mut clients, &mut assignments, &mut groups).await;
        deletions.settle(&api).await;
        // From the first answers to well after the first snapshots, which are written every second.
        let load = Duration::from_millis(40 + (round as u64 * 211) % 1500);
        let (mut registering, mut assigning, mut deleting) = (clients, assignments, deletions);
        let of_deletions = api.clone();
        let deleting = actix_web::rt::spawn(async move {
            deleting.write(&of_deletions).await;
            deleting
        });
        let of_clients = api.clone();
        let of_assignments = api.clone();
        let registering = actix_web::rt::spawn(async move {
            registering.write(&of_clients).await;
            registering
        });
        let assigning = actix_web::rt::spawn(async move {
            assigning.write(&of_assignments).await;
            assigning
        });
        let committing: Vec<_> = groups
            .into_iter()
            .map(|mut group| {
                let api = api.clone();
                actix_web::rt::spawn(async move {
                    group.write(&api).await;
                    group
                })
            })
            .collect();
        tokio::time::sleep(load).await;
        process.kill();
        clients = registering.await.unwrap();
        assignments = assigning.await.unwrap();
        deletions = deleting.await.unwrap();
        groups = Vec::new();
        for group in committing {
            groups.push(group.await.unwrap());
        }
    }

    let process = Process::start(&installation);
    let api = installation.client(&process);
    settle(&api, &mut clients, &mut assignments, &mut groups).await;
    deletions.settle(&api).await;
    assignments.check(&api, 0).await;
    let commits: usize = groups.iter().map(GroupWriter::count).sum();
    let counts = [clients.count(), clients.count_of_tags(), assignments.count(), commits, deletions.count()];
    for (kind, count) in KINDS.into_iter().zip(counts) {
        assert!(count >= rounds, "only {count} {kind} were acknowledged in {rounds} rounds");
        println!("{count} {kind} acknowledged in {rounds} rounds, none lost");
    }
    for (had_won, won_again) in groups.iter().map(GroupWriter::unanswered) {
        println!("unanswered commits: {had_won} had won, {won_again} won when sent again");
    }
    process.kill();
    // Each group and each key queue is restored to what is stored of it, and no key package was used twice.
    let verified = installation.verify();
    assert!(verified.starts_with("good: ") && !verified.contains(" 0 groups"), "{verified}");
}

/// Everything acknowledged is there; everything that was on its way is sent again.
async fn settle(
    api: &GatewayClient,
    clients: &mut Clients,
    assignments: &mut Assignments,
    groups: &mut [GroupWriter],
) {
    clients.settle(api).await;
    assignments.settle(api).await;
    for group in groups {
        group.settle(api).await;
    }
}
