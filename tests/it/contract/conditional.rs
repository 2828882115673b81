//! Answers to HEAD, answers that a caller has already, and answers that are compressed.

use std::io::Read as _;

use mimi_gateway::api::text::GroupIdText;

use crate::{
    mls_support::MlsClient,
    support::{Reply, Request, TestGateway},
};

/// Asks with these header fields.
async fn ask(gateway: &TestGateway, method: &str, path: &str, fields: &[(&str, &str)]) -> Reply {
    let request = Request::new(method, &gateway.path(path)).token(&gateway.writer);
    gateway.send(fields.iter().fold(request, |request, (name, value)| request.header(name, value))).await
}

#[actix_web::test]
async fn what_a_caller_has_already_is_not_sent_again() {
    let gateway = TestGateway::start().await;
    let alice = MlsClient::register(&gateway, "alice").await;
    let bob = MlsClient::register(&gateway, "bob").await;
    bob.upload_key_packages(2).await;
    let mut at_alice = alice.create_group().await;
    at_alice.invite(&[&bob]).await;
    let mut at_bob = bob.join().await;
    let group = format!("/groups/{}", GroupIdText(at_alice.id()));
    let tag = async |rest: &str| {
        let reply = ask(&gateway, "GET", &format!("{group}{rest}"), &[]).await;
        assert_eq!(reply.status, 200);
        assert_eq!(reply.header("cache-control"), Some("private, no-cache"));
        reply.header("etag").expect("a tag").to_owned()
    };
    for rest in ["", "/proposals", "/group-info"] {
        let path = format!("{group}{rest}");
        let known = tag(rest).await;
        assert!(known.starts_with("W/\""), "{known}");
        assert_eq!(tag(rest).await, known, "the same state has the same tag");
        let list = format!("\"x\", {known}");
        for value in [known.as_str(), known.trim_start_matches("W/"), &list, "*"] {
            for method in ["GET", "HEAD"] {
                let reply = ask(&gateway, method, &path, &[("If-None-Match", value)]).await;
                assert_eq!((reply.status, reply.body.len()), (304, 0), "{method} {path} {value}");
                assert_eq!(reply.header("etag"), Some(known.as_str()));
            }
        }
        for value in ["\"x\"", "W/\"x\"", "nonsense"] {
            assert_eq!(ask(&gateway, "GET", &path, &[("If-None-Match", value)]).await.status, 200);
        }
    }
    // A proposal changes the list alone; a commit changes everything.
    let before = [tag("").await, tag("/proposals").await, tag("/group-info").await];
    let update = at_bob.make_update_proposal();
    at_bob.propose(&update).await.unwrap();
    let proposed = [tag("").await, tag("/proposals").await, tag("/group-info").await];
    assert_eq!((&proposed[0], &proposed[2]), (&before[0], &before[2]));
    assert_ne!(proposed[1], before[1]);
    at_alice.fetch_proposals().await;
    at_alice.update().await;
    let committed = [tag("").await, tag("/proposals").await, tag("/group-info").await];
    for (after, before) in committed.iter().zip(&proposed) {
        assert_ne!(after, before);
    }
    // Other reads have none.
    assert_eq!(ask(&gateway, "GET", "/groups", &[]).await.header("etag"), None);
    gateway.stop().await;
}

