//! Certificates of gateways: the ones that are accepted and the ones that are refused.

use std::{sync::Arc, time::Duration};

use super::{A, B, Caller, Two, configuration, digest, slug};
use crate::support::peers::GatewayPki;

#[actix_web::test]
async fn nobody_gets_in_without_a_certificate_of_the_ca() {
    let two = Two::new().await;
    let (a, b) = two.start().await;
    let other = GatewayPki::new();
    let address = a.federation_address();
    let stranger = other.issue(&[B]);
    let expired = two.pki.issue_until(&[B], -60);
    for (what, identity) in [("none", None), ("another CA", Some(&stranger)), ("expired", Some(&expired))] {
        let caller = Caller::new(&two.pki, identity, A, address);
        let refused = caller.get("/.well-known/mimi-gateway").await;
        assert!(refused.is_err(), "{what}: {refused:?}");
    }
    let peer = Caller::new(&two.pki, Some(&two.pki.issue(&[B])), A, address);
    assert_eq!(peer.get("/.well-known/mimi-gateway").await.unwrap().0, 200);
    a.stop().await;
    b.stop().await;
}

#[actix_web::test]
async fn a_certificate_that_expires_is_refused_on_an_open_connection() {
    let two = Two::new().await;
    let (a, b) = two.start().await;
    let identity = two.pki.issue_until(&[B], 4);
    let peer = Caller::new(&two.pki, Some(&identity), A, a.federation_address());
    assert_eq!(peer.get("/.well-known/mimi-gateway").await.unwrap().0, 200);
    tokio::time::sleep(Duration::from_secs(6)).await;
    let (status, slug, document) = peer.problem("/.well-known/mimi-gateway", None).await;
    assert_eq!((status, slug.as_str()), (401, "not-authenticated"), "{document}");
    assert!(document["detail"].as_str().unwrap().contains("expired"), "{document}");
    a.stop().await;
    b.stop().await;
}

#[actix_web::test]
async fn an_application_is_shown_only_to_whom_it_federates_with() {
    let two = Two::new().await;
    let (a, b) = two.start().await;
    let path = a.path("/clients?tag=team&domain=a.example");
    let digest = digest(a.app);
    let mut answers = Vec::new();
    // Wildcards, and names that are not domains, identify no peer.
    for names in [&["c.example"][..], &["*.example"], &["127.0.0.1"]] {
        let caller = Caller::new(&two.pki, Some(&two.pki.issue(names)), A, a.federation_address());
        let (status, document) = caller.send("GET", &path, Some(&digest), None).await.unwrap();
        answers.push((status, slug(&document)));
    }
    let refused = |status, slug: &str| (status, slug.to_owned());
    assert_eq!(
        answers,
        [refused(403, "not-permitted"), refused(401, "not-authenticated"), refused(401, "not-authenticated")]
    );

    // Another application and none are the same to a peer.
    let peer = Caller::new(&two.pki, Some(&two.pki.issue(&["c.example", B])), A, a.federation_address());
    let mut details = Vec::new();
    for app in [a.other_app.to_string(), uuid::Uuid::new_v4().to_string(), "x".to_owned()] {
        let path = format!("/apps/{app}/clients?tag=team&domain=a.example");
        let (status, slug, document) = peer.problem(&path, Some(&digest)).await;
        assert_eq!((status, slug.as_str()), (403, "not-permitted"), "{document}");
        details.push(document["detail"].clone());
    }
    assert!(details.iter().all(|detail| *detail == details[0]), "{details:?}");
    assert_eq!(peer.send("GET", &path, Some(&digest), None).await.unwrap().0, 200);
    a.stop().await;
    b.stop().await;
}

