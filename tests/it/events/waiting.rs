//! Answers that wait for what they would lack.

use std::time::{Duration, Instant};

use actors::Epoch;
use mimi_gateway::api::{WaitMs, groups::EpochRange, joining::WelcomeQuery};

use super::clients;
use crate::support::TestGateway;

/// As long as a test may wait for something that comes.
fn long() -> WaitMs {
    WaitMs::try_from(60_000).unwrap()
}

#[actix_web::test]
async fn an_answer_waits_for_the_next_epoch() {
    let gateway = TestGateway::start().await;
    let [alice] = clients(&gateway, ["alice"]).await;
    let mut at_alice = alice.create_group().await;
    let (api, group) = (alice.api.clone(), at_alice.id());
    let waiting = actix_web::rt::spawn(async move {
        let range = EpochRange { wait_ms: long(), ..EpochRange::from(Epoch(1)) };
        api.control_messages(&group, &range).await.unwrap()
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!waiting.is_finished());
    at_alice.update().await;
    let found = waiting.await.unwrap();
    assert_eq!(found.epochs.iter().map(|entry| entry.epoch_id.0).collect::<Vec<_>>(), [1]);
    // What is there is answered at once, and a wait ends.
    let range = EpochRange { wait_ms: long(), ..EpochRange::from(Epoch(1)) };
    assert_eq!(alice.api.control_messages(&at_alice.id(), &range).await.unwrap().epochs.len(), 1);
    let short = WaitMs::try_from(50).unwrap();
    let range = EpochRange { wait_ms: short, ..EpochRange::from(Epoch(2)) };
    let since = Instant::now();
    assert_eq!(alice.api.control_messages(&at_alice.id(), &range).await.unwrap().epochs, []);
    assert!(since.elapsed() >= Duration::from_millis(50));
    gateway.stop().await;
}

#[actix_web::test]
async fn an_answer_waits_for_the_next_welcome() {
    let gateway = TestGateway::start().await;
    let [alice, bob] = clients(&gateway, ["alice", "bob"]).await;
    let (api, handle) = (bob.api.clone(), bob.handle.clone());
    let query = || WelcomeQuery { wait_ms: long(), ..WelcomeQuery::default() };
    let waiting = {
        let query = query();
        actix_web::rt::spawn(async move { api.welcomes(&handle, &query).await.unwrap() })
    };
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!waiting.is_finished());
    let mut at_alice = alice.create_group().await;
    at_alice.invite(&[&bob]).await;
    let found = waiting.await.unwrap();
    assert_eq!(found.join_infos.len(), 1);
    assert_eq!(bob.api.welcomes(&bob.handle, &query()).await.unwrap(), found);
    let short = WaitMs::try_from(50).unwrap();
    let none =
        WelcomeQuery { wait_ms: short, after: Some(found.join_infos[0].id), ..WelcomeQuery::default() };
    assert_eq!(bob.api.welcomes(&bob.handle, &none).await.unwrap().join_infos, []);
    gateway.stop().await;
}

#[actix_web::test]
async fn a_wait_has_a_limit_and_ends_when_the_gateway_stops() {
    let gateway = TestGateway::start().await;
    let [alice] = clients(&gateway, ["alice"]).await;
    let at_alice = alice.create_group().await;
    let group = mimi_gateway::api::text::GroupIdText(at_alice.id());
    let messages = format!("/groups/{group}/control-msgs?startEpochId=1&waitMs=60001");
    for path in
        ["/clients/alice/welcome-msgs?waitMs=60001", "/clients/alice/welcome-msgs?waitMs=-1", &messages]
    {
        gateway.get(path).await.problem(400, "malformed-request", "waitMs");
    }
    gateway.get("/groups/AAAA/control-msgs?startEpochId=1&waitMs=1000").await.problem(
        404,
        "unknown-group",
        "",
    );
    let (api, handle, id) = (alice.api.clone(), alice.handle.clone(), at_alice.id());
    let welcomes = {
        let api = api.clone();
        actix_web::rt::spawn(async move {
            api.welcomes(&handle, &WelcomeQuery { wait_ms: long(), ..WelcomeQuery::default() }).await
        })
    };
    let epochs = actix_web::rt::spawn(async move {
        let range = EpochRange { wait_ms: long(), ..EpochRange::from(Epoch(1)) };
        api.control_messages(&id, &range).await
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    let since = Instant::now();
    gateway.stop().await;
    assert!(since.elapsed() < Duration::from_secs(10));
    assert_eq!(welcomes.await.unwrap().unwrap().join_infos, []);
    assert_eq!(epochs.await.unwrap().unwrap().epochs, []);
}