#[actix_web::test]
async fn a_head_is_answered_as_a_get_and_changes_nothing() {
    let gateway = TestGateway::start().await;
    let bob = MlsClient::register(&gateway, "bob").await;
    let client = format!("/clients/{}", bob.id);
    let package = |receiver: &str| {
        format!("{client}/keyPackage?protocolVersion=1&cipherSuite=1&receiverClientId={receiver}")
    };
    for path in ["/clients", &client, &format!("{client}/queues"), "/groups", "/clients/bob/groups"] {
        let (get, head) = (ask(&gateway, "GET", path, &[]).await, ask(&gateway, "HEAD", path, &[]).await);
        assert_eq!((get.status, head.status), (200, 200), "{path}");
        assert_eq!(head.header("content-length"), get.header("content-length"), "{path}");
        assert_eq!(head.header("content-type"), get.header("content-type"), "{path}");
    }
    for path in ["/clients/x", "/groups/AAAA", "/nothing", &package("alice")] {
        assert_eq!(ask(&gateway, "HEAD", path, &[]).await.status, 404, "{path}");
    }
    bob.upload_key_packages(1).await;
    for receiver in ["alice", "carol"] {
        assert_eq!(ask(&gateway, "HEAD", &package(receiver), &[]).await.status, 200);
    }
    assert_eq!(bob.key_queue().await.key_packages_available, 1, "none is assigned");
    bob.assign_to("alice").await.unwrap();
    assert_eq!(ask(&gateway, "HEAD", &package("alice"), &[]).await.status, 200);
    assert_eq!(ask(&gateway, "HEAD", &package("carol"), &[]).await.status, 404);
    // It does not wait.
    let since = std::time::Instant::now();
    let path = "/clients/bob/welcome-msgs?waitMs=60000";
    assert_eq!(ask(&gateway, "HEAD", path, &[]).await.status, 200);
    assert!(since.elapsed() < std::time::Duration::from_secs(30));
    // As for a GET, a key package needs a token for writing.
    let request = Request::new("HEAD", &gateway.path(&package("alice"))).token(&gateway.reader);
    assert_eq!(gateway.send(request).await.status, 403);
    gateway.stop().await;
}

#[actix_web::test]
async fn answers_are_compressed_for_those_who_ask() {
    let gateway = TestGateway::start().await;
    let bob = MlsClient::register(&gateway, "bob").await;
    let alice = MlsClient::register(&gateway, "alice").await;
    bob.upload_key_packages(2).await;
    let mut at_alice = alice.create_group().await;
    at_alice.invite(&[&bob]).await;
    let path = format!("/groups/{}/control-msgs?startEpochId=1", GroupIdText(at_alice.id()));
    let plain = ask(&gateway, "GET", &path, &[]).await;
    assert_eq!((plain.header("content-encoding"), plain.header("vary")), (None, Some("accept-encoding")));
    let packed = ask(&gateway, "GET", &path, &[("Accept-Encoding", "br, gzip")]).await;
    assert_eq!(packed.header("content-encoding"), Some("gzip"));
    assert_eq!(packed.header("vary"), Some("accept-encoding"));
    assert!(packed.body.len() < plain.body.len());
    let mut unpacked = Vec::new();
    flate2::read::GzDecoder::new(&packed.body[..]).read_to_end(&mut unpacked).unwrap();
    assert_eq!(unpacked, plain.body);
    for encoding in ["gzip;q=0", "br", "identity"] {
        let reply = ask(&gateway, "GET", &path, &[("Accept-Encoding", encoding)]).await;
        assert_eq!((reply.header("content-encoding"), &reply.body), (None, &plain.body));
    }
    // So are the pages whose bytes all answers share.
    for path in ["/openapi.json", "/docs", "/docs/swagger-ui.css"] {
        let [plain, packed] = ["identity", "gzip"]
            .map(|encoding| gateway.send(Request::new("GET", path).header("Accept-Encoding", encoding)));
        let (plain, packed) = (plain.await, packed.await);
        assert_eq!((plain.header("content-encoding"), plain.header("vary")), (None, Some("accept-encoding")));
        assert_eq!(packed.header("content-encoding"), Some("gzip"), "{path}");
        assert_eq!(packed.header("vary"), Some("accept-encoding"), "{path}");
        assert!(packed.body.len() < plain.body.len(), "{path}");
        let mut unpacked = Vec::new();
        flate2::read::GzDecoder::new(&packed.body[..]).read_to_end(&mut unpacked).unwrap();
        assert_eq!(unpacked, plain.body, "{path}");
    }
    // Small answers, problems and streams are as they are.
    for path in ["/clients/bob/groups", "/clients/nobody", "/events"] {
        let reply = ask(&gateway, "HEAD", path, &[("Accept-Encoding", "gzip")]).await;
        assert_eq!(reply.header("content-encoding"), None, "{path}");
    }
    gateway.stop().await;
}
