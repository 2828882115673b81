//! Request bodies: their type, size and strict decoding, on every request that has one.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::support::{Reply, Request, Setup, TestGateway};

const ID: &str = "9c6e5b1e-3a0f-4f5e-8d43-6a3a3f1f0001";

/// Every request with a body: method, path below `/apps/{appId}`, and a body that is well formed.
fn requests() -> Vec<(&'static str, String, Value)> {
    vec![
        ("POST", "/clients".to_owned(), json!({ "clientHandle": "alice" })),
        ("PATCH", format!("/clients/{ID}"), json!({})),
        (
            "POST",
            format!("/clients/{ID}/queues"),
            json!({ "protocolVersion": 1, "cipherSuite": 1, "appLabel": "" }),
        ),
        ("PATCH", format!("/clients/{ID}/queues/{ID}"), json!({})),
        ("PUT", "/groups".to_owned(), json!({ "groupInfo": "" })),
        ("PUT", "/groups/AAEC/proposals".to_owned(), json!({ "packet": "" })),
        ("PUT", "/groups/AAEC/epochs".to_owned(), json!({ "commitPacket": "" })),
    ]
}

#[actix_web::test]
async fn bodies_are_read_strictly() {
    let gateway = TestGateway::start().await;
    for (method, rest, body) in requests() {
        let bare = || Request::new(method, &gateway.path(&rest)).token(&gateway.writer);
        let malformed = async |body: &str, part: &str| {
            gateway.send(bare().json(body)).await.problem(400, "malformed-request", part);
        };
        let mut unknown = body.clone();
        unknown["surprise"] = json!(1);
        malformed(&unknown.to_string(), "unknown field `surprise`").await;
        if let Some((member, value)) = body.as_object().and_then(|members| members.iter().next()) {
            let twice = format!("{{\"{member}\":{value},\"{member}\":{value}}}");
            malformed(&twice, &format!("duplicate field `{member}`")).await;
            malformed("{}", "missing field").await;
            malformed(&format!("{{\"{member}\":[]}}"), &format!("`{member}`: invalid type")).await;
        }
        malformed("", "JSON object").await;
        malformed("[]", "JSON object").await;
        malformed("{", "EOF").await;
        malformed(&format!("{body} {body}"), "follows").await;
        malformed("{\"\u{1}\"}", "").await;

        let unsupported = async |request: Request, part: &str| {
            gateway.send(request).await.problem(415, "unsupported-media-type", part);
        };
        unsupported(bare().body(body.to_string().as_bytes()), "no Content-Type").await;
        unsupported(bare().header("Content-Type", "text/json").body(b"{}"), "application/json").await;
        unsupported(bare().header("Content-Encoding", "gzip").json("{}"), "compressed").await;

        let with_charset = bare().header("Content-Type", "Application/JSON; charset=utf-8").body(b"[]");
        gateway.send(with_charset).await.problem(400, "malformed-request", "JSON object");
        let with_query = Request::new(method, &gateway.path(&format!("{rest}?x=1"))).token(&gateway.writer);
        gateway.send(with_query.json(&body.to_string())).await.problem(
            400,
            "malformed-request",
            "unknown field `x`",
        );
    }
    gateway.stop().await;
}

#[actix_web::test]
async fn base64_is_read_strictly() {
    let gateway = TestGateway::start().await;
    let cases = [
        ("/groups", "groupInfo"),
        ("/groups/AAEC/proposals", "packet"),
        ("/groups/AAEC/epochs", "commitPacket"),
    ];
    for (rest, member) in cases {
        for text in ["!", "AA=", "AB==", "_-8=", "AA AA"] {
            let reply = gateway.put(rest, json!({ member: text })).await;
            reply.problem(400, "malformed-request", &format!("`{member}`: not Base64"));
        }
    }
    let reply = gateway.put("/groups", json!({ "groupInfo": "AA", "ratchetTree": "?" })).await;
    reply.problem(400, "malformed-request", "`ratchetTree`: not Base64");
    // With and without padding it is read, and then it is no MLSMessage.
    for text in ["", "AA==", "AA"] {
        gateway.put("/groups", json!({ "groupInfo": text })).await.problem(400, "malformed-mls-message", "");
    }
    gateway.stop().await;
}

