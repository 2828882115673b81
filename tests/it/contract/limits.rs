//! Limits on one request, and on all at once.

use std::time::Duration;

use serde_json::json;
use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::support::{Reply, Request, Setup, TestGateway};

/// A request whose body has begun and not ended.
async fn begin(gateway: &TestGateway, body: &[u8], length: usize) -> TcpStream {
    let request = Request::new("POST", &gateway.path("/clients"))
        .token(&gateway.writer)
        .header("Content-Type", "application/json")
        .header("Content-Length", &length.to_string())
        .rest(body);
    let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
    stream.write_all(&request.bytes()).await.unwrap();
    // Nothing tells when it has arrived: it is given time.
    tokio::time::sleep(Duration::from_millis(200)).await;
    stream
}

fn assert_retry_later(reply: &Reply) {
    reply.problem(429, "too-many-requests", "");
    assert_eq!(reply.header("retry-after"), Some("1"));
}

#[actix_web::test]
async fn requests_at_once_are_limited() {
    let mut setup = Setup::new();
    setup.config.internal.listener.requests_in_flight_max = 1;
    let gateway = setup.start().await;
    let body = json!({ "clientHandle": "alice" }).to_string();
    let mut stream = begin(&gateway, &body.as_bytes()[..5], body.len()).await;
    assert_retry_later(&gateway.get("/clients?tag=x").await);
    // Probes are answered all the same.
    gateway.send(Request::new("GET", "/healthz")).await.success(200);
    gateway.send(Request::new("GET", "/readyz")).await.success(200);
    stream.write_all(&body.as_bytes()[5..]).await.unwrap();
    Reply::read(stream, "").await.success(201);
    gateway.get("/clients?tag=x").await.success(200);
    gateway.stop().await;
}

#[actix_web::test]
async fn bytes_of_bodies_at_once_are_limited() {
    let mut setup = Setup::new();
    setup.config.internal.listener.request_bytes_max = 64 << 10;
    setup.config.internal.listener.requests_in_flight_bytes_max = 64 << 10;
    let gateway = setup.start().await;
    let held = begin(&gateway, &[b' '; 40 << 10], 64 << 10).await;
    let padded = |bytes: usize| format!("{}{}", json!({ "clientHandle": "alice" }), " ".repeat(bytes));
    let request =
        |body: &str| Request::new("POST", &gateway.path("/clients")).token(&gateway.writer).json(body);
    assert_retry_later(&gateway.send(request(&padded(40 << 10))).await);
    gateway.send(request(&padded(0))).await.success(201);
    // What a caller left behind is free again.
    drop(held);
    let mut last = gateway.send(request(&padded(40 << 10))).await;
    for _ in 0..50 {
        if last.status != 429 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        last = gateway.send(request(&padded(40 << 10))).await;
    }
    last.problem(409, "client-handle-taken", "");
    gateway.stop().await;
}

#[actix_web::test]
async fn headers_are_limited() {
    let mut setup = Setup::new();
    setup.config.internal.listener.header_bytes_max = 4096;
    let gateway = setup.start().await;
    let long = "x".repeat(4096);
    let request =
        Request::new("GET", &gateway.path("/clients?tag=x")).token(&gateway.writer).header("X-Long", &long);
    gateway.send(request).await.problem(431, "headers-too-large", "4096");
    gateway.get(&format!("/clients?tag={long}")).await.problem(431, "headers-too-large", "4096");
    gateway.send(Request::new("GET", &format!("/{long}"))).await.problem(431, "headers-too-large", "4096");
    gateway.stop().await;
}
