//! Access: tokens and their permissions, on every route that needs a token.

use crate::support::{Reply, Request, Setup, TestGateway};

const ID: &str = "9c6e5b1e-3a0f-4f5e-8d43-6a3a3f1f0001";

/// Every request that needs a token: its method, the path below `/apps/{appId}`, and whether it changes something.
const REQUESTS: &[(&str, &str, bool)] = &[
    ("GET", "/external-sender", false),
    ("POST", "/clients", true),
    ("GET", "/clients?tag=x", false),
    ("GET", "/clients/ID", false),
    ("PATCH", "/clients/ID", true),
    ("DELETE", "/clients/ID", true),
    ("GET", "/clients/alice/groups", false),
    ("POST", "/clients/ID/queues", true),
    ("GET", "/clients/ID/queues", false),
    ("PATCH", "/clients/ID/queues/ID", true),
    ("DELETE", "/clients/ID/queues/ID", true),
    ("GET", "/clients/ID/keyPackage?protocolVersion=1&cipherSuite=1&receiverClientId=r", true),
    ("PUT", "/groups", true),
    ("GET", "/groups", false),
    ("GET", "/groups/AAEC", false),
    ("PUT", "/groups/AAEC/proposals", true),
    ("DELETE", "/groups/AAEC", true),
    ("GET", "/groups/AAEC/proposals", false),
    ("PUT", "/groups/AAEC/epochs", true),
    ("GET", "/groups/AAEC/control-msgs?startEpochId=1", false),
    ("POST", "/groups/AAEC/reports", true),
    ("GET", "/groups/AAEC/group-info", false),
    ("GET", "/groups/AAEC/events?after=x", false),
    ("GET", "/events?after=x", false),
    ("GET", "/clients/alice/welcome-msgs", false),
    ("DELETE", "/clients/alice/welcome-msgs/0000000000000001", true),
];

fn request(method: &str, app: &str, rest: &str) -> Request {
    let request = Request::new(method, &format!("/apps/{app}{}", rest.replace("ID", ID)));
    // Neither the type nor the body is right: whether the caller may ask is looked at first.
    if method.starts_with('P') { request.body(b"?") } else { request }
}

#[actix_web::test]
async fn the_table_names_every_route_that_needs_a_token() {
    let gateway = TestGateway::start().await;
    let document = gateway.send(Request::new("GET", "/openapi.json")).await.success(200);
    let mut listed = 0;
    for operation in
        document["paths"].as_object().unwrap().values().flat_map(|item| item.as_object().unwrap().values())
    {
        let security = &operation["security"];
        listed += usize::from(security.as_array().is_some_and(|security| !security.is_empty()));
    }
    assert_eq!(listed, REQUESTS.len());
    gateway.stop().await;
}

#[actix_web::test]
async fn callers_are_checked_before_anything_else() {
    let gateway = TestGateway::start().await;
    let app = gateway.app.to_string();
    for (method, rest, is_write) in REQUESTS {
        let own = request(method, &app, rest);
        let unauthenticated = |reply: Reply, part: &str| {
            reply.problem(401, "not-authenticated", part);
            assert_eq!(reply.header("www-authenticate"), Some("Bearer"), "{method} {rest}");
        };
        unauthenticated(gateway.send(own.clone()).await, "no Authorization header");
        unauthenticated(
            gateway.send(own.clone().header("Authorization", "Bearer nobody")).await,
            "does not know",
        );
        unauthenticated(gateway.send(own.clone().header("Authorization", "Basic YTpi")).await, "`Bearer`");
        unauthenticated(
            gateway.send(own.clone().token(&gateway.writer).token(&gateway.writer)).await,
            "more than one Authorization",
        );

        let foreign = gateway.send(own.clone().token(&gateway.other_writer)).await;
        foreign.problem(403, "not-permitted", "another application");
        for app in ["00000000-0000-4000-8000-000000000000", "x", "", "%FF", "%2"] {
            let reply = gateway.send(request(method, app, rest).token(&gateway.writer)).await;
            reply.problem(403, "not-permitted", "another application");
        }

        let by_reader = gateway.send(own.clone().token(&gateway.reader)).await;
        if *is_write {
            by_reader.problem(403, "not-permitted", "`read-write` token");
        } else {
            assert!(![401, 403].contains(&by_reader.status), "{method} {rest}: {}", by_reader.text());
        }
        let by_writer = gateway.send(own.token(&gateway.writer)).await;
        assert!(![401, 403].contains(&by_writer.status), "{method} {rest}: {}", by_writer.text());
    }
    gateway.stop().await;
}

#[actix_web::test]
async fn applications_do_not_see_each_other() {
    let gateway = TestGateway::start().await;
    let created =
        gateway.post("/clients", serde_json::json!({ "clientHandle": "alice", "tags": ["t"] })).await;
    let client = created.success(201)["clientId"].as_str().unwrap().to_owned();
    let of_other = |rest: &str| {
        Request::new("GET", &format!("/apps/{}{rest}", gateway.other_app)).token(&gateway.other_writer)
    };
    let reply = gateway.send(of_other(&format!("/clients/{client}"))).await;
    reply.problem(404, "unknown-client", "");
    assert_eq!(
        gateway.send(of_other("/clients?tag=t")).await.success(200)["identities"],
        serde_json::json!([])
    );
    gateway.stop().await;
}

#[actix_web::test]
async fn public_applications_are_listed_without_a_token() {
    let setup = Setup::new();
    let gateway = setup.start().await;
    let listed = gateway.send(Request::new("GET", "/apps")).await.success(200);
    assert_eq!(
        listed,
        serde_json::json!([{
            "identity_configuration": {
                "identity_provider_type": 1,
                "supports_accounts": false,
                "supports_domains": false,
                "parameters": {}
            },
            "id": gateway.app.to_string()
        }])
    );
    gateway.send(Request::new("GET", "/apps?x=1")).await.problem(400, "malformed-request", "`x`");
    gateway.stop().await;
}