#[actix_web::test]
async fn nothing_that_was_sent_comes_back_in_a_detail() {
    let gateway = TestGateway::start().await;
    let secret = "s3cret".repeat(20);
    for body in [json!({ "clientHandle": "a", "tags": secret }), json!({ "clientHandle": { "x": secret } })] {
        let reply = gateway.post("/clients", body).await;
        reply.problem(400, "malformed-request", "invalid type");
        assert!(!reply.text().contains("s3cret"), "{}", reply.text());
    }
    gateway.stop().await;
}

/// Sends a header and then a body that the gateway may stop reading.
async fn send_in_parts(gateway: &TestGateway, request: &Request, parts: &[&[u8]]) -> Reply {
    let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
    stream.write_all(&request.bytes()).await.unwrap();
    for part in parts {
        if stream.write_all(part).await.is_err() {
            break;
        }
    }
    Reply::read(stream, &gateway.path("/clients")).await
}

#[actix_web::test]
async fn a_body_that_is_too_large_is_refused() {
    let mut setup = Setup::new();
    setup.config.internal.listener.request_bytes_max = 4096;
    let gateway = setup.start().await;
    let bare = || {
        Request::new("POST", &gateway.path("/clients"))
            .token(&gateway.writer)
            .header("Content-Type", "application/json")
    };

    // By its announcement, before anything of it is sent.
    let announced = bare().header("Content-Length", "4097");
    send_in_parts(&gateway, &announced, &[]).await.problem(413, "too-large", "4096 bytes");
    let announced = bare().header("Content-Length", "18446744073709551615");
    send_in_parts(&gateway, &announced, &[]).await.problem(413, "too-large", "4096 bytes");

    // By its announcement, while it is sent.
    let body = vec![b' '; 1 << 20];
    let sent = bare().header("Content-Length", &body.len().to_string());
    send_in_parts(&gateway, &sent, &[&body]).await.problem(413, "too-large", "4096 bytes");

    // By what arrives.
    let chunk = [b"1000\r\n".as_slice(), &[b' '; 0x1000], b"\r\n"].concat();
    let chunked = bare().header("Transfer-Encoding", "chunked");
    send_in_parts(&gateway, &chunked, &[&chunk, &chunk, b"0\r\n\r\n"]).await.problem(
        413,
        "too-large",
        "4096 bytes",
    );

    // A body of exactly the limit is read.
    let largest = format!("{}{}", " ".repeat(4096 - 2), "[]");
    gateway.send(bare().body(largest.as_bytes())).await.problem(400, "malformed-request", "JSON object");
    gateway.stop().await;
}

#[actix_web::test]
async fn a_body_that_does_not_arrive_is_given_up() {
    let mut setup = Setup::new();
    setup.config.internal.listener.request_body_timeout_s = 1;
    let gateway = setup.start().await;
    let bare = Request::new("POST", &gateway.path("/clients"))
        .token(&gateway.writer)
        .header("Content-Type", "application/json")
        .header("Content-Length", "10");
    send_in_parts(&gateway, &bare, &[b"{"]).await.problem(408, "request-timeout", "1 s");
    gateway.stop().await;
}

#[actix_web::test]
async fn chunked_bodies_are_taken() {
    let gateway = TestGateway::start().await;
    let body = json!({ "clientHandle": "alice" }).to_string();
    let chunked = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    let request = Request::new("POST", &gateway.path("/clients"))
        .token(&gateway.writer)
        .header("Content-Type", "application/json")
        .header("Transfer-Encoding", "chunked")
        .rest(chunked.as_bytes());
    gateway.send(request).await.success(201);
    tokio::time::timeout(Duration::from_secs(10), gateway.stop()).await.expect("it stops in time");
}
