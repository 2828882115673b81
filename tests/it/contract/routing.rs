//! Paths and methods that do not exist.

use crate::support::{Request, TestGateway};

#[actix_web::test]
async fn a_path_that_does_not_exist_is_a_problem() {
    let gateway = TestGateway::start().await;
    for path in [
        "/index.html",
        "/app",
        "/apps/",
        "//apps",
        "/apps/x",
        "/apps/x/y",
        "/healthz/",
        "/problems/none",
        "/docs/x.js",
        "/%",
    ] {
        for method in ["GET", "PUT"] {
            let request = Request::new(method, path).token(&gateway.writer);
            let reply = gateway.send(request).await;
            if !(method == "PUT" && reply.status == 405) {
                reply.problem(404, "unknown-route", "");
            }
        }
    }
    // A handle's own slash does not make a path.
    gateway.get("/clients/alice/phone/groups").await.problem(404, "unknown-route", "");
    gateway.stop().await;
}

#[actix_web::test]
async fn a_method_that_a_path_does_not_take_is_a_problem() {
    let gateway = TestGateway::start().await;
    let cases = [
        ("/", "GET, HEAD"),
        ("/favicon.ico", "GET, HEAD"),
        ("/apps", "GET, HEAD"),
        ("/apps/x/clients", "POST, GET, HEAD"),
        ("/apps/x/clients/y", "GET, HEAD, PATCH, DELETE"),
        ("/apps/x/clients/y/groups", "GET, HEAD"),
        ("/apps/x/clients/y/queues", "POST, GET, HEAD"),
        ("/apps/x/clients/y/queues/z", "PATCH, DELETE"),
        ("/apps/x/clients/y/keyPackage", "GET, HEAD"),
        ("/apps/x/clients/y/welcome-msgs", "GET, HEAD"),
        ("/apps/x/clients/y/welcome-msgs/z", "DELETE"),
        ("/apps/x/groups", "PUT, GET, HEAD"),
        ("/apps/x/groups/y", "GET, HEAD, DELETE"),
        ("/apps/x/groups/y/proposals", "PUT, GET, HEAD"),
        ("/apps/x/groups/y/epochs", "PUT"),
        ("/apps/x/groups/y/control-msgs", "GET, HEAD"),
        ("/apps/x/groups/y/group-info", "GET, HEAD"),
        ("/healthz", "GET, HEAD"),
        ("/readyz", "GET, HEAD"),
        ("/openapi.json", "GET, HEAD"),
        ("/docs", "GET, HEAD"),
        ("/problems/internal", "GET, HEAD"),
    ];
    for (path, allow) in cases {
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PURGE"] {
            let reply = gateway.send(Request::new(method, path)).await;
            if allow.split(", ").any(|allowed| allowed == method) {
                assert_ne!(reply.status, 405, "{method} {path}");
            } else {
                reply.problem(405, "method-not-allowed", allow);
                assert_eq!(reply.header("allow"), Some(allow), "{method} {path}");
            }
        }
    }
    gateway.stop().await;
}

#[actix_web::test]
async fn answers_are_not_to_be_kept_or_guessed_at() {
    let gateway = TestGateway::start().await;
    for reply in [gateway.get("/clients?tag=x").await, gateway.get("/clients").await, gateway.get("/x").await]
    {
        assert_eq!(reply.header("cache-control"), Some("no-store"));
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
    }
    gateway.stop().await;
}

#[actix_web::test]
async fn every_answer_names_its_request() {
    let gateway = TestGateway::start().await;
    let ask = async |path: &str, id: Option<&str>| {
        let request = Request::new("GET", path).token(&gateway.reader);
        gateway.send(id.iter().fold(request, |request, id| request.header("X-Request-Id", id))).await
    };
    let mut ids = std::collections::BTreeSet::new();
    for path in ["/apps", "/healthz", "/nothing", &gateway.path("/groups"), &gateway.path("/groups/AAAA")] {
        let reply = ask(path, None).await;
        let id = reply.header("x-request-id").expect(path).to_owned();
        if reply.status >= 400 {
            let document: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
            assert_eq!(document["requestId"], id.as_str(), "{path}");
        }
        assert!(ids.insert(id), "each request has its own");
        // A plain id of the caller is kept, another is not.
        let reply = ask(path, Some("from-the_caller.1")).await;
        assert_eq!(reply.header("x-request-id"), Some("from-the_caller.1"));
        let reply = ask(path, Some("not \"plain\"")).await;
        assert!(ids.insert(reply.header("x-request-id").unwrap().to_owned()));
    }
    // Also where the HTTP/1.1 parser refuses.
    let mut stream = tokio::net::TcpStream::connect(gateway.address()).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut stream, b"nonsense\r\n\r\n").await.unwrap();
    let reply = crate::support::Reply::read(stream, "nonsense").await;
    let document: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!(reply.header("x-request-id"), document["requestId"].as_str());
    gateway.stop().await;
}
