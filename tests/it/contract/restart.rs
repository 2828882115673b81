//! Persistence across a restart.

use std::net::SocketAddr;

use mimi_gateway::{
    client::GatewayClient,
    config::{Config, DataDir},
    serve::{self, StartError},
};
use serde_json::json;

use crate::support::Setup;

#[actix_web::test]
async fn what_was_acknowledged_is_there_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let mut setup = Setup::new();
    setup.config.data_dir = DataDir::Directory(directory.path().join("data"));
    let gateway = setup.start().await;
    let mut ids = Vec::new();
    for handle in ["alice", "bob"] {
        let body = json!({ "clientHandle": handle, "tags": ["t"] });
        ids.push(gateway.post("/clients", body).await.success(201)["clientId"].clone());
    }
    let queues = format!("/clients/{}/queues", ids[0].as_str().unwrap());
    let attributes = json!({ "protocolVersion": 1, "cipherSuite": 1, "appLabel": "" });
    let queue = gateway.post(&queues, attributes.clone()).await.success(201)["keyQueueId"].clone();
    let page = gateway.get("/clients?tag=t&limit=1").await.success(200);
    let cursor = page["nextCursor"].as_str().unwrap().to_owned();
    gateway.stop().await;

    let gateway = setup.start().await;
    // A retry that crosses the restart is recognised.
    let again = gateway.post("/clients", json!({ "clientHandle": "alice", "tags": ["t"] })).await;
    assert_eq!(again.problem(409, "client-handle-taken", "")["clientId"], ids[0]);
    let again = gateway.post(&queues, attributes).await;
    assert_eq!(again.problem(409, "key-queue-exists", "")["keyQueueId"], queue);
    // A list is read on where it was left.
    let rest = gateway.get(&format!("/clients?tag=t&limit=1&cursor={cursor}")).await.success(200);
    assert_eq!(rest["identities"].as_array().unwrap().len(), 1);
    assert_ne!(rest["identities"], page["identities"]);
    gateway.stop().await;
}

#[actix_web::test]
async fn the_default_application_is_made_once() {
    let directory = tempfile::tempdir().unwrap();
    let config = Config::embedded()
        .listening_on(SocketAddr::from(([127, 0, 0, 1], 0)))
        .kept_in(DataDir::Directory(directory.path().to_owned()));
    let first = serve::start(config.clone()).await.unwrap();
    let application = first.default_application().unwrap().clone();
    let token = application.token.clone().expect("the token is shown the first time");
    let client = GatewayClient::new(first.base_url(), application.id, token.clone()).unwrap();
    client.find_clients(&tag_query()).await.unwrap();
    first.stop().await;

    let second = serve::start(config).await.unwrap();
    let again = second.default_application().unwrap();
    assert_eq!(again.id, application.id);
    assert!(again.token.is_none(), "only its hash is kept");
    let client = GatewayClient::new(second.base_url(), application.id, token).unwrap();
    client.find_clients(&tag_query()).await.unwrap();
    second.stop().await;
}

fn tag_query() -> mimi_gateway::api::clients::TagQuery {
    mimi_gateway::api::clients::TagQuery {
        tag: Some("t".to_owned()),
        domain: None,
        limit: Default::default(),
        cursor: None,
    }
}

#[actix_web::test]
async fn what_is_in_the_way_of_a_start_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let config = Config::embedded()
        .listening_on(SocketAddr::from(([127, 0, 0, 1], 0)))
        .kept_in(DataDir::Directory(directory.path().to_owned()));
    let running = serve::start(config.clone()).await.unwrap();

    let busy = config.clone().listening_on(running.address()).kept_in(DataDir::Memory);
    let error = serve::start(busy).await.err().unwrap();
    assert!(matches!(error, StartError::AddressInUse { .. }), "{error}");
    assert!(error.to_string().contains("--listen"), "{error}");

    let error = serve::start(config).await.err().unwrap();
    assert!(error.to_string().contains("in use"), "{error}");
    running.stop().await;
}
