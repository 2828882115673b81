//! A gateway that is restored from a backup while the gateways of other domains hold what was acknowledged since.

use actors::Epoch;
use mimi_gateway::client::OperatorClient;
use mimi_gateway::token::Token;

use super::world::{OPERATOR, World};
use crate::support::metrics::Metrics;

/// The groups that a site and its peer disagree about: those whose entries were lost here, and there.
async fn until_lost(world: &World, site: usize, peer: &'static str, (here, there): (f64, f64)) {
    let name = "mimi_gateway_peer_lost_groups";
    let shows = move |metrics: &Metrics| {
        metrics.value(name, &[("peer", peer), ("lost", "here")]) == here
            && metrics.value(name, &[("peer", peer), ("lost", "there")]) == there
    };
    let address = world.sites[site].operator_address();
    Metrics::until(address, shows).await;
    let operator = OperatorClient::new(format!("http://{address}"), Token::new(OPERATOR)).unwrap();
    let listed = operator.peers().await.unwrap().peers.into_iter().next().unwrap();
    assert_eq!((listed.groups_lost_here as f64, listed.groups_lost_there as f64), (here, there));
}

#[actix_web::test]
async fn a_hub_that_is_restored_is_noticed_by_both_and_agrees_again() {
    let mut world = World::new(&["a.example", "b.example"], false).await;
    let mut group = world.group_of_all(0, "first").await;
    let (_, mut at_b) = group.pop().unwrap();
    let (_, mut at_a) = group.pop().unwrap();
    let id = at_a.id();
    world.settle(&id, Epoch(1)).await;
    for site in [0, 1] {
        world.sites[site].stop().await;
        world.sites[site].snapshot(&["export"]).await;
        world.sites[site].start().await;
    }
    // What follows is acknowledged after the backups. The member at `a` has a commit that it does not send yet.
    let late = at_a.make_update();
    for _ in 0..2 {
        at_b.update().await;
    }
    world.settle(&id, Epoch(3)).await;
    until_lost(&world, 0, "b.example", (0.0, 0.0)).await;

    // The hub is restored. It notices by itself that its follower is ahead.
    world.sites[0].stop().await;
    world.sites[0].move_data_away();
    world.sites[0].snapshot(&["import"]).await;
    world.sites[0].start().await;
    until_lost(&world, 0, "b.example", (1.0, 0.0)).await;
    assert_eq!(world.sites[1].api().group(&id).await.unwrap().epoch_id, Epoch(3));

    // It accepts another commit in the place of a lost one: the follower notices, and keeps what it has.
    at_a.commit(&late).await;
    until_lost(&world, 1, "a.example", (0.0, 1.0)).await;
    until_lost(&world, 0, "b.example", (1.0, 0.0)).await;
    assert_eq!(world.sites[1].api().group(&id).await.unwrap().epoch_id, Epoch(3));

    // The follower is restored to a moment that is not later, and follows the hub from there.
    world.sites[1].stop().await;
    world.sites[1].move_data_away();
    world.sites[1].snapshot(&["import"]).await;
    world.sites[1].start().await;
    world.settle(&id, Epoch(2)).await;
    until_lost(&world, 0, "b.example", (0.0, 0.0)).await;
    until_lost(&world, 1, "a.example", (0.0, 0.0)).await;
    at_a.update().await;
    world.settle(&id, Epoch(3)).await;
    world.stop().await;
}
