//! Limits of streams.

use mimi_gateway::api::{events::EventQuery, problem::ProblemKind};

use super::{PATIENCE, after, application_stream, clients, events, outline};
use crate::{
    mls_support::refused,
    support::{Setup, TestGateway},
};

#[actix_web::test]
async fn a_token_has_its_share_of_streams() {
    let mut setup = Setup::new();
    setup.config.internal.listener.event_streams_max = 4;
    let gateway = setup.start().await;
    let [alice] = clients(&gateway, ["alice"]).await;
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(application_stream(&alice.api).await);
    }
    refused(alice.api.application_events(&EventQuery::default()).await, ProblemKind::TooManyStreams);
    // Other requests and other tokens are served.
    alice.create_group().await;
    assert_eq!(gateway.call("HEAD", "/events", None).await.status, 429);
    let other = mimi_gateway::client::GatewayClient::new(
        gateway.base_url(),
        gateway.other_app,
        gateway.other_writer.clone(),
    );
    let _other = application_stream(&other.unwrap()).await;
    // A stream that is closed makes room, though nothing is written to it.
    drop(open.pop());
    for _ in 0..200 {
        match alice.api.application_events(&EventQuery::default()).await {
            Ok(reader) => {
                open.push(reader);
                break;
            }
            Err(error) => assert_eq!(error.kind(), Some(ProblemKind::TooManyStreams)),
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(open.len(), 3, "there is room again");
    gateway.stop().await;
}

#[actix_web::test]
async fn a_silent_stream_shows_that_it_is_alive() {
    let gateway = TestGateway::start().await;
    let url = format!("{}{}", gateway.base_url(), gateway.path("/events"));
    let http = mimi_gateway::client::plain_http().build().unwrap();
    let mut response = http.get(url).bearer_auth(gateway.reader.reveal()).send().await.unwrap();
    assert!(response.chunk().await.unwrap().unwrap().starts_with(b"id: "));
    let line = tokio::time::timeout(std::time::Duration::from_secs(15), response.chunk()).await;
    assert_eq!(line.expect("a line within 15 s").unwrap().unwrap().as_ref(), b":\n\n");
    gateway.stop().await;
}

#[actix_web::test]
async fn streams_end_when_the_gateway_stops() {
    let directory = tempfile::tempdir().unwrap();
    let setup = crate::mls_support::kept_in(&directory);
    let gateway = setup.start().await;
    let [mut alice] = clients(&gateway, ["alice"]).await;
    let mut at_alice = alice.create_group().await;
    let mut readers = Vec::new();
    for _ in 0..3 {
        readers.push(application_stream(&alice.api).await);
        readers.push(alice.api.group_events(&at_alice.id(), &EventQuery::default()).await.unwrap());
    }
    at_alice.update().await;
    let since = std::time::Instant::now();
    gateway.stop().await;
    // Well before the time that requests in flight get.
    assert!(since.elapsed() < std::time::Duration::from_secs(setup.config.internal.shutdown_timeout_s));
    let mut ids = Vec::new();
    for reader in &mut readers {
        assert_eq!(outline(&events(reader, 1).await), [("epoch", 1)]);
        ids.push(reader.last_event_id());
        let end = tokio::time::timeout(PATIENCE, reader.next()).await.expect("the stream ends");
        assert!(matches!(end, Ok(None)), "{end:?}");
    }
    let gateway = setup.start().await;
    alice.reconnect(&gateway);
    at_alice.reconnect(&gateway);
    at_alice.update().await;
    let mut reader = alice.api.application_events(&after(ids[0])).await.unwrap();
    assert_eq!(outline(&events(&mut reader, 1).await), [("epoch", 2)]);
    gateway.stop().await;
}

#[actix_web::test]
async fn a_stream_to_an_old_client_is_not_in_chunks() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    let gateway = TestGateway::start().await;
    let mut stream = tokio::net::TcpStream::connect(gateway.address()).await.unwrap();
    let (path, token) = (gateway.path("/events"), gateway.reader.reveal());
    let request = format!("GET {path} HTTP/1.0\r\nAuthorization: Bearer {token}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    while !bytes.windows(2).any(|end| end == b"\n\n") {
        let read = tokio::time::timeout(PATIENCE, stream.read_buf(&mut bytes)).await.unwrap().unwrap();
        assert_ne!(read, 0, "{}", String::from_utf8_lossy(&bytes));
    }
    let text = String::from_utf8(bytes).unwrap().to_lowercase();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(!head.contains("transfer-encoding"), "{head}");
    assert!(body.starts_with("id: "), "{body}");
    drop(stream);
    gateway.stop().await;
}
