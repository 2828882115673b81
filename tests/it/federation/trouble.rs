//! Members of all sites commit at once, repeatedly, while connections break and gateways stop.

use std::time::Duration;

use actors::Epoch;
use mimi_gateway::{
    api::{groups::CommitBody, groups::EpochRange, problem::ProblemKind},
    client::RequestError,
};

use super::world::World;
use crate::{
    mls_support::{Member, assert_agree},
    support::peers::Way,
};

const ROUNDS: u64 = 5;
const SITES: [&str; 3] = ["a.example", "b.example", "c.example"];

fn rounds() -> u64 {
    std::env::var("MIMI_FEDERATION_ROUNDS").map_or(ROUNDS, |rounds| rounds.parse().unwrap())
}

/// Whether a request may be sent again after this, unchanged.
fn is_passing(error: &RequestError) -> bool {
    match error {
        RequestError::Transport(_) => true,
        RequestError::Unexpected { .. } => false,
        RequestError::Problem(problem) => matches!(
            problem.kind(),
            Some(
                ProblemKind::PeerUnreachable
                    | ProblemKind::PeerTimeout
                    | ProblemKind::ShuttingDown
                    | ProblemKind::StorageUnavailable
                    | ProblemKind::TooManyRequests
            )
        ),
    }
}

/// Uploads one commit until it is decided, and moves into the winner's epoch. Returns whether this commit won.
async fn contend(mut member: Member, commit: CommitBody) -> (Member, bool) {
    let epoch = member.epoch();
    let won = loop {
        match member.upload(&commit).await {
            Ok(accepted) => {
                assert_eq!(accepted.body.epoch_id, Epoch(epoch.0 + 1));
                member.apply_pending();
                break true;
            }
            Err(RequestError::Problem(problem)) if problem.kind() == Some(ProblemKind::StaleEpoch) => {
                member.clear_pending();
                break false;
            }
            Err(error) => assert!(is_passing(&error), "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    while member.epoch() == epoch {
        let range = EpochRange::from(Epoch(epoch.0 + 1));
        match member.api.control_messages(&member.id(), &range).await {
            Ok(missed) => member.take_in(&missed),
            Err(error) => assert!(is_passing(&error), "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    (member, won)
}

/// What goes wrong in a round, and when.
async fn ways_break(world: &mut World, round: u64) {
    let count = world.sites.len() as u64;
    let site = &world.sites[usize::try_from(round % count).unwrap()];
    let address = site.federation_address();
    let way = match round % 4 {
        0 => Way::Unsteady(address),
        1 => Way::Closed,
        2 => Way::Silent,
        _ => Way::Unsteady(address),
    };
    site.to_federation.lead(way).await;
    let other = &world.sites[usize::try_from((round + 1) % count).unwrap()];
    other.to_federation.lead(Way::Unsteady(other.federation_address())).await;
    tokio::time::sleep(Duration::from_millis(100 + (round * 137) % 500)).await;
    for site in &world.sites {
        site.to_federation.lead(Way::To(site.federation_address())).await;
    }
}

/// One gateway is killed at some moment and started again a while later.
async fn gateways_die(world: &mut World, round: u64) {
    let count = world.sites.len() as u64;
    tokio::time::sleep(Duration::from_millis((round * 31) % 120)).await;
    let site = &mut world.sites[usize::try_from((round * 5 + round / 3) % count).unwrap()];
    site.stop().await;
    tokio::time::sleep(Duration::from_millis((round * 53) % 150)).await;
    site.start().await;
}

async fn contend_through(mut world: World, trouble: impl AsyncFn(&mut World, u64)) {
    let mut groups = vec![world.group_of_all(0, "first").await, world.group_of_all(1, "second").await];
    for round in 0..rounds() {
        let mut contending = Vec::new();
        for group in groups {
            let of_group: Vec<_> = group
                .into_iter()
                .map(|(site, mut member)| {
                    let commit = member.make_update();
                    (site, actix_web::rt::spawn(contend(member, commit)))
                })
                .collect();
            contending.push(of_group);
        }
        trouble(&mut world, round).await;
        groups = Vec::new();
        for of_group in contending {
            let mut group = Vec::new();
            let mut winners = 0;
            for (site, member) in of_group {
                let (member, won) = member.await.unwrap();
                winners += u64::from(won);
                group.push((site, member));
            }
            assert_eq!(winners, 1, "one commit wins each epoch");
            groups.push(group);
        }
    }
    for group in &groups {
        let members: Vec<&Member> = group.iter().map(|(_, member)| member).collect();
        assert_agree(&members);
        // The first epoch came with the invitation.
        assert_eq!(members[0].epoch(), Epoch(rounds() + 1));
        world.settle(&members[0].id(), members[0].epoch()).await;
    }
    world.stop().await;
}

#[actix_web::test]
async fn ways_that_break_lose_nothing() {
    contend_through(World::new(&SITES, false).await, ways_break).await;
}

#[actix_web::test]
async fn gateways_that_are_killed_lose_nothing() {
    contend_through(World::new(&SITES[..2], true).await, gateways_die).await;
}
