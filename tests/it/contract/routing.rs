//! Paths and methods that do not exist.

use crate::support::{Request, TestGateway};

#[actix_web::test]
async fn a_path_that_does_not_exist_is_a_problem() {
    let gateway = TestGateway::start().await;
    for path in [
        "/",
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
        ("/apps", "GET"),
        ("/apps/x/clients", "POST, GET"),
        ("/apps/x/clients/y", "GET, PATCH, DELETE"),
        ("/apps/x/clients/y/groups", "GET"),
        ("/apps/x/clients/y/queues", "POST, GET"),
        ("/apps/x/clients/y/queues/z", "PATCH, DELETE"),
        ("/apps/x/clients/y/keyPackage", "GET"),
        ("/apps/x/clients/y/welcome-msgs", "GET"),
        ("/apps/x/clients/y/welcome-msgs/z", "DELETE"),
        ("/apps/x/groups", "PUT, GET"),
        ("/apps/x/groups/y", "GET"),
        ("/apps/x/groups/y/proposals", "PUT, GET"),
        ("/apps/x/groups/y/epochs", "PUT"),
        ("/apps/x/groups/y/control-msgs", "GET"),
        ("/apps/x/groups/y/group-info", "GET"),
        ("/healthz", "GET"),
        ("/readyz", "GET"),
        ("/openapi.json", "GET"),
        ("/docs", "GET"),
        ("/problems/internal", "GET"),
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
