//! What operators see of applications and clients: counts, and how many key packages are left.

use std::collections::BTreeMap;

use mimi_gateway::{config::TokenAccess, token::Token};
use serde_json::{Value, json};

use crate::{
    mls_support::clients,
    support::{Reply, Request, Setup, TestGateway},
};

async fn ask(gateway: &TestGateway, reader: &Token, path: &str) -> Reply {
    gateway.operate(Request::new("GET", &format!("/operator/v1/applications{path}")).token(reader)).await
}

async fn start(setup: &mut Setup) -> (TestGateway, Token) {
    let reader = Token::generate().unwrap();
    setup.watched_by(&[(&reader, TokenAccess::Read)]);
    (setup.start().await, reader)
}

#[actix_web::test]
async fn applications_are_counted() {
    let (gateway, reader) = start(&mut Setup::new()).await;
    let [alice, bob] = clients(&gateway, ["alice", "bob"]).await;
    alice.create_group().await;
    let found = ask(&gateway, &reader, "").await.success(200);
    let of = |app: actors::AppId| {
        let mut applications = found["applications"].as_array().unwrap().iter();
        applications.find(|application| application["id"] == app.to_string()).unwrap().clone()
    };
    let in_pools = alice.key_queue().await.key_packages_in_pool + bob.key_queue().await.key_packages_in_pool;
    assert!(in_pools > 2, "{in_pools}");
    let seen = of(gateway.app);
    assert_eq!(seen["clients"], json!({ "count": 2, "isMore": false }));
    assert_eq!(seen["groups"], json!({ "count": 1, "isMore": false }));
    assert_eq!(seen["keyPackages"], json!({ "count": in_pools, "isMore": false }));
    let other = of(gateway.other_app);
    for member in ["clients", "groups", "keyPackages"] {
        assert_eq!(other[member], json!({ "count": 0, "isMore": false }), "{member}");
    }
    gateway.stop().await;
}

#[actix_web::test]
async fn clients_are_seen_with_what_they_have_left() {
    let (gateway, reader) = start(&mut Setup::new()).await;
    let [alice] = clients(&gateway, ["alice"]).await;
    alice.upload_final_key().await;
    alice.assign_to("bob").await.unwrap();
    let left = alice.key_queue().await.key_packages_available;
    assert!(left > 0, "{left}");
    for number in 0..4 {
        let client = json!({ "clientHandle": format!("client {number}"), "tags": ["b", "a"] });
        gateway.post("/clients", client).await.success(201);
    }
    let path = format!("/{}/clients", gateway.app);
    let whole = ask(&gateway, &reader, &path).await.success(200);
    assert_eq!(whole.get("nextCursor"), None);
    let whole = whole["clients"].as_array().unwrap();
    let by_handle: BTreeMap<&str, &Value> =
        whole.iter().map(|client| (client["clientHandle"].as_str().unwrap(), client)).collect();
    let expected = json!({
        "clientId": alice.id,
        "clientHandle": "alice",
        "tags": by_handle["alice"]["tags"],
        "keyQueues": 1,
        "keyPackagesAvailable": left,
    });
    assert_eq!(by_handle["alice"], &expected);
    let without = by_handle["client 3"];
    assert_eq!((&without["tags"], &without["keyQueues"]), (&json!(["a", "b"]), &json!(0)));
    assert_eq!(without["keyPackagesAvailable"], 0);

    // By pages: the same, in the same order.
    let (mut pages, mut query) = (Vec::new(), "?limit=2".to_owned());
    loop {
        let page = ask(&gateway, &reader, &format!("{path}{query}")).await.success(200);
        pages.push(page["clients"].as_array().unwrap().clone());
        let Some(cursor) = page["nextCursor"].as_str() else { break };
        query = format!("?limit=2&cursor={cursor}");
    }
    assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2, 1]);
    assert_eq!(&pages.concat(), whole);

    let other = format!("/{}/clients", gateway.other_app);
    assert_eq!(ask(&gateway, &reader, &other).await.success(200), json!({ "clients": [] }));
    let cursor = query.trim_start_matches("?limit=2&");
    for refused in [format!("{other}?{cursor}"), format!("{path}?cursor=abcd"), format!("{path}?limit=0")] {
        ask(&gateway, &reader, &refused).await.problem(400, "malformed-request", "");
    }
    let nobody = format!("/{}/clients", uuid::Uuid::new_v4());
    ask(&gateway, &reader, &nobody).await.problem(404, "unknown-application", "");
    gateway.stop().await;
}
