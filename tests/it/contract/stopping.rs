//! Stopping: requests in flight are finished, later ones are told to come back.

use std::time::Duration;

use serde_json::json;
use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::support::{Reply, Request, Setup};

#[actix_web::test]
async fn requests_in_flight_are_finished() {
    let directory = tempfile::tempdir().unwrap();
    let mut setup = Setup::new();
    setup.config.data_dir = mimi_gateway::config::DataDir::Directory(directory.path().to_owned());
    let gateway = setup.start().await;
    let body = json!({ "clientHandle": "alice", "tags": ["t"] }).to_string();
    let (begun, rest) = body.as_bytes().split_at(7);
    let writer = gateway.writer.clone();
    let path = gateway.path("/clients");
    let request = Request::new("POST", &path)
        .token(&writer)
        .header("Content-Type", "application/json")
        .header("Content-Length", &body.len().to_string())
        .rest(begun);
    let mut in_flight = TcpStream::connect(gateway.address()).await.unwrap();
    in_flight.write_all(&request.bytes()).await.unwrap();
    // Connections that are open before the stop begins.
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(TcpStream::connect(gateway.address()).await.unwrap());
    }
    tokio::time::sleep(Duration::from_millis(200)).await;

    let stopped = actix_web::rt::spawn(gateway.stop());
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!stopped.is_finished(), "a request is in flight");
    let late = [
        Request::new("GET", "/readyz"),
        Request::new("GET", &format!("{path}?tag=t")).token(&writer),
        Request::new("GET", "/healthz"),
    ];
    let mut replies = Vec::new();
    for (mut stream, request) in open.into_iter().zip(late) {
        stream.write_all(&request.bytes()).await.unwrap();
        replies.push(Reply::read(stream, request.path()).await);
    }
    for reply in &replies[..2] {
        reply.problem(503, "shutting-down", "");
    }
    replies[2].success(200);

    in_flight.write_all(rest).await.unwrap();
    Reply::read(in_flight, &path).await.success(201);
    tokio::time::timeout(Duration::from_secs(10), stopped).await.expect("it stops").unwrap();

    let gateway = setup.start().await;
    let found = gateway.get("/clients?tag=t").await.success(200);
    assert_eq!(found["identities"].as_array().unwrap().len(), 1, "what was answered is kept");
    gateway.stop().await;
}

#[actix_web::test]
async fn a_request_that_does_not_end_does_not_keep_the_gateway() {
    let mut setup = Setup::new();
    setup.config.internal.shutdown_timeout_s = 1;
    let gateway = setup.start().await;
    let request = Request::new("POST", &gateway.path("/clients"))
        .token(&gateway.writer)
        .header("Content-Type", "application/json")
        .header("Content-Length", "100");
    let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
    stream.write_all(&request.bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    tokio::time::timeout(Duration::from_secs(10), gateway.stop()).await.expect("it stops");
}

#[actix_web::test]
async fn idle_connections_do_not_keep_the_gateway() {
    let gateway = Setup::new().start().await;
    let client = mimi_gateway::client::plain_http().build().unwrap();
    let reply = client.get(format!("{}/healthz", gateway.base_url())).send().await.unwrap();
    assert_eq!(reply.bytes().await.unwrap(), r#"{"status":"up"}"#);
    let _silent = TcpStream::connect(gateway.address()).await.unwrap();
    tokio::time::timeout(Duration::from_secs(10), gateway.stop()).await.expect("it stops");
}
