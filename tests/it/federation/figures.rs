//! What an operator sees of the peers: reachability, and the entries that they lack.

use actors::Epoch;

use super::world::World;
use crate::support::metrics::Metrics;

#[actix_web::test]
async fn a_peer_that_is_away_is_seen_with_what_it_lacks() {
    let mut world = World::new(&["a.example", "b.example"], false).await;
    let mut group = world.group_of_all(0, "first").await;
    let (_, at_a) = &mut group[0];
    world.settle(&at_a.id(), Epoch(1)).await;
    let operator = world.sites[0].operator_address();
    let peer = [("peer", "b.example")];
    let shows = |reachable: f64, entries: f64| {
        move |metrics: &Metrics| {
            metrics.value("mimi_gateway_peer_reachable", &peer) == reachable
                && metrics.value("mimi_gateway_peer_lag_entries", &peer) == entries
        }
    };
    let metrics = Metrics::until(operator, shows(1.0, 0.0)).await;
    assert_eq!(metrics.value("mimi_gateway_peer_lag_groups", &peer), 0.0);
    assert_eq!(metrics.value("mimi_gateway_peer_refusals_total", &peer), 0.0);
    let answered = metrics.value("mimi_gateway_peer_last_contact_timestamp_seconds", &peer);
    assert_eq!(metrics.value("mimi_gateway_actors_awake", &[("kind", "peer")]), 1.0);
    // Its certificate, and the root of the application's clients.
    for name in ["certificate", "trust_root"] {
        let name = format!("mimi_gateway_{name}_expiry_timestamp_seconds");
        assert!(metrics.value(&name, &[]) > answered, "{}", metrics.text);
    }

    world.sites[1].stop().await;
    for _ in 0..3 {
        at_a.update().await;
    }
    let metrics = Metrics::until(operator, shows(0.0, 3.0)).await;
    assert_eq!(metrics.value("mimi_gateway_peer_lag_groups", &peer), 1.0);

    world.sites[1].start().await;
    let metrics = Metrics::until(operator, shows(1.0, 0.0)).await;
    assert!(metrics.value("mimi_gateway_peer_last_contact_timestamp_seconds", &peer) >= answered);
    world.stop().await;
}
