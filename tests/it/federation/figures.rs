//! What an operator sees of the peers: reachability, and the entries that they lack.

use actors::Epoch;

use mimi_gateway::{api::text::GroupIdText, token::Token};
use serde_json::{Value, json};

use super::world::{OPERATOR, World};
use crate::support::{Request, metrics::Metrics};

/// What the operator of a site is answered.
async fn ask(world: &World, site: usize, path: &str) -> Value {
    let request = Request::new("GET", &format!("/operator/v1{path}")).token(&Token::new(OPERATOR));
    request.send_to(world.sites[site].operator_address()).await.success(200)
}

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
    // Of a new group it lacks the creation.
    world.register(0, "founder").await.create_group().await;
    let metrics = Metrics::until(operator, shows(0.0, 4.0)).await;
    assert_eq!(metrics.value("mimi_gateway_peer_lag_groups", &peer), 2.0);
    let peers = ask(&world, 0, "/peers").await;
    let expected = json!([{
        "domain": "b.example",
        "isReachable": false,
        "lastContact": peers["peers"][0]["lastContact"],
        "refusals": 0,
        "lagGroups": 2,
        "lagEntries": 4,
        "groupsLostHere": 0,
        "groupsLostThere": 0,
        "trust": peers["peers"][0]["trust"],
    }]);
    assert_eq!(peers["peers"], expected);
    let applications = ask(&world, 0, "/applications").await;
    let app = applications["applications"].as_array().unwrap();
    let app = app.iter().find(|app| app["federatesWith"] == json!(["b.example"])).expect("the shared one");
    let path = format!("/applications/{}/groups/{}", app["id"].as_str().unwrap(), GroupIdText(at_a.id()));
    let followers = |lag: u64| json!([{ "domain": "b.example", "lagEntries": lag }]);
    assert_eq!(ask(&world, 0, &path).await["followers"], followers(3));

    world.sites[1].start().await;
    let metrics = Metrics::until(operator, shows(1.0, 0.0)).await;
    assert!(metrics.value("mimi_gateway_peer_last_contact_timestamp_seconds", &peer) >= answered);
    assert_eq!(ask(&world, 0, &path).await["followers"], followers(0));
    // The follower has none.
    assert_eq!(ask(&world, 1, &path).await["followers"], json!([]));
    world.stop().await;
}
