//! The federation listener: its routes, and the absence of others.

use mimi_gateway::api::{
    Endpoint, applications, clients, external_senders, federation, groups, joining, key_packages,
};
use serde_json::json;

use super::{A, B, Caller, Two, digest, slug};
use crate::support::Request;

/// The routes of the internal listener that peers must not reach, as they are declared.
fn internal_routes() -> Vec<(&'static str, &'static str)> {
    fn route<E: Endpoint>() -> (&'static str, &'static str) {
        (E::METHOD.as_str(), E::PATH)
    }
    vec![
        route::<applications::ListApplications>(),
        route::<clients::RegisterClient>(),
        route::<clients::GetClient>(),
        route::<clients::ChangeClient>(),
        route::<clients::DeleteClient>(),
        route::<clients::ListGroupsOfClient>(),
        route::<external_senders::ListExternalSenders>(),
        route::<key_packages::CreateKeyQueue>(),
        route::<key_packages::ListKeyQueues>(),
        route::<key_packages::UploadKeyPackages>(),
        route::<key_packages::DeleteKeyQueue>(),
        route::<groups::CreateGroup>(),
        route::<groups::GetGroup>(),
        route::<groups::ListProposals>(),
        route::<groups::ListControlMessages>(),
        route::<joining::GetGroupInfo>(),
        route::<joining::ListWelcomes>(),
        route::<joining::AcknowledgeWelcome>(),
        ("GET", "/healthz"),
        ("GET", "/readyz"),
        ("GET", "/openapi.json"),
        ("GET", "/docs"),
        ("GET", "/problems"),
        ("GET", "/problems/internal"),
    ]
}

#[actix_web::test]
async fn nothing_of_the_internal_interface_is_there() {
    let two = Two::new().await;
    let (a, b) = two.start().await;
    let peer = Caller::new(&two.pki, Some(&two.pki.issue(&[B])), A, a.federation_address());
    for (method, template) in internal_routes() {
        let path = template
            .replace("{appId}", &a.app.to_string())
            .replace("{clientId}", &uuid::Uuid::new_v4().to_string())
            .replace(['{', '}'], "");
        let (status, document) =
            peer.send(method, &path, Some(&digest(a.app)), Some(json!({}))).await.unwrap();
        // A path that peers have with another method is not found with this one.
        let slug = slug(&document);
        assert!(
            (status == 404 && slug == "unknown-route") || (status == 405 && slug == "method-not-allowed"),
            "{method} {path}: {document}"
        );
    }
    // And the internal listener has nothing of the other, with a token or without.
    for endpoint in [federation::CompareConfiguration::PATH, federation::ReplicateLog::PATH] {
        let path = endpoint.replace("{appId}", &a.app.to_string()).replace("{groupId}", "AAEC");
        let request = Request::new("PUT", &path).token(&a.writer).json("{}");
        a.send(request).await.problem(404, "unknown-route", "");
    }
    a.stop().await;
    b.stop().await;
}

#[actix_web::test]
async fn peers_are_answered_about_their_own_side_only() {
    let two = Two::new().await;
    let (a, b) = two.start().await;
    let peer = Caller::new(&two.pki, Some(&two.pki.issue(&[B])), A, a.federation_address());
    let digest = digest(a.app);
    // It is not passed on: not to the peer itself, not to others.
    for (query, part) in [
        ("tag=team", "name one with `domain`"),
        ("tag=team&domain=b.example", "is not assigned to this gateway"),
        ("tag=team&domain=c.example", "is not assigned to this gateway"),
        ("domain=a.example&tag=x&tag=y", "tag"),
    ] {
        let (status, slug, document) =
            peer.problem(&a.path(&format!("/clients?{query}")), Some(&digest)).await;
        assert_eq!((status, slug.as_str()), (400, "malformed-request"), "{document}");
        assert!(document["detail"].as_str().unwrap().contains(part), "{document}");
    }
    for body in [
        json!({ "hub": B }),
        json!({ "hub": B, "entries": [] }),
        json!({ "hub": B, "entries": [{ "sequence": 0, "timestamp": 1, "content": { "removal": {} } }] }),
        json!({ "hub": "-", "entries": [] }),
    ] {
        let path = a.path("/groups/AAEC/log");
        let (status, document) = peer.send("PUT", &path, Some(&digest), Some(body.clone())).await.unwrap();
        assert_eq!((status, slug(&document).as_str()), (400, "malformed-request"), "{body}: {document}");
    }
    a.stop().await;
    b.stop().await;
}

#[actix_web::test]
async fn a_gateway_says_where_it_federates() {
    let two = Two::new().await;
    let (a, b) = two.start().await;
    let peer = Caller::new(&two.pki, Some(&two.pki.issue(&[B])), A, a.federation_address());
    let expected = json!({
        "domains": [A],
        "federation": format!("https://{}", a.federation_address()),
        "versions": [1]
    });
    assert_eq!(peer.get("/.well-known/mimi-gateway").await.unwrap(), (200, expected.clone()));
    let internal = a.send(Request::new("GET", "/.well-known/mimi-gateway")).await;
    assert_eq!(internal.success(200), expected);
    a.stop().await;
    b.stop().await;
}

#[actix_web::test]
async fn numbers_that_no_log_reaches_are_refused_before_they_are_looked_at() {
    let two = Two::new().await;
    let (a, b) = two.start().await;
    let peer = Caller::new(&two.pki, Some(&two.pki.issue(&[B])), A, a.federation_address());
    let path = format!("/apps/{}/groups/AAEC/log", a.app);
    for number in [u64::MAX, u64::MAX - 1, 1 << 53] {
        let content = json!({ "proposal": { "packet": "AAAA" } });
        let entry = json!({ "sequence": number, "timestamp": 1, "content": content });
        let transfer = json!({ "sequence": number, "timestamp": 1, "groupInfo": "", "ratchetTree": "" });
        for body in [json!({ "hub": B, "entries": [entry] }), json!({ "hub": B, "transfer": transfer })] {
            let (status, document) = peer.send("PUT", &path, Some(&digest(a.app)), Some(body)).await.unwrap();
            assert_eq!((status, &*slug(&document)), (400, "malformed-request"), "{document}");
        }
    }
    a.stop().await;
    b.stop().await;
}