#[actix_web::test]
async fn a_gateway_with_the_certificate_of_another_domain_is_not_believed() {
    let mut two = Two::new().await;
    let settings = two.pki.settings(&["c.example", B]);
    // B shows a certificate that does not name it; that it is B's own is checked when it starts.
    two.b.federation().certificate = settings.certificate;
    two.b.federation().private_key = settings.private_key;
    two.a.federation().peers[0].domain = "d.example".parse().unwrap();
    two.a.config.applications[0].federates_with = ["d.example".parse().unwrap()].into();
    let (a, b) = two.start().await;
    let reply = a.get("/clients?tag=team&domain=d.example").await;
    reply.problem(502, "peer-unreachable", "not valid for name");
    a.stop().await;
    b.stop().await;
}

#[actix_web::test]
async fn a_gateway_under_another_ca_is_not_believed() {
    let mut two = Two::new().await;
    let other = Arc::new(GatewayPki::new());
    let peers = two.b.federation().peers.clone();
    two.b = super::Setup::federated(&two.clients.roots(), &other, two.a.app, B, &[A]);
    two.b.federation().peers = peers;
    let (a, b) = two.start().await;
    let reply = a.get("/clients?tag=team&domain=b.example").await;
    reply.problem(502, "peer-unreachable", "invalid peer certificate");
    // And the other way: B does not believe A either.
    let reply = b.get("/clients?tag=team&domain=a.example").await;
    reply.problem(502, "peer-unreachable", "");
    a.stop().await;
    b.stop().await;
}

#[actix_web::test]
async fn configurations_are_compared_before_anything_else() {
    let two = Two::new().await;
    let (a, b) = two.start().await;
    let peer = Caller::new(&two.pki, Some(&two.pki.issue(&[B])), A, a.federation_address());
    let path = a.path("/clients?tag=team&domain=a.example");
    assert_eq!(peer.problem(&path, None).await.1, "malformed-request");
    let (status, slug, document) = peer.problem(&path, Some("00")).await;
    assert_eq!((status, slug.as_str()), (409, "application-configuration-mismatch"), "{document}");
    assert_eq!(document["differs"], serde_json::json!([]));

    let ours = configuration(a.app);
    let compare = a.path("/configuration");
    let (status, theirs) = peer.send("PUT", &compare, None, Some(ours.clone())).await.unwrap();
    assert_eq!((status, &theirs), (200, &ours));
    let mut other = ours.clone();
    other["identity_configuration"]["parameters"]["device_handle_range"]["end"] = 1.into();
    other["identity_configuration"]["supports_accounts"] = false.into();
    other["more"] = true.into();
    let (status, document) = peer.send("PUT", &compare, None, Some(other)).await.unwrap();
    assert_eq!(status, 409, "{document}");
    assert_eq!(
        document["differs"],
        serde_json::json!([
            "identity_configuration.parameters.device_handle_range.end",
            "identity_configuration.supports_accounts",
            "more"
        ])
    );
    a.stop().await;
    b.stop().await;
}

#[actix_web::test]
async fn an_application_with_another_configuration_is_refused_by_both() {
    let mut two = Two::new().await;
    let identity = &mut two.b.config.applications[0].identity_configuration;
    identity.parameters.insert("account_handle_offset".to_owned(), 3.into());
    identity.parameters.insert("domain_name_offset".to_owned(), 4.into());
    let (a, b) = two.start().await;
    let expected = serde_json::json!([
        "identity_configuration.parameters.account_handle_offset",
        "identity_configuration.parameters.domain_name_offset"
    ]);
    for (gateway, other) in [(&a, B), (&b, A)] {
        for _ in 0..2 {
            let reply = gateway.get(&format!("/clients?tag=team&domain={other}")).await;
            let document = reply.problem(409, "application-configuration-mismatch", "domain_name_offset");
            assert_eq!(document["differs"], expected);
        }
    }
    // Once it is the same, all is well; nothing has to be started anew but the gateway that was wrong.
    b.stop().await;
    two.b.config.applications[0].identity_configuration =
        two.a.config.applications[0].identity_configuration.clone();
    let b = two.b.start().await;
    two.to_b.lead(super::Way::To(b.federation_address())).await;
    a.get("/clients?tag=team&domain=b.example").await.success(200);
    a.stop().await;
    b.stop().await;
}
